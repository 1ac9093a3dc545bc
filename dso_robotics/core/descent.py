"""The one optimisation loop: evaluate, propose, accept or reject, stop; with history, callbacks and checkpoints."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.method import Method, Proposal
from dso_robotics.core.sampler import Sample, Sampler
from dso_robotics.errors import DsoError


class Status(enum.StrEnum):
    """Why a descent stopped."""

    CONVERGED = "converged"
    NOISE_FLOOR = "noise floor"
    ITERATIONS = "iterations"
    DIVERGED = "diverged"
    STALLED = "stalled"
    STOPPED = "stopped"


@dataclasses.dataclass(frozen=True)
class Record:
    """One iteration: numbers at the theta it started from, and what became of its step.

    noise_ratio: mean((g / s)^2), about 1 when the true gradient is zero. scale: what divergence left of the step's length.
    accepted: False when a trust region refused the step. note: rejections, in words.
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
    """When to stop. tolerance: on the largest entry of the gradient, standard errors included.

    The noise floor is reached when, `patience` times in a row, mean((g / s)^2) over the entries stays under what a zero
    gradient gives, 1 + 2 sqrt(2 / n): the gradient cannot be told from zero with so many rollouts.
    """

    iterations: int = 100
    tolerance: float = 1e-6
    patience: int = 5
    noise_floor: bool = True
    rejections: int = 30

    def __post_init__(self) -> None:
        for name in ("iterations", "patience", "rejections"):
            if getattr(self, name) < 1:
                raise DsoError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.tolerance < 0.0:
            raise DsoError(f"tolerance: must not be negative, got {self.tolerance}.")


