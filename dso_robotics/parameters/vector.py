"""The one vector: named blocks packed into a flat array, bounds, smooth transforms, priors, and names back.

Two coordinates of the same numbers are offered. `z` are the bounded physical coordinates, in which least squares with box
bounds works; `theta` are unconstrained ones, in which any gradient method works. `constrain` and `unconstrain` map them.
Functions that take z serve NumPy (with leading batch axes) and JAX (one vector, vmap outside) alike.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.parameter import Parameter, declare
from dso_robotics.parameters.path import Declaration
from dso_robotics.physics.inertia import COORDINATES, body_from_coordinates
from dso_robotics.physics.model import Robot, without_shortcuts

Array = Any  # a NumPy or a JAX array
# Start values at a bound begin this fraction of their scale inside it: the transforms reach a bound only at infinity.
_INSIDE = 1e-3


@dataclasses.dataclass(frozen=True)
class ParameterVector:
    """Blocks `parameters`, in order, of the model `mj`."""

    parameters: tuple[Parameter, ...]
    mj: mujoco.MjModel

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

    def fields(self, z: Array) -> dict[str, Array]:
        """MuJoCo model fields at z (..., n), whole arrays (..., *shape) of the fields that some parameter changes.

        Full inertias come as "body_inertia_full" (..., nbody, 3, 3) [kg m^2] about the centre of mass in body axes, NaN
        for the bodies that keep theirs.
        """
        xp, lead = z.__array_namespace__(), z.shape[:-1]
        flat: dict[str, Array] = {}

        def put(field: str, at: tuple[int, ...], value: Array) -> None:
            if field not in flat:
                nominal = self._nominal(field).ravel()
                flat[field] = xp.broadcast_to(xp.asarray(nominal), (*lead, nominal.size))
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
                put(slot.field, slot.at, slot.sign * blocks[p.path])
            if p.factor is not None:
                mass, com, tensor = body_from_coordinates(blocks[p.path], p.factor)
                put("body_mass", (p.body,), mass[..., None])
                put("body_ipos", tuple(range(3 * p.body, 3 * p.body + 3)), com)
                nine = tuple(range(9 * p.body, 9 * p.body + 9))
                put("body_inertia_full", nine, tensor.reshape((*lead, 9)))
        return {name: value.reshape((*lead, *self._nominal(name).shape)) for name, value in flat.items()}

    def _nominal(self, field: str) -> np.ndarray:
        if field == "body_inertia_full":
            return np.full((self.mj.nbody, 3, 3), np.nan)
        return np.asarray(getattr(self.mj, field), float)

    def sensor_bias(self, z: Array) -> Array:
        """What is added to each entry of sensordata, (..., nsensordata), in the sensors' units."""
        xp = z.__array_namespace__()
        columns = np.zeros((self.size, self.mj.nsensordata))
        start = 0
        for p in self.parameters:
            if p.sensor >= 0:
                first = int(self.mj.sensor_adr[p.sensor])
                columns[start, first : first + int(self.mj.sensor_dim[p.sensor])] = 1.0
            start += p.size
        return xp.matmul(z, xp.asarray(columns))

    def prior_residual(self, z: Array) -> Array:
        """(z - mean)/std of every coordinate that has a prior, (..., m): half its square sum is -log p(theta) + const."""
        mean, std, which = self.prior
        return (z[..., which] - z.__array_namespace__().asarray(mean)) / std

    @property
    def prior(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean (m,), standard deviation (m,) and coordinate index (m,) of the normal priors."""
        mean, std, which, start = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, int)], 0
        for p in self.parameters:
            if p.prior is not None:
                mean.append(p.prior.mean)
                std.append(p.prior.std)
                which.append(np.arange(start, start + p.size))
            start += p.size
        return np.concatenate(mean), np.concatenate(std), np.concatenate(which)

    def constrain(self, theta: Array) -> Array:
        """z of unconstrained theta (..., n): softplus above one bound, logistic between two, identity with none."""
        xp = theta.__array_namespace__()
        low, high, scale = (np.where(np.isfinite(v), v, 0.0) for v in (self.low, self.high, self.scale))
        has_low, has_high = np.isfinite(self.low), np.isfinite(self.high)
        soft = xp.logaddexp(theta, xp.zeros_like(theta))
        between = low + (high - low) / (1 + xp.exp(-theta))
        above = low + scale * soft
        below = high - scale * xp.logaddexp(-theta, xp.zeros_like(theta))
        one = xp.where(has_low, above, xp.where(has_high, below, scale * theta))
        return xp.where(has_low & has_high, between, one)

    def unconstrain(self, z: np.ndarray) -> np.ndarray:
        """theta (n,) of z (n,); a value at its bound is moved inside by a thousandth of its scale."""
        low, high, scale = self.low, self.high, self.scale
        span = np.where(np.isfinite(high - low), high - low, scale)
        inside = _INSIDE * np.minimum(scale, span)
        z = np.clip(z, low + inside, high - inside)
        with np.errstate(invalid="ignore", divide="ignore"):
            between = np.log((z - low) / (high - z))
            above = _softplus_inverse((z - low) / scale)
            below = -_softplus_inverse((high - z) / scale)
        has_low, has_high = np.isfinite(low), np.isfinite(high)
        one = np.where(has_low, above, np.where(has_high, below, z / scale))
        return np.where(has_low & has_high, between, one)


def pack(declarations: Iterable[Declaration], robot: Robot) -> ParameterVector:
    """Declare every path and pack the blocks in the order given.

    Raises:
      DsoError: nothing is freed, a path is unknown or ill-bounded, or two declarations free the same number.
    """
    parameters = [p for d in declarations for p in declare(d, robot)]
    if not parameters:
        raise DsoError(
            f"nothing is free, so there is nothing to identify in {robot.source}; name at least one parameter with --free "
            "PATH (`dso parameters MODEL` lists them)."
        )
    owners: dict[tuple[str, int], str] = {}
    for p in parameters:
        for place in _places(p):
            if place in owners:
                raise DsoError(
                    f"{p.path}: frees the same number of the model as {owners[place]}; keep one of the two declarations."
                )
            owners[place] = p.path
    moved = {place[1] // 3 for p in parameters for place in _places(p) if place[0] in ("body_ipos", "body_inertia")}
    return ParameterVector(tuple(parameters), without_shortcuts(robot, sorted(moved)).mj)


def _places(parameter: Parameter) -> list[tuple[str, int]]:
    places = [(slot.field, i) for slot in parameter.slots for i in slot.at]
    if parameter.sensor >= 0:
        places.append(("sensor", parameter.sensor))
    if parameter.factor is not None:
        b = parameter.body
        places += [("body_mass", b), *(("body_ipos", 3 * b + i) for i in range(3))]
        places += [("body_inertia", 3 * b + i) for i in range(3)]
    return places


def values(vector: ParameterVector, z: np.ndarray) -> Mapping[str, float]:
    """Physical numbers at z (n,) by label."""
    return {label: float(value) for label, (value, _) in vector.report(np.asarray(z, float)).items()}


def _softplus_inverse(y: np.ndarray) -> np.ndarray:
    return y + np.log(-np.expm1(-y))
