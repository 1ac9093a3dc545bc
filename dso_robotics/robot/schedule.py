"""Prepares a robot's chain for training on windows: annealing, window starts, and the critic's inputs."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.off_policy import ActedCourse, Law
from dso_robotics.core.method.replayed import RecordedCourse, Replayed
from dso_robotics.core.method.settings import SMOOTHED, THROUGH_THE_CHAIN, Settings
from dso_robotics.core.objective import Problem
from dso_robotics.physics.impedance import softened
from dso_robotics.robot.between import Between
from dso_robotics.robot.constraints import Constrained, constrained
from dso_robotics.robot.critic_inputs import CriticInputs, Dependence, dependence
from dso_robotics.robot.observation import Scaling, no_scaling
from dso_robotics.robot.replay import Record, ReplayedSystem, replayed
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState
from dso_robotics.robot.windows import CWindows


class RobotCourse(RecordedCourse, ActedCourse):
    """How a robot's chain changes during training. Its memory is the scaling of the observation.

    explore: draws start states, like the chain's `start`, but the distribution may be much wider.
    share: fraction of the newly started windows that start from `explore`.
    noise_end: final standard deviation of the actions, reached geometrically. Not used if theta holds the noise.
    soften: initial contact time constant, as a multiple of the model's own.
    depends: what the cost to come depends on besides the policy's observation.
    happens: what happens between two windows; None: nothing.
    """

    explore: Callable[[PRNGKeyArray], RobotState] = eqx.field(kw_only=True)
    share: float = eqx.field(static=True, kw_only=True)
    noise_end: float = eqx.field(static=True, kw_only=True)
    soften: float = eqx.field(static=True, kw_only=True)
    windows: CWindows = eqx.field(static=True, kw_only=True)
    depends: Dependence = eqx.field(static=True, kw_only=True)
    happens: Between | None = eqx.field(kw_only=True, default=None)

    @property
    def memory(self) -> Scaling:
        """The chain's current scaling, and the start of the constraints if there are any."""
        cost: Any = self.chain.scene_cost
        places = getattr(cost, "constrained", ())
        return constrained(self.chain.scaling, [cost.weights[i] for i in places]) if places else self.chain.scaling

    def at(self, memory: Scaling, progress: Array | None = None) -> RobotSystem:
        """The chain with this scaling, and with the noise and contact softness scheduled for this point of training."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, memory)
        if isinstance(memory, Constrained):
            cost: Any = chain.scene_cost
            chain = dataclasses.replace(chain, scene_cost=dataclasses.replace(cost, multipliers=memory.weights))
        if progress is None:
            return chain
        if self.soften > 1.0 and chain.watch is None:
            factor = self.soften ** jnp.maximum(1.0 - progress / SMOOTHED, 0.0)
            chain = eqx.tree_at(lambda c: c.base, chain, softened(chain.base, factor))
        return eqx.tree_at(lambda c: c.anneal, chain, progress * self._log_end, is_leaf=lambda leaf: leaf is None)

    @property
    def anchored_every(self) -> int:
        """As the costs of kind proximal ask for."""
        return getattr(self.chain.scene_cost, "anchored", 0)

    def anchored(self, chain: RobotSystem, anchor: Array) -> RobotSystem:
        """The chain whose proximal cost measures from the policy of `anchor`."""
        if not self.anchored_every:
            return chain
        return eqx.tree_at(lambda c: c.anchor, chain, anchor, is_leaf=lambda leaf: leaf is None)

    @property
    def _log_end(self) -> Array:
        noise = next(block for block in self.chain.layout.blocks if block.name == "action noise")
        if noise.free:
            return jnp.zeros(self.chain.mj.nu)
        return jnp.minimum(jnp.log(self.noise_end) - jnp.asarray(noise.initial), 0.0)

    def fresh(self, key: PRNGKeyArray, theta: Array) -> RobotState:
        """Draw a start from the wide distribution or from the chain's own."""
        choice, one, two = jax.random.split(key, 3)
        wide = jax.random.bernoulli(choice, self.share)
        return jax.tree.map(lambda a, b: jnp.where(wide, a, b), self.explore(one), self.chain.start(two))

    def between(self, key: PRNGKeyArray, state: RobotState) -> RobotState:
        """See `Between`."""
        return state if self.happens is None else self.happens(key, state)

    @property
    def places(self) -> bool:
        """Whether a start depends on theta: it is lifted onto the floor, or it has readings."""
        return self.chain.places

    def placed(self, chain: RobotSystem, state: RobotState, new: Array, theta: Array) -> RobotState:
        """`state`; where `new`, it is placed at theta, see `RobotSystem.placed`."""
        stays = chain.started(state, theta)
        if not chain.places:
            return stays
        return jax.tree.map(lambda a, b: jnp.where(new, a, b), chain.placed(state, theta), stays)

    def bind(self, chain: RobotSystem, theta: Array, start: RobotState) -> RobotSystem:
        """The chain with the physical model of theta computed once."""
        return chain.bind(theta, start)

    def planned(self, theta: Array, memory: Scaling) -> Array:
        """See `SystemParts.planned`."""
        return self.at(memory).planned(theta)

    def inputs(self, memory: Scaling, theta: Array) -> CriticInputs:
        """The critic's inputs, see `CriticInputs`."""
        return CriticInputs(self.at(memory), theta, self.depends)

    def tangent(self, state: RobotState, slope: RobotState) -> RobotState:
        """Without what changes the length of a quaternion."""
        qpos = slope.body.qpos
        for kind, at in zip(self.chain.mj.jnt_type, self.chain.mj.jnt_qposadr, strict=True):
            if kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL):
                first = int(at) + (3 if kind == mujoco.mjtJoint.mjJNT_FREE else 0)
                turn, part = state.body.qpos[first : first + 4], qpos[first : first + 4]
                qpos = qpos.at[first : first + 4].add(-turn * (turn @ part))
        return eqx.tree_at(lambda s: s.body.qpos, slope, qpos)

    def remembered(self, memory: Scaling, theta: Array, states: RobotState) -> Scaling:
        """The scaling updated with these states, and the multipliers of the constraints."""
        new = memory.updated(jax.vmap(lambda state: self.chain.observe(state, theta))(states))
        if not isinstance(new, Constrained):
            return new
        cost: Any = self.chain.scene_cost
        chain = self.chain.bind(theta)
        measured = jax.vmap(lambda state: cost.measured(chain.scene(state, theta)))(states)
        return new.moved(jnp.mean(measured, axis=0) - jnp.asarray([cost.limits[i] for i in cost.constrained]))

    def kept(self, new: Scaling, old: Scaling, early: Array) -> Scaling:
        """The scaling is kept after the first part of a training; multipliers go on."""
        if isinstance(new, Constrained) and isinstance(old, Constrained):
            return jax.tree.map(lambda a, b: jnp.where(early, a, b), new, new.held(old))
        return super().kept(new, old, early)

    def terms(self, theta: Array, states: RobotState) -> Float[Array, " k"]:
        """Mean of each cost term over the states."""
        terms = getattr(self.chain.scene_cost, "terms", None)
        if terms is None:
            return jnp.zeros(0)
        chain = self.chain.bind(theta)
        return jnp.mean(jax.vmap(lambda state: terms(chain.scene(state, theta)))(states), axis=0)

    def noise(self, theta: Array, key: PRNGKeyArray, progress: Array, shape: tuple[int, int]) -> Array:
        """Action noise (E, T, nu) for E windows of T steps, then standard normal noise of the readings."""
        draws = jax.random.normal(key, (*shape, self.noises))
        return draws.at[..., : self.chain.mj.nu].multiply(self.deviation(theta, progress))

    def deviation(self, theta: Array, progress: Array) -> Float[Array, " nu"]:
        """The standard deviation of the actions at this point of the training."""
        return jnp.exp(self.at(self.chain.scaling, progress).noise_scale(theta))

    def play(self, theta: Array, memory: Scaling, states: RobotState, noise: Array) -> RobotState:
        """Simulate the windows on C MuJoCo."""
        return self.windows(theta, memory, states, noise)

    def explored(self, theta: Array, memory: Scaling, states: RobotState, noise: Array, law: Law) -> RobotState:
        """Simulate the windows on C MuJoCo."""
        return self.windows.explored(theta, memory, states, noise, law)

    @property
    def limited(self) -> np.ndarray:
        """Actuators with a range."""
        return np.array(self.chain.squash.limited, bool)

    def taken(self, states: RobotState) -> Float[Array, "*N nu"]:
        """The z of the actions, see `Squash.moved`, so that tanh gives the place in the actuator's range."""
        return self.chain.squash.moved(states.action)

    def row(self, theta: Array, state: RobotState) -> Float[Array, " r"]:
        """The critic's inputs with the observation as it is, and the time."""
        plain = no_scaling(self.chain.scaling.mean.shape[0])
        inputs = CriticInputs(self.at(plain), theta, self.depends)(state)
        return jnp.append(inputs, self.chain.sound(state).body.time)

    def seen(self, memory: Scaling, row: Float[Array, " r"]) -> Float[Array, " width"]:
        """The critic's inputs."""
        size = memory.mean.shape[0]
        return jnp.concatenate([memory(row[:size]), row[size:-1]])

    def mean(self, theta: Array, memory: Scaling, row: Float[Array, " r"]) -> Float[Array, " nu"]:
        """The z of the policy's action, in the precision of the row."""
        size, weights = memory.mean.shape[0], self.chain.layout.split(theta)["policy"].astype(row.dtype)
        own = row[size : size + self.chain.policy.memory]
        raw = self.chain.policy(weights, memory(row[:size]).astype(row.dtype), own, row[-1])[0]
        return self.chain.squash.moved(raw).astype(row.dtype)

    @property
    def noises(self) -> int:
        """As the chain's."""
        return self.chain.noises

    def record(
        self, theta: Array, memory: Scaling, states: RobotState, new: Any, noise: Any, progress: float
    ) -> Record:
        """Simulate and linearise windows on C MuJoCo."""
        log_noise = self.chain.noise_scale(theta) + progress * self._log_end
        softer = self.soften ** max(1.0 - progress / SMOOTHED, 0.0)
        return self.windows.record(theta, memory, states, new, noise, log_noise, softer=softer)

    def replayed(self, chain: RobotSystem, record: Record) -> ReplayedSystem:
        """The chain along one record."""
        return replayed(chain, record)

    def of_the_policy(self, problem: Problem) -> Problem:
        """The problem whose cost includes only the cost of the policy's choice of action."""
        own = getattr(self.chain.scene_cost, "of_the_policy", lambda: lambda scene: jnp.zeros(()))
        return eqx.tree_at(lambda p: p.chain.scene_cost, problem, own())


