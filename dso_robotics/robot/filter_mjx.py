"""A MuJoCo model as a differentiable system of the estimator chain, through MJX."""

import copy
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.device import put_model
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.filter_jax import FilterWindow, JaxFilter
from dso_robotics.robot.filter_mujoco import MujocoSystem


class MjxSystem(MujocoSystem):
    """A MuJoCo model on MJX.

    unconstrained: the parameters are given in the open chart of theta, in which any gradient method keeps the bounds.
    sensors: known scale, bias and delay [s] of sensors that are not parameters, (ny,) each.
    """

    model: mjx.Model
    unconstrained: bool = eqx.field(static=True)
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

    def advance(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """`substeps` time steps of MuJoCo."""
        mj, products = model[:2]
        begin = self.state(mj, state)
        if self.substeps == 1:
            end = physics.advance(mj, begin, ctrl, products=products)
        else:
            end, _ = jax.lax.scan(
                lambda s, _: (physics.advance(mj, s, ctrl, products=products), None), begin, None, length=self.substeps
            )
        return jnp.concatenate([end.qpos, end.qvel, end.act])

    def read(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """The selected channels under `ctrl`."""
        mj, products = model[:2]
        readings = physics.measure(mj, self.state(mj, state), ctrl, products=products)
        return self.reported(model, readings[np.array(self.addresses, int)])


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
