"""A closed loop of two MuJoCo models: one for the world, and one for the estimator and the design of the policy."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array

from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.model import Robot, nearest
from dso_robotics.robot.closed_loop import ClosedLoop, linear_policy, linearised
from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.estimator_start import kalman_gain, linear_model
from dso_robotics.robot.filter_jax import JaxFilter
from dso_robotics.robot.filter_mjx import MjxSystem

# Minimum process noise of the start gain, for directions without action noise [fraction of the start's spread].
_LEAST_PROCESS = 1e-3


def mujoco_loop(
    world: Robot,
    model: Robot,
    *,
    goal: Sequence[float],
    task: Callable[[Array, Array], Array],
    sensor_noise: dict[str, float],
    action_noise: float,
    start_spread: float,
    state_weight: Sequence[float],
    control_weight: float,
    corrector: str = "gain",
    units: int = 8,
    free: Sequence[Declaration] = (),
    substeps: int = 1,
    trains_policy: bool = False,
) -> tuple[ClosedLoop, np.ndarray]:
    """The loop and its initial theta: a regulator and a Kalman gain, both designed on `model` at rest at `goal` (qpos).

    task: cost of the world's state [qpos, qvel, act] and control.
    sensor_noise: standard deviation by channel, in the sensors' units. The estimator sees exactly these channels.
    action_noise: standard deviation of every control.
    start_spread: standard deviation of every tangent direction of the first state.
    state_weight, control_weight: weights of the regulator; state_weight is (2*nv+na,).
    free: physics and sensor parameters of `model` that are trained with the estimator.
    substeps: time steps of the models between two updates.

    Raises DsoError for a channel that is not in both models, a goal of the wrong size, and a model that no linear policy can
    stabilise.
    """
    mj, names = model.mj, tuple(sensor_noise)
    addresses = _addresses(model, names)
    if len(goal) != mj.nq:
        raise DsoError(f"goal has {len(goal)} numbers, but qpos of {model.source} has {mj.nq}; give as many.")
    if world.mj.opt.timestep != mj.opt.timestep or world.mj.nq != mj.nq or world.mj.nu != mj.nu:
        raise DsoError(
            f"{world.source} and {model.source} differ in time step, joints or actuators; they must be one robot's."
        )
    physics = pack(free, model) if free else ParameterVector((), mj)
    interval = mj.opt.timestep * substeps
    rest = np.concatenate([np.asarray(goal, float), np.zeros(mj.nv + mj.na)])
    hold = _hold(mj, rest)
    system = MjxSystem(physics, addresses, interval, substeps, unconstrained=True)
    parameters = physics.unconstrain(physics.initial)
    policy = linear_policy(
        system,
        jnp.asarray(parameters),
        jnp.asarray(rest),
        jnp.asarray(hold),
        state_weight=np.asarray(state_weight, float),
        control_weight=np.full(mj.nu, float(control_weight)),
    )
    noise = np.array([float(sd) for sd in sensor_noise.values()])
    _, felt = linearised(system, jnp.asarray(parameters), jnp.asarray(rest), jnp.asarray(hold))
    process = np.sum((action_noise * felt) ** 2, axis=1) + (_LEAST_PROCESS * start_spread) ** 2
    parts = linear_model(mj, addresses, rest, hold, substeps)
    gain = kalman_gain(*parts, process, noise**2)
    innovation = 2.0 * noise
    change = np.maximum(np.abs(gain @ np.diag(innovation)).max(1), 1e-3 * start_spread)
    scales = Scales(innovation, change, rest, np.full(system.space.width, max(start_spread, 1e-6)))
    made = make_corrector(corrector, system.space.size, len(names), system.space.features_size, units=units)
    chain = JaxFilter(system, made, scales, parameters=physics.size)
    loop = ClosedLoop(
        world=MjxSystem(ParameterVector((), world.mj), _addresses(world, names), interval, substeps),
        reality=jnp.zeros(0),
        filter=chain,
        task=task,
        goal=jnp.asarray(rest),
        hold=jnp.asarray(hold),
        gain=jnp.asarray(policy),
        start_spread=jnp.full(system.space.size, start_spread),
        action_noise=jnp.full(mj.nu, action_noise),
        sensor_noise=jnp.asarray(noise),
        process_noise=jnp.zeros(system.space.size),
        trains_policy=trains_policy,
    )
    theta = chain.initial(gain / change[:, None] * innovation, parameters)
    return loop, np.concatenate([theta, policy.ravel()]) if trains_policy else theta


def _addresses(robot: Robot, names: Sequence[str]) -> np.ndarray:
    every = sensor_channels(robot.mj)
    for name in names:
        if name not in every:
            raise DsoError(
                f"{robot.source}: there is no sensor channel {name!r}; it has {nearest(name, every, len(every))}."
            )
    return np.array([every[name][1] for name in names], dtype=np.intp)


def _hold(model: mujoco.MjModel, rest: np.ndarray) -> np.ndarray:
    """Controls (nu,) whose forces best hold the model at rest in this position.

    Valid for actuators whose force is a gain times the control.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = rest[: model.nq]
    mujoco.mj_forward(model, data)
    passive = data.qfrc_bias - data.qfrc_passive
    columns = []
    for u in np.eye(model.nu):
        data.ctrl[:] = u
        mujoco.mj_forward(model, data)
        columns.append(data.qfrc_actuator.copy())
    data.ctrl[:] = 0.0
    mujoco.mj_forward(model, data)
    columns = [column - data.qfrc_actuator for column in columns]
    return np.linalg.lstsq(np.array(columns).T, passive - data.qfrc_actuator, rcond=None)[0] if columns else np.zeros(0)
