"""The one vector: named blocks packed into a flat array, bounds, smooth transforms, priors, and names back.

Two coordinates of the same numbers are offered. `z` are the bounded physical coordinates, in which least squares with box
bounds works; `theta` are unconstrained ones, in which any gradient method works. `constrain` and `unconstrain` map them.
Functions that take z serve NumPy (with leading batch axes) and JAX (one vector, vmap outside) alike.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters import box
from dso_robotics.parameters.gains import NO_GAINS, Gains
from dso_robotics.parameters.parameter import Parameter, Prior, declare
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.signals import SIGNALS, nominal
from dso_robotics.physics.inertia import COORDINATES, body_from_coordinates, turned
from dso_robotics.physics.model import Robot, without_delays, without_shortcuts

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True)
class ParameterVector:
    """Blocks `parameters`, in order, of the model `mj`.

    `mj` itself delays nothing: `delays` holds what the model declares as sensor_delay (nsensor,) and actuator_delay (nu,) [s].
    `recordings` are those that may have values of their own; `gains` the numbers of controllers, freed or not.
    """

    parameters: tuple[Parameter, ...]
    mj: mujoco.MjModel
    delays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    recordings: tuple[str, ...] = ()
    gains: Gains = NO_GAINS

    @property
    def size(self) -> int:
        """Number of coordinates n."""
        return sum(p.size for p in self.parameters)

    def _stack(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(p, name) for p in self.parameters]) if self.parameters else np.zeros(0)

    @property
    def initial(self) -> np.ndarray:
        """Start coordinates (n,)."""
        return self._stack("initial")

    @property
    def low(self) -> np.ndarray:
        """Lower bounds (n,)."""
        return self._stack("low")

    @property
    def high(self) -> np.ndarray:
        """Upper bounds (n,)."""
        return self._stack("high")

    @property
    def scale(self) -> np.ndarray:
        """Typical sizes (n,): the unit of finite-difference steps and trust regions."""
        return self._stack("scale")

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """One name a coordinate: the path, with the log-Cholesky coordinate where a block is a full inertia."""
        return tuple(
            name
            for p in self.parameters
            for name in ([f"{p.path}[{c}]" for c in COORDINATES] if p.factor is not None else p.labels)
        )

    def split(self, z: Array) -> dict[str, Array]:
        """Coordinates by path, (..., k) each."""
        blocks, start = {}, 0
        for p in self.parameters:
            blocks[p.path] = z[..., start : start + p.size]
            start += p.size
        return blocks

    def report(self, z: Array) -> dict[str, tuple[Array, str]]:
        """Physical numbers: label -> (value (...), unit)."""
        blocks = self.split(z)
        numbers = {}
        for p in self.parameters:
            physical = p.report(blocks[p.path])
            numbers |= {label: (physical[..., i], p.units[i]) for i, label in enumerate(p.labels)}
        return numbers

    @functools.cached_property
    def shared(self) -> "ParameterVector":
        """One block for every quantity of the model, whether all recordings share its value or each has its own."""
        quantities: dict[str, Parameter] = {}
        for p in self.parameters:
            quantities.setdefault(_quantity(p), dataclasses.replace(p, path=_quantity(p), rollout=""))
        return ParameterVector(tuple(quantities.values()), self.mj, self.delays, gains=self.gains)

    def expansion(self, rollouts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(R, m, n) matrices and (R, m) offsets that give `shared`'s coordinates in each of `rollouts`.

        Where every fitted recording has a value of its own, one that was held out has their mean; where only some have, the
        others keep the model's.
        """
        siblings: dict[str, list[tuple[Parameter, int]]] = {}
        for p, at in zip(self.parameters, _offsets(self.parameters), strict=True):
            siblings.setdefault(_quantity(p), []).append((p, at))
        shared = self.shared
        matrices = np.zeros((len(rollouts), shared.size, self.size))
        offsets = np.zeros((len(rollouts), shared.size))
        for q, row in zip(shared.parameters, _offsets(shared.parameters), strict=True):
            family = siblings[q.path]
            everyone = {p.rollout for p, _ in family} >= set(self.recordings)
            for r, name in enumerate(rollouts):
                mine = [at for p, at in family if p.rollout in ("", name)] or [at for _, at in family if everyone]
                for at in mine:
                    matrices[r, row : row + q.size, at : at + q.size] = np.eye(q.size) / len(mine)
                if not mine:
                    offsets[r, row : row + q.size] = q.nominal
        return matrices, offsets

    def _mean(self, z: Array) -> Array:
        """`shared`'s coordinates in a recording that was not fitted."""
        matrices, offsets = self.expansion([""])
        return z @ matrices[0].T + offsets[0]

    @property
    def local(self) -> bool:
        """Whether some recording has a value of its own."""
        return any(p.rollout for p in self.parameters)

    @property
    def owner(self) -> tuple[str, ...]:
        """The recording (or "") each coordinate (n,) belongs to."""
        return tuple(p.rollout for p in self.parameters for _ in range(p.size))

    def fields(self, z: Array) -> dict[str, Array]:
        """MuJoCo model fields at z (..., n), whole arrays (..., *shape) of the fields that some parameter changes.

        Full inertias come as "body_inertia_full" (..., nbody, 3, 3) [kg m^2] about the centre of mass in body axes, NaN
        for the bodies that keep theirs. Where recordings have values of their own, see `expansion`.
        """
        if self.local:
            return self.shared.fields(self._mean(z))
        flat = self._scatter(z, lambda field: field not in SIGNALS)
        for kind in ("site", "body"):
            if f"{kind}_turn" in flat:
                flat[f"{kind}_quat"] = turned(np.asarray(getattr(self.mj, f"{kind}_quat")), flat.pop(f"{kind}_turn"))
        return flat

    def signals(self, z: Array) -> dict[str, Array]:
        """`signals.SIGNALS` at z (..., n), whole arrays (..., k) of those that some parameter or the model changes."""
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
        """`fields` at z (n,), and the delays: all that MJCF has a place for."""
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
                    put(slot.field, slot.at, slot.sign * blocks[p.path])
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
        """The largest delay [s] the search can reach, "sensor_delay" or "actuator_delay"."""
        freed = [p.high[0] for p in self.parameters if any(slot.field == field for slot in p.slots)]
        return float(max([*freed, *self.delays.get(field, ())], default=0.0))

    def prior_residual(self, z: Array) -> Array:
        """(z - mean)/std of every coordinate that has a prior, (..., m): half its square sum is -log p(theta) + const."""
        prior, which = self.prior
        xp = z.__array_namespace__()
        at, mean = z[..., which], xp.asarray(prior.mean)
        positive = xp.maximum(xp.where(prior.log, at / np.where(prior.log, prior.mean, 1.0), 1.0), 1e-300)
        return xp.where(prior.log, xp.log(positive), at - mean) / prior.std

    def prior_slope(self, z: np.ndarray) -> np.ndarray:
        """Derivative (m, n) of `prior_residual`."""
        prior, which = self.prior
        slope = np.zeros((len(which), self.size))
        slope[np.arange(len(which)), which] = 1 / (prior.std * np.where(prior.log, np.maximum(z[which], 1e-300), 1.0))
        return slope

    @property
    def prior(self) -> tuple[Prior, np.ndarray]:
        """The priors of all coordinates that have one, as one, and the index (m,) of these coordinates."""
        found = [
            (p.prior, at + np.arange(p.size))
            for p, at in zip(self.parameters, _offsets(self.parameters), strict=True)
            if p.prior
        ]
        none = Prior(np.zeros(0), np.zeros(0), np.zeros(0, bool)), np.zeros(0, int)
        priors, places = zip(none, *found, strict=True)
        joined = (np.concatenate([getattr(prior, name) for prior in priors]) for name in ("mean", "std", "log"))
        return Prior(*joined), np.concatenate(places)

    def constrain(self, theta: Array) -> Array:
        """z of unconstrained theta (..., n): softplus above one bound, logistic between two, identity with none."""
        return box.constrain(theta, self.low, self.high, self.scale)

    def unconstrain(self, z: np.ndarray) -> np.ndarray:
        """theta (n,) of z (n,); a value at its bound is moved inside by a thousandth of its scale."""
        return box.unconstrain(z, self.low, self.high, self.scale)


def pack(
    declarations: Iterable[Declaration], robot: Robot, rollouts: Sequence[str] = (), gains: Gains = NO_GAINS
) -> ParameterVector:
    """Declare every path and pack the blocks in the order given.

    `rollouts` are the recordings `log/NAME/PATH` may name, `gains` the numbers that `controller/ACTUATOR/SIGNAL` may name.

    Raises:
      DsoError: nothing is freed, a path is unknown or ill-bounded, or two declarations free the same number.
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


def _offsets(parameters: Sequence[Parameter]) -> list[int]:
    """Where each block starts in the vector."""
    return [0, *itertools.accumulate(p.size for p in parameters)][: len(parameters)]


def values(vector: ParameterVector, z: np.ndarray) -> Mapping[str, float]:
    """Physical numbers at z (n,) by label."""
    return {label: float(value) for label, (value, _) in vector.report(np.asarray(z, float)).items()}
