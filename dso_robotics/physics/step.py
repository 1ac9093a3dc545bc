"""One time step and its sensors as differentiable functions, made of MJX's stages and this package's repairs.

Every function is a pure function of a model and a state. It can be differentiated by any floating-point field of the model.
Functions are unbatched: apply `jax.jit` and `jax.vmap` outside.

`products` is always the optional (nbody, 3) array of the off-diagonal elements (xy, xz, yz) [kg m²] of each body's inertia
tensor in its inertial frame, in addition to the diagonal `body_inertia`. It makes a full tensor differentiable. The principal
axes `body_iquat` are not differentiable where two principal moments coincide.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError
from dso_robotics.physics import newton, stages
from dso_robotics.physics.backend import forward as mjx_forward
from dso_robotics.physics.backend import mjx, replaced, sensor, smooth, support
from dso_robotics.physics.contact import collide
from dso_robotics.physics.divergence import State, guarded
from dso_robotics.physics.implicit import end_of_step_acceleration
from dso_robotics.physics.linear import solve_spd

Products = Float[Array, "nbody 3"]


def make_state(
    model: mjx.Model,
    qpos: Float[Array, " nq"] | None = None,
    qvel: Float[Array, " nv"] | None = None,
    act: Float[Array, " na"] | None = None,
) -> State:
    """A state at time 0; by default at the model's reference configuration and at rest."""
    return State(
        qpos=jnp.asarray(model.qpos0 if qpos is None else qpos),
        qvel=jnp.zeros(model.nv) if qvel is None else jnp.asarray(qvel),
        act=jnp.zeros(model.na) if act is None else jnp.asarray(act),
        warmstart=jnp.zeros(model.nv),
        time=jnp.zeros(()),
    )


def advance(model: mjx.Model, state: State, ctrl: Float[Array, " nu"], *, products: Products | None = None) -> State:
    """The state one time step later under `ctrl`. Its derivative is zero where it has `diverged`."""
    return _rematerialised(_plain)(model, state, ctrl, products)[0]


def advance_measured(
    model: mjx.Model, state: State, ctrl: Float[Array, " nu"], *, products: Products | None = None
) -> tuple[State, Float[Array, " nsensordata"]]:
    """`advance`, and `measure` of the state before the step, for the cost of one forward pass."""
    return _rematerialised(_measured)(model, state, ctrl, products)


def measure(
    model: mjx.Model, state: State, ctrl: Float[Array, " nu"], *, products: Products | None = None
) -> Float[Array, " nsensordata"]:
    """The reading of every sensor at `state` under `ctrl`, as in mj_forward. Only the necessary stages run."""
    return _readings(model, state, ctrl, products)


@jax.jit  # for its cache, as `_plain`
def _readings(model: mjx.Model, state: State, ctrl: Array, products: Products | None) -> Array:
    data = _data(model, state, ctrl)
    if model.nsensor == 0:
        return data.sensordata
    needed = int(model.sensor_needstage.max())
    if needed >= int(mujoco.mjtStage.mjSTAGE_ACC):
        return forward(model, data, products=products, external=False, sensors=True).sensordata
    if products is not None:
        _refuse_products(model, forces=False, sensors=True)
    data = stages.configuration(model, data, products)
    data = smooth.camlight(model, data)
    if (model.sensor_type == int(mujoco.mjtSensor.mjSENS_CONTACT)).any():
        data = collide(model, data)
    data = sensor.sensor_pos(model, data)
    if needed >= int(mujoco.mjtStage.mjSTAGE_VEL):
        data = sensor.sensor_vel(model, _velocity(model, data))
    return data.sensordata


def actuation(
    model: mjx.Model, state: State, ctrl: Float[Array, " nu"], *, products: Products | None = None
) -> tuple[Float[Array, " nu"], Float[Array, " nu"]]:
    """Force and velocity of every actuator at `state` under `ctrl`, as in mj_forward."""
    return _actuation(model, state, ctrl, products)


