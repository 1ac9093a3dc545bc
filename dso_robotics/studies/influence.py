"""What each recording does to the estimate: how it would move without one, and whether recordings disagree beyond chance.

Both are linearised at the solution, from the scores of the windows; nothing is simulated again.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dso_robotics.core.covariance import Uncertainty
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification

# Rounds of the permutation test, and the chance below which a difference is told (divided by the numbers tested).
_PERMUTATIONS, _CHANCE = 4000, 0.01
# A number whose variance is this many times smaller with all recordings than with some is not shown by those.
_LEAST_LEFT = 1e-3
_NAMED = 3
# A move without a recording that is told is out of the interval, and this many times what is usual.
_UNUSUAL = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Influence:
    """Recordings and what they do.

    names: the coordinates that are not at a bound and not a recording's own, (m,).
    recordings: (R,) names.
    without: (R, m) estimates without each recording; NaN where the others do not show the number.
    alone: (R, m) estimates that each recording alone would give, where it shows the number; else NaN.
    chance: (m,) the probability that recordings which are alike differ as much; NaN with fewer than two.
    half: (m,) half the 95% interval.
    usual: (R, m) standard deviation of the move without a recording, if it is like the others.
    value: (m,) the estimate.
    """

    names: tuple[str, ...]
    recordings: tuple[str, ...]
    without: np.ndarray
    alone: np.ndarray
    chance: np.ndarray
    half: np.ndarray
    usual: np.ndarray
    value: np.ndarray

    def as_dict(self) -> dict[str, object]:
        """By recording and number: the estimate without it, in half-widths of the interval away; and the chances."""
        away = (self.without - self.value) / np.maximum(self.half, 1e-300)
        return {
            "without": {r: dict(zip(self.names, map(float, row), strict=True)) for r, row in self._rows(self.without)},
            "half_widths": {r: dict(zip(self.names, map(float, row), strict=True)) for r, row in self._rows(away)},
            "alone": {r: dict(zip(self.names, map(float, row), strict=True)) for r, row in self._rows(self.alone)},
            "drift_chance": dict(zip(self.names, map(float, self.chance), strict=True)),
        }

    def _rows(self, table: np.ndarray) -> list[tuple[str, np.ndarray]]:
        return list(zip(self.recordings, table, strict=True))

    @property
    def drifting(self) -> list[int]:
        """Indices of the numbers that differ between recordings beyond chance."""
        return [i for i, p in enumerate(self.chance) if p < _CHANCE / max(len(self.names), 1)]

    def told(self) -> list[str]:
        """What would change the conclusion, and what drifts, each a sentence with a cure."""
        found = []
        for i in self.drifting:
            known = np.flatnonzero(np.isfinite(self.alone[:, i]))
            values = ", ".join(f"{self.recordings[r]} {self.alone[r, i]:.4g}" for r in known[:_NAMED])
            more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
            trend = _trend(self.alone[known, i])
            found.append(
                f"{self.names[i]} differs between recordings beyond chance (p = {self.chance[i]:.2g}"
                f"{f', and {trend} from the first to the last' if trend else ''}): {values}{more}. Free "
                f"log/*/{self.names[i]} to give each recording its own, or look for what changed: temperature, load, "
                "wear, a mounting."
            )
        outside = []
        for r, name in enumerate(self.recordings):
            for i, label in enumerate(self.names):
                if np.isnan(self.without[r, i]):
                    outside.append((np.inf, f"only {name!r} shows {label}"))
                elif abs(self.without[r, i] - self.value[i]) > max(self.half[i], _UNUSUAL * self.usual[r, i]):
                    away = abs(self.without[r, i] - self.value[i]) / max(self.half[i], 1e-300)
                    change = f"{label} {self.without[r, i]:.4g} instead of {self.value[i]:.4g}"
                    outside.append((away, f"without {name!r}, {change}"))
        outside.sort(key=lambda pair: -pair[0])
        if outside:
            listed = "; ".join(text for _, text in outside[:_NAMED])
            more = f"; and {len(outside) - _NAMED} more" if len(outside) > _NAMED else ""
            found.append(
                f"One recording decides beyond the interval: {listed}{more}. Look at that recording, or "
                "record more of its kind."
            )
        return found


def _trend(values: np.ndarray) -> str:
    steps = np.sign(np.diff(values))
    if len(values) < 4 or abs(steps.sum()) < len(steps):
        return ""
    return "rises" if steps[0] > 0 else "falls"


def influence(
    problem: WindowedIdentification, solution: Solution, spread: Uncertainty, *, seed: int = 0
) -> Influence | None:
    """What each recording does; None with one recording only."""
    rollout, vector = problem.windows.rollout, problem.vector
    recordings = tuple(r.name for r in problem.windows.rollouts)
    kept = [i for i, owner in enumerate(vector.owner) if owner == "" and not solution.active[i]]
    free = np.flatnonzero(~solution.active)
    if len(recordings) < 2 or not kept or len(solution.scores) != len(rollout):
        return None
    size = np.maximum(vector.scale, np.abs(solution.z))[free]
    unit = np.outer(size, size)
    hessian = solution.information[np.ix_(free, free)] * unit
    scores = solution.scores[:, free] * size
    shares = solution.block_information[:, free][:, :, free] * unit
    place = [int(np.flatnonzero(free == i)[0]) for i in kept]
    inverse = _inverse(hessian)
    without, alone, usual = (np.full((len(recordings), len(free)), np.nan) for _ in range(3))
    for r in range(len(recordings)):
        mine = rollout == r
        own, pull = shares[mine].sum(0), scores[mine].sum(0)
        # A number that the others, or the recording, do not show has no estimate then.
        for table, part, sign in ((without, hessian - own, 1.0), (alone, own, -1.0)):
            spread_out = _inverse(part)
            wide = np.diag(spread_out) > np.maximum(1.0, np.diag(inverse) / _LEAST_LEFT)
            table[r] = np.where(wide, np.nan, solution.z[free] + sign * size * (spread_out @ pull))
            if sign > 0:
                more = np.diag(spread_out) / np.maximum(np.diag(inverse), 1e-300) - 1
                usual[r] = spread.std[free] * np.sqrt(np.maximum(more, 0.0))
    rng = np.random.default_rng(seed)
    return Influence(
        tuple(vector.coordinate_names[i] for i in kept),
        recordings,
        without[:, place],
        alone[:, place],
        _differing(*_standardised(inverse, scores, shares, place), rollout, rng),
        spread.quantile * spread.std[kept],
        usual[:, place],
        solution.z[kept],
    )


def _inverse(hessian: np.ndarray) -> np.ndarray:
    """Inverse (n, n); a direction that is not seen at all gets a very large variance."""
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    return (vectors / np.maximum(values, 1e-12 * max(values.max(), 1e-300))) @ vectors.T


def _standardised(
    inverse: np.ndarray, scores: np.ndarray, shares: np.ndarray, place: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """What each window says of each number with the others adapted, in standard deviations (B, m), and its weight (B, m).

    The weight is the root of the window's share of the curvature.
    """
    moves = -scores @ inverse[:, place]
    weights = np.sqrt(np.maximum(np.einsum("ij,bjk,ki->bi", inverse[place], shares, inverse[:, place]), 0.0))
    return moves / np.maximum(weights, 1e-9 * np.maximum(weights.max(0), 1e-300)), weights


def _differing(told: np.ndarray, weights: np.ndarray, rollout: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The chance (m,) that what windows say, dealt to recordings at random, makes recordings differ as much as they do."""
    groups: Sequence[np.ndarray] = [np.flatnonzero(rollout == r) for r in np.unique(rollout)]
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return np.full(told.shape[1], np.nan)
    members = np.zeros((len(groups), len(rollout)))
    for r, group in enumerate(groups):
        members[r, group] = 1.0
    share = np.maximum(members @ weights**2, 1e-300)

    def between(order: np.ndarray) -> np.ndarray:
        means = members @ (weights * told[order]) / share
        return np.sum(share * (means - np.sum(share * means, 0) / share.sum(0)) ** 2, axis=0)

    found = between(np.arange(len(rollout)))
    above = np.ones(told.shape[1])
    for _ in range(_PERMUTATIONS):
        above += between(rng.permutation(len(rollout))) >= found * (1 - 1e-12)
    return above / (_PERMUTATIONS + 1)
