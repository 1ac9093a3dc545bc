"""Bounded Levenberg-Marquardt for least squares whose unknowns are a few shared numbers and many private ones.

Identification estimates a handful of physical parameters z together with the start state of every window. The residual
of a window depends on z and on its own start alone, so the normal equations are an arrow: the starts are eliminated block
by block (Schur complement) and a step costs one small dense system, however many windows there are. Where windows are
tied to the next one, their part is block-tridiagonal instead of block-diagonal, and as cheap. SciPy's
`least_squares` would see hundreds of unknowns and one dense Jacobian; this is the piece it has no form for.

NumPy only: both engines feed it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from dso_robotics.core.normal import Normal, block_cost
from dso_robotics.errors import DsoError


class StartError(DsoError):
    """The cost is not finite at the start point, so there is nothing to search from."""


class Problem(Protocol):
    """Residuals of B blocks, m each, whitened by their noise; NaN anywhere marks a point that cannot be evaluated.

    z: (n,) shared coordinates; x: (B, s) whatever describes the private unknowns, moved by `retract` in a k-dimensional
    tangent space.
    """

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whitened residuals (B, m)."""
        ...

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals (B, m) with derivatives by z (B, m, n) and by x (B, m, k).

        Where a block's residuals depend on the next block's x too, a fourth array is the derivative (B, m, k) by that.
        """
        ...

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals (p,) and their derivative (p, n)."""
        ...

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """x moved by change (B, k)."""
        ...

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Re-estimate the noise at this point; returns the largest relative change of a noise scale (0: noise fixed)."""
        ...

    def log_scale(self) -> float:
        """Sum of log noise scales over all measured numbers: what makes the cost a negative log-likelihood."""
        ...


@runtime_checkable
class Reusing(Problem, Protocol):
    """A problem whose derivatives cost many times its residual, so that further steps with those at hand pay."""

    def again(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """Residuals here with the derivatives of the last `linearize`, weighed as they would be here."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One accepted iteration: its number, cost (half sum of squares plus log scales), damping, coordinates (n,), and how many
    residual evaluations it took to get there."""

    iteration: int
    cost: float
    damping: float
    z: np.ndarray
    evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class Solution:
    """Where the search ended.

    information: (n, n) Gauss-Newton Hessian of z, private unknowns eliminated, prior included: the inverse of the
      covariance of z where no bound is active.
    scores: (B, n) each block's gradient with its private unknowns eliminated; they sum to zero at an inner optimum, and
      their spread is what the data themselves say about the noise (sandwich covariance).
    block_information: (B, n, n) each block's share of `information`; prior_information: (n, n) and
      prior_gradient: (n,) the prior's.
    active: (n,) True where a bound holds the coordinate.
    evaluations: residual evaluations, one for each linearisation included.
    private: (B, k, k) covariance of each block's private unknowns given z; response: (B, k, n) minus their derivative by z.
    """

    z: np.ndarray
    x: np.ndarray
    cost: float
    converged: bool
    message: str
    information: np.ndarray
    scores: np.ndarray
    block_information: np.ndarray
    prior_information: np.ndarray
    prior_gradient: np.ndarray
    active: np.ndarray
    history: tuple[Record, ...]
    evaluations: int
    private: np.ndarray
    response: np.ndarray

    def private_covariance(self, block: int, covariance: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one block's private change, given that of z (n, n): its own noise, and what z leaves open."""
        if not self.private.size:
            return np.zeros(self.private.shape[1:])
        pull = self.response[block]
        return self.private[block] + pull @ covariance @ pull.T


@dataclasses.dataclass(frozen=True)
class Settings:
    """When to stop, and how to begin.

    step_tolerance: steps against the uncertainty, of each coordinate (standard deviation) or of what the data see of all
      together: a search need not be more exact than its data. cost_tolerance: relative change of the cost. decrease: [nats]
      of the negative log-likelihood that are nothing; one standard deviation of one number is half a nat. patience: so many
      steps that neither lower the cost by ten times `decrease` nor move anything by `step_tolerance` are enough.
      noise_tolerance: relative change of the noise scales, which must have settled too. iterations: their limit. final:
      whether to linearise where the search ends; without it, all but z, x and the message are of one step before.
      damping, damping_limit: first value, limit.
    """

    step_tolerance: float = 0.1
    cost_tolerance: float = 1e-9
    decrease: float = 0.01
    patience: int = 4
    noise_tolerance: float = 0.01
    iterations: int = 60
    final: bool = True
    damping: float = 1e-3
    damping_limit: float = 1e10