@jax.jit  # for its cache, as `_plain`
def _actuation(model: mjx.Model, state: State, ctrl: Array, products: Products | None) -> tuple[Array, Array]:
    data = _velocity(model, stages.configuration(model, _data(model, state, ctrl), products))
    return mjx_forward.fwd_actuation(model, data).actuator_force, data._impl.actuator_velocity


def step(
    model: mjx.Model,
    data: mjx.Data,
    *,
    products: Products | None = None,
    external: bool = True,
    sensors: bool = False,
) -> mjx.Data:
    """`data` one time step later. qpos, qvel, act, time and warm start are new; `sensordata` (if `sensors`) is from before.

    `external=False` leaves out the forces in `xfrc_applied` and `qfrc_applied`, which saves time when there are none.
    """

    def run(data: mjx.Data, sensors: bool) -> mjx.Data:
        return forward(model, data, products=products, external=external, sensors=sensors)

    if model.opt.integrator == mjx.IntegratorType.RK4:
        return _runge_kutta(model, data, run, sensors)
    data = run(data, sensors)
    acceleration = end_of_step_acceleration(model, data)
    return _move(model, data, data.act_dot, acceleration, data.qvel + model.opt.timestep * acceleration)


def forward(
    model: mjx.Model,
    data: mjx.Data,
    *,
    products: Products | None = None,
    external: bool = True,
    sensors: bool = False,
) -> mjx.Data:
    """Accelerations and constraint forces at the state and control in `data`, and `sensordata` if `sensors`."""
    if products is not None:
        _refuse_products(model, forces=True, sensors=sensors)
    data = stages.configuration(model, data, products)
    data = smooth.crb(model, data)
    data = smooth.tendon_armature(model, data)
    data = collide(model, data)
    if sensors:
        data = sensor.sensor_pos(model, smooth.camlight(model, data))
    data = _velocity(model, data)
    data = stages.make_constraint(model, data)
    data = stages.passive(model, data)
    data = smooth.rne(model, data)
    data = smooth.tendon_bias(model, data)
    if sensors:
        data = sensor.sensor_vel(model, data)
    data = mjx_forward.fwd_actuation(model, data)

    total = data.qfrc_passive - data.qfrc_bias + data.qfrc_actuator
    if external:
        total = total + data.qfrc_applied + support.xfrc_accumulate(model, data)
    data = data.replace(qfrc_smooth=total)
    data = data.replace(qacc_smooth=_unconstrained(model, data))
    if data._impl.efc_J.size:
        data = newton.solve(model, data)
    else:
        data = data.replace(qacc=data.qacc_smooth, qfrc_constraint=jnp.zeros(model.nv))
    return sensor.sensor_acc(model, data) if sensors else data


@jax.jit  # for its cache: derivatives and scans trace the step several times, and tracing it takes seconds
def _plain(model: mjx.Model, state: State, ctrl: Array, products: Products | None) -> tuple[State, None]:
    return _state(step(model, _data(model, state, ctrl), products=products, external=False)), None


@jax.jit
def _measured(model: mjx.Model, state: State, ctrl: Array, products: Products | None) -> tuple[State, Array]:
    data = step(model, _data(model, state, ctrl), products=products, external=False, sensors=True)
    return _state(data), data.sensordata


def _rematerialised(run: Callable[..., tuple[State, Any]]) -> Callable[..., tuple[State, Any]]:
    """`run` of one step, computed again in the reverse pass instead of stored, except the solution for the acceleration.

    The step makes hundreds of small arrays. Storing and loading them takes longer than computing them again.
    """
    policy = jax.checkpoint_policies.save_only_these_names(newton.SOLUTION)
    # A scan separates the two passes, so the compiler cannot merge their common subexpressions: no need to prevent it.
    return jax.checkpoint(functools.partial(guarded, run), policy=policy, prevent_cse=False)


