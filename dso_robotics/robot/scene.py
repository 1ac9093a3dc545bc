"""The inputs of costs and observations: a state of the robot, the control that led to it, and quantities computed from both."""

import functools
from collections.abc import Callable
from typing import Any

import mujoco
from jaxtyping import Array, Float

from dso_robotics.physics import stages
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx


class Scene:
    """One unbatched state with its control. Kinematics and sensors are computed once, at first use.

    mj: the model's names and sizes.
    model, products: as in `physics.step`; `model` may be a function that gives both, called when one is first needed.
    state: qpos, qvel, act, time.
    ctrl: the control that led to this state, (nu,).
    before: the previous control, (nu,).
    task: the episode's task numbers, (k,).
    divergence: KL divergence of the policy's action in this state from the passive chain's, if there is a policy.
    surprise: negative log-likelihood of this state's reading under the estimator's prediction, if there is an estimator.
    """

    def __init__(
        self,
        mj: mujoco.MjModel,
        model: mjx.Model | Callable[[], tuple[mjx.Model, Array | None]],
        products: Array | None,
        state: physics.State,
        ctrl: Float[Array, " nu"],
        before: Float[Array, " nu"],
        task: Any = (),
        divergence: Callable[[], Array] | None = None,
        surprise: Callable[[], Array] | None = None,
    ):
        self.mj = mj
        self._given = model if callable(model) else lambda: (model, products)
        self.state, self.ctrl, self.before, self.task = state, ctrl, before, task
        self.divergence, self.surprise = divergence, surprise

    @functools.cached_property
    def _made(self) -> tuple[mjx.Model, Array | None]:
        return self._given()

    @property
    def model(self) -> mjx.Model:
        """The model, as in `physics.step`."""
        return self._made[0]

    @property
    def products(self) -> Array | None:
        """Its products of inertia, as in `physics.step`."""
        return self._made[1]

    @functools.cached_property
    def kinematics(self) -> mjx.Data:
        """Poses of bodies, geoms and sites at the state (xpos, xmat, site_xpos, ...)."""
        data = mjx.make_data(self.model).replace(qpos=self.state.qpos, qvel=self.state.qvel)
        return stages.configuration(self.model, data, self.products)

    @functools.cached_property
    def actuation(self) -> tuple[Float[Array, " nu"], Float[Array, " nu"]]:
        """Force and velocity of every actuator in the state, under the control that led to it."""
        return physics.actuation(self.model, self.state, self.ctrl, products=self.products)

    @functools.cached_property
    def sensors(self) -> Float[Array, " nsensordata"]:
        """Readings of all sensors in the state, under the control that led to it."""
        return physics.measure(self.model, self.state, self.ctrl, products=self.products)