def solve(
    problem: Problem,
    z: np.ndarray,
    x: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    scale: np.ndarray,
    settings: Settings = Settings(),
    observe: Callable[[Record, np.ndarray], None] | None = None,
    past: Sequence[Record] = (),
) -> Solution:
    """Minimise half the sum of squares over z in [low, high] and x.

    `scale` (n,) is the typical size of each coordinate; `observe` is called with every accepted record and its x; `past` are
    the records of a search that goes on here, its start point left out.
    Raises StartError when the residual is not finite at the start.
    """
    evaluations, damping = 1, settings.damping
    cost = _cost(problem, problem.residual(z, x), z)
    if not np.isfinite(cost):
        raise StartError("the residual is not finite at the start point; begin somewhere else.")
    problem.reweight(z, x)
    history: list[Record] = []
    message, converged = f"stopped after {settings.iterations} iterations", False
    normal = None
    for iteration in range(settings.iterations + 1):
        normal = Normal(problem, z, x, scale)
        evaluations += 1
        cost = normal.cost
        record = Record(iteration, cost, damping, z, evaluations)
        history.append(record)
        if observe:
            observe(record, x)
        if iteration == settings.iterations:
            break
        full_step, promise = normal.step(z, low, high, 0.0)
        while damping <= settings.damping_limit:
            step, predicted = normal.step(z, low, high, damping)
            new_z = np.clip(z + step, low, high)
            new_x, new_cost, tries = _private_search(problem, normal, z, x, new_z, damping)
            evaluations += tries
            if np.isfinite(new_cost) and new_cost <= cost:
                break
            damping = max(damping, 1e-8) * 8
        else:
            converged = promise <= max(1e-4 * abs(cost), 1e-4)
            message = "no step lowers the cost" + ("" if converged else "; the gradient is not zero")
            break
        drop = cost - new_cost
        gain = drop / max(predicted, 1e-300)
        damping = damping / 8 if gain > 0.75 else damping if gain > 0.25 else damping * 2
        damping = max(damping, 1e-12)
        z, x = new_z, new_x
        settling = problem.reweight(z, x)
        if gain > _FAIR and isinstance(problem, Reusing):
            z, x, settling, tries = _further(problem, z, x, settling, (low, high, scale), damping, settings)
            evaluations += tries
            drop = cost - _cost(problem, problem.residual(z, x), z)
        if settling <= settings.noise_tolerance:
            message = _verdict(normal, settings, z, full_step, promise, drop, [*past, *history]) or message
            converged = not message.startswith("stopped")
        if converged and not settings.final:
            break
        if converged:
            normal = Normal(problem, z, x, scale)
            evaluations += 1
            history.append(Record(iteration + 1, normal.cost, damping, z, evaluations))
            if observe:
                observe(history[-1], x)
            break
    assert normal is not None
    return Solution(
        z=z,
        x=x,
        cost=normal.cost,
        converged=converged,
        message=message,
        information=normal.information(),
        scores=normal.scores(),
        block_information=normal.block_information(),
        prior_information=normal.prior / np.outer(scale, scale),
        prior_gradient=normal.prior_gradient / scale,
        active=normal.active(z, low, high),
        history=tuple(history),
        evaluations=evaluations,
        private=normal.private_covariance(),
        response=normal.response / scale,
    )


# A step is fair that gains this share of what it promised; so many more may follow on the same derivatives.
_FAIR, _FURTHER = 0.25, 8


