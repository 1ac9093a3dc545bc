"""Resamples a rollout to the fixed time step of a model."""

from dataclasses import replace

import numpy as np

from dso_robotics.data.rollout import Array, Rollout
from dso_robotics.errors import DsoError

MAX_GAP = 3.0
"""Sensors are interpolated across at most this many of the channel's usual sample intervals."""
_MAX_GROWTH = 1000
_ROUNDING = 1e-6


def resample(rollout: Rollout, timestep: float, *, max_gap: float = MAX_GAP) -> Rollout:
    """The rollout at `time[0] + k * timestep`, up to its last sample.

    `timestep` [s] is the model's. Controls are held from one sample to the next, as defined for a log. Each sensor channel is
    interpolated linearly between its own measured samples, but not across pauses longer than `max_gap` of its usual
    intervals. In such a pause, before its first and after its last sample it is NaN. `qpos` and `qvel` are interpolated
    linearly; quaternions in `qpos` must be normalised afterwards. Angles are not wrapped. A log sampled faster than
    `timestep` is thinned without a filter. A rollout already on the grid keeps its values.
    Raises DsoError when the grid would have far too many steps, usually because time is not in seconds.
    """
    if not (np.isfinite(timestep) and timestep > 0):
        raise DsoError(f"rollout {rollout.name!r}: the time step is {timestep:g} s; give a positive one.")
    time, span = rollout.time, float(rollout.time[-1] - rollout.time[0])
    steps = span / timestep + _ROUNDING
    if steps > _MAX_GROWTH * len(time):
        raise DsoError(
            f"rollout {rollout.name!r}: its {len(time)} samples span {span:.6g} s, which is {steps:.3g} steps of "
            f"{timestep:g} s; check that time is in seconds, or split the rollout at its gaps."
        )
    if steps < 1:
        raise DsoError(
            f"rollout {rollout.name!r}: lasts {span:.6g} s, less than one step of {timestep:g} s; remove it, or check "
            "that time is in seconds."
        )
    grid = time[0] + timestep * np.arange(int(steps) + 1)
    # Clocks round: a grid time just before a sample is treated as the time of that sample.
    tolerance = _ROUNDING * timestep
    changes: dict[str, Array] = {"time": grid}
    if rollout.ctrl is not None:
        held = np.searchsorted(time, grid + tolerance, side="right") - 1
        changes["ctrl"] = rollout.ctrl[held]
    if rollout.sensordata is not None:
        columns = [_interpolated(time, column, grid, max_gap, tolerance) for column in rollout.sensordata.T]
        changes["sensordata"] = np.stack(columns, axis=1)
        lost = np.isnan(changes["sensordata"]).all(axis=0) & ~np.isnan(rollout.sensordata).all(axis=0)
        empty = np.flatnonzero(lost)
        if len(empty):
            raise DsoError(
                f"rollout {rollout.name!r}: sensor channel {rollout.sensor_names[int(empty[0])]!r} is too sparse to "
                f"be put on a grid of {timestep:g} s; remove the channel or the rollout."
            )
    for kind in ("qpos", "qvel"):
        if (values := getattr(rollout, kind)) is not None:
            changes[kind] = np.stack([np.interp(grid, time, column) for column in values.T], axis=1)
    return replace(rollout, **changes)


def _interpolated(time: Array, values: Array, grid: Array, max_gap: float, tolerance: float) -> Array:
    measured = ~np.isnan(values)
    t, v = time[measured], values[measured]
    if not len(t):
        return np.full(len(grid), np.nan)
    after = np.searchsorted(t, grid - tolerance)  # first measured sample not before the grid time
    hit = (after < len(t)) & (np.abs(t[np.minimum(after, len(t) - 1)] - grid) <= tolerance)
    out = np.full(len(grid), np.nan)
    out[hit] = v[after[hit]]
    if len(t) < 2:
        return out
    usual = float(np.median(np.diff(t)))
    between = ~hit & (after > 0) & (after < len(t))
    left, right = after[between] - 1, after[between]
    width = t[right] - t[left]
    share = (grid[between] - t[left]) / width
    line = v[left] + share * (v[right] - v[left])
    out[between] = np.where(width <= max_gap * usual, line, np.nan)
    return out
