"""The search for one run of a plan: random motions, then an evolution strategy from the best of them."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from dso_robotics.core.descent import Moment, Status, descend
from dso_robotics.core.method.evolution import Evolution
from dso_robotics.costs.information import covariance, score
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.progress.phase import tell
from dso_robotics.studies.excite_known import Known
from dso_robotics.studies.excite_study import ExciteStudy
from dso_robotics.studies.excite_trials import Trials
from dso_robotics.studies.invisible import refuse_invisible

# Random motions that are tried before a search; and how often each may be made smaller to keep the limits.
_DRAWN, _SMALLER = 16, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One planned run.

    name: as the log names it. ctrl: (T, nu). path: expected states (T, nq+nv+na). numbers: of the signals.
    score: what was made small, see `costs.information.score`, with this run and those before it. random: the same for the
      median of the random motions that kept all limits (NaN if none did), of which there were `compared`.
    trials: motions tried. message: why the search ended.
    """

    name: str
    ctrl: np.ndarray
    path: np.ndarray
    numbers: np.ndarray
    score: float
    random: float
    compared: int
    trials: int
    message: str


class Search:
    """The search for one run, with what earlier runs of the plan tell (K, g, g)."""

    def __init__(
        self,
        study: ExciteStudy,
        trials: Trials,
        begun: Known,
        interest: np.ndarray,
        planned: np.ndarray,
        index: int,
        free: tuple[Declaration, ...],
        hidden: Mapping[str, str],
        source: str,
    ):
        self.study, self.trials, self.begun, self.interest = study, trials, begun, interest
        self.base = begun.information + planned
        self.index, self.free, self.hidden, self.source = index, free, hidden, source
        self.tried = 0
        self.least: tuple[float, str] = (np.inf, "")
        self.summed = np.zeros_like(begun.information)

    def evaluate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs (P,) and violations (P,) of numbers (P, m)."""
        excess, worst, motions = self.trials.judged(self.trials.controls(numbers))
        self.tried += len(numbers)
        for r in range(len(numbers)):
            if excess[r] < self.least[0]:
                self.least = float(excess[r]), worst[r]
        cost, good = np.full(len(numbers), np.inf), np.flatnonzero(excess == 0)
        excess = np.where(np.isinf(excess), 1e3, excess)
        if len(good):
            found = np.zeros((len(self.base), len(good)))
            for k, motion in enumerate(motions):
                told = self.trials.information(motion.only(good), k)
                finite = np.isfinite(told).all((1, 2))
                if k == 0:
                    self.summed += told[finite].sum(0)
                found[k] = np.inf
                found[k, finite] = score(self.study.aim, covariance(self.base[k] + told[finite]), self.interest)
            cost[good] = found.mean(0)
            excess[good] = np.where(np.isfinite(cost[good]), 0.0, 1e3)
        return cost, excess

    def best(self) -> tuple[Run, np.ndarray]:
        """The best run found and its information (K, g, g)."""
        study, trials, form = self.study, self.trials, self.trials.waveform
        rng = np.random.default_rng([study.seed, 1, self.index])
        points = np.array([form.draw(rng) for _ in range(min(_DRAWN, study.trials // 2))])
        cost, excess = self.evaluate(points)
        for _ in range(_SMALLER):
            # Smaller motions keep more limits. Phases have no size.
            bad = np.flatnonzero(excess > 0)
            if form.kind == "multisine" or not len(bad):
                break
            points[bad] *= 0.5
            cost[bad], excess[bad] = self.evaluate(points[bad])
        if self.index == 0 and (excess == 0).any():
            vector = trials.vector
            refuse_invisible(vector, self.summed, self.free, self.hidden, self.source)
        kept = cost[excess == 0]
        random, compared = (float(np.median(kept)) if len(kept) else np.nan), len(kept)
        start = points[np.lexsort((np.where(excess > 0, 0.0, cost), excess))[0]]
        size = 0.5 if form.kind == "multisine" else max(0.3 * float(np.sqrt(np.mean(start**2))), 1e-3)
        method = Evolution(self.evaluate, form.size, step=size, seed=study.seed + 1000 * self.index)
        state = method.init(None, start)
        left = max(study.trials - self.tried, 0) // method.population
        found = descend(method, state, iterations=left, watch=self._watch)
        numbers, violation = found.theta, found.state.violation
        if violation > 0:
            raise DsoError(
                f"{self.source}: none of {self.tried} motions keeps all limits; the nearest breaks this one: "
                f"{self.least[1]}. Widen it, give a smaller --amplitude, a lower --top or fewer --harmonics, more --seconds, "
                "or --end any if only the rest at the end fails."
            )
        played = trials.controls(numbers[None])
        motions = [trials.motion(played, k) for k in range(len(self.begun.draws))]
        told = np.array([trials.information(motion, k)[0] for k, motion in enumerate(motions)])
        run = Run(
            f"{self.index:02d}",
            motions[0].ctrl[0],
            motions[0].path[0],
            numbers,
            found.state.cost,
            random,
            compared,
            self.tried,
            "steps became small" if found.status is Status.CONVERGED else "all trials used",
        )
        return run, told

    def _watch(self, moment: Moment) -> None:
        record = moment.record
        stage = f"run {self.index + 1} of {self.study.runs}"
        cost = record.cost if record.violation == 0 else math.nan
        tell(stage, self.tried, cost, total=self.study.trials, unit="motion", at_most=True)
