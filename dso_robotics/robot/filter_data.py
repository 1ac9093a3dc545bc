"""Prepares logs for estimators: one common interval between updates, NaN for missing measurements, equal windows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import Channels, actuator_names, quaternion_places, sensor_channels
from dso_robotics.data.rollout import Rollout, listed
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.physics.unit import actuator_unit, control_unit, same_unit, sensor_unit
from dso_robotics.robot import filter_times, start

# A sample may lie off the grid by this fraction of an interval. The interval may differ from a whole number of time steps by
# this fraction of a time step.
_OFF_GRID, _OFF_STEP = 0.1, 0.01
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class FilterWindows:
    """B windows of T samples. The filter starts at the first sample and is updated T-1 times.

    interval: usual time between samples [s].
    seconds: time from each sample to the next [s], (B, T-1); 0 after a window's end.
    ctrl: controls, (B, T, nu), constant from each sample to the next.
    measured: measurements, (B, T, ny), NaN where missing and after a window's end.
    start: states at the first sample, (B, nq+nv+na).
    truth: recorded states, (B, T, nq+nv), NaN where the log has none.
    rollout: index into `rollouts`, (B,).
    first: index of the first sample on its rollout's grid, (B,).
    spread: covariances of the start states in the tangent space, (B, 2 nv + na, 2 nv + na); None where they are not known.
    """

    rollouts: tuple[Rollout, ...]
    channels: Channels
    interval: float
    substeps: int
    seconds: np.ndarray
    ctrl: np.ndarray
    measured: np.ndarray
    start: np.ndarray
    truth: np.ndarray
    rollout: np.ndarray
    first: np.ndarray
    spread: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first)

    def pick(self, which: np.ndarray) -> "FilterWindows":
        """The windows selected by `which`: booleans (B,) or indices."""
        rows = ("seconds", "ctrl", "measured", "start", "truth", "rollout", "first")
        spread = None if self.spread is None else self.spread[which]
        return replace(self, spread=spread, **{name: getattr(self, name)[which] for name in rows})


def set_apart(given: FilterWindows, share: float, source: str) -> tuple[FilterWindows, FilterWindows | None]:
    """Split the windows into a training set and a validation set.

    The validation set is about a fraction `share` of the windows, evenly spaced. It is None for a share of 0.
    Raises DsoError if there are too few windows for both.
    """
    if not share:
        return given, None
    apart = np.floor((np.arange(len(given)) + 1) * share) > np.floor(np.arange(len(given)) * share)
    if not apart.any():
        raise DsoError(
            f"{source}: {len(given)} window(s) to train on, of which a validation of {share:g} sets none apart; write a "
            "shorter `window`, a larger `validation`, or 0."
        )
    return given.pick(~apart), given.pick(apart)


def select_channels(log: Log, model: mujoco.MjModel, sensors: Sequence[str] | None) -> Channels:
    """Channels of the named sensors, by name; None means all sensors of the model that the log has. Others are ignored.

    Raises DsoError for a sensor that the model or the log does not have, for actuators that are not in the log, and for
    units that differ.
    """
    every = sensor_channels(model)
    logged = {name for rollout in log.rollouts for name in rollout.sensor_names}
    names = [name for name in every if name in logged] if sensors is None else []
    for sensor in sensors or ():
        mine = [name for name in every if sensor in (name, name.split("[")[0])]
        if not mine:
            raise DsoError(
                f"sensor {sensor!r} is not in the model, which has {listed(tuple(every))}; name one of these."
            )
        names += [name for name in mine if name not in names]
    if not every:
        raise DsoError("the model has no sensors, so there is nothing to correct the prediction with; add a <sensor>.")
    if not names:
        raise DsoError(
            f"{log.label}: has none of the model's sensors {listed(tuple(every))}, so nothing can correct the "
            f"prediction; it has {listed(tuple(sorted(logged)))}. Rename one side."
        )
    actuators = actuator_names(model)
    for rollout in log.rollouts:
        where = f"{log.label}, rollout {rollout.name!r}"
        for word, wanted, found in (
            ("sensor", names, rollout.sensor_names),
            ("actuator", actuators, rollout.ctrl_names),
        ):
            missing = [name for name in wanted if name not in found]
            if missing:
                choose = " or choose others with `sensors = [...]`" if word == "sensor" else ""
                raise DsoError(
                    f"{where}: {word} {listed(tuple(missing))} of the model is not in the log, which has {listed(found)}; "
                    f"rename one side, record it,{choose or ' or remove it from the model'}."
                )
        stated = dict(zip(rollout.sensor_names, rollout.sensor_units, strict=True))
        stated |= dict(zip(rollout.ctrl_names, rollout.ctrl_units, strict=True))
        expected = {name: sensor_unit(model, every[name][0]) for name in names}
        expected |= {name: control_unit(model, i, stated[name]) for i, name in enumerate(actuators)}
        for name, unit in expected.items():
            if stated[name] and unit and not same_unit(stated[name], unit):
                raise DsoError(
                    f"{where}: channel {name!r} is in {stated[name]} but the model's is in {unit}; convert it with "
                    f"`dso convert {log.label} --out new.h5 --scale {name}=FACTOR:{unit}`."
                )
    ids = [every[name][0] for name in names]
    return Channels(
        ctrl_columns=np.arange(len(actuators)),
        ctrl_names=actuators,
        ctrl_units=tuple(actuator_unit(model, i) for i in range(len(actuators))),
        sensor_addresses=np.array([every[name][1] for name in names], dtype=np.intp),
        sensor_ids=np.array(ids, dtype=np.intp),
        sensor_names=tuple(names),
        sensor_units=tuple(sensor_unit(model, i) for i in ids),
        warnings=(),
        quaternions=quaternion_places(model, [every[name][1] for name in names]),
    )


def common_interval(rollouts: Sequence[Rollout], timestep: float, source: str) -> tuple[float, int]:
    """The shortest typical time between samples [s], and its number of time steps.

    Raises DsoError if it is not a whole number of time steps, or if the sample spacing of another rollout is not a whole
    multiple of it.
    """
    interval = min(float(np.median(np.diff(r.time))) for r in rollouts)
    ratio = interval / timestep
    if abs(ratio - round(ratio)) > _OFF_STEP * max(round(ratio), 1) or round(ratio) < 1:
        raise DsoError(
            f"{source}: its samples are {interval:.6g} s apart, which is no whole number of the model's time steps of "
            f"{timestep:g} s; write timestep = {interval / max(1, math.ceil(ratio)):.6g} in the study."
        )
    return interval, round(ratio)


def on_grid(rollout: Rollout, channels: Channels, interval: float, source: str) -> Rollout:
    """`rollout` with the selected channels on a grid of spacing `interval`. Grid points without a sample are NaN.

    Raises DsoError for samples that fall between grid points, and if nothing was measured at the first grid point.
    """
    gaps = np.diff(rollout.time) / interval
    steps = np.rint(gaps)
    off = np.flatnonzero((np.abs(gaps - steps) > _OFF_GRID) | (steps < 1))
    if len(off):
        i = int(off[0])
        raise DsoError(
            f"{source}, rollout {rollout.name!r}: samples {i} and {i + 1} are {np.diff(rollout.time)[i]:.6g} s apart, which is "
            f'no whole number of the interval of {interval:.6g} s between updates; write corrector = "kalman", which takes any '
            f"times, or put the log on a grid with `dso convert {source} --resample {1 / interval:.4g} --out new.h5`."
        )
    place = np.concatenate([[0], np.cumsum(steps.astype(int))])
    count = int(place[-1]) + 1
    columns = [rollout.sensor_names.index(name) for name in channels.sensor_names]
    assert rollout.sensordata is not None
    measured = np.full((count, len(columns)), np.nan)
    measured[place] = rollout.sensordata[:, columns]
    if not np.isfinite(measured[0]).any():
        seen = np.flatnonzero(np.isfinite(measured).any(1))
        begin = f"the first {seen[0]} samples" if len(seen) else "all of it"
        raise DsoError(
            f"{source}, rollout {rollout.name!r}: nothing was measured at its start, so there is no state to start from; cut "
            f"{begin} off."
        )
    held = np.searchsorted(place, np.arange(count), side="right") - 1
    more = {}
    if channels.ctrl_names:
        assert rollout.ctrl is not None
        wanted = [rollout.ctrl_names.index(name) for name in channels.ctrl_names]
        more = {"ctrl": rollout.ctrl[held][:, wanted], "ctrl_names": channels.ctrl_names}
    for name in ("qpos", "qvel"):
        if getattr(rollout, name) is not None:
            # Here values are held between samples. `_truth` uses only the recorded values.
            more[name] = getattr(rollout, name)[held]
    return Rollout(
        name=rollout.name,
        time=rollout.time[0] + interval * np.arange(count),
        sensordata=measured,
        sensor_names=channels.sensor_names,
        sensor_units=channels.sensor_units,
        **more,
    )


def cut_windows(
    rollouts: Sequence[Rollout],
    channels: Channels,
    model: mujoco.MjModel,
    *,
    interval: float,
    substeps: int,
    seconds: float | None,
    source: str = "log",
    recorded_start: bool = False,
    any_time: bool = False,
) -> FilterWindows:
    """Consecutive windows of length `seconds` [s]; None gives one window for each rollout. Starts are guessed from the log.

    Starts are guessed from the sensors alone, as a robot must. From an exact start an exact model needs no correction, so
    an unstable corrector would not be noticed. With `recorded_start` they are the recorded qpos and qvel, where there are any.
    With `any_time`, samples need not lie on a grid: each window then has the rollout's own times.

    Raises DsoError if every rollout is shorter than a window, and in the cases that `on_grid` lists.
    """
    free = any_time and filter_times.irregular(rollouts, interval, _OFF_GRID)
    if free:
        gridded = tuple(filter_times.as_sampled(r, channels) for r in rollouts)
    else:
        gridded = tuple(on_grid(r, channels, interval, source) for r in rollouts)
    keep = np.any([np.isfinite(r.sensordata).any(0) for r in gridded if r.sensordata is not None], axis=0)
    if not keep.all():
        bare = channels.sensor_names[int(np.flatnonzero(~keep)[0])]
        raise DsoError(f"{source}: channel {bare!r} was never measured; leave it out of `sensors`.")
    lengths = [len(r.time) for r in gridded]
    width = max(lengths) if seconds is None else round(seconds / interval) + 1
    if free:
        cuts = [(i, *cut) for i, r in enumerate(gridded) for cut in filter_times.pieces(r, seconds)]
        width = max((end - begin + 1 for _, begin, end in cuts), default=width)
    else:
        begins = [[0] if seconds is None else list(range(0, n - width + 1, width - 1)) for n in lengths]
        cuts = [(i, b, min(b + width, lengths[i]) - 1) for i, firsts in enumerate(begins) for b in firsts]
    if width < _FEWEST:
        what = f"its longest rollout holds {width}" if seconds is None else f"a window of {seconds:g} s holds {width}"
        raise DsoError(
            f"{source}: {what} samples, {interval:.4g} s apart, and at least {_FEWEST} are needed; write window = "
            f"{_FEWEST * interval:.3g} or more, or record longer."
        )
    if not cuts:
        longest = max(float(r.time[-1] - r.time[0]) for r in gridded)
        raise DsoError(
            f"{source}: the longest rollout lasts {longest:.4g} s, which is shorter than a window of {seconds:g} s; write a "
            "shorter `window`."
        )
    shape = (len(cuts), width)
    ctrl, measured = np.zeros((*shape, model.nu)), np.full((*shape, len(channels.sensor_names)), np.nan)
    truth, apart = np.full((*shape, model.nq + model.nv), np.nan), np.zeros((len(cuts), width - 1))
    for w, (i, begin, end) in enumerate(cuts):
        rollout, n = gridded[i], end - begin + 1
        assert rollout.sensordata is not None
        apart[w, : n - 1] = np.diff(rollout.time[begin : end + 1]) if free else interval
        measured[w, :n] = rollout.sensordata[begin : end + 1]
        if rollout.ctrl is not None:
            ctrl[w, :n] = rollout.ctrl[begin : end + 1]
        truth[w, :n] = _truth(rollouts[i], rollout, model, free=free)[begin : end + 1]
    rows = np.array([i for i, _, _ in cuts])
    first = np.array([b for _, b, _ in cuts])
    last = np.array([e for _, _, e in cuts])
    whole = Windows(
        rollouts=gridded,
        channels=replace(channels, ctrl_columns=np.arange(len(channels.ctrl_names))),
        timestep=interval / substeps,
        ctrl=ctrl,
        past=np.zeros((len(cuts), 0, model.nu)),
        step=np.zeros(shape, int),
        share=np.zeros(shape),
        measured=measured,
        sample=np.minimum(first[:, None] + np.arange(width), last[:, None]),
        rollout=rows,
        time=np.array([gridded[i].time[b] for i, b, _ in cuts]),
    )
    return FilterWindows(
        rollouts=gridded,
        channels=channels,
        interval=interval,
        substeps=substeps,
        seconds=apart,
        ctrl=ctrl,
        measured=measured,
        start=start.guess(_without_feet(whole if recorded_start else _sensed(whole)), model),
        truth=truth,
        rollout=rows,
        first=first,
    )


def _sensed(windows: Windows) -> Windows:
    """`windows` without the recorded state."""
    return replace(windows, rollouts=tuple(replace(r, qpos=None, qvel=None) for r in windows.rollouts))


def _without_feet(windows: Windows) -> Windows:
    """`windows` without the velocities of feet, which are known while they stand alone."""
    given = windows.channels
    if not given.feet:
        return windows
    n = given.footed.index(next(foot for foot in given.footed if foot is not None))
    columns = ("sensor_addresses", "sensor_ids", "sensor_names", "sensor_units")
    channels = replace(given, feet=(), **{name: getattr(given, name)[:n] for name in columns})
    rollouts = []
    for r in windows.rollouts:
        assert r.sensordata is not None
        parts = {
            "sensordata": r.sensordata[:, :n],
            "sensor_names": r.sensor_names[:n],
            "sensor_units": r.sensor_units[:n],
        }
        rollouts.append(replace(r, **parts))
    return replace(windows, rollouts=tuple(rollouts), channels=channels, measured=windows.measured[..., :n])


def _truth(recorded: Rollout, gridded: Rollout, model: mujoco.MjModel, *, free: bool) -> np.ndarray:
    """Recorded qpos and qvel (T, nq+nv) at the grid points that have a sample; NaN at the others. free: there is no grid."""
    found = np.full((len(gridded.time), model.nq + model.nv), np.nan)
    if recorded.qpos is None or recorded.qvel is None:
        return found
    both = np.concatenate([recorded.qpos, recorded.qvel], axis=1)
    if free:
        return both[len(both) - len(found) :]
    interval = gridded.time[1] - gridded.time[0]
    found[np.concatenate([[0], np.cumsum(np.rint(np.diff(recorded.time) / interval).astype(int))])] = both
    return found