def _further(
    problem: Reusing,
    z: np.ndarray,
    x: np.ndarray,
    settling: float,
    box: tuple[np.ndarray, np.ndarray, np.ndarray],
    damping: float,
    settings: Settings,
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Steps (chords) on the derivatives at hand while they are fair: z, x, change of the noise scales, evaluations.

    They let noise scales and parameters settle together, which costs a linearisation a round otherwise.
    """
    evaluations, (low, high, scale) = 0, box
    for _ in range(_FURTHER):
        normal = Normal(problem, z, x, scale, again=True)
        step, predicted = normal.step(z, low, high, damping)
        if not predicted > settings.decrease:
            break
        new_z = np.clip(z + step, low, high)
        new_x, cost, tries = _private_search(problem, normal, z, x, new_z, damping)
        evaluations += tries
        if not normal.cost - cost >= _FAIR * predicted:
            break
        z, x = new_z, new_x
        settling = max(settling, problem.reweight(z, x))
    return z, x, settling, evaluations


def _verdict(
    normal: Normal,
    settings: Settings,
    z: np.ndarray,
    full_step: np.ndarray,
    promise: float,
    drop: float,
    records: Sequence[Record],
) -> str:
    """Why the search may end with the step just taken to z, or an empty string."""
    tolerable = settings.step_tolerance * normal.deviation(records[-1].z)
    if np.all(np.abs(full_step) <= tolerable) or normal.near(full_step, settings.step_tolerance):
        return "steps are small against the uncertainty"
    if drop <= settings.cost_tolerance * max(abs(normal.cost), 1.0):
        return "the cost no longer changes"
    if max(promise, drop) <= settings.decrease:
        return "no step promises to lower the cost"
    if len(records) >= settings.patience:
        first = records[-settings.patience]
        little = first.cost - (normal.cost - drop) <= 10 * settings.decrease
        if little and np.all(np.abs(z - first.z) <= tolerable):
            return f"the last {settings.patience} steps changed neither the cost nor the values noticeably"
    return ""


# Heavier dampings of a block's private unknowns, tried where the common one made that block worse; at last they stay.
_HEAVIER = (0.1, 1.0, 10.0, np.inf)


def _private_search(
    problem: Problem, normal: Normal, z: np.ndarray, x: np.ndarray, new_z: np.ndarray, damping: float
) -> tuple[np.ndarray, float, int]:
    """Private unknowns for a trial `new_z`, each block's chosen for itself; the cost there and the evaluations it took.

    Given z the blocks know nothing of one another, so one that overshoots need not hold back all the others. Where they are
    tied they do: then a block that overshoots and its neighbours are damped more, and all steps are sought again.
    """
    best_x = problem.retract(x, normal.private_step(new_z - z, damping))
    best = block_cost(problem.residual(new_z, best_x))
    tries = 1
    if normal.tied:
        best_x, best, tries = _tied_search(problem, normal, z, x, new_z, damping, best_x, best)
    for heavier in _HEAVIER if normal.gx.shape[-1] and not normal.tied else ():
        worse = ~(best <= normal.block_cost)
        if not worse.any():
            break
        if heavier <= damping:
            continue
        change = np.zeros_like(normal.gx) if np.isinf(heavier) else normal.private_step(new_z - z, heavier)
        # Blocks that are better stay as they are: nothing of them is new to a problem that remembers.
        other_x = np.where(worse[:, None], problem.retract(x, change), best_x)
        other = block_cost(problem.residual(new_z, other_x))
        tries += 1
        better = worse & (other < np.where(np.isfinite(best), best, np.inf))
        best_x = np.where(better[:, None], other_x, best_x)
        best = np.where(better, other, best)
    prior, _ = problem.prior(new_z)
    return best_x, float(best.sum() + 0.5 * np.sum(prior**2)) + problem.log_scale(), tries


def _tied_search(
    problem: Problem,
    normal: Normal,
    z: np.ndarray,
    x: np.ndarray,
    new_z: np.ndarray,
    damping: float,
    best_x: np.ndarray,
    best: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """The lowest of the first try and a few with the blocks that got worse, and their neighbours, damped more."""
    tries, latest, each = 1, best, np.full(len(x), damping)
    for heavier in (*_HEAVIER[:-1], 1e6):
        worse = ~(latest <= normal.block_cost)
        if not worse.any():
            break
        worse[1:] |= worse[:-1].copy()
        each = np.where(worse, np.maximum(each, heavier), each)
        other_x = problem.retract(x, normal.private_step(new_z - z, each))
        latest = block_cost(problem.residual(new_z, other_x))
        tries += 1
        if not best.sum() <= latest.sum():
            best_x, best = other_x, latest
    return best_x, best, tries


def _cost(problem: Problem, residual: np.ndarray, z: np.ndarray) -> float:
    prior, _ = problem.prior(z)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(0.5 * np.sum(residual**2) + 0.5 * np.sum(prior**2)) + problem.log_scale()