def _data(model: mjx.Model, state: State, ctrl: Float[Array, " nu"]) -> mjx.Data:
    return mjx.make_data(model).replace(
        qpos=state.qpos,
        qvel=state.qvel,
        act=state.act,
        qacc_warmstart=state.warmstart,
        time=state.time,
        ctrl=ctrl,
    )


def _state(data: mjx.Data) -> State:
    return State(
        qpos=data.qpos,
        qvel=data.qvel,
        act=data.act,
        warmstart=jax.lax.stop_gradient(data.qacc_warmstart),
        time=data.time,
    )


def _velocity(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    data = replaced(
        data,
        {
            "_impl.actuator_velocity": data._impl.actuator_moment @ data.qvel,
            "_impl.ten_velocity": data._impl.ten_J @ data.qvel,
        },
    )
    return smooth.com_vel(model, data)


def _refuse_products(model: mjx.Model, *, forces: bool, sensors: bool) -> None:
    """Refuse features that read principal moments and axes: they would ignore the products of inertia."""
    cure = "Use the C engine (--engine mujoco), or leave the inertia's products at zero (free the mass alone)."
    if forces and model.opt._impl.has_fluid_params:
        raise DsoError(
            f"fluid drag depends on the principal axes of a body, so on MJX it does not work with a full inertia tensor. {cure}"
        )
    if sensors and (model.sensor_type == int(mujoco.mjtSensor.mjSENS_SUBTREEANGMOM)).any():
        raise DsoError(
            f"on MJX a subtreeangmom sensor does not work with a full inertia tensor: remove the sensor. {cure}"
        )


def _unconstrained(model: mjx.Model, data: mjx.Data) -> Float[Array, " nv"]:
    """Acceleration without constraints [m/s², rad/s²]."""
    if support.is_sparse(model):
        return smooth.solve_m(model, smooth.factor_m(model, data), data.qfrc_smooth)
    return solve_spd(data._impl.M, data.qfrc_smooth)


def _move(
    model: mjx.Model,
    data: mjx.Data,
    act_dot: Float[Array, " na"],
    acceleration: Float[Array, " nv"],
    velocity: Float[Array, " nv"],
) -> mjx.Data:
    """The state after a time step at `act_dot` and `acceleration`; the position changes at `velocity`."""
    return data.replace(
        act=mjx_forward._next_activation(model, data, act_dot),
        qvel=data.qvel + model.opt.timestep * acceleration,
        qpos=stages.integrate_position(model, data.qpos, velocity, model.opt.timestep),
        time=data.time + model.opt.timestep,
        qacc_warmstart=data.qacc,
    )


def _runge_kutta(model: mjx.Model, data: mjx.Data, run, sensors: bool) -> mjx.Data:
    """Classical Runge-Kutta of order 4; sensors are read in its first stage."""
    start, dt = data, model.opt.timestep
    data = run(data, sensors)
    first = data

    def stage(carry, tableau):
        data, sums = carry
        part, weight = tableau
        velocity = data.qvel
        data = start.replace(
            qpos=stages.integrate_position(model, start.qpos, part * velocity, dt),
            qvel=start.qvel + part * dt * data.qacc,
            act=start.act + part * dt * data.act_dot,
            time=start.time + part * dt,
            qacc=data.qacc,
            act_dot=data.act_dot,
            qacc_warmstart=data.qacc,
        )
        found = run(data, False)
        data = data.replace(qacc=found.qacc, act_dot=found.act_dot)
        rates = (data.qvel, data.qacc, data.act_dot)
        return (data, jax.tree.map(lambda total, rate: total + weight * rate, sums, rates)), None

    sums = jax.tree.map(lambda rate: rate / 6, (data.qvel, data.qacc, data.act_dot))
    begin = start.replace(qacc=data.qacc, act_dot=data.act_dot)
    tableau = (np.array([0.5, 0.5, 1.0]), np.array([1 / 3, 1 / 3, 1 / 6]))
    (_, (velocity, acceleration, act_dot)), _ = jax.lax.scan(stage, (begin, sums), tableau)
    return _move(model, first, act_dot, acceleration, velocity)
