"""Makes a robot system from its parts, and checks that they fit."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters import theta as blocks
from dso_robotics.physics.c_model import CModel
from dso_robotics.physics.device import put_model
from dso_robotics.physics.model import Robot
from dso_robotics.robot import noise as noises
from dso_robotics.robot.context import Context
from dso_robotics.robot.filter_jax import JaxFilter
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import Observation, no_scaling
from dso_robotics.robot.policy import Policy
from dso_robotics.robot.scene import Scene
from dso_robotics.robot.sensing import Sensing
from dso_robotics.robot.squash import Squash, squash
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import Believes, RobotState, Sees, Spread
from dso_robotics.robot.watch import SENSORS, Wishes, watching


def robot_system(
    mechanism: Mechanism,
    policy: Policy,
    observation: Observation,
    *,
    scene_cost: Callable[[Scene], Any],
    seconds: float | None = None,
    delay: float = 0.0,
    noise: float = 0.1,
    noise_free: bool = False,
    frozen: Sequence[str] = (),
    context: Context | None = None,
    see_design: bool = False,
    sensing: Sensing | None = None,
    estimator: tuple[JaxFilter, np.ndarray] | None = None,
    sees: Sees = "state",
    believes: Believes = "world",
    engine: Literal["mjx", "mujoco"] = "mjx",
    actions: Squash | None = None,
    rng: np.random.Generator | None = None,
) -> RobotSystem:
    """Make the chain of a robot under a policy. It starts from rest; theta's initial values are in `layout.initial`.

    seconds: control step [s], a multiple of the model's time step; the time step by default.
    delay: time before an action acts [s], a multiple of the control step.
    noise: standard deviation of the actions, as a fraction of half the actuator's range.
    frozen: blocks that keep their initial values.
    context: what is drawn for each episode. The policy sees its tasks after the observation.
    see_design: the policy also sees the drawn physical parameters and the mechanism's, scaled by range (see `seen_besides`).
    sensing: the sensors that the policy or the estimator reads.
    estimator: made by `estimator_design.design_filter`: the filter, and the initial values of the block "corrector".
    sees: what the policy observes.
    believes: the physical model of the estimator.
    actions: from actions to controls; by default the whole range of each actuator about its middle.
    engine: what simulates. A system on C ("mujoco") needs a watch, see `on_c`, and an estimator on C.

    Raises:
      DsoError: no actuator, a policy whose input size does not fit, times that are not multiples, or a part is missing that
        another part needs.
    """
    mj = mechanism.mj
    source = mechanism.robot.source
    if not mj.nu:
        raise DsoError(f"{source}: the model has no actuator, so a policy can do nothing; add one to <actuator>.")
    _check_parts(source, mechanism, sensing, estimator, sees, believes)
    context = Context() if context is None else context
    more = seen_besides(mechanism, context, see_design)
    size, names = observation.size, observation.names
    if sees == "readings" and sensing is not None:
        size, names = sensing.size, sensing.names
    if policy.inputs != size + more:
        raise DsoError(
            f"{source}: the observation has {size} entries ({', '.join(names[:8])}"
            f"{', ...' if size > 8 else ''}){f' and {more} more are seen' if more else ''}, but the policy takes "
            f"{policy.inputs}; make the policy with inputs={size + more}."
        )
    if len(context.physics) != mechanism.drawn:
        raise DsoError(
            f"{source}: {len(context.physics)} physical numbers are drawn, but the mechanism has {mechanism.drawn}."
        )
    if policy.outputs != mj.nu:
        raise DsoError(f"{source}: the policy gives {policy.outputs} actions, but the model has {mj.nu} actuators.")
    timestep = float(mj.opt.timestep)
    substeps = multiple(timestep if seconds is None else seconds, timestep, "control step", "the model's time step")
    held = multiple(delay, substeps * timestep, "delay", "the control step", least=0)
    rng = np.random.default_rng(0) if rng is None else rng
    actuators = mechanism.robot.names("actuator")
    parts = [blocks.Block("policy", policy.initial(rng), "policy" not in frozen)]
    parts += [group.block(name, free=name not in frozen) for name, group in mechanism.groups.items()]
    parts.append(noises.noise_block(noise, actuators, free=noise_free and "action noise" not in frozen))
    if sensing is not None:
        parts.append(sensing.noise_block(free=sensing.noise_free and "sensor noise" not in frozen))
    if estimator is not None:
        parts.append(_corrector_block(*estimator, free="corrector" not in frozen))
        if believes == "own":
            parts.append(mechanism.believed.block("model", free="model" not in frozen))
    whole = bool(mechanism.size or mechanism.drawn or (sensing is not None and mechanism.vector is not None))
    chain = RobotSystem(
        base=CModel(mj) if engine == "mujoco" else put_model(mj, friction_dofs=mechanism.friction_dofs, source=source),
        policy=policy,
        observation=observation,
        scaling=no_scaling(size + more),
        squash=squash(mj) if actions is None else actions,
        start=lambda key: chain.rest(),
        scene_cost=scene_cost,
        layout=blocks.Theta(tuple(parts), chart="open"),
        mechanism=mechanism if whole else None,
        mj=mj,
        substeps=substeps,
        delay=held,
        context=context,
        see_design=see_design,
        sensing=sensing,
        filter=None if estimator is None else estimator[0],
        sees=sees,
        believes=believes,
    )
    return eqx.tree_at(lambda c: c.start, chain, Spread(chain.rest(), jnp.zeros(mj.nv), jnp.zeros(mj.nv), mj=mj))


class WithWatch(eqx.Module):
    """Draws starts with room for what the watch reads, (size,)."""

    start: Callable[[Any], RobotState]
    size: int = eqx.field(static=True)

    def __call__(self, key: Any) -> RobotState:
        """Draw one start."""
        return eqx.tree_at(lambda s: s.shown, self.start(key), jnp.zeros(self.size), is_leaf=lambda leaf: leaf is None)


def on_c(chain: RobotSystem, robot: Robot, explore: Callable[[Any], RobotState]) -> tuple[RobotSystem, WithWatch]:
    """A system made with engine "mujoco", with a watch of all that its costs, its policy and its lift read.

    explore: draws other starts. It is returned with room for what the watch reads.

    Raises:
      DsoError: they read what C MuJoCo has no sensor for.
    """
    wishes = Wishes(chain.mj)
    probe = dataclasses.replace(chain, watch=wishes)

    def read(theta: Any) -> None:
        state = probe.rest()
        probe.cost(state, theta)
        probe.act(state, theta)
        if probe.placement.lift is not None:
            probe.placement.lift(probe.scene(state, theta))
        if probe.termination is not None:
            probe.termination(probe.scene(state, theta))

    if chain.sensing is not None:
        wishes.of(None, SENSORS, 0)
    jax.eval_shape(read, jnp.asarray(chain.layout.initial))
    watch = watching(robot, chain.mj, wishes.things)
    start, explore = (WithWatch(draw, watch.size) for draw in (chain.start, explore))
    return dataclasses.replace(chain, watch=watch, start=start), explore


def _check_parts(
    source: str, mechanism: Mechanism, sensing: Sensing | None, estimator: Any, sees: str, believes: str
) -> None:
    """Raise DsoError for a part that another part needs."""
    if estimator is not None and sensing is None:
        raise DsoError(f"{source}: an estimator corrects its predictions with readings; give the system sensors.")
    if sees == "readings" and sensing is None:
        raise DsoError(f"{source}: the policy observes the readings, but the system has no sensors; give it some.")
    if sees == "estimate" and estimator is None:
        raise DsoError(f"{source}: the policy observes the estimate, but the system has no estimator; give it one.")
    if believes == "own" and not mechanism.believed.size:
        raise DsoError(
            f"{source}: the estimator shall have a physical model of its own, but no physical parameter is free or drawn, so "
            "it would equal the world's; free or randomise one."
        )
    if "sensor" in mechanism.groups and sensing is None:
        names = ", ".join(mechanism.groups["sensor"].names)
        raise DsoError(f"{source}: {names} is free, but nothing reads that sensor; give the system sensors.")


def _corrector_block(filter: JaxFilter, initial: np.ndarray, *, free: bool) -> blocks.Block:
    """The block "corrector": weights, then log standard deviations of the whitened innovations."""
    names = filter.corrector.layout.names
    labels = tuple(f"corrector/{name}" for name in names)
    labels += tuple(f"corrector/log_scale[{c}]" for c in range(filter.corrector.ny))
    return blocks.Block("corrector", initial, free, entries=labels)


def seen_besides(mechanism: Mechanism, context: Context, see_design: bool) -> int:
    """Number of policy inputs besides the observation."""
    return context.size + mechanism.size if see_design else len(context.tasks)


def multiple(time: float, unit: float, name: str, of: str, *, least: int = 1) -> int:
    """How often `unit` [s] fits into `time` [s].

    Raises:
      DsoError: not a whole number of times, or fewer than `least`.
    """
    count = round(time / unit)
    if count < least or abs(count * unit - time) > 1e-6 * unit:
        raise DsoError(
            f"{name}: {time:g} s is not a multiple of {of}, {unit:g} s; take {max(count, least) * unit:g} s."
        )
    return count
