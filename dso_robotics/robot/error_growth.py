"""How fast the errors of an estimator grow or shrink along a motion, by finite differences of the filter's own updates.

A filter that starts a little beside another one, with the same readings, should come back to it. The Jacobian of many
updates, A(I - KH) for a linear filter, is measured piece by piece: filters that start beside the estimate in each direction.
The product of the pieces of a run tells what becomes of an error over all of it. Its spectral radius, unlike its norm, does
not count errors that grow once and then stay, as those of a position that no sensor shows.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from dso_robotics.robot.corrector import EstimatorTheta, Scales
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter import CFilter, Filtered
from dso_robotics.robot.filter_data import FilterWindows

# Updates in a piece, and in a piece for each update that the latest sensor lags. Errors must not shrink to rounding in one.
_PIECE, _LAGS = 20, 10
# Distance between neighbours, as a fraction of the motion's spread in each direction, and the least spread.
_STEP, _LEAST = 1e-5, 1e-2
# Number of simulations run together. It bounds the memory, whatever the length of the runs.
_TOGETHER = 8192
# An error that grows by this factor or less over a run counts as one that stays.
_STAYS = 1.1
# The fastest decay that finite differences show, as a factor for each piece.
_FLOOR = 1e-9


@dataclass(frozen=True, eq=False)
class ErrorGrowth:
    """The growth of small errors over B runs.

    growth: log of the factor by which an error grows over a run, (B,); negative where errors shrink, infinite where the
      filter diverges, NaN for a run that is too short to tell.
    seconds: length of the runs [s], (B,).
    """

    growth: np.ndarray
    seconds: np.ndarray

    @property
    def rates(self) -> np.ndarray:
        """Growth rate [1/s] in each run, (B,)."""
        return self.growth / self.seconds

    @property
    def slowest(self) -> int:
        """The run in which errors shrink slowest or grow fastest."""
        return int(np.nanargmax(self.rates))

    @property
    def stable(self) -> bool:
        """Whether errors grow in no run."""
        return not (self.growth > math.log(_STAYS)).any()


def error_growth(
    vector: EstimatorTheta, scales: Scales, given: FilterWindows, z: np.ndarray, run: Filtered | None = None
) -> ErrorGrowth:
    """The growth of errors at z (n,) along the filter's own motion over the runs `given`, one window each.

    run: the filter's result there, if it is known.

    Memory of a corrector and readings of late sensors begin anew in each piece.
    """
    chain = CFilter(vector, scales, given)
    run = chain.run(z, given.start) if run is None else run
    lengths = np.array([len(given.rollouts[int(i)].time) - 1 for i in given.rollout]) - given.first
    lengths = np.minimum(lengths, given.measured.shape[1] - 1)
    growth, seconds = np.full(len(given), np.inf), lengths * given.interval
    path = np.concatenate([given.start[:, None], run.states], axis=1)
    whole = [b for b, n in enumerate(lengths) if np.isfinite(path[b, : n + 1]).all()]
    if not whole:
        return ErrorGrowth(growth, seconds)
    late = vector.physics.late(vector.parts(z)[1], given.channels.sensor_addresses)
    lag = 0.0 if late is None else float(np.max(late)) / given.interval
    length = int(min(max(_PIECE, math.ceil(_LAGS * lag)), lengths[whole].max()))
    places = [(b, t) for b in whole for t in range(0, int(lengths[b]) - length + 1, length)]
    most = max(1, _TOGETHER // (1 + chain.space.size))
    parts = [places[i : i + most] for i in range(0, len(places), most)]
    jacobians = np.concatenate([_jacobians(vector, scales, given, z, path, part, length) for part in parts])
    for b in whole:
        mine = [jacobian for jacobian, (run_index, _) in zip(jacobians, places, strict=True) if run_index == b]
        growth[b] = log_radius(mine) if mine else np.nan
        seconds[b] = max(len(mine), 1) * length * given.interval
    return ErrorGrowth(growth, seconds)


def _jacobians(
    vector: EstimatorTheta,
    scales: Scales,
    given: FilterWindows,
    z: np.ndarray,
    path: np.ndarray,
    places: list[tuple[int, int]],
    length: int,
) -> np.ndarray:
    """Jacobians (pieces, k, k) of `length` updates from the states `path` (B, T, nx) at `places`, in units of the spread."""
    space = Space(vector.physics.mj)

    def cut(values: np.ndarray) -> np.ndarray:
        return np.stack([values[b, t : t + length + 1] for b, t in places])

    rows = np.array([b for b, _ in places])
    pieces = replace(
        given,
        seconds=np.stack([given.seconds[b, t : t + length] for b, t in places]),
        ctrl=cut(given.ctrl),
        measured=cut(given.measured),
        truth=cut(given.truth),
        start=np.stack([path[b, t] for b, t in places]),
        rollout=given.rollout[rows],
        first=given.first[rows] + np.array([t for _, t in places]),
    )
    middle = pieces.start[len(places) // 2]
    off = space.difference(np.broadcast_to(middle, pieces.start.shape), pieces.start)
    spread = np.maximum(np.sqrt(np.mean(off**2, axis=0)), _LEAST)
    starts = [pieces.start] + [
        space.move(pieces.start, np.broadcast_to(step, off.shape)) for step in _STEP * np.diag(spread)
    ]
    ends = CFilter(vector, scales, pieces).run_beside(z, np.stack(starts)).states[:, :, -1]
    columns = space.difference(np.broadcast_to(ends[:1], ends[1:].shape), ends[1:]) / (_STEP * spread)
    return np.moveaxis(columns, 0, -1)


def log_radius(jacobians: list[np.ndarray]) -> float:
    """Log of the spectral radius of a product of matrices (k, k), without overflow."""
    total, product = 0.0, np.eye(len(jacobians[0]))
    for jacobian in jacobians:
        product = jacobian @ product
        size = float(np.linalg.norm(product))
        if not math.isfinite(size):
            return math.inf
        total += math.log(max(size, _FLOOR))
        product = product / max(size, 1e-300)
    radius = float(np.abs(np.linalg.eigvals(product)).max())
    return total + math.log(max(radius, _FLOOR))
