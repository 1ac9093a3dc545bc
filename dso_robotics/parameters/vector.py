"""The parameters of a model as one theta. They determine model fields, and the signals between robot and log.

Functions of z accept NumPy arrays (with leading batch axes) and JAX arrays (one vector; use vmap for batches).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.gains import NO_GAINS, Gains
from dso_robotics.parameters.parameter import Parameter, declare
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.signals import SIGNALS, nominal
from dso_robotics.parameters.theta import Theta
from dso_robotics.physics.inertia import body_from_coordinates, turned
from dso_robotics.physics.model import Robot, without_delays, without_shortcuts

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterVector(Theta):
    """Theta whose `blocks` are parameters of the model `mj`.

    mj: the model, without delays.
    delays: the model's declared delays, sensor_delay (nsensor,) and actuator_delay (nu,) [s].
    recordings: the recordings that may have their own values.
    gains: the controllers' gains, free or fixed.
    """

    blocks: tuple[Parameter, ...]
    mj: mujoco.MjModel
    delays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    recordings: tuple[str, ...] = ()
    gains: Gains = NO_GAINS

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The blocks."""
        return self.blocks

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """One name per coordinate: the path, and for a full inertia also the log-Cholesky coordinate."""
        return self.names

    def report(self, z: Array) -> dict[str, tuple[Array, str]]:
        """Physical numbers: label -> (value (...), unit)."""
        blocks = self.split(z)
        numbers = {}
        for p in self.parameters:
            physical = p.report(blocks[p.path])
            numbers |= {label: (physical[..., i], unit) for i, (label, unit) in enumerate(p.reported.items())}
        return numbers

    @functools.cached_property
    def shared(self) -> "ParameterVector":
        """A vector with one block for each quantity, also for quantities that have one value per recording."""
        quantities: dict[str, Parameter] = {}
        for p in self.parameters:
            quantities.setdefault(_quantity(p), dataclasses.replace(p, name=_quantity(p), rollout=""))
        return ParameterVector(tuple(quantities.values()), self.mj, self.delays, gains=self.gains)

    def expansion(self, rollouts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Matrices (R, m, n) and offsets (R, m) that give the coordinates of `shared` in each of `rollouts`.

        If every fitted recording has its own value, a held-out recording gets their mean. If only some have their own
        value, the other recordings keep the model's value.
        """
        siblings: dict[str, list[tuple[Parameter, slice]]] = {}
        for p, here in self.places():
            siblings.setdefault(_quantity(p), []).append((p, here))
        shared = self.shared
        matrices = np.zeros((len(rollouts), shared.size, self.size))
        offsets = np.zeros((len(rollouts), shared.size))
        for q, rows in shared.places():
            family = siblings[q.path]
            everyone = {p.rollout for p, _ in family} >= set(self.recordings)
            for r, name in enumerate(rollouts):
                mine = [at for p, at in family if p.rollout in ("", name)] or [at for _, at in family if everyone]
                for at in mine:
                    matrices[r, rows, at] = np.eye(q.size) / len(mine)
                if not mine:
                    offsets[r, rows] = q.nominal
        return matrices, offsets

    def _mean(self, z: Array) -> Array:
        """The coordinates of `shared` for a recording that was not fitted."""
        matrices, offsets = self.expansion([""])
        return z @ matrices[0].T + offsets[0]

    def freed(self, field: str) -> list[int]:
        """The flat indices of a model field that some parameter writes, sorted."""
        return sorted({i for p in self.parameters for slot in p.slots if slot.field == field for i in slot.at})

    @property
    def local(self) -> bool:
        """Whether any recording has its own value."""
        return any(p.rollout for p in self.parameters)

    @property
    def owner(self) -> tuple[str, ...]:
        """The recording (or "") that each coordinate (n,) belongs to."""
        return tuple(p.rollout for p in self.parameters for _ in range(p.size))

    def fields(self, z: Array) -> dict[str, Array]:
        """The MuJoCo model fields at z (..., n) that some parameter changes, as whole arrays (..., *shape).

        Full inertias are in "body_inertia_full" (..., nbody, 3, 3) [kg m^2], about the centre of mass in body axes. They are
        NaN for unchanged bodies. If recordings have their own values, see `expansion`.
        """
        if self.local:
            return self.shared.fields(self._mean(z))
        flat = self._scatter(z, lambda field: field not in SIGNALS)
        for kind in ("site", "body"):
            if f"{kind}_turn" in flat:
                flat[f"{kind}_quat"] = turned(np.asarray(getattr(self.mj, f"{kind}_quat")), flat.pop(f"{kind}_turn"))
        if "motor_inductance" in flat:
            self._electrical(flat, z)
        return flat

    def _electrical(self, flat: dict[str, Array], z: Array) -> None:
        """Replace inductances by electrical time constants, inductance over resistance, in `flat`."""
        xp, inductance = z.__array_namespace__(), flat.pop("motor_inductance")
        gains, dynamics = (
            flat[name] if name in flat else xp.broadcast_to(xp.asarray(start), (*z.shape[:-1], *start.shape))
            for name, start in ((n, self._nominal(n)) for n in ("actuator_gainprm", "actuator_dynprm"))
        )
        freed = np.isin(np.arange(self.mj.actuator_dynprm.shape[0]), self.freed("motor_inductance"))
        time = xp.where(freed, inductance / xp.where(freed, gains[..., 0], 1.0), dynamics[..., 0])
        flat["actuator_dynprm"] = xp.concatenate([time[..., None], dynamics[..., 1:]], -1)

    def signals(self, z: Array) -> dict[str, Array]:
        """The `signals.SIGNALS` at z (..., n) that some parameter or the model changes, as whole arrays (..., k)."""
        if self.local:
            return self.shared.signals(self._mean(z))
        found = self._scatter(z, lambda field: field in SIGNALS)
        xp = z.__array_namespace__()
        for field, delay in self.delays.items():
            if field not in found and np.any(delay):
                found[field] = xp.broadcast_to(xp.asarray(delay), (*z.shape[:-1], len(delay)))
        if len(self.gains) and "controller_gain" not in found:
            values = xp.asarray(self.gains.values)
            found["controller_gain"] = xp.broadcast_to(values, (*z.shape[:-1], len(self.gains)))
        return found

    def written(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """`fields` at z (n,), and the delays: all values that MJCF can store."""
        signals = self.signals(z)
        return self.fields(z) | {name: signals[name] for name in self.delays if name in signals}

    def _scatter(self, z: Array, wanted: Callable[[str], bool]) -> dict[str, Array]:
        xp, lead = z.__array_namespace__(), z.shape[:-1]
        flat: dict[str, Array] = {}

        def put(field: str, at: tuple[int, ...], value: Array) -> None:
            if field not in flat:
                start = self._nominal(field).ravel()
                flat[field] = xp.broadcast_to(xp.asarray(start), (*lead, start.size))
                if xp is np:
                    flat[field] = flat[field].copy()
            where = (..., list(at))
            if xp is np:
                flat[field][where] = value
            else:
                flat[field] = flat[field].at[where].set(value)

        blocks = self.split(z)
        for p in self.parameters:
            for slot in p.slots:
                if wanted(slot.field):
                    put(slot.field, slot.at, slot.factor * blocks[p.path])
            if p.factor is not None and wanted("body_inertia_full"):
                mass, com, tensor = body_from_coordinates(blocks[p.path], p.factor)
                put("body_mass", (p.body,), mass[..., None])
                put("body_ipos", tuple(range(3 * p.body, 3 * p.body + 3)), com)
                nine = tuple(range(9 * p.body, 9 * p.body + 9))
                put("body_inertia_full", nine, tensor.reshape((*lead, 9)))
        return {name: value.reshape((*lead, *self._nominal(name).shape)) for name, value in flat.items()}

    def _nominal(self, field: str) -> np.ndarray:
        if field == "body_inertia_full":
            return np.full((self.mj.nbody, 3, 3), np.nan)
        if field == "controller_gain":
            return self.gains.values
        return self.delays[field] if field in self.delays else nominal(self.mj, field)

    def longest(self, field: str) -> float:
        """The largest delay [s] that the search can reach, for "sensor_delay" or "actuator_delay"."""
        freed = [p.high[0] for p in self.parameters if any(slot.field == field for slot in p.slots)]
        return float(max([*freed, *self.delays.get(field, ())], default=0.0))

    def sensors(self, z: Array, addresses: np.ndarray) -> tuple[Array, Array]:
        """Scale and bias (..., ny) at z (..., n) of the channels at `addresses` (ny,) in sensordata.

        A channel reports scale * reading + bias.
        """
        xp, signals = z.__array_namespace__(), self.signals(z)
        shape = (*z.shape[:-1], len(addresses))
        found = []
        for name, default in (("sensor_scale", xp.ones(shape)), ("sensor_bias", xp.zeros(shape))):
            found.append(signals[name][..., addresses] if name in signals else default)
        return found[0], found[1]

    def late(self, z: Array, addresses: np.ndarray) -> Array | None:
        """Delay [s] of each channel (..., ny) at z (..., n), or None if no sensor has a delay."""
        signals = self.signals(z)
        if "sensor_delay" not in signals:
            return None
        return signals["sensor_delay"][..., sensor_ids(self.mj, addresses)]


def pack(
    declarations: Iterable[Declaration], robot: Robot, rollouts: Sequence[str] = (), gains: Gains = NO_GAINS
) -> ParameterVector:
    """Declare every path and pack the blocks in the order given.

    rollouts: the recordings that `log/NAME/PATH` may name.
    gains: the numbers that `controller/ACTUATOR/SIGNAL` may name.

    Raises:
      DsoError: nothing is freed, a path is unknown or has invalid bounds, or two declarations free the same number.
    """
    parameters = [p for d in declarations for p in declare(d, robot, rollouts, gains)]
    if not parameters:
        raise DsoError(
            f"nothing is free, so there is nothing to identify in {robot.source}; name at least one parameter with --free "
            "PATH (`dso parameters MODEL` lists them)."
        )
    owners: dict[tuple[str, int], list[Parameter]] = {}
    for p in parameters:
        for place in _places(p):
            for other in owners.setdefault(place, []):
                if "" in (p.rollout, other.rollout) or p.rollout == other.rollout:
                    if p.path == other.path:
                        raise DsoError(f"{p.path}: frees the same number twice; keep one of the two declarations.")
                    raise DsoError(
                        f"{p.path}: frees the same number of the model as {other.path}; keep one of the two declarations."
                    )
            owners[place].append(p)
    moved = {place[1] // 3 for p in parameters for place in _places(p) if place[0] in ("body_ipos", "body_inertia")}
    delays = {field: nominal(robot.mj, field) for field in ("sensor_delay", "actuator_delay")}
    model = without_delays(without_shortcuts(robot, sorted(moved))).mj
    return ParameterVector(tuple(parameters), model, delays, tuple(rollouts), gains)


def _places(parameter: Parameter) -> list[tuple[str, int]]:
    places = [(slot.field, i) for slot in parameter.slots for i in slot.at]
    if parameter.factor is not None:
        b = parameter.body
        places += [("body_mass", b), *(("body_ipos", 3 * b + i) for i in range(3))]
        places += [("body_inertia", 3 * b + i) for i in range(3)]
    return places


def _quantity(parameter: Parameter) -> str:
    return parameter.path.removeprefix(f"log/{parameter.rollout}/") if parameter.rollout else parameter.path


def sensor_ids(model: mujoco.MjModel, addresses: np.ndarray) -> np.ndarray:
    """The sensor id of each channel (ny,), from the channels' `addresses` in `sensordata`."""
    return np.searchsorted(model.sensor_adr, addresses, side="right") - 1


def values(vector: ParameterVector, z: np.ndarray) -> Mapping[str, float]:
    """Physical numbers at z (n,) by label."""
    return {label: float(value) for label, (value, _) in vector.report(np.asarray(z, float)).items()}
