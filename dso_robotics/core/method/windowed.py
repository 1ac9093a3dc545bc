"""Training by windows that continue one another: what every method of it shares, whatever it learns from a window.

Every environment plays a window of `horizon` control steps in an iteration. Windows continue from their last states, except for
the fraction that restarts. A method says what theta and its critic learn from the windows.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import devices
from dso_robotics.core.chain import Chain, State
from dso_robotics.core.compiling import quick_filter_jit
from dso_robotics.core.descent import Status
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.learner import Learner, Record, Step
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import Ending, Trajectory

# Training is lost if for this fraction of its iterations every window blows up, or the gradient is not finite.
_LOST = 20


class Windowed(abc.ABC):
    """A method of the loop that learns from windows.

    theta: (n,) start point.
    blocks: entries of each block. The gradient of each block is clipped separately.
    rates: (n,) step sizes.
    moved: (n,) the entries that the cost of rollouts moves; all by default.
    """

    engine: str
    reason: str
    # Whether supervised costs, which need no rollout, can be added, and whether windows of the chain are simulated.
    supervises = True
    rolls = True
    # Whether a terminal state ends a window, whether costs can be hard constraints, and whether the scale of the actions' noise
    # in theta is moved.
    ends = True
    constrains = True
    moves_noise = True
    # Whether costs are read in states of C MuJoCo, where it simulates the windows.
    reads_c = False
    # Whether steps can be accepted by the reduction of the cost that they promise (`settings.trust_region`).
    trusts = False
    # Whether a critic can be fitted to value gradients (`settings.critic`).
    slopes = False

    def __init__(
        self,
        course: Course,
        settings: Settings,
        *,
        theta: np.ndarray,
        blocks: Sequence[slice],
        rates: np.ndarray,
        moved: np.ndarray | None = None,
    ):
        self.course, self.settings, self.blocks = course, settings, blocks
        self.moved = np.ones(len(theta), bool) if moved is None else np.asarray(moved, bool)
        self.objective = Episodic(settings.gamma, settings.horizon)
        self.problem = Problem(course.chain, self.objective, theta=jnp.asarray(theta))
        self.optimiser = optax.scale_by_adam(b1=0.9, b2=0.99)
        self.rates = jnp.asarray(rates)
        self.critic_optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.critic_rate))
        self.by_score = self.entries(settings.method, course.chain, jnp.asarray(theta), self.moved)
        self._iterate: Any = eqx.filter_jit(self._iterated)
        self._begin: Any = quick_filter_jit(self._begun)

    @staticmethod
    @abc.abstractmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """Which entries (n,) are differentiated by the score. Raises DsoError if one of them is `moved` and has no score."""

    @abc.abstractmethod
    def _iterated(self, learner: Any) -> tuple[Learner, tuple[Array, ...]]:
        """The learner after an iteration, and the entries of its record."""

    @abc.abstractmethod
    def _network(self, key: PRNGKeyArray) -> Any:
        """The critic before the first iteration."""

    @staticmethod
    def suits(settings: Settings) -> None:
        """Raise DsoError if the method cannot train with these settings."""
        return

    def init(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> Learner:
        """The state before the first iteration."""
        # With types of their own, as a step gives them: another type of one number would compile the step a second time.
        begun = jax.tree.map(
            lambda leaf: leaf.astype(leaf.dtype) if eqx.is_inexact_array(leaf) else leaf,
            self._begin(key, jnp.asarray(theta)),
        )
        return self._laid_out(begun)

    def compile(self, state: Learner) -> None:
        """Compile the step ahead of the first call."""
        self._iterate = self._iterate.lower(state).compile()

    def step(self, state: Learner) -> tuple[Learner, Record]:
        """One iteration."""
        following, news = self._iterate(self._laid_out(state))
        cost, terms, norm, error, blown, accepted = (np.asarray(entry) for entry in news)
        return following, Record(float(cost), terms, float(norm), float(error), float(blown), bool(accepted))

    def done(self, state: Learner, record: Record | None) -> Status | None:
        """Diverged if a twentieth of the iterations in a row gave only blow-ups."""
        return Status.DIVERGED if int(state.lost) >= max(self.settings.iterations // _LOST, 1) else None

    def message(self, state: Learner, status: Status, steps: int) -> str:
        """How the training ended."""
        if status is Status.DIVERGED:
            return (
                f"after {steps} iterations every window blows up or has no finite gradient. Shorten the windows (horizon), "
                "lower the learning rate, or start where the robot is not driven apart"
            )
        return f"{steps} iterations"

    def _fresh(self, key: PRNGKeyArray, theta: Array) -> State:
        """First states of all environments."""
        keys = jax.random.split(key, self.settings.environments)
        return jax.vmap(lambda one: self.course.fresh(one, theta))(keys)

    def _begun(self, key: PRNGKeyArray, theta: Array) -> Learner:
        s, course, chain = self.settings, self.course, self.course.chain
        keys = jax.random.split(key, 4)
        states = self._fresh(keys[0], theta)
        network = self._network(keys[1])
        states = jax.vmap(lambda state: course.placed(chain, state, jnp.ones((), bool), theta))(states)
        costs = jax.vmap(lambda state: chain.cost(state, theta))(states)
        return Learner(
            theta=theta,
            anchor=theta,
            optimiser=self.optimiser.init(theta),
            critic=network,
            slow=network,
            critic_optimiser=self.critic_optimiser.init(eqx.filter(network, eqx.is_inexact_array)),
            critic_scale=0.5 * jnp.mean(costs) / (1.0 - s.gamma) + 1e-6,
            memory=course.remembered(course.memory, theta, states),
            states=states,
            # Age 0 means that the start state has not been placed yet.
            age=jax.random.randint(keys[2], (s.environments,), int(course.places), s.episode),
            key=keys[3],
            iteration=jnp.zeros((), int),
            lost=jnp.zeros((), int),
        )

    def _laid_out(self, learner: Learner) -> Learner:
        """The learner on all devices: the environments split over them, everything else on each."""
        rest = devices.everywhere(dataclasses.replace(learner, states=None, age=None))
        return dataclasses.replace(rest, states=devices.rows(learner.states), age=devices.rows(learner.age))

    def _onwards(
        self, learner: Learner, keys: tuple[PRNGKeyArray, ...], paths: Trajectory, moved: Step, error: Array
    ) -> tuple[Learner, tuple[Array, ...]]:
        """The learner at the start states of the next windows, and the record's entries. keys: next, fresh, choice."""
        s, (key, fresh_key, choice_key) = self.settings, keys
        blown, sums = paths.ending == Ending.DIVERGED, jnp.sum(paths.costs, axis=1)
        memory = self._remembered(learner, paths)
        last = jax.tree.map(lambda leaf: leaf[:, -1], paths.states)
        age = learner.age + s.horizon
        mean = sums / jnp.maximum(jnp.sum(paths.counted, axis=1), 1)
        again = (
            (paths.ending == Ending.TERMINAL)
            | blown
            | (mean > s.abandon)
            | (age >= s.episode)
            | jax.random.bernoulli(choice_key, s.restart, age.shape)
        )
        fresh, between = (
            self._fresh(fresh_key, learner.theta),
            jax.random.split(jax.random.fold_in(choice_key, 1), len(age)),
        )
        states = jax.tree.map(
            lambda new, old: jnp.where(again.reshape((-1,) + (1,) * (old.ndim - 1)), new, old),
            fresh,
            jax.vmap(self.course.between)(between, last),
        )
        share = jnp.mean(blown)
        news = (
            jnp.sum(paths.costs) / jnp.maximum(jnp.sum(paths.counted), 1),
            self.course.terms(learner.theta, last),
            moved.norm,
            error,
            share,
            moved.accepted,
        )
        due = (learner.iteration + 1) % max(self.course.anchored_every, 1) == 0
        following = dataclasses.replace(
            learner,
            theta=moved.theta,
            anchor=jnp.where(due, moved.theta, learner.anchor),
            optimiser=moved.optimiser,
            memory=memory,
            states=states,
            age=jnp.where(again, 0, age),
            key=key,
            iteration=learner.iteration + 1,
            lost=jnp.where((share == 1.0) | ~moved.accepted, learner.lost + 1, 0),
        )
        return following, news

    def _remembered(self, learner: Learner, paths: Trajectory) -> Any:
        """The memory of the next iteration.

        It is fixed after the first tenth of the iterations, so that policy and critic can settle.
        """
        states = jax.tree.map(lambda leaf: leaf[:, :: max(self.settings.horizon // 4, 1)], paths.states)
        states = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), states)
        new = self.course.remembered(learner.memory, learner.theta, states)
        early = learner.iteration < max(self.settings.iterations // 10, 1)
        return self.course.kept(new, learner.memory, early)

    def _fallen(self, progress: Array) -> Array:
        """The remaining fraction of a step size."""
        return 1.0 - (1.0 - self.settings.final_rate) * progress

    def clipped(self, gradient: Float[Array, " n"]) -> Float[Array, " n"]:
        """The gradient with the norm of each block at most `settings.clip`."""
        for part in self.blocks:
            size = jnp.linalg.norm(gradient[part])
            gradient = gradient.at[part].multiply(jnp.minimum(1.0, self.settings.clip / (size + 1e-12)))
        return gradient

    def descended(self, theta: Array, optimiser: Any, gradient: Array, rate: Array) -> tuple[Float[Array, " n"], Any]:
        """The next theta and optimiser, by a gradient. rate: the remaining fraction of the step sizes."""
        change, optimiser = self.optimiser.update(self.clipped(gradient), optimiser)
        return theta - self.rates * rate * jnp.asarray(change), optimiser
