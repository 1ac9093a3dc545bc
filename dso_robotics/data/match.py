"""Matches the channels of a log to the actuators and sensors of a MuJoCo model, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dso_robotics.data.foot_contact import FootContact, of_channels
from dso_robotics.data.log import Log
from dso_robotics.data.quaternion import Places, continuous
from dso_robotics.data.rollout import Array, Rollout, listed, nearest
from dso_robotics.errors import DsoError
from dso_robotics.physics.unit import actuator_unit, control_unit, same_unit, sensor_unit

# A number of a channel beyond this is damage.
_ABSURD = 1e12
_GEARED = ", or map it without a unit if the gear of the actuator makes the force of it"
__all__ = [
    "Channels",
    "actuator_names",
    "fitted",
    "match_channels",
    "quaternion_places",
    "sensor_channels",
    "sensor_unit",
    "values_by_channel",
]


@dataclass(frozen=True, eq=False)
class Channels:
    """How a log's channels correspond to a model's actuators and sensors.

    ctrl_columns: (nu,), `rollout.ctrl[:, ctrl_columns]` is in the order of `data.ctrl`.
    ctrl_names: names of the actuators, in the order of the model.
    ctrl_units: their units.
    sensor_addresses: (ns,), `data.sensordata[sensor_addresses]` is in the order of the columns of `rollout.sensordata`.
    sensor_ids: (ns,), the sensor of each channel.
    sensor_names: names of the sensor channels, in the order of the log.
    sensor_units: their units.
    warnings: sentences about units.
    quaternions: the four columns of each sensor that reads a quaternion; q and -q mean the same there.
    feet: whose velocity channels are, the last ones: zero while they stand.
    strapped: whether an accelerometer moves the base, see `robot.strapdown`.
    A unit is the log's; the model's if the log gives none; "" if neither is known.
    """

    ctrl_columns: NDArray[np.intp]
    ctrl_names: tuple[str, ...]
    ctrl_units: tuple[str, ...]
    sensor_addresses: NDArray[np.intp]
    sensor_ids: NDArray[np.intp]
    sensor_names: tuple[str, ...]
    sensor_units: tuple[str, ...]
    warnings: tuple[str, ...]
    quaternions: Places = ()
    feet: tuple[FootContact, ...] = ()
    strapped: bool = False

    @property
    def footed(self) -> list[FootContact | None]:
        """For each channel the foot whose velocity it is; None for a reading of a sensor."""
        return of_channels(self.sensor_names, self.feet)


def match_channels(log: Log, model: mujoco.MjModel, *, ctrl: bool = True, sensors: bool = True) -> Channels:
    """Match the channels of every rollout of `log` to `model`; every channel of the log must be in the model.

    `fitted` leaves out of a log what the model lacks. A sensor that the log lacks has no channel.

    Actuators match ctrl channels of the same name. A sensor with one component matches the channel of its name. A sensor
    with several matches `name[0]`, `name[1]`, ... With `ctrl=False` or `sensors=False` that side is ignored. Raises DsoError
    listing both sides when an actuator is missing, a channel is extra or of the wrong shape, when rollouts differ, when the
    model has an unnamed actuator or sensor, and when a unit in the log differs from the model's.
    """
    first = log.rollouts[0]
    actuators = actuator_names(model) if ctrl else ()
    channels = sensor_channels(model) if sensors else {}
    for rollout in log.rollouts:
        if ctrl:
            _compare(log, rollout, "ctrl", actuators, model)
        if sensors:
            _compare(log, rollout, "sensordata", tuple(channels), model)
    warnings: dict[str, None] = {}
    ctrl_names, sensor_names = actuators, first.sensor_names if sensors else ()
    columns = [first.ctrl_names.index(name) for name in ctrl_names]
    ids = [channels[name][0] for name in sensor_names]
    ctrl_expected = [actuator_unit(model, i) for i in range(len(ctrl_names))]
    sensor_expected = [sensor_unit(model, i) for i in ids]
    for rollout in log.rollouts:
        stated = dict(zip(rollout.ctrl_names, rollout.ctrl_units, strict=True))
        expected = [control_unit(model, i, stated[name]) for i, name in enumerate(ctrl_names)]
        _check_units(log, rollout, "actuator", ctrl_names, stated, expected, warnings)
        stated = dict(zip(rollout.sensor_names, rollout.sensor_units, strict=True))
        _check_units(log, rollout, "sensor", sensor_names, stated, sensor_expected, warnings)
    return Channels(
        ctrl_columns=np.array(columns, dtype=np.intp),
        ctrl_names=ctrl_names,
        ctrl_units=tuple(first.ctrl_units[c] or e for c, e in zip(columns, ctrl_expected, strict=True)),
        sensor_addresses=np.array([channels[name][1] for name in sensor_names], dtype=np.intp),
        sensor_ids=np.array(ids, dtype=np.intp),
        sensor_names=sensor_names,
        sensor_units=tuple(u or e for u, e in zip(first.sensor_units if sensors else (), sensor_expected, strict=True)),
        warnings=tuple(warnings),
        quaternions=quaternion_places(model, [channels[name][1] for name in sensor_names]),
    )


def fitted(
    log: Log,
    model: mujoco.MjModel,
    *,
    ctrl: bool = True,
    sensors: bool = True,
    needed: Sequence[str] | None = None,
) -> tuple[Log, tuple[str, ...]]:
    """The log with the channels that the model has too, the same in every rollout, and a note for each that is left out.

    A sensor of the model that no rollout measured has no channel; in a rollout that lacks a channel of others it is NaN.
    `needed` names the rollouts of which one must have measured a channel; all if None. The signs of quaternions are made
    continuous in time. With `ctrl=False` or `sensors=False` that side is not changed.
    Raises DsoError when no sensor is in both, and when a sensor has another number of components in the log.
    """
    notes: list[str] = []
    actuators = actuator_names(model) if ctrl else ()
    every = sensor_channels(model) if sensors else {}
    logged = tuple(dict.fromkeys(name for r in log.rollouts for name in r.sensor_names))
    driven = tuple(dict.fromkeys(name for r in log.rollouts for name in r.ctrl_names))
    asked = [r for r in log.rollouts if needed is None or r.name in needed]
    measured = {n for r in asked for n in r.sensor_names if np.isfinite(r.sensor(n)).any()}
    kept = tuple(name for name in logged if name in every and name in measured)
    if sensors:
        _refuse_no_sensors(log, model, logged, tuple(every), kept)
        missing = tuple(name for name in every if name not in logged)
        for name in logged:
            if name not in every:
                notes.append(f"log channel {name!r} is no sensor of the model and is left out.{nearest(name, missing)}")
            elif name not in measured:
                notes.append(
                    f"sensor {name!r} was never measured in the log{'' if needed is None else ' to fit'} and is left out."
                )
        if missing:
            notes.append(
                f"the model's {listed(missing)} {'is' if len(missing) == 1 else 'are'} not in the log and left out."
            )
    extra = tuple(name for name in driven if name not in actuators) if ctrl else ()
    unknown = tuple(name for name in actuators if name not in driven)
    # With an actuator missing, the extra control may be the same one, misspelt; `match_channels` says so.
    if extra and not unknown:
        notes.append(f"the log's control {listed(extra)} is no actuator of the model and is left out.")
    for rollout in log.rollouts:
        _refuse_absurd(log, rollout, kept)
    if ctrl:
        notes += _beyond(log, model, actuators)
    quaternions = quaternion_places(model, [every[name][1] for name in kept])
    rollouts, flips = [], 0
    for rollout in log.rollouts:
        changes: dict[str, Any] = {}
        if sensors:
            absent = np.full(len(rollout.time), np.nan)
            columns = [rollout.sensor(name) if name in rollout.sensor_names else absent for name in kept]
            units = dict(zip(rollout.sensor_names, rollout.sensor_units, strict=True))
            values, turned = continuous(np.stack(columns, axis=1), quaternions)
            flips += turned
            changes |= {
                "sensordata": values,
                "sensor_names": kept,
                "sensor_units": tuple(units.get(n, "") for n in kept),
            }
        if extra and not unknown and rollout.ctrl is not None:
            keep = [i for i, name in enumerate(rollout.ctrl_names) if name in actuators]
            changes["ctrl"] = rollout.ctrl[:, keep] if keep else None
            changes["ctrl_names"] = tuple(rollout.ctrl_names[i] for i in keep)
            changes["ctrl_units"] = tuple(rollout.ctrl_units[i] for i in keep)
        rollouts.append(replace(rollout, **changes))
    if flips:
        notes.append(
            f"the sign of a quaternion flips {flips} time(s) in the log; q and -q mean the same and are taken so."
        )
    return replace(log, rollouts=tuple(rollouts)), tuple(notes)


def quaternion_places(model: mujoco.MjModel, addresses: Sequence[int] | NDArray[np.intp]) -> Places:
    """The four places in `addresses` of each sensor of `model` that reads a quaternion and has all four there.

    addresses: of channels in `data.sensordata`.
    """
    kinds = (int(mujoco.mjtSensor.mjSENS_FRAMEQUAT), int(mujoco.mjtSensor.mjSENS_BALLQUAT))
    found, given = [], [int(address) for address in addresses]
    for sensor in np.flatnonzero(np.isin(model.sensor_type, kinds)):
        parts = range(int(model.sensor_adr[sensor]), int(model.sensor_adr[sensor]) + 4)
        if all(part in given for part in parts):
            found.append(tuple(given.index(part) for part in parts))
    return tuple(found)


def actuator_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """Names of the actuators in the model's order. Raises DsoError when an actuator has no name.

    An actuator with internal state also has one control, so the length is nu.
    """
    return _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, model.nu, "actuator")


def sensor_channels(model: mujoco.MjModel) -> dict[str, tuple[int, int]]:
    """Maps channel name to (sensor id, address in `data.sensordata`), in the model's order. Unnamed sensor: DsoError."""
    channels = {}
    for i, name in enumerate(_names(model, mujoco.mjtObj.mjOBJ_SENSOR, model.nsensor, "sensor")):
        start, size = int(model.sensor_adr[i]), int(model.sensor_dim[i])
        for k in range(size):
            channels[name if size == 1 else f"{name}[{k}]"] = (i, start + k)
    return channels


