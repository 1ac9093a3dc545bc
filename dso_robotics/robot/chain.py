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
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.device import put_model
from dso_robotics.physics.divergence import diverged
from dso_robotics.robot import noise as noises
from dso_robotics.robot.layout import Block, Layout, lay_out
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import Observation, Scaling, no_scaling
from dso_robotics.robot.policy import Policy, Squash, squash
from dso_robotics.robot.scene import Scene

Theta = Float[Array, " n"]


class RobotState(eqx.Module):
    """x of the chain: the body, the actions of this step and the one before, those under way, and the policy's memory.

    body: qpos [m, rad], qvel [m/s, rad/s], act, time [s]. action, before: (nu,) as the policy chose them, noise included and
    not yet squashed. queue: (delay, nu) actions not yet in force, oldest first. memory: (m,).
    """

    body: physics.State
    action: Float[Array, " nu"]
    before: Float[Array, " nu"]
    queue: Float[Array, "delay nu"]
    memory: Float[Array, " m"]


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
    """Made by `robot_chain`. theta are the free blocks of `layout`: "policy", "mechanism", "noise".

    A control step is `substeps` steps of the model. L(x) is charged on arrival: it sees the state and the control that led
    to it, which is what a simulator's reward of a step sees.
    """

    base: mjx.Model
    policy: Policy
    observation: Observation
    scaling: Scaling
    squash: Squash
    start: Callable[[PRNGKeyArray], RobotState]
    price: Callable[[Scene], Array]
    layout: Layout = eqx.field(static=True)
    mechanism: Mechanism | None = eqx.field(static=True)
    mj: mujoco.MjModel = eqx.field(static=True)
    substeps: int = eqx.field(static=True)
    delay: int = eqx.field(static=True)
    divergence_weight: float = eqx.field(static=True)
    bound: tuple[mjx.Model, Array | None] | None = None
    anneal: Array | None = None

    def noise_scale(self, theta: Theta) -> Float[Array, " nu"]:
        """Logarithm of the actions' standard deviation: the block of theta, plus what a schedule adds."""
        scale = self.layout.split(theta)["noise"]
        return scale if self.anneal is None else scale + self.anneal

    def model(self, theta: Theta) -> tuple[mjx.Model, Array | None]:
        """The physical model at theta, and its products of inertia."""
        if self.bound is not None:
            return self.bound
        if self.mechanism is None:
            return self.base, None
        return self.mechanism.model(self.base, self.mechanism.constrain(self.layout.split(theta)["mechanism"]))

    def bind(self, theta: Theta) -> "RobotChain":
        """The same chain with the physical model of theta made once, derivative included, instead of in every step."""
        if self.mechanism is None:
            return self
        return eqx.tree_at(lambda c: c.bound, self, self.model(theta), is_leaf=lambda leaf: leaf is None)

    def rest(self, qpos: Array | None = None, qvel: Array | None = None) -> RobotState:
        """A state with nothing played yet."""
        nu = self.mj.nu
        body = physics.make_state(self.base, qpos, qvel)
        return RobotState(
            body, jnp.zeros(nu), jnp.zeros(nu), jnp.zeros((self.delay, nu)), jnp.zeros(self.policy.memory)
        )

    def sound(self, state: RobotState) -> RobotState:
        """The state, or rest in place of one that blew up: what is computed from it then has finite derivatives."""
        flag = diverged(state.body)
        return jax.tree.map(lambda here, rest: jnp.where(flag, rest, here), state, self.rest())

    def scene(self, state: RobotState, theta: Theta) -> Scene:
        """What costs and observations see."""
        state = self.sound(state)
        model, products = self.model(theta)
        return Scene(self.mj, model, products, state.body, self.squash(state.action), self.squash(state.before))

    def act(self, state: RobotState, theta: Theta) -> tuple[Float[Array, " nu"], Float[Array, " m"]]:
        """The policy's action without noise, not yet squashed, and its next memory."""
        seen = self.scaling(self.observation(self.scene(state, theta)))
        state = self.sound(state)
        return self.policy(self.layout.split(theta)["policy"], seen, state.memory, state.body.time)

    def play(self, action: Float[Array, " nu"], memory: Array, state: RobotState, theta: Theta) -> RobotState:
        """The state one control step later under `action`, or under what was chosen `delay` control steps ago.

        A state that blew up stays as it is, without derivative.
        """
        blown, given, state = diverged(state.body), state, self.sound(state)
        queue = jnp.concatenate([state.queue, action[None]])
        ctrl = self.squash(queue[0])
        model, products = self.model(theta)

        def once(body: physics.State, _: None) -> tuple[physics.State, None]:
            return physics.advance(model, body, ctrl, products=products), None

        if self.substeps == 1:
            body, _ = once(state.body, None)
        else:
            body, _ = jax.lax.scan(once, state.body, None, length=self.substeps)
        following = RobotState(body, action, state.action, queue[1:], memory)
        return jax.tree.map(lambda stays, moves: jnp.where(blown, stays, moves), given, following)

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """Sample a start."""
        return self.start(key)

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
        """The price of the scene, plus, for linear-solvable costs (21), weight KL(P || passive P)."""
        price = self.price(self.scene(state, theta))
        if self.divergence_weight:
            scale = self.noise_scale(theta)
            mean, _ = self.act(state, theta)
            passive = jax.lax.stop_gradient(scale)
            price = price + self.divergence_weight * noises.divergence(mean, scale, jnp.zeros_like(mean), passive)
        return price

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
        """The observation at x, not scaled."""
        return self.observation(self.scene(state, theta))


