"""Families of signals whose numbers a search may choose: Fourier series, multisines with free phases, and splines.

A signal has no unit. It is 0 at its start and at its end, where the robot is to be at rest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dso_robotics.data.rollout import Array
from dso_robotics.errors import DsoError

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Waveform:
    """Signals of several drives over one time grid.

    kind: one of KINDS.
    basis: (T, m) functions of time, which begin and end at 0. Of a multisine, cosines and then sines of equal size.
    drives: number of signals k.
    """

    kind: str
    basis: Array
    drives: int

    @property
    def size(self) -> int:
        """Numbers that are free in one set of signals."""
        return self._each * self.drives

    @property
    def _each(self) -> int:
        return self.basis.shape[1] // (2 if self.kind == "multisine" else 1)

    def signals(self, numbers: Array) -> Array:
        """Signals (..., T, k) of `numbers` (..., size)."""
        weights = numbers.reshape(*numbers.shape[:-1], self._each, self.drives)
        if self.kind == "multisine":
            weights = np.concatenate([np.cos(weights), -np.sin(weights)], axis=-2)
        return self.basis @ weights

    def draw(self, rng: Generator) -> Array:
        """Numbers (size,) of a random set of signals, with a size that differs from draw to draw."""
        if self.kind == "multisine":
            return rng.uniform(-np.pi, np.pi, self.size)
        return rng.uniform(0.3, 1.5) * rng.standard_normal(self.size)


def waveform(kind: str, time: Array, drives: int, *, top: float, count: int, fade: float, still: float) -> Waveform:
    """A family of signals at the times `time` (T,) [s], from 0.

    top: highest frequency [Hz]; of splines, half the rate of knots.
    count: number of harmonics, spread evenly on a logarithmic axis; splines have as many knots as `top` says.
    fade: time in which signals grow from 0 and shrink to 0 [s].
    still: time at the end in which they are 0 [s].

    Raises:
      DsoError: there is no such kind, the signals last too short a time, or the sampling is too slow for `top`.
    """
    if kind not in KINDS:
        raise DsoError(f"--signal {kind}: there is no such family of signals; choose one of {', '.join(KINDS)}.")
    span, interval = float(time[-1]), float(np.max(np.diff(time)))
    if span < 2 * fade + still + 4 * interval:
        raise DsoError(
            f"--seconds {span:.4g}: too short for {fade:g} s to begin, {fade:g} s to end and {still:g} s at rest; give more "
            "seconds, or a smaller --fade and --still."
        )
    if not 1 / span <= top < 0.5 / interval:
        raise DsoError(
            f"--top {top:g} Hz: must be from {1 / span:.3g} Hz, one period in a run, to below {0.5 / interval:g} Hz, half the "
            "rate of the plan; change it, or --seconds."
        )
    functions = KINDS[kind](time, span - still, top, count)
    return Waveform(kind, functions * envelope(time, span - still, fade)[:, None], drives)


def envelope(time: Array, end: float, fade: float) -> Array:
    """Grows (T,) from 0 to 1 in the first `fade` seconds and shrinks to 0 in the last ones before `end`, smoothly."""
    near = np.clip(np.minimum(time, end - time) / max(fade, 1e-9), 0.0, 1.0)
    return 0.5 - 0.5 * np.cos(np.pi * near)


def _fourier(time: Array, end: float, top: float, count: int) -> Array:
    harmonics = np.unique(np.geomspace(1.0, max(top * end, 1.0), count).round())
    phase = 2 * np.pi * harmonics * time[:, None] / end
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1) / np.sqrt(len(harmonics))


def _multisine(time: Array, end: float, top: float, count: int) -> Array:
    # Cosines whose root mean square, of all together, is 1.
    return np.sqrt(2.0) * _fourier(time, end, top, count)


def _spline(time: Array, end: float, top: float, count: int) -> Array:
    """Uniform cubic B-splines, scaled so that weights of size one make signals of size one."""
    pieces = max(int(np.ceil(2 * top * end)), 4)
    place = np.clip(time / end, 0.0, 1.0) * pieces
    away = np.abs(place[:, None] - np.arange(pieces + 1))
    near = (4 - 6 * away**2 + 3 * away**3) / 6
    return 1.7 * np.where(away < 1, near, np.where(away < 2, (2 - np.minimum(away, 2)) ** 3 / 6, 0.0))


KINDS: dict[str, Callable[[Array, float, float, int], Array]] = {
    "fourier": _fourier,
    "multisine": _multisine,
    "spline": _spline,
}
"""Maps the name of each family to its functions of time."""
