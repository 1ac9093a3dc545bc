"""Descent on sampled gradients: a sampler estimates, a rule proposes a step, and the step is accepted or rejected."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.descent import CACHE, Last, Moment, Result, Status, descend
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import check_theta
from dso_robotics.core.sampler import Sample, Sampler
from dso_robotics.errors import DsoError


class Proposal(eqx.Module):
    """A proposed step.

    theta: the next theta.
    state: the rule's state there.
    predicted: the predicted reduction of J, or NaN if there is no prediction.
    """

    theta: Float[Array, " n"]
    state: Any
    predicted: Float[Array, ""]


class Rule(eqx.Module):
    """How a gradient becomes a step. If `judged`, the actual reduction of J is compared with the predicted one."""

    judged: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def init(self, theta: Float[Array, " n"]) -> Any:
        """State before the first step."""

    @abc.abstractmethod
    def propose(
        self, key: PRNGKeyArray, theta: Float[Array, " n"], sample: Sample, state: Any, scale: Float[Array, ""]
    ) -> Proposal:
        """The step, multiplied by `scale` <= 1. The loop lowers `scale` after rejections."""

    def judge(
        self, sample: Sample, proposal: Proposal, value: Callable[[], Float[Array, ""]] | None
    ) -> tuple[Bool[Array, ""] | bool, Any]:
        """Whether to accept, and the next state. `value()` is J at the proposal, with the same noise as the sample."""
        return True, proposal.state


def rollouts_of(sample: Sample, name: str) -> Batch:
    """The batch of a sample. Raises DsoError if there is none; the message says what `name` needs."""
    if sample.batch is None:
        raise DsoError(
            f"{name} needs the rollouts behind the gradient and their log P, which this sampler does not give. Use a "
            "ScoreSampler or MixedSampler, or the rule FirstOrder."
        )
    return sample.batch


def by_trust(
    trust: TrustRegion, sample: Sample, proposal: Proposal, value: Callable | None
) -> tuple[Bool[Array, ""], Any]:
    """Whether the trust region accepts the proposal, and its next radius."""
    after = jnp.nan if value is None else value()
    return trust.compare(proposal.state, sample.estimate.value, after, proposal.predicted)


@dataclasses.dataclass(frozen=True)
class Record:
    """One iteration. The numbers are those at the theta where it started.

    noise_ratio: mean((g / s)^2), about 1 when the true gradient is zero.
    scale: step length factor that remains after divergence.
    accepted: False when a trust region refused the step.
    note: description of rejections.
    """

    iteration: int
    value: float
    value_error: float
    gradient_norm: float
    noise_ratio: float
    step_norm: float
    scale: float
    accepted: bool
    samples: int
    note: str


@dataclasses.dataclass(frozen=True)
class Stopping:
    """When to stop.

    tolerance: limit on the largest entry of the gradient, including standard errors.
    patience: number of consecutive samples at the noise floor before stopping.

    A sample is at the noise floor if mean((g / s)^2) over the entries is below the level of a zero gradient, 1 + 2 sqrt(2 /
    n). The gradient is then indistinguishable from zero with this number of rollouts.
    """

    tolerance: float = 1e-6
    patience: int = 5
    noise_floor: bool = True
    rejections: int = 30

    def __post_init__(self) -> None:
        for name in ("patience", "rejections"):
            if getattr(self, name) < 1:
                raise DsoError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.tolerance < 0.0:
            raise DsoError(f"tolerance: must not be negative, got {self.tolerance}.")


@dataclasses.dataclass(frozen=True)
class State:
    """The state of the descent.

    theta: (n,) parameters. The rule's and the sampler's memory are stored next to it.
    scale: step length factor that remains after divergence.
    quiet: number of consecutive samples at the noise floor.
    refused: number of consecutive steps that the trust region refused.
    lost: whether no step was possible, or the start cannot be evaluated.
    value, value_error: J and its standard error.
    gradient_norm: |g|.
    largest: the largest entry of |g| plus two standard errors.
    sample: the last sample.
    """

    theta: Any
    rule: Any
    memory: Any
    key: Any
    iteration: int
    scale: float
    quiet: int
    refused: int
    lost: bool
    value: float
    value_error: float
    gradient_norm: float
    largest: float
    samples: int
    diverged: int
    sample: Sample | None = dataclasses.field(default=None, metadata=CACHE)


class Sampled:
    """Steps of `rule` on gradients from `sampler`.

    A step that diverges (rollouts that blew up, or numbers that are not finite) is undone and halved. A step that the rule's
    trust region refuses is undone and tried again, shorter, with new rollouts. `Record.note` describes this.
    """

    def __init__(self, rule: Rule, sampler: Sampler, *, stopping: Stopping | None = None):
        self.rule, self.sampler = rule, sampler
        self.stopping = Stopping() if stopping is None else stopping
        self._propose = eqx.filter_jit(rule.propose)

    def init(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> State:
        """The state before the first step. Its sample is drawn here."""
        check_theta(theta)
        theta = jnp.asarray(theta)
        zero = (0.0, 0.0, 0.0, 0.0, 0, 0)
        state = State(theta, self.rule.init(theta), self.sampler.memory(), key, 0, 1.0, 0, 0, False, *zero)
        sample = self._draw(state, theta, 0)
        return dataclasses.replace(self._seen(state, sample), lost=not bool(sample.estimate.usable))

    def _draw(self, state: State, theta: Array, offset: int, memory: Any = None) -> Sample:
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.iteration + offset), 0)
        return self.sampler(key, theta, state.memory if memory is None else memory)

    def _seen(self, state: State, sample: Sample) -> State:
        """The state, updated with a new sample at its theta."""
        estimate = sample.estimate
        error = np.nan_to_num(np.asarray(estimate.standard_error), posinf=0.0)
        size = max(int(np.count_nonzero(error > 0.0)), 1)
        quiet = state.quiet + 1 if noise_ratio(sample) < 1.0 + 2.0 * np.sqrt(2.0 / size) else 0
        return dataclasses.replace(
            state,
            quiet=quiet,
            value=float(estimate.value),
            value_error=float(estimate.value_error),
            gradient_norm=float(jnp.linalg.norm(estimate.gradient)),
            largest=float(np.max(np.abs(np.asarray(estimate.gradient)) + 2.0 * error, initial=0.0)),
            samples=int(estimate.samples),
            diverged=int(estimate.diverged),
            sample=sample,
        )

    def step(self, state: State) -> tuple[State, Record]:
        """One step, halved until its rollouts do not blow up."""
        sample = self._draw(state, state.theta, 0) if state.sample is None else state.sample
        scale, notes, proposal = state.scale, [], None
        step_key = jax.random.fold_in(jax.random.fold_in(state.key, state.iteration), 1)
        for _ in range(self.stopping.rejections):
            proposal = self._propose(step_key, state.theta, sample, state.rule, jnp.asarray(scale))
            finite = bool(jnp.all(jnp.isfinite(proposal.theta)))
            fresh = self._draw(state, proposal.theta, 1, sample.memory) if finite else None
            if fresh is None or not bool(fresh.estimate.usable):
                scale = scale / 2.0
                told = "it is not finite" if fresh is None else f"{int(fresh.estimate.diverged)} rollouts blew up"
                notes.append(f"step rejected ({told}) and halved")
                continue
            value = self._value_at(state, proposal.theta)
            judged, rule = self.rule.judge(sample, proposal, value)
            accepted = bool(judged)
            if not accepted:
                # The next try uses new rollouts, because noise in these may have caused the bad step.
                notes.append("step rejected (J did not fall as predicted), trust region shrunk")
                fresh = self._draw(state, state.theta, 1, sample.memory)
            following = dataclasses.replace(
                state,
                theta=proposal.theta if accepted else state.theta,
                rule=rule,
                memory=sample.memory,
                iteration=state.iteration + 1,
                scale=min(1.0, 1.5 * scale),
                refused=0 if accepted else state.refused + 1,
            )
            record = _record(sample, state, proposal, scale, accepted, "; ".join(notes))
            return self._seen(following, fresh), record
        assert proposal is not None
        lost = dataclasses.replace(state, iteration=state.iteration + 1, lost=True, sample=sample)
        return lost, _record(sample, state, proposal, scale, False, "; ".join(notes))

    def _value_at(self, state: State, theta: Array) -> Callable[[], Array]:
        """J at another theta, with the noise of the current sample.

        The difference between the two is then due to the step, not to the noise.
        """
        return lambda: self._draw(state, theta, 0).estimate.value

    def done(self, state: State, record: Record | None) -> Status | None:
        """Converged by the largest entry of the gradient, at the noise floor, or unable to continue."""
        stopping = self.stopping
        if state.lost:
            return Status.DIVERGED
        if state.refused >= stopping.rejections:
            return Status.STALLED
        if state.largest <= stopping.tolerance:
            return Status.CONVERGED
        return Status.NOISE_FLOOR if stopping.noise_floor and state.quiet >= stopping.patience else None

    def message(self, state: State, status: Status, steps: int) -> str:
        """One paragraph for the user."""
        if state.lost and not steps:
            return (
                f"At the initial theta the value is {state.value:.4g} and {state.diverged} of {state.samples} rollouts blew up "
                "or had no finite derivative. Start from another theta, shorten the rollouts, or give the objective a "
                "divergence_cost."
            )
        told = (
            f"after {steps} iterations: J = {state.value:.6g} (standard error {state.value_error:.2g}), "
            f"|g| = {state.gradient_norm:.3g}"
        )
        refused = self.stopping.rejections
        return {
            Status.CONVERGED: f"Converged {told}.",
            Status.NOISE_FLOOR: f"Stopped {told}. The gradient cannot be told from zero with {state.samples} rollouts; take "
            "more of them, or a better baseline, to go further.",
            Status.ITERATIONS: f"Stopped at the iteration limit {told}.",
            Status.DIVERGED: f"Stopped {told}. {refused} steps in a row were rejected, each half as long as the one before: "
            "rollouts blow up next to this theta. Shorten the rollouts or give the objective a divergence_cost.",
            Status.STALLED: f"Stopped {told}. {refused} steps in a row did not reduce J as predicted: what is left to gain is "
            "below the rounding or the noise of J, or the gradient misleads.",
            Status.STOPPED: f"Stopped by the caller {told}.",
        }[status]


def minimise(
    key: PRNGKeyArray,
    sampler: Sampler,
    theta: Float[Array, " n"],
    rule: Rule,
    *,
    iterations: int = 100,
    stopping: Stopping | None = None,
    keep: Last | None = None,
    watch: Callable[[Moment], bool | None] | None = None,
) -> Result:
    """Minimise J from `theta` with `rule`, on gradients from `sampler`: `descend` with a `Sampled` method."""
    method = Sampled(rule, sampler, stopping=stopping)
    return descend(method, method.init(key, theta), iterations=iterations, keep=keep, watch=watch)


def noise_ratio(sample: Sample) -> float:
    """mean((g / s)^2) over the entries with a standard error: about 1 when the true gradient is zero."""
    gradient, error = np.asarray(sample.estimate.gradient), np.asarray(sample.estimate.standard_error)
    noisy = np.isfinite(error) & (error > 0.0)
    return float(np.mean((gradient[noisy] / error[noisy]) ** 2)) if noisy.any() else np.inf


def _record(sample: Sample, state: State, proposal: Proposal, scale: float, accepted: bool, note: str) -> Record:
    estimate = sample.estimate
    return Record(
        state.iteration,
        float(estimate.value),
        float(estimate.value_error),
        float(jnp.linalg.norm(estimate.gradient)),
        noise_ratio(sample),
        float(jnp.linalg.norm(proposal.theta - state.theta)),
        scale,
        accepted,
        int(estimate.samples),
        note,
    )
