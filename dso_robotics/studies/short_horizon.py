"""Training by short windows: the pathwise gradient of the core, closed with a critic, on windows that go on and on.

One iteration, compiled once: every environment plays a window of `horizon` control steps; the gradient of its discounted
cost plus the critic's value of its last state goes to Adam; the critic is fitted to the TD(lambda) returns of the same
window, for the next one; windows go on from their last states, but for the share that starts anew.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.fitting import lambda_returns, usable_states
from dso_robotics.core.gradient.estimate import Estimate, group_gradients, summarise
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import Ending, Trajectory
from dso_robotics.core.value import NetworkValue
from dso_robotics.costs.supervised import Supervised
from dso_robotics.errors import DsoError
from dso_robotics.physics.impedance import softened
from dso_robotics.robot.chain import RobotChain, RobotState
from dso_robotics.robot.observation import Scaling
from dso_robotics.studies.window_loss import scored_entries, window_loss

# The share of a training after which contacts are the model's own.
_SOFT = 0.7


@dataclasses.dataclass(frozen=True)
class Windows:
    """Settings. environments play windows of `horizon` control steps `iterations` times.

    gamma: discount a control step. lam: of the critic's targets. learning_rate: of theta, falling linearly to `final_rate`
    of it; `rates` replaces it for named blocks. clip: largest norm of the gradient of a block. critic_*: network, step size,
    updates an iteration and states an update. target: how much of the new critic the slow one, which makes the targets,
    takes on. noise_end: standard deviation of the actions at the end, reached geometrically. soften: how many times as long as
    the model's the contacts of the first iteration push; it falls geometrically to 1 over the first `_SOFT` of them. restart:
    share of windows that start anew, of which `explore` from the wide distribution. episode: control steps after which an
    environment starts anew in any case. abandon: a window whose mean cost a step is above this starts anew: there is little to
    learn from lying on the floor. method: how a window is differentiated, see `window_loss`, or a step in action space, see
    `action_space`: of those, updates: on a window's surrogate (pco) or of the conjugate gradients (natural), and divergence:
    the mean KL that an iteration may move the policy by.
    """

    environments: int = 64
    horizon: int = 32
    iterations: int = 450
    gamma: float = 0.99
    lam: float = 0.95
    learning_rate: float = 2e-3
    final_rate: float = 0.1
    rates: tuple[tuple[str, float], ...] = ()
    clip: float = 1.0
    critic_hidden: int = 64
    critic_rate: float = 1e-3
    critic_updates: int = 16
    critic_batch: int = 512
    target: float = 0.2
    noise_end: float = 0.05
    soften: float = 1.0
    restart: float = 0.1
    explore: float = 0.7
    abandon: float = math.inf
    episode: int = 1000
    groups: int = 4
    method: str = "pathwise"
    updates: int = 20
    divergence: float = 0.02

    def __post_init__(self) -> None:
        for name in (
            "environments",
            "horizon",
            "iterations",
            "critic_hidden",
            "critic_updates",
            "critic_batch",
            "episode",
            "updates",
        ):
            if getattr(self, name) < 1:
                raise DsoError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "final_rate", "clip", "critic_rate", "noise_end", "divergence"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise DsoError(f"{name}: expected a positive number, got {getattr(self, name)}.")
        if not 1.0 <= self.soften < 100.0:
            raise DsoError(f"soften: expected a factor from 1 (contacts as they are) to 100, got {self.soften}.")
        if not self.abandon > 0:
            raise DsoError(f"abandon: expected a positive cost, got {self.abandon}.")
        for name in ("gamma", "lam", "target", "restart", "explore"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DsoError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}.")
        if not self.gamma < 1.0:
            raise DsoError("gamma: the critic's value is finite only for a discount below 1; take 0.99, say.")
        if self.environments % self.groups:
            raise DsoError(f"environments: expected a multiple of {self.groups}, got {self.environments}.")

    @property
    def steps(self) -> int:
        """Control steps of all iterations."""
        return self.environments * self.horizon * self.iterations


class Fixed(eqx.Module):
    """A start that is one given state."""

    state: RobotState

    def __call__(self, key: PRNGKeyArray) -> RobotState:
        """The state."""
        return self.state


class _Features(eqx.Module):
    """What the critic sees: the policy's observation, scaled, its memory, actions under way and all that was drawn."""

    chain: RobotChain
    theta: Array

    def __call__(self, state: RobotState) -> Array:
        seen = self.chain.scaling(self.chain.observe(state, self.theta))
        context = self.chain.context.normalised(state.context)
        return jnp.concatenate([seen, state.memory, jnp.tanh(state.queue).ravel(), context])