def training_method(
    chain: RobotSystem,
    settings: Settings,
    *,
    explore: Callable[[PRNGKeyArray], RobotState] | None = None,
    supervised: Mapping[str, Callable[..., Array]] | None = None,
    moved: np.ndarray | None = None,
    curvature: Any = None,
    happens: Between | None = None,
    depends: Dependence | None = None,
) -> Any:
    """The training method that `settings` name in `core.method.TRAINING`, for a robot's chain.

    explore, happens: see `RobotCourse`.
    depends: see `RobotCourse`; found by trial by default.
    supervised, moved, curvature: see `core.method.short_horizon.ShortHorizon`; only a method that `supervises` has them.
    """
    layout, explore = chain.layout, chain.start if explore is None else explore
    depends = dependence(chain, explore, settings.episode) if depends is None else depends
    critic = CriticInputs(chain, jnp.asarray(layout.initial), depends)
    width = jax.eval_shape(critic, chain.rest()).shape[0]
    course = RobotCourse(
        chain=chain,
        width=width,
        explore=explore,
        share=settings.explore,
        noise_end=settings.noise_end,
        soften=settings.soften,
        windows=CWindows(chain, depends=depends),
        depends=depends,
        happens=happens,
    )
    made = TRAINING[settings.method]
    if settings.method in THROUGH_THE_CHAIN and chain.watch is not None:
        made = types.new_class(f"Replayed{made.__name__}", (Replayed, made))
    apart = {"supervised": supervised, "moved": moved, "curvature": curvature} if made.supervises else {}
    return made(
        course,
        settings,
        theta=np.asarray(layout.initial),
        blocks=[layout.where(block.name) for block in layout.free],
        rates=layout.spread(dict(settings.rates), settings.learning_rate),
        **apart,
    )