def values_by_channel(values: Mapping[str, float], names: tuple[str, ...], what: str) -> Array:
    """One number for each of `names`; 0 if `values` has none for it.

    A key is a channel's name, a sensor's name for all its components, or "*" for all channels. Later keys override earlier
    ones. Raises DsoError for a key that matches no channel and for a number that is negative or not finite; `what` names the
    numbers in the message.
    """
    out = np.zeros(len(names))
    for key, value in values.items():
        chosen = [i for i, name in enumerate(names) if key in (name, name.split("[")[0], "*")]
        if not chosen:
            raise DsoError(f"{what}: the model has no channel {key!r}.{nearest(key, names)} It has {listed(names)}.")
        if not (np.isfinite(value) and value >= 0):
            raise DsoError(f"{what} of {key!r} is {value:g}; give a finite number, not below 0.")
        out[chosen] = value
    return out


def _names(model: mujoco.MjModel, kind: mujoco.mjtObj, count: int, word: str) -> tuple[str, ...]:
    names = [mujoco.mj_id2name(model, kind, i) for i in range(count)]
    bare = [i for i, name in enumerate(names) if not name]
    if bare:
        raise DsoError(
            f"model {_title(model)}: {word} number {bare[0]} (of {count}, counting from 0; {len(bare)} in all) has no "
            f"name, and logs are matched by name; give it one in the MJCF, for example name='{word}{bare[0]}'."
        )
    return tuple(name for name in names if name)


