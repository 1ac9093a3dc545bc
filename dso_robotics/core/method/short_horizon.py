"""Training by short windows: the pathwise gradient of the core, closed with a critic, on windows that continue one another.

One iteration is compiled once. Every environment simulates a window of `horizon` control steps. The gradient of its
discounted cost plus the critic's value of its last state goes to Adam. The critic is then fitted to the TD(lambda) returns
of the same window, for use in the next one. Windows continue from their last states, except for the fraction that restarts.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core import devices
from dso_robotics.core.chain import Chain, State
from dso_robotics.core.gradient.adjoint import value_slopes
from dso_robotics.core.gradient.estimate import Estimate, group_gradients, summarise
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.curved_step import Curvature, curved_step
from dso_robotics.core.method.learner import Learner, Step
from dso_robotics.core.method.settings import SMOOTHED, Settings
from dso_robotics.core.method.slope_critic import SlopeCritic, with_slopes
from dso_robotics.core.method.window import scored_entries, window_loss
from dso_robotics.core.objective import Problem
from dso_robotics.core.rollout import Ending, Trajectory


@TRAINING.register("pathwise")
@TRAINING.register("score")
@TRAINING.register("mixed")
class ShortHorizon(SlopeCritic):
    """Training with the gradient through the chain, by the score, or mixed: by the score where it exists (`settings.method`).

    supervised: costs by name. Each is a function of chain, theta and progress. Its gradient is added without any rollout.
    curvature: entries that are moved by scaled steps in the place of Adam's.

    The other arguments are those of `Windowed`.
    """

    engine = "mjx"
    slopes = True
    reason = "a policy has too many parameters for finite differences; reverse mode through MJX costs the same for all of them"

    def __init__(
        self,
        course: Course,
        settings: Settings,
        *,
        supervised: Mapping[str, Callable[..., Array]] | None = None,
        curvature: Curvature | None = None,
        **more: Any,
    ):
        super().__init__(course, settings, **more)
        self.curvature, self.supervised = curvature, dict(supervised or {})

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """Which entries (n,) are differentiated by the score. Raises DsoError if one of them is `moved` and has no score."""
        return scored_entries(method, chain, theta, moved)

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
        found = group_gradients(loss, self.problem, learner.theta, *batch, groups=s.groups, shared=(chain, value))
        if s.critic == "value":
            return found

        def slopes(one: PRNGKeyArray, state: State, new: Array, record: Any) -> State:
            mine = chain if record is None else course.replayed(chain, record)
            start = course.placed(mine, state, new, learner.theta)
            here = eqx.tree_at(lambda p: p.chain, self.problem, course.bind(mine, learner.theta, start))
            more = {"start": start, "horizon": self._horizon(learner), "value": value}
            return value_slopes(one, here, learner.theta, **more)

        return found[0], with_slopes(found[1], jax.vmap(slopes)(*batch))

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

    def _horizon(self, learner: Learner) -> int | Array:
        """Steps after which the derivative through the chain ends and the critic takes over. Windows may be longer."""
        s = self.settings
        if not s.horizons:
            return s.horizon
        first, last = s.horizons
        share = jnp.minimum(learner.iteration / s.iterations / SMOOTHED, 1.0)
        return jnp.round(first * (last / first) ** share).astype(int)

    def _held(self, theta: Array) -> Array:
        """Theta without a derivative by the entries that rollouts do not move."""
        return theta if self.moved.all() else jnp.where(self.moved, theta, jax.lax.stop_gradient(theta))