class DescentState(eqx.Module):
    """All that the next iteration depends on: saving and restoring it resumes to the same numbers."""

    theta: Float[Array, " n"]
    method: Any
    memory: Any
    key: PRNGKeyArray
    iteration: int
    scale: float
    quiet: int
    refused: int
    history: tuple[Record, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """theta, why the descent stopped, in one paragraph, its history, and the state to go on from."""

    theta: Float[Array, " n"]
    status: Status
    message: str
    history: tuple[Record, ...]
    state: DescentState


def start(key: PRNGKeyArray, sampler: Sampler, theta: Float[Array, " n"], method: Method) -> DescentState:
    """The state before the first iteration."""
    theta = jnp.asarray(theta)
    if theta.ndim != 1:
        raise DsoError(f"theta: expected one flat vector, got shape {theta.shape}.")
    return DescentState(theta, method.init(theta), sampler.memory(), key, 0, 1.0, 0, 0, ())


def descend(
    key: PRNGKeyArray,
    sampler: Sampler,
    theta: Float[Array, " n"],
    method: Method,
    *,
    stopping: Stopping | None = None,
    callback: Callable[[DescentState, Record], bool | None] | None = None,
    checkpoint: Callable[[DescentState], None] | None = None,
    every: int = 1,
    resume: DescentState | None = None,
) -> Result:
    """Minimise J from `theta` by `method`, on gradients from `sampler`.

    A step into divergence (rollouts that blew up, numbers that are not finite) is taken back and halved; one that the
    method's trust region refuses is taken back and tried again, shorter, on new rollouts. `Record.note` says so.
    `callback` may return True to stop. `checkpoint` is given the state every `every` iterations; pass it back as
    `resume` to go on (key and theta are then those of the state).
    """
    stopping = Stopping() if stopping is None else stopping
    state = start(key, sampler, theta, method) if resume is None else resume
    propose = eqx.filter_jit(method.propose)
    sample = _draw(sampler, state, state.theta, 0)
    if not bool(sample.estimate.usable):
        message = (
            f"At the initial theta the value is {float(sample.estimate.value):.4g} and "
            f"{int(sample.estimate.diverged)} of {int(sample.estimate.samples)} rollouts blew up or had no finite "
            "derivative. Start from another theta, shorten the rollouts, or give the objective a divergence_cost."
        )
        return Result(state.theta, Status.DIVERGED, message, state.history, state)
    while state.iteration < stopping.iterations:
        status, state = _converged(sample, state, stopping)
        if status is not None:
            return _finish(status, sample, state)
        outcome = _advance(sampler, method, propose, sample, state, stopping)
        if outcome is None:
            return _finish(Status.DIVERGED, sample, state, stopping)
        sample, state = outcome
        stop = callback is not None and callback(state, state.history[-1])
        if checkpoint is not None and state.iteration % every == 0:
            checkpoint(state)
        if stop:
            return _finish(Status.STOPPED, sample, state)
        if state.refused >= stopping.rejections:
            return _finish(Status.STALLED, sample, state, stopping)
    status, state = _converged(sample, state, stopping)
    return _finish(status or Status.ITERATIONS, sample, state)


def _draw(sampler: Sampler, state: DescentState, theta: Array, offset: int) -> Sample:
    return sampler(jax.random.fold_in(jax.random.fold_in(state.key, state.iteration + offset), 0), theta, state.memory)


def noise_ratio(sample: Sample) -> float:
    """mean((g / s)^2) over the entries with a standard error: about 1 when the true gradient is zero."""
    gradient, error = np.asarray(sample.estimate.gradient), np.asarray(sample.estimate.standard_error)
    noisy = np.isfinite(error) & (error > 0.0)
    return float(np.mean((gradient[noisy] / error[noisy]) ** 2)) if noisy.any() else np.inf


def _converged(sample: Sample, state: DescentState, stopping: Stopping) -> tuple[Status | None, DescentState]:
    error = np.nan_to_num(np.asarray(sample.estimate.standard_error), posinf=0.0)
    if np.max(np.abs(np.asarray(sample.estimate.gradient)) + 2.0 * error, initial=0.0) <= stopping.tolerance:
        return Status.CONVERGED, state
    size = max(int(np.count_nonzero(error > 0.0)), 1)
    quiet = state.quiet + 1 if noise_ratio(sample) < 1.0 + 2.0 * np.sqrt(2.0 / size) else 0
    state = dataclasses.replace(state, quiet=quiet)
    return (Status.NOISE_FLOOR if stopping.noise_floor and quiet >= stopping.patience else None), state


def _advance(
    sampler: Sampler, method: Method, propose: Any, sample: Sample, state: DescentState, stopping: Stopping
) -> tuple[Sample, DescentState] | None:
    """One step, halved as often as it takes for its rollouts not to blow up; None when that was too often."""
    scale, notes = state.scale, []
    step_key = jax.random.fold_in(jax.random.fold_in(state.key, state.iteration), 1)
    advanced = dataclasses.replace(state, memory=sample.memory)
    for _ in range(stopping.rejections):
        proposal: Proposal = propose(step_key, state.theta, sample, state.method, jnp.asarray(scale))
        fresh = _draw(sampler, advanced, proposal.theta, 1) if bool(jnp.all(jnp.isfinite(proposal.theta))) else None
        if fresh is None or not bool(fresh.estimate.usable):
            scale = scale / 2.0
            told = "it is not finite" if fresh is None else f"{int(fresh.estimate.diverged)} rollouts blew up"
            notes.append(f"step rejected ({told}) and halved")
            continue
        accepted, method_state = method.judge(sample, proposal, _value_at(sampler, state, proposal.theta))
        if not accepted:
            # The next try has new rollouts: the gradient of these may be what misled.
            notes.append("step rejected (J did not fall as predicted), trust region shrunk")
            fresh = _draw(sampler, advanced, state.theta, 1)
        following = DescentState(
            theta=proposal.theta if accepted else state.theta,
            method=method_state,
            memory=sample.memory,
            key=state.key,
            iteration=state.iteration + 1,
            scale=min(1.0, 1.5 * scale),
            quiet=state.quiet,
            refused=0 if accepted else state.refused + 1,
            history=(*state.history, _record(sample, state, proposal, scale, accepted, "; ".join(notes))),
        )
        return fresh, following
    return None


def _value_at(sampler: Sampler, state: DescentState, theta: Array) -> Callable[[], Array]:
    """J at another theta under the noise of the current sample: the two differ by the step, not by the noise."""
    return lambda: _draw(sampler, state, theta, 0).estimate.value


def _record(sample: Sample, state: DescentState, proposal: Proposal, scale: float, accepted: bool, note: str) -> Record:
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


def _finish(status: Status, sample: Sample, state: DescentState, stopping: Stopping | None = None) -> Result:
    value, error = float(sample.estimate.value), float(sample.estimate.value_error)
    gradient = float(jnp.linalg.norm(sample.estimate.gradient))
    told = f"after {state.iteration} iterations: J = {value:.6g} (standard error {error:.2g}), |g| = {gradient:.3g}"
    refused = stopping.rejections if stopping else 0
    messages = {
        Status.CONVERGED: f"Converged {told}.",
        Status.NOISE_FLOOR: f"Stopped {told}. The gradient cannot be told from zero with {int(sample.estimate.samples)} "
        "rollouts; take more of them, or a better baseline, to go further.",
        Status.ITERATIONS: f"Stopped at the iteration limit {told}.",
        Status.DIVERGED: f"Stopped {told}. {refused} steps in a row were rejected, each half as long as the one before: "
        "rollouts blow up next to this theta. Shorten the rollouts or give the objective a divergence_cost.",
        Status.STALLED: f"Stopped {told}. {refused} steps in a row did not reduce J as predicted: what is left to gain is "
        "below the rounding or the noise of J, or the gradient misleads.",
        Status.STOPPED: f"Stopped by the callback {told}.",
    }
    return Result(state.theta, status, messages[status], state.history, state)