class Learner(eqx.Module):
    """All that the next iteration depends on."""

    theta: Float[Array, " n"]
    optimiser: Any
    critic: Any
    slow: Any
    critic_optimiser: Any
    critic_scale: Float[Array, ""]
    scaling: Scaling
    states: RobotState
    age: Array
    key: PRNGKeyArray
    iteration: Array


class News(eqx.Module):
    """What an iteration says of itself: mean cost a step, terms, gradient norm, share of windows that blew up, critic error."""

    cost: Float[Array, ""]
    terms: Float[Array, " k"]
    gradient_norm: Float[Array, ""]
    value_error: Float[Array, ""]
    blown: Float[Array, ""]
    accepted: Bool[Array, ""]


class Moved(eqx.Module):
    """A step that was taken: theta, the optimiser's state, whether it was finite, and the norm of what it followed."""

    theta: Float[Array, " n"]
    optimiser: Any
    accepted: Bool[Array, ""]
    norm: Float[Array, ""]


class ShortHorizon:
    """The method on one chain.

    explore: draws start states as the chain's own `start` does, but may be much wider. supervised: costs by name, whose
    gradient is added without any rollout.
    """

    def __init__(
        self,
        chain: RobotChain,
        settings: Windows,
        *,
        explore: Any = None,
        supervised: Mapping[str, Supervised] | None = None,
    ):
        self.chain, self.settings = chain, settings
        self.supervised = dict(supervised or {})
        self.explore = chain.start if explore is None else explore
        self.objective = Episodic(settings.gamma, settings.horizon)
        self.problem = Problem(chain, self.objective, theta=jnp.asarray(chain.layout.initial))
        layout, s = chain.layout, settings
        self.optimiser = optax.scale_by_adam(b1=0.9, b2=0.99)
        self.rates = jnp.asarray(layout.spread(dict(s.rates), s.learning_rate))
        self.blocks = [layout.where(block.name) for block in layout.free]
        self.critic_optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(s.critic_rate))
        self.by_score = scored_entries(s.method, chain)
        self.step: Any = eqx.filter_jit(self._step)
        self.begin: Any = eqx.filter_jit(self._begin)

    def compile(self, learner: Learner) -> Any:
        """`step`, compiled."""
        return self.step.lower(learner).compile()

    def _network(self, key: PRNGKeyArray, state: RobotState) -> Any:
        size = self.chain.policy.inputs + state.memory.size + state.queue.size + state.context.size
        return eqx.nn.MLP(size, "scalar", self.settings.critic_hidden, 2, activation=jax.nn.tanh, key=key)

    def _value(self, network: Any, learner: Learner, theta: Array) -> NetworkValue:
        chain = self._chain(learner)
        return NetworkValue(network, _Features(chain, theta), learner.critic_scale, learner.critic_scale)

    def _chain(self, learner: Learner) -> RobotChain:
        return eqx.tree_at(lambda c: c.scaling, self.chain, learner.scaling)

    def _fresh(self, key: PRNGKeyArray) -> RobotState:
        choice, one, two = jax.random.split(key, 3)
        wide = jax.random.bernoulli(choice, self.settings.explore)
        return jax.tree.map(lambda a, b: jnp.where(wide, a, b), self.explore(one), self.chain.start(two))

    def _begin(self, key: PRNGKeyArray, theta: Array) -> Learner:
        """The state before the first iteration."""
        s = self.settings
        keys = jax.random.split(key, 4)
        states = jax.vmap(self._fresh)(jax.random.split(keys[0], s.environments))
        network = self._network(keys[1], self.chain.rest())
        states = jax.vmap(lambda state: self.chain.placed(state, theta))(states)
        seen = jax.vmap(lambda state: self.chain.observe(state, theta))(states)
        scaling = self.chain.scaling.updated(seen)
        costs = jax.vmap(lambda state: self.chain.cost(state, theta))(states)
        return Learner(
            theta=theta,
            optimiser=self.optimiser.init(theta),
            critic=network,
            slow=network,
            critic_optimiser=self.critic_optimiser.init(eqx.filter(network, eqx.is_inexact_array)),
            critic_scale=0.5 * jnp.mean(costs) / (1.0 - s.gamma) + 1e-6,
            scaling=scaling,
            states=states,
            # Age 0 says that a start is still to be put on the floor.
            age=jax.random.randint(keys[2], (s.environments,), 0 if self.chain.lift is None else 1, s.episode),
            key=keys[3],
            iteration=jnp.zeros((), int),
        )

    def _step(self, learner: Learner) -> tuple[Learner, News]:
        s = self.settings
        key, roll_key = jax.random.split(learner.key)
        progress = learner.iteration / s.iterations
        chain = self._scheduled(self._chain(learner), progress)
        value = self._value(learner.slow, learner, learner.theta)
        value = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, value)

        def loss(
            problem: Problem, theta: Array, one: PRNGKeyArray, state: RobotState, new: Array
        ) -> tuple[Array, Trajectory]:
            start = Fixed(self._begun(chain, state, new, theta))
            here = eqx.tree_at(lambda p: p.chain, problem, dataclasses.replace(chain, start=start, lift=None))
            total, path = window_loss(one, here, theta, horizon=s.horizon, value=value, by_score=self.by_score)
            return jnp.where(path.ending == Ending.DIVERGED, 0.0, total), path

        keys = jax.random.split(roll_key, s.environments)
        batch = keys, learner.states, learner.age == 0
        gradients, paths = group_gradients(loss, self.problem, learner.theta, *batch, groups=s.groups)
        if self.supervised:
            slope = jax.grad(lambda at: sum(cost(chain, at, progress) for cost in self.supervised.values()))(
                learner.theta
            )
            gradients = gradients + slope
        blown = paths.ending == Ending.DIVERGED
        sums = jnp.sum(paths.costs, axis=1)
        # A window that blew up has no gradient, and need not take its whole group along.
        estimate = summarise(
            jnp.where(blown, 0.0, sums), gradients, jnp.zeros_like(blown), jnp.ones(learner.theta.shape, bool)
        )
        return self._close(learner, key, paths, self._descend(learner, estimate, progress))

    def _close(self, learner: Learner, key: PRNGKeyArray, paths: Trajectory, moved: Moved) -> tuple[Learner, News]:
        """After a step: the critic fitted, the windows to go on with."""
        s = self.settings
        key, fit_key, fresh_key, choice_key = jax.random.split(key, 4)
        blown, sums = paths.ending == Ending.DIVERGED, jnp.sum(paths.costs, axis=1)
        critic, slow, critic_state, error = self._fit(fit_key, learner, paths)
        scaling = self._rescale(learner, paths)
        last = jax.tree.map(lambda leaf: leaf[:, -1], paths.states)
        age = learner.age + s.horizon
        mean = sums / jnp.maximum(jnp.sum(paths.counted, axis=1), 1)
        again = blown | (mean > s.abandon) | (age >= s.episode) | jax.random.bernoulli(choice_key, s.restart, age.shape)
        fresh = jax.vmap(self._fresh)(jax.random.split(fresh_key, s.environments))
        states = jax.tree.map(
            lambda new, old: jnp.where(again.reshape((-1,) + (1,) * (old.ndim - 1)), new, old), fresh, last
        )
        news = News(
            cost=jnp.sum(paths.costs) / jnp.maximum(jnp.sum(paths.counted), 1),
            terms=self._terms(learner.theta, last),
            gradient_norm=moved.norm,
            value_error=error,
            blown=jnp.mean(blown),
            accepted=moved.accepted,
        )
        following = Learner(
            theta=moved.theta,
            optimiser=moved.optimiser,
            critic=critic,
            slow=slow,
            critic_optimiser=critic_state,
            critic_scale=learner.critic_scale,
            scaling=scaling,
            states=states,
            age=jnp.where(again, 0, age),
            key=key,
            iteration=learner.iteration + 1,
        )
        return following, news

    def _begun(self, chain: RobotChain, state: RobotState, new: Array, theta: Array) -> RobotState:
        """A window's first state; a new one is as high as theta's mechanism stands, which has a derivative."""
        if chain.lift is None:
            return state
        return jax.tree.map(lambda a, b: jnp.where(new, a, b), chain.placed(state, theta), state)

    def _terms(self, theta: Array, states: RobotState) -> Float[Array, " k"]:
        """Mean of every term of the cost over given states."""
        terms = getattr(self.chain.price, "terms", None)
        if terms is None:
            return jnp.zeros(0)
        chain = self.chain.bind(theta)
        return jnp.mean(jax.vmap(lambda state: terms(chain.scene(state, theta)))(states), axis=0)

    def _scheduled(self, chain: RobotChain, progress: Array) -> RobotChain:
        """The chain with its frozen noise annealed, and contacts as soft as they are meant to be by now."""
        if self.settings.soften > 1.0:
            factor = self.settings.soften ** jnp.maximum(1.0 - progress / _SOFT, 0.0)
            chain = eqx.tree_at(lambda c: c.base, chain, softened(chain.base, factor))
        return eqx.tree_at(lambda c: c.anneal, chain, progress * self._log_end, is_leaf=lambda leaf: leaf is None)

    @property
    def _log_end(self) -> Array:
        noise = next(block for block in self.chain.layout.blocks if block.name == "noise")
        if noise.free:
            return jnp.zeros(self.chain.mj.nu)
        return jnp.minimum(jnp.log(self.settings.noise_end) - jnp.asarray(noise.initial), 0.0)

    def _fallen(self, progress: Array) -> Array:
        """What is left of a step size."""
        return 1.0 - (1.0 - self.settings.final_rate) * progress

    def _descend(self, learner: Learner, estimate: Estimate, progress: Array) -> Moved:
        s = self.settings
        gradient, norm = estimate.gradient, jnp.linalg.norm(estimate.gradient)
        for part in self.blocks:
            size = jnp.linalg.norm(gradient[part])
            gradient = gradient.at[part].multiply(jnp.minimum(1.0, s.clip / (size + 1e-12)))
        finite = jnp.all(jnp.isfinite(gradient))
        gradient = jnp.where(finite, gradient, 0.0)
        change, optimiser = self.optimiser.update(gradient, learner.optimiser)
        rate = self.rates * self._fallen(progress)
        theta = jnp.where(finite, learner.theta - rate * jnp.asarray(change), learner.theta)
        optimiser = jax.tree.map(lambda new, old: jnp.where(finite, new, old), optimiser, learner.optimiser)
        return Moved(theta, optimiser, finite, norm)

    def _fit(self, key: PRNGKeyArray, learner: Learner, paths: Trajectory) -> tuple[Any, Any, Any, Array]:
        """Regression of the critic on the TD(lambda) returns that the slow critic gives."""
        s, theta = self.settings, learner.theta
        slow = self._value(learner.slow, learner, theta)
        targets = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)[:, :-1]
        features = jax.vmap(jax.vmap(slow.features))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
        usable = jax.vmap(usable_states)(paths)[:, :-1] & jnp.isfinite(targets)
        features = features.reshape(-1, features.shape[-1])
        targets = jnp.where(usable, targets, 0.0).reshape(-1) / learner.critic_scale - 1.0
        weights = usable.reshape(-1).astype(targets.dtype)
        free, static = eqx.partition(learner.critic, eqx.is_inexact_array)
        size = min(s.critic_batch, targets.shape[0])

        def loss(parameters: Any, index: Array) -> Array:
            network = eqx.combine(parameters, static)
            errors = jax.vmap(network)(features[index]) - targets[index]
            return jnp.sum(weights[index] * errors**2) / jnp.maximum(jnp.sum(weights[index]), 1.0)

        def update(carry: tuple, one: PRNGKeyArray) -> tuple[tuple, Array]:
            parameters, state = carry
            index = jax.random.randint(one, (size,), 0, targets.shape[0])
            error, slope = jax.value_and_grad(loss)(parameters, index)
            change, state = self.critic_optimiser.update(slope, state, parameters)
            return (eqx.apply_updates(parameters, change), state), error

        (free, state), errors = jax.lax.scan(
            update, (free, learner.critic_optimiser), jax.random.split(key, s.critic_updates)
        )
        critic = eqx.combine(free, static)
        slow_free, _ = eqx.partition(learner.slow, eqx.is_inexact_array)
        mixed = jax.tree.map(lambda old, new: old + s.target * (new - old), slow_free, free)
        return critic, eqx.combine(mixed, static), state, jnp.sqrt(errors[0])

    def _rescale(self, learner: Learner, paths: Trajectory) -> Scaling:
        """The scaling of the next iteration: fixed after the first tenth of them, so that policy and critic settle."""
        states = jax.tree.map(lambda leaf: leaf[:, :: max(self.settings.horizon // 4, 1)], paths.states)
        seen = jax.vmap(jax.vmap(lambda state: self.chain.observe(state, learner.theta)))(states)
        new = learner.scaling.updated(seen.reshape(-1, seen.shape[-1]))
        early = learner.iteration < max(self.settings.iterations // 10, 1)
        return jax.tree.map(lambda a, b: jnp.where(early, a, b), new, learner.scaling)
