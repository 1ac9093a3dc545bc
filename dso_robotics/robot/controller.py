"""Controllers that replace unrecorded controls: ctrl = bias + sum of gain * (signal - reference).

This combines identification and cloning. States are recorded, actions are not. The model is x' = f(x, pi(x, theta), theta),
and theta holds policy parameters besides physical ones (equation 98). The controller reads the recorded signals, not the
simulated ones. Its control at a time step is linear in the recorded signals, so there is no feedback through the simulation.
A wrong guess of the gains cannot make a window unstable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.match import actuator_names, match_channels
from dso_robotics.data.resample import MAX_GAP
from dso_robotics.data.rollout import Rollout, listed, nearest
from dso_robotics.data.windows import Drive, Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.gains import BIAS, NO_GAINS, Gains
from dso_robotics.physics.unit import actuator_unit, sensor_unit
from dso_robotics.robot import start
from dso_robotics.table import Table, key, name_key

_STATES = ("qpos/", "qvel/")
_ROUND = 1e-9


@dataclass(frozen=True)
class Controller(Table):
    """The control law of one actuator: bias + sum of gain * (signal - reference).

    A signal is a sensor channel, `qpos/JOINT`, `qvel/JOINT` or a control channel of the log. With `hold`, signals are constant
    between samples, as for a controller that runs at the log's rate. Without `hold`, they are interpolated linearly. Control
    channels are always constant between samples.
    """

    actuator: str = name_key()
    gains: Mapping[str, float] = key(
        "factor of each signal: where a search begins, or what it is where nothing frees it; 0.0 for not known",
        example={"elbow_pos": -5.0, "elbow_vel": -0.2},
    )
    reference: Mapping[str, str | float] = key(
        "what is taken off a signal, a channel of the log or a number", {}, example={"elbow_pos": "elbow_target"}
    )
    bias: float = key("a constant", 0.0)
    hold: bool = key("made at the log's samples and held; else at every time step of the model", False)

    def check(self) -> None:
        """Check that the signals are consistent."""
        if BIAS in self.gains:
            raise DsoError("`gains`: the constant is a key of its own; write bias = 0.0 beside gains.")
        for signal in self.reference:
            if signal not in self.gains:
                raise DsoError(
                    f"`reference` names '{signal}', which has no gain; the signals are {', '.join(self.gains) or 'none'}."
                )


@dataclass(frozen=True, eq=False)
class _Track:
    """A signal of one recording, with `values` (T,) at `time` (T,). Between samples it is held or interpolated."""

    time: np.ndarray
    values: np.ndarray
    held: bool

    def at(self, grid: np.ndarray) -> np.ndarray:
        if not self.held:
            return np.interp(grid, self.time, self.values)
        last = np.searchsorted(self.time, grid + _ROUND * np.maximum(1.0, np.abs(grid)), side="right") - 1
        return self.values[np.maximum(last, 0)]


@dataclass(frozen=True, eq=False)
class Drives:
    """The signals of all controllers in all recordings, and the gains and biases that multiply them.

    share: (G, nu), 1 in the column of the actuator that a gain or bias belongs to, else 0.
    tracks: for each recording and each gain or bias, its signal and its reference.
    warnings: messages about them.
    """

    gains: Gains
    share: np.ndarray
    tracks: Mapping[str, Sequence[tuple[_Track, _Track | None]]]
    warnings: tuple[str, ...]

    def at(self, rollout: str, grid: np.ndarray) -> np.ndarray:
        """The signals (..., G) of a recording at the times `grid` (...,) [s] of its clock."""
        columns = [signal.at(grid) - (0.0 if zero is None else zero.at(grid)) for signal, zero in self.tracks[rollout]]
        return np.stack(columns, -1)

    def attach(self, windows: Windows) -> Windows:
        """`windows` of these recordings, on any grid, with the signals of their controllers added."""
        before, steps = windows.past.shape[1], windows.ctrl.shape[1]
        grid = windows.time[:, None] + windows.timestep * np.arange(-before, steps)
        values = np.zeros((*grid.shape, len(self.gains)))
        for i, rollout in enumerate(windows.rollouts):
            mine = windows.rollout == i
            values[mine] = self.at(rollout.name, grid[mine])
        return replace(windows, drive=Drive(values, self.share))


def controlled(log: Log, controllers: Sequence[Controller], model: mujoco.MjModel) -> tuple[Log, Drives | None]:
    """`log` with a control for every actuator, and the `Drives` of the `controllers` (None without controllers).

    If an actuator has a controller, its control is the controller's at the declared gains, even if a control was recorded.
    Control channels that only controllers read are removed.

    Raises:
      DsoError: an actuator has neither a control nor a controller, or a controller reads a signal that is not in the log.
    """
    actuators = actuator_names(model)
    for c in controllers:
        if c.actuator not in actuators:
            raise DsoError(
                f"controller.{c.actuator}: the model has no actuator of this name.{nearest(c.actuator, actuators)} It has "
                f"{listed(actuators)}."
            )
    owned = tuple(c.actuator for c in controllers)
    for rollout in log.rollouts:
        _complete(log, rollout, actuators, owned)
    if not controllers:
        return log, None
    channels = match_channels(log, model, ctrl=False)
    late = {"sensor_delay": np.asarray(model.sensor_delay)} if np.any(model.sensor_delay) else {}
    states = {r.name: start.recorded_states(r, channels, model, late) for r in log.rollouts}
    numbers = [(c, s) for c in controllers for s in (*c.gains, BIAS)]
    tracks = {}
    for rollout in log.rollouts:
        where = f"{log.label}, rollout {rollout.name!r}"
        tracks[rollout.name] = [_tracks(rollout, states[rollout.name], model, c, s, where) for c, s in numbers]
    share = np.array([[float(c.actuator == name) for name in actuators] for c, _ in numbers])
    values = np.array([c.bias if s == BIAS else float(c.gains[s]) for c, s in numbers])
    plain = Drives(NO_GAINS, share, tracks, ())
    signals = np.concatenate([plain.at(r.name, r.time) for r in log.rollouts])
    size = np.sqrt(np.mean(signals**2, axis=0))
    reach = np.array([_reach(model, a, signals @ (values[:, None] * share)[:, a]) for a in range(len(actuators))])
    units = tuple(_unit(model, log.rollouts[0], actuators.index(c.actuator), s) for c, s in numbers)
    gains = Gains(
        tuple(c.actuator for c, _ in numbers),
        tuple(s for _, s in numbers),
        units,
        values,
        share @ reach / np.where(size > 0, size, 1.0),
    )
    drives = Drives(gains, share, tracks, tuple(_warnings(log, controllers, tracks, gains)))
    read = {s for c in controllers for s in (*c.gains, *c.reference.values())}
    rollouts = tuple(_filled(r, drives, actuators, owned, read, model) for r in log.rollouts)
    return replace(log, rollouts=rollouts), drives


def _complete(log: Log, rollout: Rollout, actuators: tuple[str, ...], owned: tuple[str, ...]) -> None:
    missing = [name for name in actuators if name not in rollout.ctrl_names and name not in owned]
    if not missing:
        return
    # If the log has a similar name, the channel is probably misspelt, not missing. The matching step reports that better.
    if any(nearest(name, tuple(n for n in rollout.ctrl_names if n not in actuators)) for name in missing):
        return
    first = missing[0]
    raise DsoError(
        f"{log.label}: rollout {rollout.name!r} has no recorded control of {listed(tuple(missing))}. Where a controller made "
        f"it from what the log shows, say so in a study file, and its gains can be identified too: [controller.{first}] with "
        f"gains = {{ CHANNEL = -1.0 }} (docs/files.md); where there was none, record zeros, or remove the actuator from the "
        "model."
    )


def _tracks(
    rollout: Rollout, states: np.ndarray, model: mujoco.MjModel, controller: Controller, signal: str, where: str
) -> tuple[_Track, _Track | None]:
    if signal == BIAS:
        return _Track(rollout.time[:1], np.ones(1), held=True), None
    where = f"{where}: controller.{controller.actuator}"
    found = _track(rollout, states, model, signal, where, hold=controller.hold)
    zero = controller.reference.get(signal)
    if zero is None:
        return found, None
    if isinstance(zero, str):
        return found, _track(rollout, states, model, zero, where, hold=controller.hold, ctrl_first=True)
    return found, _Track(rollout.time[:1], np.array([float(zero)]), held=True)


def _track(
    rollout: Rollout,
    states: np.ndarray,
    model: mujoco.MjModel,
    name: str,
    where: str,
    *,
    hold: bool,
    ctrl_first: bool = False,
) -> _Track:
    """The signal called `name`. If a sensor and a control have this name, the sensor is used, unless `ctrl_first`."""
    commanded = name in rollout.ctrl_names
    if commanded and (ctrl_first or name not in rollout.sensor_names):
        return _Track(rollout.time, rollout.control(name), held=True)
    if name in rollout.sensor_names:
        values = rollout.sensor(name)
    elif name.startswith(_STATES):
        values = states[:, _column(model, name, where)]
        if not np.isfinite(values).any():
            raise DsoError(
                f"{where}: reads {name}, and the log shows neither qpos and qvel nor a position sensor on this joint; record "
                "one, or let the controller read something else."
            )
    else:
        known = (*rollout.sensor_names, *rollout.ctrl_names)
        raise DsoError(
            f"{where}: reads {name!r}, which the log does not hold.{nearest(name, known)} It has {listed(known)}, and "
            "qpos/JOINT and qvel/JOINT of hinges and slides."
        )
    seen = np.isfinite(values)
    return _Track(rollout.time[seen], values[seen], held=hold)


def _column(model: mujoco.MjModel, name: str, where: str) -> int:
    """Index in (qpos, qvel) of `qpos/JOINT` or `qvel/JOINT`."""
    kind, joint = name[:5], name[5:]
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, joint)
    if index < 0 or int(model.jnt_type[index]) <= int(mujoco.mjtJoint.mjJNT_BALL):
        joints = [(model.joint(j).name, int(model.jnt_type[j])) for j in range(model.njnt)]
        known = tuple(n for n, t in joints if t > int(mujoco.mjtJoint.mjJNT_BALL))
        raise DsoError(f"{where}: reads {name!r}, and no hinge or slide is called {joint!r}; they are {listed(known)}.")
    return int(model.jnt_qposadr[index]) if kind == "qpos/" else model.nq + int(model.jnt_dofadr[index])


def _reach(model: mujoco.MjModel, actuator: int, control: np.ndarray) -> float:
    """Typical size of a control: half its largest allowed value, or its size at the declared gains, or 1."""
    if model.actuator_ctrllimited[actuator]:
        return 0.5 * float(np.abs(model.actuator_ctrlrange[actuator]).max()) or 1.0
    return float(np.sqrt(np.mean(control**2))) or 1.0


def _unit(model: mujoco.MjModel, rollout: Rollout, actuator: int, signal: str) -> str:
    control = actuator_unit(model, actuator) or "ctrl"
    if signal == BIAS:
        return control
    if signal in rollout.sensor_names:
        unit = rollout.sensor_units[rollout.sensor_names.index(signal)]
        stem = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, signal.split("[")[0])
        unit = unit or (sensor_unit(model, stem) if stem >= 0 else "")
    elif signal in rollout.ctrl_names:
        unit = rollout.ctrl_units[rollout.ctrl_names.index(signal)]
    else:
        slide = model.joint(signal[5:]).type[0] == int(mujoco.mjtJoint.mjJNT_SLIDE)
        unit = ("m" if slide else "rad") + ("" if signal.startswith("qpos/") else "/s")
    if not unit or unit == control:
        return "1" if unit else f"{control}/unit"
    return f"{control}/({unit})" if "/" in unit else f"{control}/{unit}"


def _warnings(
    log: Log,
    controllers: Sequence[Controller],
    tracks: Mapping[str, Sequence[tuple[_Track, _Track | None]]],
    gains: Gains,
) -> list[str]:
    found = []
    for c in controllers:
        if any(c.actuator in r.ctrl_names for r in log.rollouts):
            found.append(
                f"The control of {c.actuator} was recorded, and the controller declared for it takes its place; leave out "
                f"[controller.{c.actuator}] to use what was recorded."
            )
    gaps: dict[str, float] = {}
    for rollout in log.rollouts:
        usual = float(np.median(np.diff(rollout.time)))
        for name, (track, _) in zip(gains.signals, tracks[rollout.name], strict=True):
            apart = np.diff(track.time)
            if len(apart) and apart.max() > MAX_GAP * max(usual, float(np.median(apart))):
                gaps[name] = max(gaps.get(name, 0.0), float(apart.max()))
    for name, seconds in gaps.items():
        found.append(
            f"A controller reads {name!r}, which was not measured for up to {seconds:.3g} s; there it is taken to have gone "
            "straight. Split the recording at such gaps."
        )
    return found


def _filled(
    rollout: Rollout,
    drives: Drives,
    actuators: tuple[str, ...],
    owned: tuple[str, ...],
    read: set[str | float],
    model: mujoco.MjModel,
) -> Rollout:
    """`rollout` with the controls of the model's actuators. Unknown controls are left out; the matching step reports them."""
    made = drives.at(rollout.name, rollout.time) @ (drives.gains.values[:, None] * drives.share)
    stated = dict(zip(rollout.ctrl_names, rollout.ctrl_units, strict=True))
    known = [(i, n) for i, n in enumerate(actuators) if n in owned or n in stated]
    columns = [made[:, i] if n in owned else rollout.control(n) for i, n in known]
    units = [actuator_unit(model, i) if n in owned else stated[n] for i, n in known]
    others = [n for n in rollout.ctrl_names if n not in actuators and n not in read]
    return replace(
        rollout,
        ctrl=np.stack([*columns, *(rollout.control(n) for n in others)], axis=1),
        ctrl_names=(*(n for _, n in known), *others),
        ctrl_units=(*units, *(stated[n] for n in others)),
    )
