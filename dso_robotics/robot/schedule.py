"""A robot's chain made ready for training by windows: what is annealed, where windows start, and what the critic sees."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.action_space import PlayedCourse
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.objective import Problem
from dso_robotics.physics.impedance import softened
from dso_robotics.robot.chain import RobotChain, RobotState
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import CWindows

# The share of a training after which contacts are the model's own.
_SOFT = 0.7


class RobotCourse(PlayedCourse):
    """The course of a robot's chain; its memory is the scaling of the observation.

    explore: draws start states as the chain's own `start` does, but may be much wider; `share` of the windows that start anew
    start there. noise_end: the actions' standard deviation at the end, reached geometrically, unless theta holds it. soften:
    how many times as long as the model's own the contacts push at first.
    """

    explore: Callable[[PRNGKeyArray], RobotState] = eqx.field(kw_only=True)
    share: float = eqx.field(static=True, kw_only=True)
    noise_end: float = eqx.field(static=True, kw_only=True)
    soften: float = eqx.field(static=True, kw_only=True)
    windows: CWindows = eqx.field(static=True, kw_only=True)

    @property
    def memory(self) -> Scaling:
        """The chain's own scaling."""
        return self.chain.scaling

    def at(self, memory: Scaling, progress: Array | None = None) -> RobotChain:
        """The chain with this scaling, its frozen noise annealed and its contacts as soft as they are meant to be by now."""
        chain = eqx.tree_at(lambda c: c.scaling, self.chain, memory)
        if progress is None:
            return chain
        if self.soften > 1.0:
            factor = self.soften ** jnp.maximum(1.0 - progress / _SOFT, 0.0)
            chain = eqx.tree_at(lambda c: c.base, chain, softened(chain.base, factor))
        return eqx.tree_at(lambda c: c.anneal, chain, progress * self._log_end, is_leaf=lambda leaf: leaf is None)

    @property
    def _log_end(self) -> Array:
        noise = next(block for block in self.chain.layout.blocks if block.name == "noise")
        if noise.free:
            return jnp.zeros(self.chain.mj.nu)
        return jnp.minimum(jnp.log(self.noise_end) - jnp.asarray(noise.initial), 0.0)

    def fresh(self, key: PRNGKeyArray, theta: Array) -> RobotState:
        """A start, from the wide distribution or the chain's own."""
        choice, one, two = jax.random.split(key, 3)
        wide = jax.random.bernoulli(choice, self.share)
        return jax.tree.map(lambda a, b: jnp.where(wide, a, b), self.explore(one), self.chain.start(two))

    @property
    def places(self) -> bool:
        """Whether starts are lifted onto the floor."""
        return self.chain.lift is not None

    def placed(self, chain: RobotChain, state: RobotState, new: Array, theta: Array) -> RobotState:
        """A new state is as high as theta's mechanism stands."""
        if chain.lift is None:
            return state
        return jax.tree.map(lambda a, b: jnp.where(new, a, b), chain.placed(state, theta), state)

    def bind(self, chain: RobotChain, theta: Array, start: RobotState) -> RobotChain:
        """The chain with the physical model of theta made once."""
        return chain.bind(theta, start)

    def inputs(self, memory: Scaling, theta: Array) -> "CriticInputs":
        """The policy's observation, scaled, its memory, actions under way and all that was drawn."""
        return CriticInputs(self.at(memory), theta)

    def remembered(self, memory: Scaling, theta: Array, states: RobotState) -> Scaling:
        """The scaling after these states."""
        return memory.updated(jax.vmap(lambda state: self.chain.observe(state, theta))(states))

    def terms(self, theta: Array, states: RobotState) -> Float[Array, " k"]:
        """Mean of every term of the cost over states."""
        terms = getattr(self.chain.scene_cost, "terms", None)
        if terms is None:
            return jnp.zeros(0)
        chain = self.chain.bind(theta)
        return jnp.mean(jax.vmap(lambda state: terms(chain.scene(state, theta)))(states), axis=0)

    def noise(self, theta: Array, key: PRNGKeyArray, progress: Array, shape: tuple[int, int]) -> Array:
        """Noise (E, T, nu) of the actions of E windows of T steps."""
        chain = self.at(self.chain.scaling, progress)
        return jnp.exp(chain.noise_scale(theta)) * jax.random.normal(key, (*shape, chain.mj.nu))

    def play(self, theta: Array, memory: Scaling, states: RobotState, noise: Array) -> RobotState:
        """The windows on C MuJoCo."""
        return self.windows(theta, memory, states, noise)

    def of_the_policy(self, problem: Problem) -> Problem:
        """The problem whose cost is only what the policy's own choice of action costs."""
        own = getattr(self.chain.scene_cost, "of_the_policy", lambda: lambda scene: jnp.zeros(()))
        return eqx.tree_at(lambda p: p.chain.scene_cost, problem, own())


class CriticInputs(eqx.Module):
    """What the critic sees of a robot's state under one theta."""

    chain: RobotChain
    theta: Array

    def __call__(self, state: RobotState) -> Array:
        """The numbers, of order one."""
        seen = self.chain.scaling(self.chain.observe(state, self.theta))
        context = self.chain.context.normalised(state.context)
        return jnp.concatenate([seen, state.memory, jnp.tanh(state.queue).ravel(), context])


def training_method(
    chain: RobotChain,
    settings: Settings,
    *,
    explore: Callable[[PRNGKeyArray], RobotState] | None = None,
    supervised: Mapping[str, Callable[..., Array]] | None = None,
) -> Any:
    """The method that `settings` name, of `core.method.TRAINING`, for a robot's chain; see `RobotCourse` for `explore`."""
    rest, layout = chain.rest(), chain.layout
    course = RobotCourse(
        chain=chain,
        width=chain.policy.inputs + rest.memory.size + rest.queue.size + rest.context.size,
        explore=chain.start if explore is None else explore,
        share=settings.explore,
        noise_end=settings.noise_end,
        soften=settings.soften,
        windows=CWindows(chain),
    )
    return TRAINING[settings.method](
        course,
        settings,
        theta=np.asarray(layout.initial),
        blocks=[layout.where(block.name) for block in layout.free],
        rates=layout.spread(dict(settings.rates), settings.learning_rate),
        supervised=supervised,
    )