def _title(model: mujoco.MjModel) -> str:
    """The model's name in its MJCF: the start of `names`, up to the first zero byte."""
    return repr(bytes(model.names).split(b"\0", 1)[0].decode(errors="replace"))


def _compare(log: Log, rollout: Rollout, kind: str, expected: tuple[str, ...], model: mujoco.MjModel) -> None:
    found = rollout.ctrl_names if kind == "ctrl" else rollout.sensor_names
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    if not extra and (kind == "sensordata" or not missing):
        return
    word = "actuator" if kind == "ctrl" else "sensor"
    parts = []
    if missing:
        parts.append(f"the model's {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in the log")
    if extra:
        parts.append(f"the log's {', '.join(extra)} {'is' if len(extra) == 1 else 'are'} not in the model")
    hints = [f"For {name!r}:{hint}" for name in extra if (hint := _hint(name, tuple(missing), expected))]
    several = f" (a {word} with several components has channels name[0], name[1], ...)" if word == "sensor" else ""
    raise DsoError(
        f"{log.label}: rollout {rollout.name!r}, {kind}: the channels do not match the {word}s of model "
        f"{_title(model)}: {'; '.join(parts)}. The log has {listed(found)}; the model has "
        f"{listed(expected)}.{' '.join(['', *hints])} "
        f"Rename one side, or add or remove the {word} in the model{several}."
    )


