"""Signals that lie: valid numbers which are hardly what was measured. Each check gives one sentence, or none."""

from collections.abc import Iterator

import numpy as np

from dso_robotics.data.conversion import factor, spelled
from dso_robotics.data.quaternion import continuous
from dso_robotics.data.rollout import Array, Rollout

_FEWEST = 20
_NEIGHBOURS = 2
# A sample stands out if it is this many times as far from its neighbours as 99% of the samples are, and farther than the
# others move in all.
_WILD = 8.0
# Largest number of steps between the extremes of a channel for which its quantum is worth a sentence.
_LEVELS = 4000
_TINY = 1e-4


def implausible(rollout: Rollout) -> Iterator[str]:
    """What is hard to believe in the time and the channels of a rollout, each one sentence naming the channel."""
    yield from _clock(rollout.time)
    for name, unit, values in _columns(rollout, "ctrl"):
        yield from _saturated(name, unit, values)
        yield from _tiny(name, unit, values)
        yield from _wild(f"ctrl channel {name!r}", rollout.time, values)
    for name, unit, values in _columns(rollout, "sensor"):
        where = f"sensor channel {name!r}"
        yield from _wraps(name, unit, values)
        yield from _wild(where, rollout.time, values)
        yield from _white(where, values)
        yield from _quantum(where, unit, values)
    yield from _flips(rollout)


def _columns(rollout: Rollout, prefix: str) -> Iterator[tuple[str, str, Array]]:
    values = rollout.ctrl if prefix == "ctrl" else rollout.sensordata
    if values is not None:
        names, units = getattr(rollout, f"{prefix}_names"), getattr(rollout, f"{prefix}_units")
        yield from zip(names, units, values.T, strict=True)


def _clock(time: Array) -> Iterator[str]:
    interval = float(np.median(np.diff(time)))
    guess = next((word for least, word in ((1e5, "nano"), (1e2, "micro"), (0.5, "milli")) if interval >= least), "")
    if interval == 1 and (np.diff(time) == 1).all():
        yield "time counts samples; give the samples per second with `dso convert --rate HZ`."
    elif guess:
        yield (
            f"samples are {interval:.4g} s apart, so time is probably in {guess}seconds; `dso convert --time "
            "COLUMN*FACTOR` makes seconds of it."
        )
    elif interval < 2e-6:
        yield f"samples are {interval:.3g} s apart, which no robot records; check the factor of the time."


def _wraps(name: str, unit: str, values: Array) -> Iterator[str]:
    period = {"deg": 360.0, "rad": 2 * np.pi, "": 2 * np.pi}.get(spelled(unit)) if spelled(unit) != "1" else None
    steps = np.diff(values[np.isfinite(values)])
    if period is None or len(steps) < _FEWEST:
        return
    turns = np.abs(np.abs(steps) - period) < 0.1 * period
    if 0 < turns.sum() <= 0.1 * len(steps) and np.median(np.abs(steps)) < 0.1 * period:
        yield (
            f"sensor channel {name!r} jumps by {'360 deg' if period == 360 else '2 pi'} {turns.sum()} time(s): the angle "
            f"is wrapped; `dso convert LOG --out NEW --unwrap {name}` undoes it."
        )


