"""Actor-critics that learn from a replay: the policy plays windows on C MuJoCo, and learns often from every transition.

Q(x, u) is the cost to come after the action u at x: E[L(x') + gamma Q(x', pi(x'))], without what follows a terminal x'. A time
limit is no end: the state at which it cuts an episode is bootstrapped like any other. Networks of Q are in single precision and
standardised by the scale of the critic. The policy is that of theta; what explores besides is part of the learner.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import State
from dso_robotics.core.experience import Experience, Transitions, no_experience
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.learner import Learner, Step, extended
from dso_robotics.core.method.played import PlayedCourse, Undifferentiated
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Ending, Trajectory, settled
from dso_robotics.errors import DsoError

Row = Float[Array, " r"]
Action = Float[Array, " nu"]


class ActedCourse(PlayedCourse):
    """A course whose policy chooses an action by what is seen of a state: a row of numbers, which can be kept.

    Some of the actions may be limited: their tanh is what acts. Others act as they are. The first standard normal numbers of a
    step are those of the actions.
    """

    @property
    @abc.abstractmethod
    def limited(self) -> Bool[np.ndarray, " nu"]:
        """Which of the actions are limited."""

    @abc.abstractmethod
    def row(self, theta: Array, state: State) -> Row:
        """What policy and critic see of a state, before scaling."""

    @abc.abstractmethod
    def seen(self, memory: Any, row: Row) -> Float[Array, " width"]:
        """The critic's inputs of a row, scaled by `memory`."""

    @abc.abstractmethod
    def mean(self, theta: Array, memory: Any, row: Row) -> Action:
        """The policy's action without noise."""

    @abc.abstractmethod
    def taken(self, states: State) -> Float[Array, "*N nu"]:
        """The actions that led to states."""

    @abc.abstractmethod
    def deviation(self, theta: Array, progress: Array) -> Action:
        """The standard deviation of the noise at this point of a training."""

    @abc.abstractmethod
    def explored(self, theta: Array, memory: Any, states: State, noise: Array, law: "Law") -> State:
        """As `play`, with standard normal noise (E, T, noises), and the actions that `law` makes of it."""


class Law(eqx.Module):
    """How a policy explores."""

    @abc.abstractmethod
    def __call__(self, seen: Float[Array, " width"], mean: Action, draw: Action) -> Action:
        """The action at a state with these critic's inputs, of the policy's own action and standard normal numbers."""


class Player(Learner):
    """What the next iteration of an actor-critic depends on.

    experience: what was played.
    slow_theta: (n,) the slow policy.
    spare: what the method learns besides policy and critics, with the optimiser's state.
    """

    experience: Experience
    slow_theta: Float[Array, " n"]
    spare: Any


class Update(eqx.Module):
    """What one update of an actor-critic changes."""

    theta: Float[Array, " n"]
    optimiser: Any
    critic: Any
    slow: Any
    critic_optimiser: Any
    slow_theta: Float[Array, " n"]
    spare: Any


