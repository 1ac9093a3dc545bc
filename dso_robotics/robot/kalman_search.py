"""The measurement update of a Kalman filter while angles are unknown, by iterations from several starts.

One linearisation is no use a radian away from the truth: a compass turned by 180 degrees has no slope at all. So the most
probable state given prior and readings is sought by Gauss-Newton steps from several starts: an iterated Kalman filter.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import mujoco
import numpy as np

from dso_robotics.robot.correctors.kalman import correction
from dso_robotics.robot.tangent_turn import TangentTurns

# An angle with a larger deviation [rad] is unknown, and one whose deviation then falls to less than this share is found.
_UNKNOWN, _FOUND = 0.3, 0.5
# With a deviation above this [rad], starts all around are tried.
_ANYWHERE = 0.9
_STEPS, _TOLERANCE = 8, 1e-6
_HINGES = (-2.4, -1.2, 1.2, 2.4)


class Sought(NamedTuple):
    """The most probable change (K,) of the prediction, its covariance (K, K) in the tangent there, and the cost."""

    change: np.ndarray
    covariance: np.ndarray
    cost: float


class WideSearch:
    """The search for one model, whose directions turn as `turns` says."""

    def __init__(self, turns: TangentTurns):
        self._turns, self._angles = turns, turns.angles

    def needed(self, before: np.ndarray, after: np.ndarray, wild: list[bool]) -> bool:
        """Whether one linearisation does not do: an unknown angle was found, or its readings do not fit."""
        if not len(self._angles):
            return False
        old = before.diagonal()[self._angles]
        if old.max() < _UNKNOWN**2:
            return False
        found = (old > _UNKNOWN**2) & (after.diagonal()[self._angles] < _FOUND**2 * old)
        return bool(found.any()) or any(wild)

    def best(
        self,
        covariance: np.ndarray,
        noise: np.ndarray,
        seen: np.ndarray,
        compared: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
        placed: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> Sought:
        """The most probable change of the prediction.

        covariance: of its error, (K, K). noise: variances of the readings, (ny,). seen: measured channels, (ny,).
        compared: innovation (ny,) and H (ny, K) at a state and biases. placed: state and biases after a change (K,).
        """
        weight = np.linalg.inv(covariance)

        def cost(change: np.ndarray, e: np.ndarray) -> float:
            return float(0.5 * change @ weight @ change + 0.5 * np.sum(np.where(seen, e**2 / noise, 0.0)))

        best: Sought | None = None
        for first in self._starts(covariance):
            change = first
            e, h = compared(*placed(change))
            value = cost(change, e)
            for _ in range(_STEPS):
                slope = h @ self._turns.jacobian(change, len(change))
                done = correction(covariance, slope, noise, e + slope @ change, seen)
                step, share = done.change - change, 1.0
                while share > 0.05:
                    tried = change + share * step
                    e_tried, h_tried = compared(*placed(tried))
                    lower = cost(tried, e_tried)
                    if lower <= value:
                        break
                    share /= 3
                else:
                    break
                fall, change, e, h, value = value - lower, tried, e_tried, h_tried, lower
                if fall < _TOLERANCE * max(value, 1.0):
                    break
            if best is None or value < best.cost - 1e-3:
                jacobian = self._turns.jacobian(change, len(change))
                after = correction(covariance, h @ jacobian, noise, e, seen).covariance
                best = Sought(change, jacobian @ after @ jacobian.T, value)
        assert best is not None
        return best

    def _starts(self, covariance: np.ndarray) -> list[np.ndarray]:
        """Changes (K,) to start from: none, turns of free bodies all around, and turns of unknown hinges one at a time."""
        none, deviation = np.zeros(len(covariance)), np.sqrt(covariance.diagonal())
        found = [none]
        for first in self._turns.places:
            if deviation[first : first + 3].max() > _ANYWHERE:
                for turn in _TURNS:
                    start = none.copy()
                    start[first : first + 3] = turn
                    found.append(start)
        for v in self._turns.hinges:
            if deviation[v] > _ANYWHERE:
                for angle in _HINGES:
                    start = none.copy()
                    start[v] = angle
                    found.append(start)
        return found


def _all_around() -> list[np.ndarray]:
    """The 23 rotations of a cube but the identity, as rotation vectors [rad]."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), list(order)] = signs
            if np.linalg.det(matrix) < 0 or np.allclose(matrix, np.eye(3)):
                continue
            quat, vector = np.zeros(4), np.zeros(3)
            mujoco.mju_mat2Quat(quat, matrix.ravel())
            mujoco.mju_quat2Vel(vector, quat, 1.0)
            found.append(vector)
    return found


def turns_around() -> np.ndarray:
    """The rotation vectors (23, 3) [rad] of the starts that turn a body."""
    return np.array(_TURNS)


_TURNS = _all_around()