def _refuse_absurd(log: Log, rollout: Rollout, sensors: tuple[str, ...]) -> None:
    """Refuse a number that no machine measures: it would make every simulation diverge."""
    parts = [(f"sensor channel {name!r}", rollout.sensor(name)) for name in sensors if name in rollout.sensor_names]
    parts += [(f"ctrl channel {name!r}", rollout.control(name)) for name in rollout.ctrl_names]
    parts += [(kind, values) for kind in ("qpos", "qvel") if (values := getattr(rollout, kind)) is not None]
    for what, values in parts:
        wild = np.argwhere(np.abs(values) > _ABSURD)
        if len(wild):
            t = int(wild[0][0])
            raise DsoError(
                f"{log.label}: rollout {rollout.name!r}: {what} is {values[tuple(wild[0])]:.4g} at sample {t} "
                f"({rollout.time[t]:.6g} s), which no machine measures; store NaN there, or cut the sample out."
            )


def _beyond(log: Log, model: mujoco.MjModel, actuators: tuple[str, ...]) -> list[str]:
    """Controls that are hardly in the unit of the model, by its ctrlrange."""
    found = []
    for i, name in enumerate(actuators):
        parts = [np.abs(r.control(name)) for r in log.rollouts if name in r.ctrl_names]
        reach = float(np.abs(model.actuator_ctrlrange[i]).max())
        if not parts or not model.actuator_ctrllimited[i] or reach == 0:
            continue
        values = np.concatenate(parts)
        if 0 < values.max() < 1e-3 * reach:
            found.append(
                f"control {name!r} is never larger than {values.max():.3g}, and the model's ctrlrange reaches {reach:g}; "
                "check the factor of its column."
            )
        elif (share := float(np.mean(values > 1.01 * reach))) > 0.01:
            found.append(
                f"control {name!r} is beyond the model's ctrlrange of {reach:g} in {share:.0%} of the samples, where the model "
                f"clamps it; the largest is {values.max():.4g}. Check its unit, or the ctrlrange."
            )
    return found


def _refuse_no_sensors(
    log: Log, model: mujoco.MjModel, logged: tuple[str, ...], every: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    """Refuse a log of which no channel is a sensor of the model, or which has another number of a sensor's components."""
    bases = {name.split("[")[0] for name in every}
    shapeless = [name for name in logged if name not in every and name.split("[")[0] in bases]
    if kept and not shapeless:
        return
    reason = (
        "no sensor is in both" if not kept else f"{shapeless[0]} is not a component of the model's sensor of that name"
    )
    hints = [f" For {name!r}:{hint}" for name in logged if name not in every and (hint := _hint(name, every, every))]
    raise DsoError(
        f"{log.label}: sensordata: the channels do not match the sensors of model {_title(model)}: {reason}. The log has "
        f"{listed(logged)}; the model has {listed(every)}.{''.join(hints[:3])} Rename one side; a sensor with several "
        "components has channels name[0], name[1], ..."
    )


def _hint(name: str, missing: tuple[str, ...], expected: tuple[str, ...]) -> str:
    base = name.split("[")[0]
    parts = [e for e in expected if e.split("[")[0] == base]
    if parts:  # the same sensor with a different number of components
        return f" the model's {base!r} has the channel(s) {', '.join(parts)}."
    return nearest(name, missing)


def _check_units(
    log: Log,
    rollout: Rollout,
    word: str,
    names: tuple[str, ...],
    stated: dict[str, str],
    expected: list[str],
    warnings: dict[str, None],
) -> None:
    for name, model_unit in zip(names, expected, strict=True):
        log_unit = stated[name]
        if log_unit and model_unit and not same_unit(log_unit, model_unit):
            raise DsoError(
                f"{log.label}: rollout {rollout.name!r}: channel {name!r} is in {log_unit} but the model's {word} of "
                f"that name is in {model_unit}; convert it, for example with `dso convert {log.label} --out new.h5 "
                f"--scale {name}=FACTOR:{model_unit}`{_GEARED if word == 'actuator' else ''}."
            )
        if not log_unit:
            taken = model_unit or "the model's own unit"
            warnings[f"channel {name!r} has no unit; assumed to be in {taken}."] = None
