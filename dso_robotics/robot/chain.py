"""A robot and its policy as a `Chain` of the core, x' = f(x, pi(x) + noise), equation (96), and the passive chain (97)."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.errors import DsoError
from dso_robotics.parameters import theta as blocks
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.device import put_model
from dso_robotics.physics.divergence import diverged
from dso_robotics.robot import noise as noises
from dso_robotics.robot.context import Context
from dso_robotics.robot.lift import Lift
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import Observation, Scaling, no_scaling
from dso_robotics.robot.policy import Policy, Squash, squash
from dso_robotics.robot.scene import Scene

Theta = Float[Array, " n"]


class RobotState(eqx.Module):
    """The state x of the chain.

    body: qpos [m, rad], qvel [m/s, rad/s], act, time [s].
    action, before: actions of this step and of the previous step, (nu,), with noise, before squashing.
    queue: delayed actions that do not act yet, (delay, nu), oldest first.
    memory: the policy's memory, (m,).
    context: the episode's numbers, (c,).
    """

    body: physics.State
    action: Float[Array, " nu"]
    before: Float[Array, " nu"]
    queue: Float[Array, "delay nu"]
    memory: Float[Array, " m"]
    context: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))


class Starts(eqx.Module):
    """Draws one of the start states (M, ...). The probability of each is proportional to its weight (M,)."""

    states: RobotState
    weight: Float[Array, " M"]

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """Draw one of the states."""
        index = jax.random.choice(key, self.weight.shape[0], p=self.weight / jnp.sum(self.weight))
        return jax.tree.map(lambda leaf: leaf[index], self.states)


class Spread(eqx.Module):
    """Draws starts around a state: adds normal or uniform noise of the given widths to qpos (nq,) and qvel (nv,)."""

    state: RobotState
    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    uniform: bool = eqx.field(static=True, default=False)

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """Draw one start."""
        draw = (lambda k, n: jax.random.uniform(k, (n,), minval=-1.0)) if self.uniform else _normal
        one, two = jax.random.split(key)
        body = self.state.body
        qpos = body.qpos + self.qpos * draw(one, body.qpos.shape[0])
        qvel = body.qvel + self.qvel * draw(two, body.qvel.shape[0])
        return eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), self.state, (qpos, qvel))


def _normal(key: PRNGKeyArray, size: int) -> Array:
    return jax.random.normal(key, (size,))


class RobotChain(Chain):
    """The chain of a robot under a policy, made by `robot_chain`.

    theta holds the free blocks of `layout` in the open chart: "policy", "mechanism", "noise". A control step is `substeps`
    steps of the model. The cost L(x) depends on the state after a step and the control that led to it, like a step reward.
    """

    base: mjx.Model
    policy: Policy
    observation: Observation
    scaling: Scaling
    squash: Squash
    start: Callable[[PRNGKeyArray], RobotState]
    scene_cost: Callable[[Scene], Array]
    layout: blocks.Theta = eqx.field(static=True)
    mechanism: Mechanism | None = eqx.field(static=True)
    mj: mujoco.MjModel = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    delay: int = eqx.field(static=True)
    context: Context = eqx.field(static=True, default=Context())
    see_design: bool = eqx.field(static=True, default=False)
    lift: Lift | None = eqx.field(static=True, default=None)
    bound: tuple[mjx.Model, Array | None] | None = None
    anneal: Array | None = None

    def noise_scale(self, theta: Theta) -> Float[Array, " nu"]:
        """Logarithm of the actions' standard deviation: the block of theta plus the schedule's offset `anneal`."""
        scale = self.layout.split(theta)["noise"]
        return scale if self.anneal is None else scale + self.anneal

    def numbers(self, theta: Theta) -> Array:
        """Physical parameters and design parameters at theta, in their own units."""
        if self.mechanism is None:
            return jnp.zeros(0)
        return self.layout.values(theta)["mechanism"]

    def model(self, theta: Theta, state: RobotState | None = None) -> tuple[mjx.Model, Array | None]:
        """The physical model at theta, and its products of inertia. The context is the state's; without a state, nominal."""
        if self.bound is not None:
            return self.bound
        if self.mechanism is None:
            return self.base, None
        drawn = None if state is None else self.context.physical(state.context)
        return self.mechanism.model(self.base, self.numbers(theta), drawn)

    def bind(self, theta: Theta, state: RobotState | None = None) -> "RobotChain":
        """The same chain with the physical model of theta computed once instead of in every step. Derivatives are kept.

        If physical parameters are drawn, the model is for the episode of `state`. Without `state`, the chain is unchanged.
        """
        if self.mechanism is None or (self.context.physics and state is None):
            return self
        return eqx.tree_at(lambda c: c.bound, self, self.model(theta, state), is_leaf=lambda leaf: leaf is None)

    def rest(self, qpos: Array | None = None, qvel: Array | None = None) -> RobotState:
        """The state at the start of an episode: no actions, empty memory, nominal context."""
        nu = self.mj.nu
        body = physics.make_state(self.base, qpos, qvel)
        queue, memory = jnp.zeros((self.delay, nu)), jnp.zeros(self.policy.memory)
        return RobotState(body, jnp.zeros(nu), jnp.zeros(nu), queue, memory, jnp.asarray(self.context.rest))

    def sound(self, state: RobotState) -> RobotState:
        """The state, or `rest()` if the state diverged. Derivatives computed from the result are then finite."""
        flag = diverged(state.body)
        return jax.tree.map(lambda here, rest: jnp.where(flag, rest, here), state, self.rest())

    def scene(self, state: RobotState, theta: Theta) -> Scene:
        """The scene that costs and observations use."""
        state = self.sound(state)
        model, products = self.model(theta, state)
        controls = self.squash(state.action), self.squash(state.before)
        task = self.context.task(state.context)
        return Scene(self.mj, model, products, state.body, *controls, task, lambda: self.strain(state, theta))

    def strain(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """KL divergence of the action at x from the action of the passive chain (97).

        The passive chain's noise scale is this chain's initial noise scale. The mean of its action gives zero control after
        squashing, clipped to the actuator's range.
        """
        passive = jnp.asarray(next(block.initial for block in self.layout.blocks if block.name == "noise"))
        mean, _ = self.act(state, theta)
        return noises.divergence(mean, self.noise_scale(theta), noises.passive_mean(self.squash), passive)

    def act(self, state: RobotState, theta: Theta) -> tuple[Float[Array, " nu"], Float[Array, " m"]]:
        """The policy's action without noise, before squashing, and its next memory."""
        seen = self.scaling(self.observe(state, theta))
        state = self.sound(state)
        return self.policy(self.layout.split(theta)["policy"], seen, state.memory, state.body.time)

    def play(self, action: Float[Array, " nu"], memory: Array, state: RobotState, theta: Theta) -> RobotState:
        """The state one control step later. With a delay, the action chosen `delay` control steps ago acts, not `action`.

        A diverged state is returned unchanged. The step then adds no derivative.
        """
        blown, given, state = diverged(state.body), state, self.sound(state)
        queue = jnp.concatenate([state.queue, action[None]])
        ctrl = self.squash(queue[0])
        model, products = self.model(theta, state)

        def once(body: physics.State, _: None) -> tuple[physics.State, None]:
            return physics.advance(model, body, ctrl, products=products), None

        if self.substeps == 1:
            body, _ = once(state.body, None)
        else:
            body, _ = jax.lax.scan(once, state.body, None, length=self.substeps)
        following = RobotState(body, action, state.action, queue[1:], memory, state.context)
        return jax.tree.map(lambda stays, moves: jnp.where(blown, stays, moves), given, following)

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """Sample a start."""
        return self.placed(self.start(key), theta)

    def placed(self, state: RobotState, theta: Theta) -> RobotState:
        """The drawn start. If the chain has a `lift`, the robot with the mechanism of theta is placed on the floor."""
        if self.lift is None:
            return state
        return eqx.tree_at(lambda s: s.body.qpos, state, self.lift(self.scene(state, theta)))

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Float[Array, "steps nu"]:
        """Standard normal noise for the actions."""
        return jax.random.normal(key, (steps, self.mj.nu))

    def move(self, noise: Float[Array, " nu"], state: RobotState, theta: Theta) -> RobotState:
        """f(x, pi(x) + scale noise)."""
        action, memory = self.act(state, theta)
        return self.play(action + jnp.exp(self.noise_scale(theta)) * noise, memory, state, theta)

    def step(self, key: PRNGKeyArray, state: RobotState, theta: Theta) -> RobotState:
        """f(x, pi(x) + scale noise) with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: RobotState, theta: Theta) -> RobotState:
        """f(x, pi(x))."""
        return self.play(*self.act(state, theta), state, theta)

    def cost(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """The cost of the scene."""
        return self.scene_cost(self.scene(state, theta))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """Log-density of the action that was applied."""
        mean, _ = self.act(state, theta)
        return noises.log_density(following.action - mean, self.noise_scale(theta))

    def divergence(self, key: PRNGKeyArray, state: RobotState, old: Theta, new: Theta) -> Float[Array, ""]:
        """KL divergence between the action distributions of two thetas at x, in closed form."""
        (mean, _), (other, _) = self.act(state, old), self.act(state, new)
        return noises.divergence(mean, self.noise_scale(old), other, self.noise_scale(new))

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether a number is NaN or exceeds MuJoCo's limit, at which C MuJoCo resets the simulation."""
        return diverged(state.body)

    def scored(self, theta: Theta) -> np.ndarray:
        """Entries that affect only the action: noise scales and some policy weights, not physics or memory weights."""
        parts = []
        for block in self.layout.free:
            if block.name == "policy":
                parts.append(self.policy.scored())
            else:
                parts.append(np.full(len(block.initial), block.name == "noise"))
        return np.concatenate(parts) if parts else np.zeros(0, bool)

    def describe(self, entry: int) -> str:
        """Name of an entry of theta."""
        return self.layout.describe(entry)

    def observe(self, state: RobotState, theta: Theta) -> Float[Array, " size"]:
        """The unscaled policy input at x: observation, task and, with `see_design`, physical and design parameters."""
        seen = self.observation(self.scene(state, theta))
        if not self.context.size and not self.see_design:
            return seen
        context = self.context.normalised(self.sound(state).context)
        if not self.see_design:
            return jnp.concatenate([seen, self.context.task(context)])
        own = jnp.zeros(0) if self.mechanism is None else self.mechanism.normalised(self.numbers(theta))
        return jnp.concatenate([seen, context, own])


class PassiveChain(Chain):
    """x' = f(x, noise) of equation (97), without a policy. Every parameter is fixed at `frozen`; theta is not used.

    Without noise, the control is zero, clipped to each actuator's range. For a muscle with range 0 to 1 it is 0, not 0.5.
    """

    chain: RobotChain
    frozen: Theta

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """A start of the robot's chain."""
        return self.chain.initial(key, self.frozen)

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Array:
        """Noise drawn as by the robot's chain."""
        return self.chain.draw(key, self.frozen, steps)

    def move(self, noise: Float[Array, " nu"], state: RobotState, theta: Theta) -> RobotState:
        """f(x, scale noise)."""
        action = noises.passive_mean(self.chain.squash) + jnp.exp(self.chain.noise_scale(self.frozen)) * noise
        return self.chain.play(action, state.memory, state, self.frozen)

    def step(self, key: PRNGKeyArray, state: RobotState, theta: Theta) -> RobotState:
        """f(x, scale noise) with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: RobotState, theta: Theta) -> RobotState:
        """f(x, 0)."""
        return self.chain.play(noises.passive_mean(self.chain.squash), state.memory, state, self.frozen)

    def cost(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """The scene's cost."""
        return self.chain.scene_cost(self.chain.scene(state, self.frozen))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """Log-density of the noise that was applied."""
        deviation = following.action - noises.passive_mean(self.chain.squash)
        return noises.log_density(deviation, self.chain.noise_scale(self.frozen))

    def scored(self, theta: Theta) -> np.ndarray:
        """All False: no entry of theta affects this chain."""
        return np.zeros(np.shape(theta)[0], bool)

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether the state diverged, as for the robot's chain."""
        return self.chain.diverged(state)


def robot_chain(
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
    rng: np.random.Generator | None = None,
) -> RobotChain:
    """Make the chain of a robot under a policy. It starts from rest; theta's initial values are in `layout.initial`.

    seconds: control step [s], a multiple of the model's time step; the time step by default.
    delay: time before an action acts [s], a multiple of the control step.
    noise: standard deviation of the actions, as a fraction of half the actuator's range.
    frozen: blocks ("policy", "mechanism", "noise") that keep their initial values.
    context: what is drawn for each episode. The policy sees its tasks after the observation.
    see_design: the policy also sees the drawn physical parameters and the mechanism's, scaled by range (see `seen_besides`).

    Raises:
      DsoError: no actuator, a policy whose input size does not fit, or times that are not multiples.
    """
    mj = mechanism.mj
    source = mechanism.robot.source
    if not mj.nu:
        raise DsoError(f"{source}: the model has no actuator, so a policy can do nothing; add one to <actuator>.")
    context = Context() if context is None else context
    more = seen_besides(mechanism, context, see_design)
    if policy.inputs != observation.size + more:
        raise DsoError(
            f"{source}: the observation has {observation.size} entries ({', '.join(observation.names[:8])}"
            f"{', ...' if observation.size > 8 else ''}){f' and {more} more are seen' if more else ''}, but the policy takes "
            f"{policy.inputs}; make the policy with inputs={observation.size + more}."
        )
    if len(context.physics) != mechanism.drawn:
        raise DsoError(
            f"{source}: {len(context.physics)} physical numbers are drawn, but the mechanism has {mechanism.drawn}."
        )
    if policy.outputs != mj.nu:
        raise DsoError(f"{source}: the policy gives {policy.outputs} actions, but the model has {mj.nu} actuators.")
    timestep = float(mj.opt.timestep)
    substeps = _multiple(timestep if seconds is None else seconds, timestep, "control step", "the model's time step")
    held = _multiple(delay, substeps * timestep, "delay", "the control step", least=0)
    rng = np.random.default_rng(0) if rng is None else rng
    actuators = mechanism.robot.names("actuator")
    parts = [blocks.Block("policy", policy.initial(rng), "policy" not in frozen)]
    if mechanism.size or mechanism.drawn:
        parts.append(mechanism.block("mechanism", free="mechanism" not in frozen))
    parts.append(noises.noise_block(noise, actuators, free=noise_free and "noise" not in frozen))
    chain = RobotChain(
        base=put_model(mj, friction_dofs=mechanism.friction_dofs, source=source),
        policy=policy,
        observation=observation,
        scaling=no_scaling(observation.size + more),
        squash=squash(mj),
        start=lambda key: chain.rest(),
        scene_cost=scene_cost,
        layout=blocks.Theta(tuple(parts), chart="open"),
        mechanism=mechanism if mechanism.size or mechanism.drawn else None,
        mj=mj,
        substeps=substeps,
        delay=held,
        context=context,
        see_design=see_design,
    )
    return eqx.tree_at(lambda c: c.start, chain, Spread(chain.rest(), jnp.zeros(mj.nq), jnp.zeros(mj.nv)))


def seen_besides(mechanism: Mechanism, context: Context, see_design: bool) -> int:
    """Number of policy inputs besides the observation."""
    return len(context.tasks) + (len(context.physics) + mechanism.size if see_design else 0)


def _multiple(time: float, unit: float, name: str, of: str, *, least: int = 1) -> int:
    count = round(time / unit)
    if count < least or abs(count * unit - time) > 1e-6 * unit:
        raise DsoError(
            f"{name}: {time:g} s is not a multiple of {of}, {unit:g} s; take {max(count, least) * unit:g} s."
        )
    return count