def _wild(where: str, time: Array, values: Array) -> Iterator[str]:
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < _FEWEST:
        return
    kept = values[known]
    near = np.lib.stride_tricks.sliding_window_view(np.pad(kept, _NEIGHBOURS, mode="reflect"), 2 * _NEIGHBOURS + 1)
    # Halves, because the difference of two numbers of 1e308 is infinite.
    away = 2 * np.minimum(np.abs(kept / 2 - np.median(near, axis=1) / 2), 1e307)
    steps = 2 * np.minimum(np.abs(np.diff(kept / 2)), 1e307)
    # The few largest are left out: they may be the wild samples themselves.
    most = max(len(kept) // 100, 4)
    usual = max(float(np.sort(away)[-most - 1]), float(np.sort(steps)[-most - 1]))
    calm = np.sort(kept / 2)[most:-most]
    wild = np.flatnonzero(away > max(_WILD * usual, float(np.ptp(calm))))
    if len(wild):
        worst = int(wild[np.argmax(away[wild])])
        yield (
            f"{where} stands out in {len(wild)} sample(s), the most at sample {known[worst]} ({time[known[worst]]:.6g} s), "
            f"where it is {kept[worst]:.4g}; leave such a cell empty, or identify with --robust."
        )


def _white(where: str, values: Array) -> Iterator[str]:
    kept = values[np.isfinite(values)]
    if len(kept) < 100 or np.ptp(kept) == 0 or not np.abs(kept).max() < 1e100:
        return
    centred = kept - kept.mean()
    power = float(centred @ centred)
    related = [abs(float(centred[lag:] @ centred[:-lag])) / power for lag in (1, 2, 3)]
    if max(related) < 2.5 / np.sqrt(len(kept)):
        yield f"{where} is white noise: a sample tells nothing of the next one, so it hardly measures a motion."


def _quantum(where: str, unit: str, values: Array) -> Iterator[str]:
    step = quantum(values)
    if step is not None:
        yield f"{where} changes in steps of {step:.4g}{f' {unit}' if unit else ''}, its encoder's quantum or the file's."


def quantum(values: Array) -> float | None:
    """The step by which a channel's `values` (T,) change, if all of them are multiples of one; else None."""
    kept = values[np.isfinite(values)]
    levels = np.unique(kept)
    if len(kept) < _FEWEST or not 3 <= len(levels) <= 0.9 * len(kept) or not np.abs(levels).max() < 1e100:
        return None
    gaps = np.diff(levels)
    gaps = gaps[gaps > 1e-9 * float(np.ptp(levels))]
    step = float(gaps.min())
    count = gaps / step
    if np.abs(count - np.round(count)).max() < 0.02 and np.ptp(levels) / step <= _LEVELS:
        return float(np.ptp(levels) / np.round(np.ptp(levels) / step))
    return None


def _saturated(name: str, unit: str, values: Array) -> Iterator[str]:
    if any(factor(unit, target) is not None for target in ("rad", "m", "rad/s", "m/s")):
        return  # a target of a servo is what was asked for, and may stay where it is
    if len(np.unique(values)) <= 20:
        return  # steps between a few values are no saturation
    for extreme, word in ((values.max(), "largest"), (values.min(), "smallest")):
        at = values == extreme
        visits = int(np.sum(np.diff(np.r_[False, at].astype(int)) == 1))
        if at.mean() > 0.03 and visits > 1 and at.sum() > 2 * visits:
            yield (
                f"ctrl channel {name!r} is at its {word} value {extreme:.4g} in {at.mean():.0%} of the samples: it "
                "looks saturated; the log should hold what the actuator did, not what was asked for."
            )


def _tiny(name: str, unit: str, values: Array) -> Iterator[str]:
    largest = float(np.abs(values).max())
    if 0 < largest < _TINY:
        yield f"ctrl channel {name!r} is never larger than {largest:.3g} {unit}; check the factor and unit of its column."


def _flips(rollout: Rollout) -> Iterator[str]:
    names = rollout.sensor_names
    for base in dict.fromkeys(name.rpartition("[")[0] for name in names if name.endswith("[3]")):
        parts = [f"{base}[{i}]" for i in range(4)]
        if rollout.sensordata is None or f"{base}[4]" in names or not all(part in names for part in parts):
            continue
        place = tuple(names.index(part) for part in parts)
        norm = np.linalg.norm(rollout.sensordata[:, list(place)], axis=1)
        norm = norm[np.isfinite(norm)]
        if len(norm) and np.abs(norm - 1).max() < 0.05:
            flips = continuous(rollout.sensordata, (place,))[1]
            if flips:
                yield (
                    f"the sign of the quaternion {base!r} flips {flips} time(s); q and -q are one rotation, and sensors of "
                    "quaternions are compared so."
                )