class PassiveChain(Chain):
    """x' = f(x, noise) of equation (97): no policy, every parameter frozen at `frozen`; its theta is not used."""

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
        action = jnp.exp(self.chain.noise_scale(self.frozen)) * noise
        return self.chain.play(action, state.memory, state, self.frozen)

    def step(self, key: PRNGKeyArray, state: RobotState, theta: Theta) -> RobotState:
        """f(x, scale noise) with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: RobotState, theta: Theta) -> RobotState:
        """f(x, 0)."""
        return self.chain.play(jnp.zeros_like(state.action), state.memory, state, self.frozen)

    def cost(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """The price alone."""
        return self.chain.price(self.chain.scene(state, self.frozen))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """log-density of the noise that was played."""
        return noises.log_density(following.action, self.chain.noise_scale(self.frozen))

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
    price: Callable[[Scene], Any],
    seconds: float | None = None,
    delay: float = 0.0,
    noise: float = 0.1,
    noise_free: bool = False,
    frozen: Sequence[str] = (),
    divergence_weight: float = 0.0,
    rng: np.random.Generator | None = None,
) -> RobotChain:
    """The chain of a robot under a policy, with theta's start values in `layout.initial`; it starts from rest.

    seconds: length of a control step [s], a multiple of the model's time step (that one by default). delay: how long an action
    takes to come into force [s], a multiple of the control step. noise: standard deviation of the actions, as a part of half
    the actuator's range. frozen: blocks ("policy", "mechanism", "noise") that keep their start values.

    Raises:
      DsoError: no actuator, a policy of another width than the observation, or times that do not divide.
    """
    mj = mechanism.mj
    source = mechanism.robot.source
    if not mj.nu:
        raise DsoError(f"{source}: the model has no actuator, so a policy can do nothing; add one to <actuator>.")
    if policy.inputs != observation.size:
        raise DsoError(
            f"{source}: the observation has {observation.size} entries ({', '.join(observation.names[:8])}"
            f"{', ...' if observation.size > 8 else ''}), but the policy takes {policy.inputs}; make the policy with inputs="
            f"{observation.size}."
        )
    if policy.outputs != mj.nu:
        raise DsoError(f"{source}: the policy gives {policy.outputs} actions, but the model has {mj.nu} actuators.")
    timestep = float(mj.opt.timestep)
    substeps = _multiple(timestep if seconds is None else seconds, timestep, "control step", "the model's time step")
    held = _multiple(delay, substeps * timestep, "delay", "the control step", least=0)
    rng = np.random.default_rng(0) if rng is None else rng
    actuators = mechanism.robot.names("actuator")
    blocks = [Block("policy", policy.initial(rng), "policy" not in frozen)]
    if mechanism.size:
        start = mechanism.unconstrain(mechanism.initial)
        blocks.append(Block("mechanism", start, "mechanism" not in frozen, mechanism.names))
    blocks.append(noises.noise_block(noise, actuators, free=noise_free and "noise" not in frozen))
    chain = RobotChain(
        base=put_model(mj, friction_dofs=mechanism.friction_dofs, source=source),
        policy=policy,
        observation=observation,
        scaling=no_scaling(observation.size),
        squash=squash(mj),
        start=lambda key: chain.rest(),
        price=price,
        layout=lay_out(blocks),
        mechanism=mechanism if mechanism.size else None,
        mj=mj,
        substeps=substeps,
        delay=held,
        divergence_weight=divergence_weight,
    )
    return eqx.tree_at(lambda c: c.start, chain, Spread(chain.rest(), jnp.zeros(mj.nq), jnp.zeros(mj.nv)))


def _multiple(time: float, unit: float, name: str, of: str, *, least: int = 1) -> int:
    count = round(time / unit)
    if count < least or abs(count * unit - time) > 1e-6 * unit:
        raise DsoError(
            f"{name}: {time:g} s is not a multiple of {of}, {unit:g} s; take {max(count, least) * unit:g} s."
        )
    return count