class OffPolicy(Undifferentiated):
    """`Undifferentiated` windows that fill a replay. A method defines how it explores, its targets and the step of its policy.

    critics: how many networks of Q there are; the highest cost counts.
    delay: updates of the critics for one of the policy and the slow networks.
    """

    reason = "an actor-critic needs no derivative of the physics, and C MuJoCo has nothing to compile"
    moves_noise, reads_c = False, True
    critics, delay = 2, 1
    course: ActedCourse

    def __init__(self, course: Course, settings: Settings, **more: Any):
        super().__init__(course, settings, **more)
        self.suits(settings)
        self.updates = max(round(settings.ratio * settings.environments * settings.horizon), 1)
        shape = settings.environments, settings.horizon, self.course.noises
        self._noise: Any = eqx.filter_jit(lambda key: jax.random.normal(jax.random.fold_in(key, 0), shape))
        self._law: Any = eqx.filter_jit(self.law)

    @staticmethod
    def suits(settings: Settings) -> None:
        """Raise DsoError if the replay is shorter than an iteration."""
        per = settings.environments * settings.horizon
        if settings.replay < per:
            raise DsoError(
                f"replay: {settings.replay} transitions are fewer than one iteration plays, environments * horizon = {per}; "
                "give more, or play shorter windows."
            )

    @abc.abstractmethod
    def law(self, learner: Player) -> Law:
        """How the next windows explore."""

    @abc.abstractmethod
    def target(self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions) -> Float[Array, " N"]:
        """The standardised value of what follows the states after a batch of transitions."""

    @abc.abstractmethod
    def improve(
        self, key: PRNGKeyArray, at: Update, learner: Player, batch: Transitions, rate: Array
    ) -> tuple[Array, Any, Any]:
        """The next theta, its optimiser and `spare`, by a batch. rate: what is left of the step sizes."""

    def spare(self, key: PRNGKeyArray, row: int) -> Any:
        """What is learned besides policy and critics, before the first iteration. A state is seen as `row` numbers."""
        return ()

    def renewed(self, key: PRNGKeyArray, at: Update, learner: Player, experience: Experience) -> Update:
        """What an iteration's updates begin with, after its windows were stored."""
        return at

    def source(self, at: Update, experience: Experience) -> Experience:
        """Where the critics' batches are drawn from."""
        return experience

    @property
    def follows(self) -> float:
        """The fraction by which the slow networks move to the new ones in an update."""
        return self.settings.polyak

    def bounded(self, action: Float[Array, "*N nu"]) -> Float[Array, "*N nu"]:
        """Actions as they act."""
        return jnp.where(self.course.limited, jnp.tanh(action), action)

    def value(self, networks: Any, memory: Any, row: Row, acting: Action) -> Float[Array, " critics"]:
        """The standardised Q of each network, at a row and an action as it acts."""
        inputs = jnp.concatenate([self.course.seen(memory, row), acting]).astype(jnp.float32)
        return jnp.stack([network(inputs) for network in networks])

    def _network(self, key: PRNGKeyArray) -> Any:
        """The networks of Q."""
        inputs, hidden = self.course.width + len(self.course.limited), self.settings.critic_hidden
        more: dict[str, Any] = {"activation": jax.nn.relu, "dtype": jnp.float32}
        return tuple(
            eqx.nn.MLP(inputs, "scalar", hidden, 2, key=one, **more) for one in jax.random.split(key, self.critics)
        )

    def _begun(self, key: PRNGKeyArray, theta: Array) -> Learner:
        learner = super()._begun(key, theta)
        first = jax.tree.map(lambda leaf: leaf[0], learner.states)
        size = jax.eval_shape(self.course.row, theta, first).shape[0]
        kept = no_experience(self.settings.replay, size, len(self.course.limited))
        spare = self.spare(jax.random.fold_in(key, 1), size)
        return extended(Player, learner, experience=kept, slow_theta=theta, spare=spare)

    def play(self, learner: Player) -> State:
        """See `Played`."""
        noise, start = self._noise(learner.key), self.placed(learner)
        return self.course.explored(learner.theta, learner.memory, start, noise, self._law(learner))

    def learned(self, learner: Player, windows: State) -> tuple[Learner, tuple[Array, ...]]:
        """See `Played`."""
        s = self.settings
        keys = jax.random.split(jax.random.fold_in(learner.key, 1), 5)
        chain = self.course.at(learner.memory, learner.iteration / s.iterations)
        problem = eqx.tree_at(lambda p: p.chain, self.problem, chain)
        paths, new = jax.vmap(lambda window: self._taken(problem, learner.theta, window))(windows)
        new = jax.tree.map(lambda leaf: leaf.reshape((-1, *leaf.shape[2:])), new)
        experience = learner.experience.stored(new)
        ready = experience.count >= s.warmup
        rate = self._fallen(learner.iteration / s.iterations)
        names = Update.__dataclass_fields__
        begun = Update(**{name: getattr(learner, name) for name in names})
        begun = self.renewed(keys[4], begun, learner, experience)
        arrays, static = eqx.partition(begun, eqx.is_array)

        def once(index: Array, carry: tuple) -> tuple:
            parts, total = carry
            at, error = self._updated(
                jax.random.fold_in(keys[0], index), eqx.combine(parts, static), learner, experience, (index, rate)
            )
            return eqx.filter(at, eqx.is_array), total + error

        number = jnp.where(ready, self.updates, 0)
        arrays, total = jax.lax.fori_loop(0, number, once, (arrays, jnp.zeros((), jnp.float32)))
        found = eqx.combine(arrays, static)
        sound = jnp.all(jnp.isfinite(found.theta)) & jnp.isfinite(total)
        kept = jax.tree.map(lambda a, b: jnp.where(sound, a, b) if eqx.is_array(a) else a, found, begun)
        learned = eqx.tree_at(
            lambda one: (one.critic, one.slow, one.critic_optimiser, one.slow_theta, one.spare, one.experience),
            learner,
            (kept.critic, kept.slow, kept.critic_optimiser, kept.slow_theta, kept.spare, experience),
        )
        moved = Step(kept.theta, kept.optimiser, sound, jnp.linalg.norm(kept.theta - learner.theta))
        error = jnp.sqrt(total / jnp.maximum(number, 1))
        return self._onwards(learned, (keys[1], keys[2], keys[3]), paths, moved, error)

    def _taken(self, problem: Problem, theta: Array, window: State) -> tuple[Trajectory, Transitions]:
        """A window as a trajectory, and its transitions."""
        start = jax.tree.map(lambda leaf: leaf[0], window)
        chain: Any = self.course.bind(problem.chain, theta, start)
        costs = jax.vmap(lambda state: chain.cost(state, theta))(window)
        ends = jax.vmap(chain.terminal)(window) if chain.may_end() else jnp.zeros(costs.shape, bool)
        alive = jnp.cumsum(ends) - ends == 0
        path = settled(problem, window, jnp.where(alive, costs, 0.0).at[-1].set(0.0))
        rows = jax.vmap(lambda state: self.course.row(theta, state))(path.states)
        lost = jax.vmap(problem.chain.diverged)(window)
        valid = path.moved & ~lost[1:] & ~lost[:-1] & alive[1:] & ~ends[:-1] & jnp.isfinite(costs[1:])
        charged = jnp.where(valid, costs[1:], 0.0)
        following = Transitions(rows[:-1], self.course.taken(path.states)[1:], charged, rows[1:], ends[1:], valid)
        over = jnp.any(ends) & (path.ending == Ending.TIME)
        return eqx.tree_at(lambda p: p.ending, path, jnp.where(over, Ending.TERMINAL, path.ending)), following

    def _updated(
        self, key: PRNGKeyArray, at: Update, learner: Player, experience: Experience, now: tuple[Array, Array]
    ) -> tuple[Update, Array]:
        """One update, and the squared error of the critics."""
        s, (index, rate) = self.settings, now
        keys = jax.random.split(key, 3)
        batch = self.source(at, experience).drawn(keys[0], s.critic_batch)
        memory, scale = learner.memory, learner.critic_scale.astype(jnp.float32)
        ahead = 1.0 + self.target(keys[1], at, learner, batch)
        targets = batch.cost / scale + s.gamma * jnp.where(batch.ended, 0.0, ahead) - 1.0
        targets = jax.lax.stop_gradient(targets.astype(jnp.float32))
        acting, weights = self.bounded(batch.action), batch.weights
        free, static = eqx.partition(at.critic, eqx.is_inexact_array)

        def loss(parameters: Any) -> Array:
            networks = eqx.combine(parameters, static)
            found = jax.vmap(lambda row, u: self.value(networks, memory, row, u))(batch.row, acting)
            return weights @ jnp.mean((found - targets[:, None]) ** 2, axis=1)

        error, slope = jax.value_and_grad(loss)(free)
        change, critic_optimiser = self.critic_optimiser.update(slope, at.critic_optimiser, free)
        critic = eqx.combine(eqx.apply_updates(free, change), static)
        at = eqx.tree_at(lambda u: (u.critic, u.critic_optimiser), at, (critic, critic_optimiser))
        arrays, fixed = eqx.partition(at, eqx.is_array)

        def act(parts: Any) -> Any:
            here = eqx.combine(parts, fixed)
            theta, optimiser, spare = self.improve(keys[2], here, learner, batch, rate)
            slow = jax.tree.map(
                lambda old, new: old + self.follows * (new - old),
                *(eqx.filter(c, eqx.is_array) for c in (here.slow, here.critic)),
            )
            slow_theta = here.slow_theta + self.follows * (theta - here.slow_theta)
            rest = eqx.combine(slow, eqx.filter(here.slow, eqx.is_array, inverse=True))
            following = Update(theta, optimiser, here.critic, rest, here.critic_optimiser, slow_theta, spare)
            return eqx.filter(following, eqx.is_array)

        arrays = jax.lax.cond(index % self.delay == 0, act, lambda parts: parts, arrays)
        return eqx.combine(arrays, fixed), error
