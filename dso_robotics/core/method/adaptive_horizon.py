"""Value expansion with the longest horizon whose measured gradient variance stays under a bound.

The derivative runs through H steps of the chain and is closed with the critic. A longer H has less of the critic's bias, and a
variance that grows like H^4 L^4H in the Lipschitz constant L of the closed loop. The rule is max H subject to variance <= C.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dso_robotics.core.descent import Status
from dso_robotics.core.gradient.estimate import masked_mean
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.learner import Learner, extended
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.core.rollout import Ending, Trajectory

# Weight of the last iteration in running means; factors by which the horizon grows and shrinks in one iteration.
_NEW, _GROW, _SHRINK = 0.1, 1.05, 0.9


class HorizonLearner(Learner):
    """A learner whose horizon moves.

    span: H as a real number, at least 1. The horizon is the whole number below it.
    variance: running mean of the variance of the gradient (of its mean over all windows, summed over entries).
    signal: running mean of the squared norm of the gradient without that variance.
    level: the largest `signal` so far. The bound C is `settings.variance` times it.
    """

    span: Float[Array, ""]
    variance: Float[Array, ""]
    signal: Float[Array, ""]
    level: Float[Array, ""]

    @property
    def horizon(self) -> Int[Array, ""]:
        """H."""
        return jnp.floor(self.span).astype(int)


@TRAINING.register("adaptive_horizon")
class AdaptiveHorizon(ShortHorizon):
    """`pathwise`, with the longest horizon up to `settings.horizon` whose gradient variance stays under a bound.

    A window still has `settings.horizon` steps. Within it the derivative is cut every H steps, and each piece is closed with
    the critic, so no step is wasted and nothing is compiled anew. H starts at 1. The bound is a share of the squared gradient
    at its largest, not of the present one: a gradient that vanishes at the optimum would leave no horizon at all.
    """

    def _begun(self, key: PRNGKeyArray, theta: Array) -> HorizonLearner:
        learner = super()._begun(key, theta)
        zero = jnp.zeros((), theta.dtype)
        return extended(HorizonLearner, learner, span=zero + 1.0, variance=zero, signal=zero, level=zero)

    def _horizon(self, learner: Learner) -> int | Array:
        assert isinstance(learner, HorizonLearner)
        return learner.horizon

    def _stepped(
        self, learner: Learner, key: PRNGKeyArray, paths: Trajectory, gradients: Float[Array, "G n"], progress: Array
    ) -> tuple[Learner, tuple[Array, ...]]:
        assert isinstance(learner, HorizonLearner)
        following, news = super()._stepped(learner, key, paths, gradients, progress)
        assert isinstance(following, HorizonLearner)
        blown = jnp.any((paths.ending == Ending.DIVERGED).reshape(len(gradients), -1), axis=1)
        return self._judged(following, gradients, blown | ~jnp.all(jnp.isfinite(gradients), axis=1)), news

    def _judged(self, learner: HorizonLearner, gradients: Float[Array, "G n"], bad: Array) -> HorizonLearner:
        """The horizon moved by the spread of the gradients of groups of windows. Fewer than two good groups shrink it."""
        s, (mean, error) = self.settings, masked_mean(gradients, bad)
        now = jnp.sum(error**2)
        enough, first = jnp.sum(~bad) >= 2, learner.variance == 0.0

        def running(old: Array, new: Array) -> Array:
            return jnp.where(enough, jnp.where(first, new, old + _NEW * (new - old)), old)

        variance = running(learner.variance, now)
        signal = running(learner.signal, jnp.maximum(mean @ mean - now, 0.0))
        level = jnp.maximum(learner.level, signal)
        under = enough & (jnp.maximum(variance, now) <= s.variance * level)
        over = ~enough | (variance > s.variance * level)
        factor = jnp.where(under, _GROW, jnp.where(over, _SHRINK, 1.0))
        # From one step to two the factor alone takes long.
        span = jnp.clip(learner.span * factor + jnp.where(under, 0.1, 0.0), 1.0, s.horizon)
        return dataclasses.replace(learner, span=span, variance=variance, signal=signal, level=level)

    def message(self, state: Learner, status: Status, steps: int) -> str:
        """How the training ended, and with which horizon."""
        told = super().message(state, status, steps)
        if status is Status.DIVERGED or not isinstance(state, HorizonLearner):
            return told
        longest = self.settings.horizon
        return f"{told}; the horizon at the end is {int(state.horizon)} of at most {longest} steps"
