"""Suspicious but valid things in a log: the warnings that `dso inspect` prints."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dso_robotics.data.plausibility import implausible
from dso_robotics.data.rollout import Rollout

if TYPE_CHECKING:
    from dso_robotics.data.log import Log

GAP = 5.0
"""A pause of more than this many median sample intervals is a gap."""
JITTER = 0.1
"""Sampling is irregular when more than this share of the intervals differ from the median by over 20%."""
# Share of its samples, and how many of them, that a rollout has from another if it is a copy.
_ALIKE, _ALIKE_LEAST = 0.5, 10
MISSING = 0.01
"""Share of NaN in a channel that gives a warning."""


def problems(log: Log, sensors: Collection[str] | None = None) -> list[str]:
    """Warnings about `log`, each one sentence naming the rollout and the channel; empty for a clean log.

    sensors: names of the sensor channels that are looked at, `imu` for `imu[0]`, `imu[1]`, ... too; all if None.
    It detects frozen and duplicated channels, gaps in time, irregular sampling, missing units, unmeasured samples, rollouts
    whose channels differ from those of the first, the same rollout under two names, and what `plausibility` finds.
    """
    if sensors is not None:
        log = replace(log, rollouts=tuple(_chosen(rollout, sensors) for rollout in log.rollouts))
    found: list[str] = []
    for rollout in log.rollouts:
        texts = [*_time(rollout), *_channels(rollout), *implausible(rollout)]
        found += [f"rollout {rollout.name!r}: {text}" for text in texts]
    return [*_units(log), *_differences(log), *_copies(log), *_gathered(found)]


def _chosen(rollout: Rollout, sensors: Collection[str]) -> Rollout:
    """The rollout with some of its sensor channels."""
    if rollout.sensordata is None:
        return rollout
    names = rollout.sensor_names
    keep = [i for i, name in enumerate(names) if name in sensors or name.partition("[")[0] in sensors]
    return replace(
        rollout,
        sensordata=rollout.sensordata[:, keep] if keep else None,
        sensor_names=tuple(names[i] for i in keep),
        sensor_units=tuple(rollout.sensor_units[i] for i in keep),
    )


def median_interval(rollout: Rollout) -> float:
    """Median time between samples [s]."""
    return float(np.median(np.diff(rollout.time)))


def irregular_share(rollout: Rollout) -> float:
    """Share of the sample intervals that differ from the median by over 20%, 0 to 1."""
    intervals, median = np.diff(rollout.time), median_interval(rollout)
    return float(np.mean(np.abs(intervals - median) > 0.2 * median))


def _copies(log: Log) -> list[str]:
    """Rollouts that share most of their samples with another one, whole or cut, whatever their clock."""
    names, keys = [], []
    for rollout in log.rollouts:
        parts = [part for part in (rollout.sensordata, rollout.qpos, rollout.ctrl) if part is not None]
        if any(np.ptp(part) != 0 for part in parts):
            rows = np.ascontiguousarray(np.concatenate(parts, axis=1))
            # One number for each sample: two samples that differ have the same one about once in 1e19.
            weights = np.random.default_rng(0).integers(1, 2**63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
            mixed = rows.view(np.uint64) ^ (rows.view(np.uint64) >> np.uint64(29))
            names.append(rollout.name)
            keys.append((mixed * weights).sum(1, dtype=np.uint64))
    if len(names) < 2:
        return []
    lengths = [len(own) for own in keys]
    owner = np.repeat(np.arange(len(names)), lengths)
    _, first, inverse = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    # A robot at rest repeats its samples; such samples tell nothing.
    earlier, rare = owner[first][inverse], np.bincount(inverse)[inverse] <= 2 * len(names)
    found, end = [], 0
    for i, (name, length) in enumerate(zip(names, lengths, strict=True)):
        here = slice(end, end := end + length)
        others = earlier[here][(earlier[here] < i) & rare[here]]
        if len(others) < max(_ALIKE * length, _ALIKE_LEAST):
            continue
        other = names[int(np.bincount(others).argmax())]
        what = (
            "holds the samples"
            if len(others) == length
            else f"has {len(others) / length:.0%} of its samples from those"
        )
        found.append(
            f"rollout {name!r} {what} of {other!r}, which would count twice, and tell nothing where it is held out; leave one "
            "out."
        )
    return found


def _gathered(texts: list[str]) -> list[str]:
    """The sentences; of those that differ only in the rollout and in numbers the first, and how many rollouts more."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        # A number that is part of a name, such as tau1 or q[0], tells channels apart.
        kind = re.sub(r"(?<![\w\[.'])[-+]?\d+(\.\d+)?(e[-+]?\d+)?%?", "0", text.partition(": ")[2])
        kinds.setdefault(kind, []).append(text)
    more = {kind: len(alike) - 1 for kind, alike in kinds.items()}
    return [alike[0] + (f" So in {more[kind]} more rollout(s)." if more[kind] else "") for kind, alike in kinds.items()]


