"""Steps of a rule of the core on windows played elsewhere, also within a trust region.

With `settings.trust_region` half of the windows make the step. All are played again by the policy of the step, from the same
starts and with the same noise, and on the other half the reduction of the discounted cost is compared with the one that the
linear model of the step predicts: a step that does not keep a tenth of it is refused, and the length of the next steps is
halved or doubled again, see `TrustRegion`. A step that raises the cost by more than its noise is always refused.
"""

import abc
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dso_robotics.core import surrogate
from dso_robotics.core.chain import State
from dso_robotics.core.descent import Status
from dso_robotics.core.gradient.estimate import Estimate
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method.action_space import ActionSpace
from dso_robotics.core.method.learner import Learner, Step, extended
from dso_robotics.core.method.sampled import Rule
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.rollout import Ending, Trajectory
from dso_robotics.core.sampler import Sample

# The radius is a share of the step that the settings allow.
_TRUST = TrustRegion(radius=1.0, smallest=1e-4, largest=1.0)
# Standard errors by which the cost must rise to be said to rise.
_SURE = 2.0


class TrustLearner(Learner):
    """A learner with a trust region.

    share: of the allowed step, the radius.
    refused: how many steps were refused.
    """

    share: Float[Array, ""]
    refused: Int[Array, ""]


class RuleSteps(ActionSpace):
    """A step of a rule of the core in every iteration."""

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self._propose: Any = eqx.filter_jit(self._proposed)
        self._judge: Any = eqx.filter_jit(self._judged)
        # The windows that judge a step.
        self._judges = np.arange(self.settings.environments) >= self.settings.environments // 2

    @abc.abstractmethod
    def rule(self, rate: Array) -> tuple[Rule, Any]:
        """The rule of a step and its state. `rate` is the remaining fraction of the step sizes."""

    def improved(self, key: PRNGKeyArray, learner: Learner, batch: Batch, rate: Array) -> Step:
        """See `ActionSpace`."""
        rule, state = self.rule(rate)
        slope = jax.grad(lambda delta: surrogate.surrogate(batch, delta))(jnp.zeros_like(learner.theta))
        zero, ones = jnp.zeros_like(slope), jnp.ones(slope.shape, bool)
        count = jnp.full((), self.settings.environments)
        estimate = Estimate(jnp.zeros(()), slope, zero, jnp.zeros(()), count, 0 * count, ones)
        proposal = rule.propose(key, learner.theta, Sample(estimate, batch, None), state, jnp.ones(()))
        finite = jnp.all(jnp.isfinite(proposal.theta))
        theta = jnp.where(finite, proposal.theta, learner.theta)
        return Step(theta, learner.optimiser, finite, jnp.linalg.norm(theta - learner.theta))

    def _begun(self, key: PRNGKeyArray, theta: Array) -> Learner:
        learner = super()._begun(key, theta)
        if not self.settings.trust_region:
            return learner
        return extended(TrustLearner, learner, share=jnp.asarray(_TRUST.radius), refused=jnp.zeros((), int))

    def _iterated(self, learner: Learner) -> tuple[Learner, tuple[Array, ...]]:
        if not isinstance(learner, TrustLearner):
            return super()._iterated(learner)
        windows = self.play(learner)
        step, paths, predicted = self._propose(learner, windows)
        again = self.play(dataclasses.replace(learner, theta=step.theta))
        return self._judge(learner, paths, step, again, predicted)

    def _proposed(self, learner: TrustLearner, windows: State) -> tuple[Step, Trajectory, Float[Array, " N"]]:
        """The step of the rule by the first half of the windows, all windows, and the reduction of the cost of each.

        The reduction is that of the linear model. Of the windows that made the step it would be too large: the step follows
        their noise too.
        """
        s, rate = self.settings, self._fallen(self._progress(learner))
        problem, paths = self._paths(learner, learner.theta, windows)
        batch = self._batch(learner, problem, paths, jnp.asarray(~self._judges))
        step = self.improved(self._keys(learner)[1], learner, batch, learner.share * rate)
        returns, advantage, usable = self._advantages(learner, paths)
        weight = usable * s.gamma ** jnp.arange(s.horizon)
        linear = self._weighted(learner, problem, paths, (returns, advantage), (weight, weight * s.gamma))
        samples, zero = (lambda delta: surrogate.surrogate_samples(linear, delta)), jnp.zeros_like(learner.theta)
        return step, paths, -jax.jvp(samples, (zero,), (step.theta - learner.theta,))[1]

    def _judged(
        self, learner: TrustLearner, paths: Trajectory, step: Step, again: State, predicted: Float[Array, " N"]
    ) -> tuple[Learner, tuple[Array, ...]]:
        """The learner with the step, or without it if the second half of the windows, played again, did not gain enough."""
        _, after = self._paths(learner, step.theta, again)
        judges = self._judges & (paths.ending != Ending.DIVERGED)
        count = jnp.maximum(jnp.sum(judges), 1)

        def mean(values: Float[Array, " N"]) -> Float[Array, ""]:
            return jnp.sum(jnp.where(judges, values, 0.0)) / count

        before, gained = (
            self._discounted(learner, at, path) for at, path in ((learner.theta, paths), (step.theta, after))
        )

        def error(values: Float[Array, " N"]) -> Float[Array, ""]:
            spread = jnp.sqrt(mean((values - mean(values)) ** 2) / count)
            return jnp.where(jnp.isfinite(spread), spread, 0.0)

        actual = before - gained
        raised = ~(mean(actual) >= -_SURE * error(actual))
        told = mean(before), jnp.where(raised, jnp.inf, mean(gained)), mean(predicted)
        accepted, share = _TRUST.compare(learner.share, *told, error=error(actual - predicted))
        kept = jnp.where(accepted, step.theta, learner.theta)
        judged = dataclasses.replace(learner, share=share, refused=learner.refused + ~accepted)
        # A refused step is no sign that the training is lost.
        taken = Step(kept, step.optimiser, step.accepted, jnp.linalg.norm(kept - learner.theta))
        return self._close(judged, self._keys(learner)[0], paths, taken)

    def _discounted(self, learner: Learner, theta: Array, paths: Trajectory) -> Float[Array, " N"]:
        """The discounted cost of windows and of what follows them; infinite where one blows up."""
        s, slow = self.settings, self._value(learner.slow, learner, theta)
        last = jax.tree.map(lambda leaf: leaf[:, -1], paths.states)
        total = paths.costs @ s.gamma ** jnp.arange(s.horizon + 1) + s.gamma**s.horizon * jax.vmap(slow)(last)
        return jnp.where(paths.ending == Ending.DIVERGED, jnp.inf, total)

    def message(self, state: Learner, status: Status, steps: int) -> str:
        """How the training ended, and what the trust region did."""
        told = super().message(state, status, steps)
        if status is Status.DIVERGED or not isinstance(state, TrustLearner):
            return told
        return (
            f"{told}; the trust region refused {int(state.refused)} steps and is at the end {float(state.share):.3g} of the "
            "step that is allowed"
        )
