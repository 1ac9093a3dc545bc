"""A MuJoCo model as a system of the estimator chain. `CSystem` is on C MuJoCo; `filter_mjx` has the one on MJX."""

import copy
import functools
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array

from dso_robotics.data.match import quaternion_places
from dso_robotics.data.quaternion import Places
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics import step as physics
from dso_robotics.physics.c_model import OnEngine
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter_jax import System
from dso_robotics.robot.watch import SENSORS, Watch, step_on_c


class MujocoSystem(System):
    """A MuJoCo model whose physics and sensors depend on `parameters`.

    The model of the other functions is a tuple: model, products of inertia, sensor scales, biases and delays [s].

    addresses: positions of the observed channels in sensordata, (ny,).
    interval: time between updates [s], `substeps` steps of the model.
    """

    parameters: ParameterVector = eqx.field(static=True)
    addresses: tuple[int, ...] = eqx.field(static=True)
    space: Space = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    interval: float = eqx.field(static=True)
    longest: float = eqx.field(static=True)

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

    def reported(self, model: tuple[Any, ...], reading: Array) -> Array:
        """See `System.reported`."""
        return reading * model[2] + model[3]

    def move(self, state: Array, change: Array) -> Array:
        """See `Space.move`."""
        return self.space.move(state, change)

    def difference(self, start: Array, end: Array) -> Array:
        """See `Space.difference`."""
        return self.space.difference(start, end)

    def features(self, state: Array, centre: Array, scale: Array) -> Array:
        """See `Space.features`."""
        return self.space.features(state, centre, scale)

    def state(self, model: OnEngine, state: Array) -> physics.State:
        """The state (nx,) of a model, to be simulated."""
        nq, nv = self.space.nq, self.space.nv
        return physics.make_state(model, state[:nq], state[nq : nq + nv], state[nq + nv :])


class CSystem(MujocoSystem):
    """A MuJoCo model on C.

    `advance` and `read` have no derivative. Windows are simulated and linearised by `robot.forecasts`.
    """

    mj: mujoco.MjModel = eqx.field(static=True)

    def __init__(self, parameters: ParameterVector, addresses: np.ndarray, interval: float, substeps: int):
        self.mj = copy.copy(parameters.mj)
        self.mj.opt.timestep = interval / substeps
        self.parameters, self.addresses, self.space = parameters, tuple(map(int, addresses)), Space(self.mj)
        self.substeps, self.interval, self.longest = substeps, interval, parameters.longest("sensor_delay")

    @functools.cached_property
    def watch(self) -> Watch:
        """What is read of a state: the channels."""
        return Watch(self.mj, ((SENSORS, 0),), self.mj, self.addresses)

    def advance(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """`substeps` time steps of MuJoCo."""
        end = self._stepped(model, state, ctrl, self.substeps)[0]
        return jnp.concatenate([end.qpos, end.qvel, end.act])

    def read(self, model: tuple[Any, ...], state: Array, ctrl: Array) -> Array:
        """The selected channels under `ctrl`."""
        return self.reported(model, self._stepped(model, state, ctrl, 0)[1])

    def _stepped(self, model: tuple[Any, ...], state: Array, ctrl: Array, steps: int) -> tuple[physics.State, Array]:
        return step_on_c(self.watch, model[0].fields, self.state(model[0], state), ctrl, steps)
