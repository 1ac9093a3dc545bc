"""A robot and its policy as a chain of the core, equation (96): x' = f(x, pi(x) + noise), and the passive chain (97)."""

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
    """x of the chain: the body, the actions of this step and the one before, those under way, and the policy's memory.

    body: qpos [m, rad], qvel [m/s, rad/s], act, time [s]. action, before: (nu,) as the policy chose them, noise included and
    not yet squashed. queue: (delay, nu) actions not yet in force, oldest first. memory: (m,). context: numbers of the episode.
    """

    body: physics.State
    action: Float[Array, " nu"]
    before: Float[Array, " nu"]
    queue: Float[Array, "delay nu"]
    memory: Float[Array, " m"]
    context: Float[Array, " c"] = eqx.field(default_factory=lambda: jnp.zeros(0))


class Starts(eqx.Module):
    """A set of start states (M, ...), one of which is drawn, each as likely as its weight (M,)."""

    states: RobotState
    weight: Float[Array, " M"]

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """One of the states."""
        index = jax.random.choice(key, self.weight.shape[0], p=self.weight / jnp.sum(self.weight))
        return jax.tree.map(lambda leaf: leaf[index], self.states)


class Spread(eqx.Module):
    """Starts around a state: qpos and qvel plus normal or uniform noise of the given widths (nq,), (nv,)."""

    state: RobotState
    qpos: Float[Array, " nq"]
    qvel: Float[Array, " nv"]
    uniform: bool = eqx.field(static=True, default=False)

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """One start."""
        draw = (lambda k, n: jax.random.uniform(k, (n,), minval=-1.0)) if self.uniform else _normal
        one, two = jax.random.split(key)
        body = self.state.body
        qpos = body.qpos + self.qpos * draw(one, body.qpos.shape[0])
        qvel = body.qvel + self.qvel * draw(two, body.qvel.shape[0])
        return eqx.tree_at(lambda s: (s.body.qpos, s.body.qvel), self.state, (qpos, qvel))


def _normal(key: PRNGKeyArray, size: int) -> Array:
    return jax.random.normal(key, (size,))


