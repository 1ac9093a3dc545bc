"""The times of a log as a Kalman filter takes them: any, each reading when it was taken, each sensor by its own clock."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout

# Samples closer than this [s] are one.
_SAME = 1e-7


def usual_interval(rollouts: Sequence[Rollout], timestep: float) -> tuple[float, int]:
    """The shortest typical time between samples [s], and a number of time steps for it that are no longer than `timestep`."""
    interval = min(float(np.median(np.diff(r.time))) for r in rollouts)
    return interval, max(int(np.ceil(interval / timestep - 1e-6)), 1)


def irregular(rollouts: Sequence[Rollout], interval: float, off_grid: float) -> bool:
    """Whether a sample of some rollout lies off the grid of the interval by more than this fraction of it."""
    gaps = [np.diff(r.time) / interval for r in rollouts]
    return any(bool(((np.abs(gap - np.rint(gap)) > off_grid) | (np.rint(gap) < 1)).any()) for gap in gaps)


def as_sampled(rollout: Rollout, channels: Channels) -> Rollout:
    """`rollout` with the selected channels at its own times, from the first sample on in which one of them was measured."""
    assert rollout.sensordata is not None
    measured = rollout.sensordata[:, [rollout.sensor_names.index(name) for name in channels.sensor_names]]
    seen = np.flatnonzero(np.isfinite(measured).any(1))
    first = int(seen[0]) if len(seen) else 0
    more = {}
    if channels.ctrl_names:
        assert rollout.ctrl is not None
        wanted = [rollout.ctrl_names.index(name) for name in channels.ctrl_names]
        more = {"ctrl": rollout.ctrl[first:, wanted], "ctrl_names": channels.ctrl_names}
    for name in ("qpos", "qvel"):
        values = getattr(rollout, name)
        if values is not None:
            more[name] = values[first:]
    return Rollout(
        name=rollout.name,
        time=rollout.time[first:],
        sensordata=measured[first:],
        sensor_names=channels.sensor_names,
        sensor_units=channels.sensor_units,
        **more,
    )


def taken(rollout: Rollout, names: Sequence[str], delays: np.ndarray) -> Rollout:
    """`rollout` with the readings of late channels at the times at which they were taken, `delays` (ny,) [s] before.

    names: the channels that `delays` are of. Readings that were taken before the first sample are left out, controls are held,
    and states between samples are interpolated.
    """
    late = {name: float(d) for name, d in zip(names, delays, strict=True) if d > 0 and name in rollout.sensor_names}
    if not late or rollout.sensordata is None:
        return rollout
    time, data = rollout.time, rollout.sensordata
    moments = [time]
    for name, delay in late.items():
        seen = np.isfinite(data[:, rollout.sensor_names.index(name)])
        moments.append(time[seen] - delay)
    every = np.unique(np.concatenate(moments))
    every = every[every >= time[0] - _SAME]
    every = every[np.concatenate([[True], np.diff(every) > _SAME])]
    held = np.maximum(np.searchsorted(time, every + _SAME, side="right") - 1, 0)
    own = np.abs(time[held] - every) <= _SAME
    found = np.where(own[:, None], data[held], np.nan)
    for name, delay in late.items():
        column = rollout.sensor_names.index(name)
        found[:, column] = np.nan
        seen = np.isfinite(data[:, column]) & (time - delay >= every[0] - _SAME)
        place = np.minimum(np.searchsorted(every, time[seen] - delay - _SAME), len(every) - 1)
        found[place, column] = data[seen, column]
    more = {} if rollout.ctrl is None else {"ctrl": rollout.ctrl[held]}
    for name in ("qpos", "qvel"):
        values = getattr(rollout, name)
        if values is not None:
            more[name] = np.column_stack([np.interp(every, time, column) for column in values.T])
    return replace(rollout, time=every, sensordata=found, **more)


def pieces(rollout: Rollout, seconds: float | None) -> list[tuple[int, int]]:
    """First and last sample of consecutive windows of about `seconds` [s] each; of all samples for None.

    A window ends with the first sample that is `seconds` or more after its first.
    """
    last = len(rollout.time) - 1
    if seconds is None:
        return [(0, last)]
    found, begin = [], 0
    while begin < last:
        end = int(np.searchsorted(rollout.time, rollout.time[begin] + seconds * (1 - 1e-9)))
        if end > last:
            break
        found.append((begin, end))
        begin = end
    return found