def _time(rollout: Rollout) -> list[str]:
    intervals, median = np.diff(rollout.time), median_interval(rollout)
    found = []
    gaps = np.flatnonzero(intervals > GAP * median)
    if len(gaps):
        worst = int(np.argmax(intervals))
        found.append(
            f"{len(gaps)} gap(s) in time, the longest {intervals[worst]:.3g} s after {rollout.time[worst]:.4g} s "
            f"(usual interval {median:.3g} s); sensors are not interpolated across gaps."
        )
    share = irregular_share(rollout)
    if share > JITTER:
        found.append(
            f"sampling is irregular: {share:.0%} of the intervals differ from the median of {median:.3g} s by over 20%."
        )
    return found


def _channels(rollout: Rollout) -> list[str]:
    found, columns = [], {}
    sparse: dict[tuple[str, str], list[str]] = {}
    for kind, values, names in (
        ("ctrl", rollout.ctrl, rollout.ctrl_names),
        ("sensor", rollout.sensordata, rollout.sensor_names),
    ):
        for name, column in zip(names, values.T if values is not None else (), strict=True):
            missing = float(np.mean(np.isnan(column)))
            measured = column[~np.isnan(column)]
            if not len(measured):
                found.append(f"{kind} channel {name!r} was never measured; identification leaves it out.")
                continue
            if missing > MISSING:
                sparse.setdefault((kind, f"{missing:.0%}"), []).append(name)
            if np.ptp(measured) == 0:
                found.append(f"{kind} channel {name!r} is frozen at {measured[0]:.4g}; it carries no information.")
                continue
            twin = columns.setdefault(column.tobytes(), name)
            if twin != name:
                found.append(f"{kind} channel {name!r} repeats channel {twin!r} exactly; one of them is mislabelled.")
    for (kind, share), names in sparse.items():
        # A slow sensor of several channels is told once.
        which = f"channel {names[0]!r} was" if len(names) == 1 else f"channels {', '.join(map(repr, names))} were"
        found.append(f"{kind} {which} not measured in {share} of the samples.")
    return found


def _units(log: Log) -> list[str]:
    bare: dict[str, None] = {}
    for rollout in log.rollouts:
        channels = (*zip(rollout.ctrl_names, rollout.ctrl_units, strict=True),)
        channels += (*zip(rollout.sensor_names, rollout.sensor_units, strict=True),)
        bare.update({name: None for name, unit in channels if not unit})
    return [f"no unit is stated for {', '.join(bare)}; the model's units are assumed."] if bare else []


def _differences(log: Log) -> list[str]:
    first, found = log.rollouts[0], []
    for rollout in log.rollouts[1:]:
        for kind in ("ctrl_names", "sensor_names"):
            here, there = set(getattr(rollout, kind)), set(getattr(first, kind))
            if here != there:
                found.append(
                    f"rollout {rollout.name!r}: its {kind.replace('_', ' ')} differ from those of {first.name!r} in "
                    f"{', '.join(sorted(here ^ there))}; a study needs the same channels in all."
                )
    return found
