"""Control signals for identification: multisine, chirp, random steps."""

from collections.abc import Callable

import numpy as np

from dso_robotics.data.rollout import Array
from dso_robotics.errors import DsoError

Generator = np.random.Generator


def excite(kind: str, rng: Generator, time: Array, low: Array, high: Array, *, top: float = 2.0) -> Array:
    """Controls (T, nu) between `low` (nu,) and `high` (nu,) at the times `time` (T,) [s].

    `kind` is one of `KINDS`. `top` [Hz] is the highest frequency of `multisine` and `chirp`, and the mean rate at which
    `steps` change. Every actuator has its own random phases, so that the effects of the actuators can be separated.
    Raises DsoError for an unknown kind or a frequency too high for the sampling rate.
    """
    if kind not in KINDS:
        raise DsoError(f"excitation {kind!r}: there is no excitation of that name; choose one of {', '.join(KINDS)}.")
    interval = float(np.max(np.diff(time)))
    if not 0 < top < 0.5 / interval:
        raise DsoError(
            f"excitation {kind!r}: its top frequency of {top:g} Hz must be above 0 and below {0.5 / interval:g} Hz, "
            "half the rate of the controls."
        )
    unit = np.stack([KINDS[kind](rng, time - time[0], top) for _ in low], axis=1)
    return low + (high - low) * (0.5 + 0.5 * unit)


def _multisine(rng: Generator, time: Array, top: float) -> Array:
    """Sum of sines at the harmonics of the recording's length up to `top`, scaled to a maximum of 1."""
    span = time[-1]
    harmonics = np.unique(np.geomspace(1.0, max(top * span, 1.0), 12).round())
    phases = rng.uniform(0, 2 * np.pi, len(harmonics))
    # Amplitudes fall with the square root of the frequency: torque at high frequency hardly moves a mass but heats the motor.
    waves = np.sin(2 * np.pi * harmonics * time[:, None] / span + phases) / np.sqrt(harmonics)
    signal = waves.sum(axis=1)
    return signal / np.abs(signal).max()


def _chirp(rng: Generator, time: Array, top: float) -> Array:
    """Sine whose frequency rises exponentially from one period per recording (at most `top`/10) to `top`."""
    span = time[-1]
    # A different rate for each actuator: equal chirps would move all joints in the same way.
    top *= rng.uniform(0.6, 1.0)
    bottom = min(1.0 / span, top / 10)
    growth = np.log(top / bottom) / span
    return np.sin(2 * np.pi * bottom * np.expm1(growth * time) / growth + rng.uniform(0, 2 * np.pi))


def _steps(rng: Generator, time: Array, top: float) -> Array:
    """Uniform random levels, each held for a random time of mean 1/`top`."""
    count = int(4 * top * time[-1]) + 8
    changes = np.concatenate([[0.0], np.cumsum(rng.uniform(0.4, 1.6, count) / top)])
    return rng.uniform(-1, 1, count + 1)[np.searchsorted(changes, time, side="right") - 1]


KINDS: dict[str, Callable[[Generator, Array, float], Array]] = {
    "multisine": _multisine,
    "chirp": _chirp,
    "steps": _steps,
}
"""Maps the name of each excitation to the function that generates it, between -1 and 1."""
