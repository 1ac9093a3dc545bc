"""Bounded Levenberg-Marquardt for least squares with private unknowns (see `core.method.least_squares`)."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from dso_robotics.core.descent import CACHE, Last, Moment, Result, Status, descend
from dso_robotics.core.method.least_squares import (
    Noisy,
    Problem,
    Record,
    Reusing,
    Settings,
    Solution,
    StartError,
)
from dso_robotics.core.method.normal import Normal, block_cost


class Verdict(enum.IntEnum):
    """The state of the search after the last step."""

    SEARCHING = 0
    SMALL_STEPS = 1
    COST_SETTLED = 2
    NO_PROMISE = 3
    NOTHING_MOVES = 4
    NO_DESCENT_AT_MINIMUM = 5
    NO_DESCENT = 6


_TEXTS = {
    Verdict.SMALL_STEPS: "steps are small against the uncertainty",
    Verdict.COST_SETTLED: "the cost no longer changes",
    Verdict.NO_PROMISE: "no step promises to lower the cost",
    Verdict.NO_DESCENT_AT_MINIMUM: "no step lowers the cost",
    Verdict.NO_DESCENT: "no step lowers the cost; the gradient is not zero",
}


@dataclasses.dataclass(frozen=True)
class State:
    """The state of the search.

    z: (n,) coordinates.
    x: (B, ...) private unknowns.
    damping: the current damping.
    iteration: number of steps taken.
    evaluations: number of evaluations of the residual.
    verdict: a `Verdict`.
    noise: noise scales by name.
    recent_cost: (p,) costs at the last p linearisations, NaN if there were fewer; p is `Settings.patience`.
    recent_z: (p, n) coordinates at those linearisations.
    normal: the normal equations at z, if the last step computed them.
    """

    z: np.ndarray
    x: np.ndarray
    damping: float
    iteration: int
    evaluations: int
    verdict: int
    noise: dict[str, np.ndarray]
    recent_cost: np.ndarray
    recent_z: np.ndarray
    normal: Normal | None = dataclasses.field(default=None, metadata=CACHE)

    @property
    def theta(self) -> np.ndarray:
        """z."""
        return self.z


class GaussNewton:
    """Minimise half the sum of squares of `problem` over z in [low, high] and the private unknowns, which start at `x`.

    `scale` (n,) is the typical size of each coordinate.
    """

    def __init__(
        self,
        problem: Problem,
        x: np.ndarray,
        *,
        low: np.ndarray,
        high: np.ndarray,
        scale: np.ndarray,
        settings: Settings | None = None,
    ):
        self.problem, self.settings = problem, Settings() if settings is None else settings
        self._x, self._box = x, (low, high, scale)
        # The state to which the problem's noise scales belong.
        self._latest: State | None = None

    def init(self, key: Any, theta: np.ndarray) -> State:
        """The state at z = theta. Nothing is random.

        Raises:
          StartError: the residual is not finite there.
        """
        problem, x, n = self.problem, self._x, len(theta)
        if not np.isfinite(_cost(problem, problem.residual(theta, x), theta)):
            raise StartError("the residual is not finite at the start point; begin somewhere else.")
        problem.reweight(theta, x)
        none = np.full(self.settings.patience, np.nan), np.full((self.settings.patience, n), np.nan)
        return self._at(State(theta, x, self.settings.damping, 0, 1, int(Verdict.SEARCHING), _noise(problem), *none))

    def _at(self, state: State) -> State:
        self._latest = state
        return state

    def _restore(self, state: State) -> None:
        """Restore the noise scales of `state` in the problem, if they belong to another state."""
        if state is not self._latest and isinstance(self.problem, Noisy):
            self.problem.restore(state.z, state.x, state.noise)
        self._latest = state

    def step(self, state: State) -> tuple[State, Record]:
        """Linearise and move to a lower cost. More steps reuse the same derivatives while each gains enough."""
        self._restore(state)
        problem, settings, (low, high, scale) = self.problem, self.settings, self._box
        z, x, damping = state.z, state.x, state.damping
        normal = Normal(problem, z, x, scale)
        evaluations, cost = state.evaluations + 1, normal.cost
        record = Record(state.iteration, cost, damping, z, evaluations)
        recent = (
            np.append(state.recent_cost[1:], cost),
            np.concatenate([state.recent_z[1:], z[None]]),
        )
        full_step, promise = normal.step(z, low, high, 0.0)
        while True:
            if damping > settings.damping_limit:
                flat = promise <= max(1e-4 * abs(cost), 1e-4)
                verdict = Verdict.NO_DESCENT_AT_MINIMUM if flat else Verdict.NO_DESCENT
                stuck = dataclasses.replace(
                    state,
                    damping=damping,
                    iteration=state.iteration + 1,
                    evaluations=evaluations,
                    verdict=int(verdict),
                    normal=normal,
                )
                return self._at(stuck), record
            step, predicted = normal.step(z, low, high, damping)
            new_z = np.clip(z + step, low, high)
            new_x, new_cost, tries = _private_search(problem, normal, z, x, new_z, damping)
            evaluations += tries
            if np.isfinite(new_cost) and new_cost <= cost:
                break
            damping = max(damping, 1e-8) * 8
        drop = cost - new_cost
        gain = drop / max(predicted, 1e-300)
        damping = damping / 8 if gain > 0.75 else damping if gain > 0.25 else damping * 2
        damping = max(damping, 1e-12)
        z, x = new_z, new_x
        settling = problem.reweight(z, x)
        if gain > _FAIR and isinstance(problem, Reusing):
            z, x, settling, tries = _further(problem, z, x, settling, self._box, damping, settings)
            evaluations += tries
            drop = cost - _cost(problem, problem.residual(z, x), z)
        verdict = Verdict.SEARCHING
        if settling <= settings.noise_tolerance:
            verdict = _verdict(normal, settings, z, full_step, promise, drop, *recent)
        following = State(z, x, damping, state.iteration + 1, evaluations, int(verdict), _noise(problem), *recent)
        return self._at(following), record

    def done(self, state: State, record: Record | None) -> Status | None:
        """Converged if steps are small relative to the uncertainty; stalled if no step lowers the cost."""
        if state.verdict == Verdict.SEARCHING:
            return None
        return Status.STALLED if state.verdict == Verdict.NO_DESCENT else Status.CONVERGED

    def message(self, state: State, status: Status, steps: int) -> str:
        """Why the search ended."""
        if state.verdict == Verdict.NOTHING_MOVES:
            return f"the last {self.settings.patience} steps changed neither the cost nor the values noticeably"
        return _TEXTS.get(Verdict(state.verdict), f"stopped after {steps} iterations")

    def finish(self, result: Result) -> Solution:
        """Linearise at the final point, unless the last step did. Return the solution with its derivatives."""
        state, (low, high, scale) = result.state, self._box
        history, evaluations, normal = result.history, state.evaluations, state.normal
        if normal is None:
            self._restore(state)
            normal = Normal(self.problem, state.z, state.x, scale)
            evaluations += 1
            history = (*history, Record(state.iteration, normal.cost, state.damping, state.z, evaluations))
        return Solution(
            z=state.z,
            x=state.x,
            cost=normal.cost,
            status=result.status,
            message=result.message,
            information=normal.information(),
            scores=normal.scores(),
            block_information=normal.block_information(),
            prior_information=normal.prior / np.outer(scale, scale),
            prior_gradient=normal.prior_gradient / scale,
            active=normal.active(state.z, low, high),
            history=history,
            evaluations=evaluations,
            private=normal.private_covariance(),
            response=normal.response / scale,
        )


def solve(
    problem: Problem,
    z: np.ndarray,
    x: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    scale: np.ndarray,
    settings: Settings | None = None,
    keep: Last | None = None,
    watch: Callable[[Moment], bool | None] | None = None,
) -> Solution:
    """Minimise half the sum of squares over z in [low, high] and x, with the descent loop.

    Raises:
      StartError: the residual is not finite at the start.
    """
    method = GaussNewton(problem, x, low=low, high=high, scale=scale, settings=settings)
    return method.finish(
        descend(method, method.init(None, z), iterations=method.settings.iterations, keep=keep, watch=watch)
    )


def _noise(problem: Problem) -> dict[str, np.ndarray]:
    return dict(problem.noise) if isinstance(problem, Noisy) else {}


# A step gains enough if its gain is at least `_FAIR` times the prediction. Then at most `_FURTHER` more steps reuse its
# derivatives.
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
    """More steps with the same derivatives (chord steps), while each gains enough.

    They let noise scales and parameters settle together. Otherwise each round needs a new linearisation.

    Returns: z, x, the change of the noise scales, the number of evaluations.
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
    recent_cost: np.ndarray,
    recent_z: np.ndarray,
) -> Verdict:
    """Why the search may end after the step to z, or SEARCHING."""
    tolerable = settings.step_tolerance * normal.deviation(recent_z[-1])
    if np.all(np.abs(full_step) <= tolerable) or normal.near(full_step, settings.step_tolerance):
        return Verdict.SMALL_STEPS
    if drop <= settings.cost_tolerance * max(abs(normal.cost), 1.0):
        return Verdict.COST_SETTLED
    if max(promise, drop) <= settings.decrease:
        return Verdict.NO_PROMISE
    if np.isfinite(recent_cost[0]):
        little = recent_cost[0] - (normal.cost - drop) <= 10 * settings.decrease
        if little and np.all(np.abs(z - recent_z[0]) <= tolerable):
            return Verdict.NOTHING_MOVES
    return Verdict.SEARCHING


# Heavier dampings of a block's private unknowns. They are tried if the common damping made that block worse. With the last
# one (inf) the unknowns do not move.
_HEAVIER = (0.1, 1.0, 10.0, np.inf)


def _private_search(
    problem: Problem, normal: Normal, z: np.ndarray, x: np.ndarray, new_z: np.ndarray, damping: float
) -> tuple[np.ndarray, float, int]:
    """Private unknowns for a trial point `new_z`, chosen for each block separately.

    Given z, the blocks are independent, so a block that overshoots does not need to slow down the others. Tied blocks are not
    independent. There, a block that overshoots and its neighbours are damped more, and all steps are recomputed.

    Returns: the private unknowns, the cost there, the number of evaluations.
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
        # Blocks that improved are not changed, so a problem that caches results need not recompute them.
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
    """The best of several tries. Each further try puts more damping on the blocks that got worse and on their neighbours."""
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