class RobotChain(Chain):
    """Made by `robot_chain`. theta are the free blocks of `layout`, in the open chart: "policy", "mechanism", "noise".

    A control step is `substeps` steps of the model. L(x) is charged on arrival: it sees the state and the control that led
    to it, which is what a simulator's reward of a step sees.
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
        """Logarithm of the actions' standard deviation: the block of theta, plus what a schedule adds."""
        scale = self.layout.split(theta)["noise"]
        return scale if self.anneal is None else scale + self.anneal

    def numbers(self, theta: Theta) -> Array:
        """Physical parameters and design numbers at theta, in their own units."""
        if self.mechanism is None:
            return jnp.zeros(0)
        return self.layout.values(theta)["mechanism"]

    def model(self, theta: Theta, state: RobotState | None = None) -> tuple[mjx.Model, Array | None]:
        """The physical model at theta in the context of a state (the model's own without one), and its products of inertia."""
        if self.bound is not None:
            return self.bound
        if self.mechanism is None:
            return self.base, None
        drawn = None if state is None else self.context.physical(state.context)
        return self.mechanism.model(self.base, self.numbers(theta), drawn)

    def bind(self, theta: Theta, state: RobotState | None = None) -> "RobotChain":
        """The same chain with the physical model of theta made once, derivative included, instead of in every step.

        Where physical numbers are drawn, it is that of the episode of `state`; without one, nothing is made beforehand.
        """
        if self.mechanism is None or (self.context.physics and state is None):
            return self
        return eqx.tree_at(lambda c: c.bound, self, self.model(theta, state), is_leaf=lambda leaf: leaf is None)

    def rest(self, qpos: Array | None = None, qvel: Array | None = None) -> RobotState:
        """A state with nothing played yet."""
        nu = self.mj.nu
        body = physics.make_state(self.base, qpos, qvel)
        queue, memory = jnp.zeros((self.delay, nu)), jnp.zeros(self.policy.memory)
        return RobotState(body, jnp.zeros(nu), jnp.zeros(nu), queue, memory, jnp.asarray(self.context.rest))

    def sound(self, state: RobotState) -> RobotState:
        """The state, or rest in place of one that blew up: what is computed from it then has finite derivatives."""
        flag = diverged(state.body)
        return jax.tree.map(lambda here, rest: jnp.where(flag, rest, here), state, self.rest())

    def scene(self, state: RobotState, theta: Theta) -> Scene:
        """What costs and observations see."""
        state = self.sound(state)
        model, products = self.model(theta, state)
        controls = self.squash(state.action), self.squash(state.before)
        task = self.context.task(state.context)
        return Scene(self.mj, model, products, state.body, *controls, task, lambda: self.strain(state, theta))

    def strain(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """KL of the action at x from that of the passive chain (97), which is as noisy as this one is at the start.

        The passive chain's action is squashed to zero control, clipped to the actuator's range.
        """
        passive = jnp.asarray(next(block.initial for block in self.layout.blocks if block.name == "noise"))
        mean, _ = self.act(state, theta)
        return noises.divergence(mean, self.noise_scale(theta), noises.passive_mean(self.squash), passive)

    def act(self, state: RobotState, theta: Theta) -> tuple[Float[Array, " nu"], Float[Array, " m"]]:
        """The policy's action without noise, not yet squashed, and its next memory."""
        seen = self.scaling(self.observe(state, theta))
        state = self.sound(state)
        return self.policy(self.layout.split(theta)["policy"], seen, state.memory, state.body.time)

    def play(self, action: Float[Array, " nu"], memory: Array, state: RobotState, theta: Theta) -> RobotState:
        """The state one control step later under `action`, or under what was chosen `delay` control steps ago.

        A state that blew up stays as it is, without derivative.
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
        """A start as it was drawn, put on the floor with the mechanism of theta where the chain lifts its starts."""
        if self.lift is None:
            return state
        return eqx.tree_at(lambda s: s.body.qpos, state, self.lift(self.scene(state, theta)))

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Float[Array, "steps nu"]:
        """Standard normal noise of the actions."""
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
        """log-density of the action that was played."""
        mean, _ = self.act(state, theta)
        return noises.log_density(following.action - mean, self.noise_scale(theta))

    def divergence(self, key: PRNGKeyArray, state: RobotState, old: Theta, new: Theta) -> Float[Array, ""]:
        """KL between the actions of two thetas at x, in closed form."""
        (mean, _), (other, _) = self.act(state, old), self.act(state, new)
        return noises.divergence(mean, self.noise_scale(old), other, self.noise_scale(new))

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether a number is NaN or beyond MuJoCo's limit, where C MuJoCo resets the simulation."""
        return diverged(state.body)

    def scored(self, theta: Theta) -> np.ndarray:
        """Noise scales and the weights that act on the action alone; neither physics nor what drives a memory."""
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
        """What the policy sees at x, not scaled: the observation, the task and, with `see_design`, the robot's own numbers."""
        seen = self.observation(self.scene(state, theta))
        if not self.context.size and not self.see_design:
            return seen
        context = self.context.normalised(self.sound(state).context)
        if not self.see_design:
            return jnp.concatenate([seen, self.context.task(context)])
        own = jnp.zeros(0) if self.mechanism is None else self.mechanism.normalised(self.numbers(theta))
        return jnp.concatenate([seen, context, own])


class PassiveChain(Chain):
    """x' = f(x, noise) of equation (97): no policy, every parameter frozen at `frozen`; its theta is not used.

    No policy means zero control, clipped to each actuator's range (0, not 0.5, for a muscle's 0 to 1), before the noise.
    """

    chain: RobotChain
    frozen: Theta

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """A start of the robot's chain."""
        return self.chain.initial(key, self.frozen)

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Array:
        """As the robot's chain."""
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
        """The cost alone."""
        return self.chain.scene_cost(self.chain.scene(state, self.frozen))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """log-density of the noise that was played."""
        deviation = following.action - noises.passive_mean(self.chain.squash)
        return noises.log_density(deviation, self.chain.noise_scale(self.frozen))

    def scored(self, theta: Theta) -> np.ndarray:
        """Nothing: no entry of theta moves this chain."""
        return np.zeros(np.shape(theta)[0], bool)

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """As the robot's chain."""
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
    """The chain of a robot under a policy, with theta's start values in `layout.initial`; it starts from rest.

    seconds: length of a control step [s], a multiple of the model's time step (that one by default). delay: how long an action
    takes to come into force [s], a multiple of the control step. noise: standard deviation of the actions, as a part of half
    the actuator's range. frozen: blocks ("policy", "mechanism", "noise") that keep their start values. context: what is drawn
    for each episode; its tasks are seen by the policy after the observation. see_design: so are all physical numbers that are
    drawn, and the mechanism's own, each as a part of its range (`seen_besides` counts them).

    Raises:
      DsoError: no actuator, a policy of another width than the observation, or times that do not divide.
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
    """How many numbers the policy sees besides the observation."""
    return len(context.tasks) + (len(context.physics) + mechanism.size if see_design else 0)


def _multiple(time: float, unit: float, name: str, of: str, *, least: int = 1) -> int:
    count = round(time / unit)
    if count < least or abs(count * unit - time) > 1e-6 * unit:
        raise DsoError(
            f"{name}: {time:g} s is not a multiple of {of}, {unit:g} s; take {max(count, least) * unit:g} s."
        )
    return count
