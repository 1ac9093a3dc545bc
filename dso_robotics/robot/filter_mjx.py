"""A MuJoCo model as a differentiable system of the estimator chain, through MJX."""

import copy
import math
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.data.match import quaternion_places
from dso_robotics.data.quaternion import Places
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.device import put_model
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.filter_jax import FilterWindow, JaxFilter, System


class MjxSystem(System):
    """A MuJoCo model whose physics and sensors depend on `parameters`.

    addresses: positions of the observed channels in sensordata, (ny,).
    unconstrained: the parameters are given in the open chart of theta, in which any gradient method keeps the bounds.
    sensors: known scale, bias and delay [s] of sensors that are not parameters, (ny,) each.
    """

    model: mjx.Model
    parameters: ParameterVector = eqx.field(static=True)
    addresses: tuple[int, ...] = eqx.field(static=True)
    space: Space = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    unconstrained: bool = eqx.field(static=True)
    interval: float = eqx.field(static=True)
    longest: float = eqx.field(static=True)
    sensors: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    def __init__(
        self,
        parameters: ParameterVector,
        addresses: np.ndarray,
        interval: float,
        substeps: int,
        *,
        unconstrained: bool = False,
        sensors: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ):
        mj = copy.copy(parameters.mj)
        mj.opt.timestep = interval / substeps
        self.model = put_model(mj, friction_dofs=parameters.freed("dof_frictionloss"))
        self.parameters, self.addresses, self.space = parameters, tuple(map(int, addresses)), Space(mj)
        self.substeps, self.unconstrained, self.sensors = substeps, unconstrained, sensors
        self.interval = interval
        self.longest = parameters.longest("sensor_delay") if sensors is None else float(sensors[2].max(initial=0.0))

    def prepare(self, parameters: Float[Array, " m"]) -> tuple[Any, ...]:
        """Model, products of inertia, sensor scales, biases and delays."""
        mine = self.parameters
        z = mine.constrain(parameters) if self.unconstrained else parameters
        model, products = with_fields(self.model, mine.mj, mine.fields(z))
        if self.sensors is not None:
            return model, products, *self.sensors
        channels = np.array(self.addresses, int)
        late = mine.late(z, channels)
        late = jnp.zeros(len(channels)) if late is None else late
        return model, products, *mine.sensors(z, channels), late

    @property
    def quaternions(self) -> Places:
        """See `System.quaternions`."""
        return quaternion_places(self.parameters.mj, self.addresses)

    @property
    def oldest(self) -> int:
        """See `System.oldest`."""
        return math.ceil(self.longest / self.interval - 1e-9)

    def late(self, model: tuple[Any, ...]) -> Array:
        """See `System.late`."""
        return model[4] / self.interval

    def advance(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """`substeps` time steps of MuJoCo."""
        mj, products = model[:2]
        begin = self._state(mj, state)
        if self.substeps == 1:
            end = physics.advance(mj, begin, ctrl, products=products)
        else:
            end, _ = jax.lax.scan(
                lambda s, _: (physics.advance(mj, s, ctrl, products=products), None), begin, None, length=self.substeps
            )
        return jnp.concatenate([end.qpos, end.qvel, end.act])

    def read(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """The selected channels under `ctrl`."""
        mj, products, scale, bias, _ = model
        readings = physics.measure(mj, self._state(mj, state), ctrl, products=products)
        return readings[np.array(self.addresses, int)] * scale + bias

    def move(self, state: Array, change: Array) -> Array:
        """See `Space.move`."""
        return self.space.move(state, change)

    def difference(self, start: Array, end: Array) -> Array:
        """See `Space.difference`."""
        return self.space.difference(start, end)

    def features(self, state: Array, centre: Array, scale: Array) -> Array:
        """See `Space.features`."""
        return self.space.features(state, centre, scale)

    def _state(self, model: mjx.Model, state: Array) -> physics.State:
        nq, nv = self.space.nq, self.space.nv
        return physics.make_state(model, state[:nq], state[nq : nq + nv], state[nq + nv :])


def load_batch(folder: str | Path) -> tuple[JaxFilter, Float[Array, " n"]]:
    """Load the estimator that `dso estimate --out FOLDER` wrote, as a chain and its theta for JAX.

    `jax.vmap(chain.run, in_axes=(None, 0))(theta, windows)` filters many recordings at once. Raises DsoError like
    `Estimator.load`, and if MJX does not support the model.
    """
    runtime = Estimator.load(folder)
    learned, model = runtime.learned, runtime.model
    nothing, sensors = ParameterVector((), model), (learned.scale, learned.bias, learned.delay)
    system = MjxSystem(nothing, learned.addresses, learned.interval, learned.substeps, sensors=sensors)
    chain = JaxFilter(system, learned.corrector, learned.scales, covariance=True)
    return chain, jnp.asarray(np.concatenate([learned.weights, np.log(learned.sigma), learned.spread.ravel()]))


def jax_windows(
    windows: FilterWindows, *, warm_up: int = 0, visible: np.ndarray | None = None, lead: np.ndarray | None = None
) -> FilterWindow:
    """All windows of `windows` as one batch for `JaxFilter`. `visible` (T,) and `lead` (T,) apply to every window."""
    count, length = windows.measured.shape[:2]
    seen = np.ones(length, bool) if visible is None else visible
    counted = np.arange(length) > warm_up
    return FilterWindow(
        start=jnp.asarray(windows.start),
        ctrl=jnp.asarray(windows.ctrl),
        measured=jnp.asarray(windows.measured),
        visible=jnp.broadcast_to(jnp.asarray(seen), (count, length)),
        counted=jnp.broadcast_to(jnp.asarray(counted), (count, length)),
        truth=jnp.asarray(windows.truth),
        lead=None if lead is None else jnp.broadcast_to(jnp.asarray(lead), (count, length)),
    )
