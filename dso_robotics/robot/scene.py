"""The inputs of costs and observations: a state of the robot, the control that led to it, and quantities computed from both."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError
from dso_robotics.physics import stages
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.robot.watch import SENSORS


class Scene:
    """One unbatched state with its control. Kinematics and sensors are computed once, at first use.

    mj: the model's names and sizes.
    model, products: as in `physics.step`; `model` may be a function that gives both, called when one is first needed.
    state: qpos, qvel, act, time.
    ctrl: the control that led to this state, (nu,).
    before: the previous control, (nu,).
    task: the episode's task numbers, (k,).
    shown: on the C engine, which simulates and reads, a function of what is read and the object's id (see `robot.watch`).
    divergence: KL divergence of the policy's action in this state from the passive chain's, if there is a policy.
    surprise: negative log-likelihood of this state's reading under the estimator's prediction, if there is an estimator.
    certainty: KL divergence of the control from a uniform one, if there is a policy.
    proximity: KL divergence of an earlier policy's action from this policy's, if there is a policy.
    reach: the argument of tanh that the policy gives in this state, (nu,), if there is a policy.
    number: the number of the mechanism of a given name, if there is a mechanism.
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
        shown: Callable[[str, int], Array] | None = None,
        *,
        certainty: Callable[[], Array] | None = None,
        proximity: Callable[[], Array] | None = None,
        reach: Callable[[], Array] | None = None,
        number: Callable[[str], Array] | None = None,
    ):
        self.mj = mj
        self._given = model if callable(model) else lambda: (model, products)
        self.state, self.ctrl, self.before, self.task = state, ctrl, before, task
        self.divergence, self.surprise, self._shown = divergence, surprise, shown
        self.certainty, self.proximity, self.reach = certainty, proximity, reach
        self._number = number

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
        """Poses of bodies, geoms and sites at the state (xpos, xmat, site_xpos, ...). Raises DsoError on the C engine."""
        if self._shown is not None:
            raise DsoError(
                "scene.kinematics is of the MJX engine; use scene.body_place(i), body_turn, body_velocity, site_place or "
                'sensors, or write engine = "mjx".'
            )
        data = mjx.make_data(self.model).replace(qpos=self.state.qpos, qvel=self.state.qvel)
        return stages.configuration(self.model, data, self.products)

    @functools.cached_property
    def _actuation(self) -> tuple[Float[Array, " nu"], Float[Array, " nu"]]:
        return physics.actuation(self.model, self.state, self.ctrl, products=self.products)

    def actuator_force(self, actuator: int) -> Float[Array, "1"]:
        """Force of an actuator in the state, under the control that led to it."""
        k = slice(actuator, actuator + 1)
        return self._actuation[0][k] if self._shown is None else self._shown("actuator force", actuator)

    def actuator_speed(self, actuator: int) -> Float[Array, "1"]:
        """Velocity of an actuator's length in the state."""
        k = slice(actuator, actuator + 1)
        return self._actuation[1][k] if self._shown is None else self._shown("actuator speed", actuator)

    @functools.cached_property
    def sensors(self) -> Float[Array, " nsensordata"]:
        """Readings of all sensors in the state, under the control that led to it."""
        if self._shown is not None:
            return self._shown(SENSORS, 0)
        return physics.measure(self.model, self.state, self.ctrl, products=self.products)

    def number(self, name: str) -> Float[Array, ""]:
        """A number of the mechanism, such as "actuator/knee/gear[0]". Raises DsoError without a mechanism."""
        if self._number is None:
            raise DsoError(f"{name}: the scene has no mechanism, so there is no number to read.")
        return self._number(name)

    def body_place(self, body: int) -> Float[Array, "3"]:
        """Place of a body's centre of mass [m]."""
        return self.kinematics.xipos[body] if self._shown is None else self._shown("body place", body)

    def body_origin(self, body: int) -> Float[Array, "3"]:
        """Place of the origin of a body's frame [m]."""
        return self.kinematics.xpos[body] if self._shown is None else self._shown("body origin", body)

    def body_turn(self, body: int) -> Float[Array, "3 3"]:
        """The rotation matrix of a body, whose columns are its axes."""
        if self._shown is None:
            return self.kinematics.xmat[body].reshape(3, 3)
        return self._shown("body axes", body).reshape(3, 3).T

    def body_velocity(self, body: int) -> Float[Array, "3"]:
        """Velocity of a body's centre of mass in the world [m/s]."""
        return self._motion(body)[0] if self._shown is None else self._shown("body velocity", body)

    def body_spin(self, body: int) -> Float[Array, "3"]:
        """Angular velocity of a body in the world [rad/s]."""
        return self._motion(body)[1] if self._shown is None else self._shown("body spin", body)

    def _motion(self, body: int) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
        """Velocity and angular velocity: derivatives of the pose along the motion."""
        model, products = self.model, self.products

        def pose(dt: Array) -> tuple[Array, Array]:
            qpos = stages.integrate_position(model, self.state.qpos, self.state.qvel, dt)
            state = eqx.tree_at(lambda s: s.qpos, self.state, qpos)
            moved = Scene(self.mj, model, products, state, self.ctrl, self.before, self.task)
            return moved.body_place(body), moved.body_turn(body)

        (_, turn), (velocity, change) = jax.jvp(pose, (jnp.zeros(()),), (jnp.ones(()),))
        spin = change @ turn.T
        return velocity, jnp.stack([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]) / 2

    def site_place(self, site: int) -> Float[Array, "3"]:
        """Place of a site [m]."""
        return self.kinematics.site_xpos[site] if self._shown is None else self._shown("site place", site)

    def geom_place(self, geom: int) -> Float[Array, "3"]:
        """Place of a geom [m]."""
        return self.kinematics.geom_xpos[geom] if self._shown is None else self._shown("geom place", geom)

    def geom_turn(self, geom: int) -> Float[Array, "3 3"]:
        """The rotation matrix of a geom, whose columns are its axes."""
        if self._shown is None:
            return self.kinematics.geom_xmat[geom].reshape(3, 3)
        return self._shown("geom axes", geom).reshape(3, 3).T
