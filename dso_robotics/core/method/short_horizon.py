"""Training by short windows: the pathwise gradient of the core, closed with a critic, on windows that continue one another.

One iteration is compiled once. Every environment simulates a window of `horizon` control steps. The gradient of its
discounted cost plus the critic's value of its last state goes to Adam. The critic is then fitted to the TD(lambda) returns
of the same window, for use in the next one. Windows continue from their last states, except for the fraction that restarts.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import devices
from dso_robotics.core.chain import Chain, State
from dso_robotics.core.descent import Status
from dso_robotics.core.fitting import lambda_returns, usable_states
from dso_robotics.core.gradient.estimate import Estimate, group_gradients, summarise
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.curved_step import Curvature, curved_step
from dso_robotics.core.method.learner import Learner, Record, Step
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.method.window import scored_entries, window_loss
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import Ending, Trajectory
from dso_robotics.core.value import CostToGo, NetworkValue

# Training is lost if for this fraction of its iterations every window blows up, or the gradient is not finite.
_LOST = 20


@TRAINING.register("pathwise")
@TRAINING.register("score")
@TRAINING.register("mixed")
class ShortHorizon:
    """Training with the gradient through the chain, by the score, or mixed: by the score where it exists (`settings.method`).

    theta: (n,) start point.
    blocks: entries of each block. The gradient of each block is clipped separately.
    rates: (n,) step sizes.
    supervised: costs by name. Each is a function of chain, theta and progress. Its gradient is added without any rollout.
    moved: (n,) the entries that the cost of rollouts moves. Its derivatives by the others are not used.
    curvature: entries that are moved by scaled steps in the place of Adam's.
    """

    engine = "mjx"
    reason = "a policy has too many parameters for finite differences; reverse mode through MJX costs the same for all of them"
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

    def __init__(
        self,
        course: Course,
        settings: Settings,
        *,
        theta: np.ndarray,
        blocks: Sequence[slice],
        rates: np.ndarray,
        supervised: Mapping[str, Callable[..., Array]] | None = None,
        moved: np.ndarray | None = None,
        curvature: Curvature | None = None,
    ):
        self.course, self.settings, self.blocks = course, settings, blocks
        self.moved = np.ones(len(theta), bool) if moved is None else np.asarray(moved, bool)
        self.curvature = curvature
        self.supervised = dict(supervised or {})
        self.objective = Episodic(settings.gamma, settings.horizon)
        self.problem = Problem(course.chain, self.objective, theta=jnp.asarray(theta))
        self.optimiser = optax.scale_by_adam(b1=0.9, b2=0.99)
        self.rates = jnp.asarray(rates)
        self.critic_optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.critic_rate))
        self.by_score = self.entries(settings.method, course.chain, jnp.asarray(theta), self.moved)
        self._iterate: Any = eqx.filter_jit(self._iterated)
        self._begin: Any = eqx.filter_jit(self._begun)

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """Which entries (n,) are differentiated by the score. Raises DsoError if one of them is `moved` and has no score."""
        return scored_entries(method, chain, theta, moved)

    @staticmethod
    def suits(settings: Settings) -> None:
        """Raise DsoError if the method cannot train with these settings."""

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

    def _value(self, network: Any, learner: Learner, theta: Array) -> CostToGo:
        inputs, scale = self.course.inputs(learner.memory, theta), learner.critic_scale
        chain = self.course.anchored(self.course.at(learner.memory), learner.anchor)
        return CostToGo(self.course.bind(chain, theta, None), theta, NetworkValue(network, inputs, scale, scale))

    def _fresh(self, key: PRNGKeyArray, theta: Array) -> State:
        """First states of all environments."""
        keys = jax.random.split(key, self.settings.environments)
        return jax.vmap(lambda one: self.course.fresh(one, theta))(keys)

    def _network(self, key: PRNGKeyArray) -> Any:
        """The critic before the first iteration."""
        return eqx.nn.MLP(self.course.width, "scalar", self.settings.critic_hidden, 2, activation=jax.nn.tanh, key=key)

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

    def _iterated(self, learner: Learner) -> tuple[Learner, tuple[Array, ...]]:
        key, roll_key = jax.random.split(learner.key)
        progress = learner.iteration / self.settings.iterations
        gradients, paths = self._gradients(learner, roll_key, progress)
        following, news = self._stepped(learner, key, paths, gradients, progress)
        return self._laid_out(following), devices.everywhere(news)

    def _gradients(
        self, learner: Learner, key: PRNGKeyArray, progress: Array, record: Any = None
    ) -> tuple[Float[Array, "G n"], Trajectory]:
        """Gradients of groups of windows, and the windows: simulated by the chain or, with a `record`, replayed from it."""
        s, course = self.settings, self.course
        chain = course.anchored(course.at(learner.memory, progress), learner.anchor)
        value = self._value(learner.slow, learner, learner.theta)
        value = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, value)

        def loss(
            problem: Problem, theta: Array, one: PRNGKeyArray, state: State, new: Array, record: Any, *, shared: Any
        ) -> tuple[Array, Trajectory]:
            chain, value = shared
            mine = chain if record is None else course.replayed(chain, record)
            here = eqx.tree_at(lambda p: p.chain, problem, mine)
            theta = self._held(theta)
            start = course.placed(mine, state, new, theta)
            more = {"horizon": self._horizon(learner), "value": value, "by_score": self.by_score, "bind": course.bind}
            total, path = window_loss(one, here, theta, start=start, **more)
            return jnp.where(path.ending == Ending.DIVERGED, 0.0, total), path

        keys = jax.random.split(key, s.environments)
        batch = keys, learner.states, learner.age == 0, record
        return group_gradients(loss, self.problem, learner.theta, *batch, groups=s.groups, shared=(chain, value))

    def _stepped(
        self, learner: Learner, key: PRNGKeyArray, paths: Trajectory, gradients: Float[Array, "G n"], progress: Array
    ) -> tuple[Learner, tuple[Array, ...]]:
        """The step of theta by the gradients of groups of windows, and what follows from it."""
        if self.supervised:
            chain = self.course.at(learner.memory, progress)
            slope = jax.grad(lambda at: sum(cost(chain, at, progress) for cost in self.supervised.values()))(
                learner.theta
            )
            gradients = gradients + slope
        blown = paths.ending == Ending.DIVERGED
        sums = jnp.sum(paths.costs, axis=1)
        # A window that blew up has no gradient. It must not invalidate its whole group.
        estimate = summarise(
            jnp.where(blown, 0.0, sums), gradients, jnp.zeros_like(blown), jnp.ones(learner.theta.shape, bool)
        )
        return self._close(learner, key, paths, self._moved(learner, estimate, progress))

    def _close(
        self, learner: Learner, key: PRNGKeyArray, paths: Trajectory, moved: Step
    ) -> tuple[Learner, tuple[Array, ...]]:
        """After the step: fit the critic and choose the next windows' start states."""
        keys = jax.random.split(key, 4)
        critic, slow, critic_state, error = self._fit(keys[1], learner, paths)
        learned = dataclasses.replace(learner, critic=critic, slow=slow, critic_optimiser=critic_state)
        return self._onwards(learned, (keys[0], keys[2], keys[3]), paths, moved, error)

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

    def _fallen(self, progress: Array) -> Array:
        """The remaining fraction of a step size."""
        return 1.0 - (1.0 - self.settings.final_rate) * progress

    def _horizon(self, learner: Learner) -> int | Array:
        """Steps after which the derivative through the chain ends and the critic takes over. Windows may be longer."""
        return self.settings.horizon

    def _held(self, theta: Array) -> Array:
        """Theta without a derivative by the entries that rollouts do not move."""
        return theta if self.moved.all() else jnp.where(self.moved, theta, jax.lax.stop_gradient(theta))

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

    def _moved(self, learner: Learner, estimate: Estimate, progress: Array) -> Step:
        norm, rate = jnp.linalg.norm(estimate.gradient), self._fallen(progress)
        finite = jnp.all(jnp.isfinite(estimate.gradient))
        gradient = jnp.where(finite, estimate.gradient, 0.0)
        moved, optimiser = self.descended(learner.theta, learner.optimiser, gradient, rate)
        if self.curvature is not None:
            at = self.curvature.entries
            chain = self.course.at(learner.memory, progress)
            step = curved_step(self.curvature.matrix(chain, learner.theta), gradient[at], self.curvature.blocks)
            finite = finite & jnp.all(jnp.isfinite(step))
            moved = moved.at[at].set(learner.theta[at] - self.curvature.rate * rate * step)
        theta = jnp.where(finite, moved, learner.theta)
        optimiser = jax.tree.map(lambda new, old: jnp.where(finite, new, old), optimiser, learner.optimiser)
        return Step(theta, optimiser, finite, norm)

    def _fit(self, key: PRNGKeyArray, learner: Learner, paths: Trajectory) -> tuple[Any, Any, Any, Array]:
        """Regression of the critic on the TD(lambda) returns after each state, computed with the slow critic."""
        s, slow = self.settings, self._value(learner.slow, learner, learner.theta)
        returns = jax.vmap(lambda path: lambda_returns(path, self.objective, slow, lam=s.lam))(paths)
        targets = (returns - paths.costs)[:, :-1]
        features = jax.vmap(jax.vmap(slow.rest.features))(jax.tree.map(lambda leaf: leaf[:, :-1], paths.states))
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

    def _remembered(self, learner: Learner, paths: Trajectory) -> Any:
        """The memory of the next iteration.

        It is fixed after the first tenth of the iterations, so that policy and critic can settle.
        """
        states = jax.tree.map(lambda leaf: leaf[:, :: max(self.settings.horizon // 4, 1)], paths.states)
        states = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), states)
        new = self.course.remembered(learner.memory, learner.theta, states)
        early = learner.iteration < max(self.settings.iterations // 10, 1)
        return self.course.kept(new, learner.memory, early)
