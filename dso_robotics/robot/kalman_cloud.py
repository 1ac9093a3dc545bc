"""Several hypotheses of a Kalman filter beside each other, while the heading of a free body is unknown.

A body that is nearly level may face anywhere, and no single normal distribution says so. Its hypotheses are filters that begin
with headings all around. The readings weigh them, and those that become unlikely or coincide are dropped, until one is left.
"""

from typing import NamedTuple

import mujoco
import numpy as np

from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_gate import Restart
from dso_robotics.robot.kalman_tracker import Belief, Corrected, KalmanTracker, Told

_HEADINGS = 8
# A heading whose deviation at the start is above this [rad] gets hypotheses, each with this deviation.
_WIDE, _NARROW = 0.9, 0.45
# Hypotheses less likely than this share of the best are dropped, and those at less than this distance (in deviations) coincide.
_UNLIKELY, _NEAR = 1e-4, 1.0
# After this long [s] the best one is kept, with a covariance that covers the others.
_LONGEST = 2.0


class Cloud(NamedTuple):
    """Beliefs with the logarithms of their weights, the best first, and how long they have been weighed [s]."""

    beliefs: tuple[Belief, ...]
    weights: tuple[float, ...]
    age: float = 0.0

    @property
    def best(self) -> Belief:
        """The most likely one."""
        return self.beliefs[0]


class Clouds:
    """Operations on clouds for one model."""

    def __init__(self, model: mujoco.MjModel, space: Space, tracker: KalmanTracker):
        self._space, self._tracker = space, tracker

    def begun(self, state: np.ndarray, offset: np.ndarray) -> Cloud:
        """The hypotheses around a guess of the state."""
        first = self._tracker.begun(state, offset)
        prior = self._tracker.noise.prior
        if not heading_unknown(self._space, self._tracker.noise):
            return Cloud((first,), (0.0,))
        (q, v), found = self._space.free_turns[0], []
        for heading in 2 * np.pi / _HEADINGS * np.arange(_HEADINGS):
            turn, moved = np.array([np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)]), state.copy()
            mujoco.mju_mulQuat(moved[q : q + 4], turn, np.ascontiguousarray(state[q : q + 4]))
            # The same about the body's axes: a rotation about the world's vertical does not change how the vertical lies in it.
            p = first.covariance.copy()
            up = np.zeros(3)
            mujoco.mju_rotVecQuat(up, np.array([0.0, 0.0, 1.0]), _conjugate(state[q : q + 4]))
            p[v : v + 3, v : v + 3] += (_NARROW**2 - prior[v + 2] ** 2) * np.outer(up, up)
            found.append(Belief(moved, offset, p, first.jumped))
        return Cloud(tuple(found), (0.0,) * _HEADINGS)

    def forgetful(self, cloud: Cloud, restart: Restart) -> Cloud:
        """The hypotheses once biases are given up; see `KalmanTracker.forgetful`."""
        return cloud._replace(beliefs=tuple(self._tracker.forgetful(belief, restart) for belief in cloud.beliefs))

    def predicted(self, cloud: Cloud, u: np.ndarray, seconds: float) -> Cloud:
        """Every hypothesis `seconds` later."""
        moved = tuple(self._tracker.predicted(belief, u, seconds) for belief in cloud.beliefs)
        return Cloud(moved, cloud.weights, cloud.age + seconds)

    def corrected(self, cloud: Cloud, y: np.ndarray, u: np.ndarray) -> tuple[Cloud, Told, list[bool]]:
        """The hypotheses after readings y (ny,), what the best of them said of the readings, and which sensors were wild."""
        several = len(cloud.beliefs) > 1
        found = [self._tracker.corrected(belief, y, u, weighed=several) for belief in cloud.beliefs]
        if not several:
            return Cloud((found[0].belief,), (0.0,)), found[0].told, found[0].wild
        # A reading is wild if no hypothesis expects it. The others are weighed by it.
        wild = [all(bad) for bad in zip(*(f.wild for f in found), strict=True)]
        found = [
            f if f.wild == wild else self._tracker.corrected(belief, y, u, shut=wild)
            for f, belief in zip(found, cloud.beliefs, strict=True)
        ]
        weights = np.array(cloud.weights) - np.array([f.cost for f in found])
        order = np.argsort(-weights, kind="stable")
        kept = self._thinned([(found[i], float(weights[i] - weights[order[0]])) for i in order])
        after = Cloud(tuple(f.belief for f, _ in kept), tuple(w for _, w in kept), cloud.age)
        if after.age > _LONGEST and len(kept) > 1:
            after = Cloud((self.summary(after),), (0.0,))
        return after, kept[0][0].told, wild

    def _thinned(self, found: list[tuple[Corrected, float]]) -> list[tuple[Corrected, float]]:
        kept: list[tuple[Corrected, float]] = []
        for one, weight in found:
            if weight < np.log(_UNLIKELY):
                break
            same = False
            for i, (other, heavier) in enumerate(kept):
                off = self._space.difference(other.belief.state, one.belief.state)
                inner = other.belief.covariance[: len(off), : len(off)]
                if off @ np.linalg.solve(inner, off) < _NEAR**2 * len(off):
                    kept[i], same = (other, float(np.logaddexp(heavier, weight))), True
                    break
            if not same:
                kept.append((one, weight))
        return kept

    def summary(self, cloud: Cloud) -> Belief:
        """The best hypothesis, with a covariance that covers the others by their weights."""
        best = cloud.best
        if len(cloud.beliefs) == 1:
            return best
        share = np.exp(np.array(cloud.weights) - np.logaddexp.reduce(cloud.weights))
        p = np.zeros_like(best.covariance)
        for weight, belief in zip(share, cloud.beliefs, strict=True):
            off = self._space.difference(best.state, belief.state)
            off = np.concatenate([off, np.zeros(len(p) - len(off))])
            p += weight * (belief.covariance + np.outer(off, off))
        return Belief(best.state, best.offset, p, best.jumped)


def heading_unknown(space: Space, noise: Noise) -> bool:
    """Whether a filter begins with several headings: those of the one free body, which is nearly level."""
    if len(space.free_turns) != 1:
        return False
    v = space.free_turns[0][1]
    return bool(noise.prior[v + 2] >= _WIDE and noise.prior[v] <= _WIDE)


def _conjugate(quat: np.ndarray) -> np.ndarray:
    return np.array([quat[0], -quat[1], -quat[2], -quat[3]])
