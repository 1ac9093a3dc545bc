"""An extended Kalman filter as a corrector: its learned numbers are noises, and its gain follows from the covariance.

x is the state and P the covariance of its error in the tangent space. With A and H the derivatives of prediction and readings,

    P- = A P A' + Q,   S = H P- H' + R,   K = P- H' S^-1,   P = (I - K H) P- (I - K H)' + K R K',

and the change of the state is K e (Joseph's form, which keeps P symmetric and positive). A sensor whose bias drifts adds a
state: its bias, a random walk. Every array may have leading axes.
"""

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dso_robotics.data.quaternion import Places
from dso_robotics.errors import DsoError
from dso_robotics.robot.corrector import CORRECTORS, Corrector
from dso_robotics.robot.estimator_space import Space


@CORRECTORS.register("kalman")
@dataclass(frozen=True)
class KalmanCorrector(Corrector):
    """change = K e, with the gain K of an extended Kalman filter whose noises are learned."""

    kind: ClassVar[str] = "kalman"
    linearises: ClassVar[bool] = True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `Corrector` and `Noise`."""
        return {
            "process": (self.k,),
            "sensor": (self.ny,),
            "drift": (self.ny,),
            "prior": (self.k,),
            "offset": (self.ny,),
        }

    def raw(self, weights: Any, memory: Any, inputs: Any, innovation: Any) -> tuple[Any, Any]:
        """Raise DsoError: the gain needs the derivatives of the model, which `robot.kalman_filter` has."""
        raise DsoError(
            'corrector "kalman" is learned by `dso estimate`; choose "gain", "linear", "mlp" or "recurrent" here.'
        )


@dataclass(frozen=True, eq=False)
class Noise:
    """The learned numbers of a Kalman filter, all standard deviations.

    process: of white noise that drives positions, velocities and activations, in their units per sqrt(s), (..., k).
    sensor: of the readings, (..., ny), in their units; of a quaternion, the angle [rad] in each of its channels.
    drift: of the random walk of each channel's bias, in the channel's unit per sqrt(s), (..., ny); 0: it has no bias state.
    prior: of the error of a start state, (..., k); of rotations of free bodies about the world's axes, see `start`.
    offset: of the bias at the start, (..., ny).
    """

    process: np.ndarray
    sensor: np.ndarray
    drift: np.ndarray
    prior: np.ndarray
    offset: np.ndarray

    @property
    def drifting(self) -> np.ndarray:
        """Indices of the channels that have a bias state."""
        return np.flatnonzero(self.drift.reshape(-1, self.drift.shape[-1]).max(0) > 0)

    def start(self, space: Space, state: np.ndarray) -> np.ndarray:
        """The covariance of start states (..., nx) and of the biases, (..., K, K).

        The prior of a free body's rotation is about the world's axes: a robot is nearly level, and its heading is anything.
        Tangents are in the body's own axes.
        """
        spread = np.concatenate([self.prior, self.offset[self.drifting]]) ** 2
        found = np.broadcast_to(diagonal(spread), (*state.shape[:-1], len(spread), len(spread))).copy()
        for q, v in space.free_turns:
            turn = rotation_matrix(state[..., q : q + 4])
            found[..., v : v + 3, v : v + 3] = transposed(turn) @ diagonal(spread[v : v + 3]) @ turn
        return found

    def process_covariance(self, nv: int, seconds: Any) -> np.ndarray:
        """Covariance (..., K, K) of what the noise adds to state and biases in `seconds` (...)."""
        return process_covariance(self.process**2, self.drift[..., self.drifting] ** 2, nv, seconds)


def process_covariance(process: np.ndarray, drift: np.ndarray, nv: int, seconds: Any) -> np.ndarray:
    """Covariance (..., K, K) that white noise adds in `seconds` (...) [s], given variances per second (..., k) and (..., nb).

    Velocities are integrated to positions: noise of variance q a second in a velocity gives q t in the velocity, q t^3/3 in the
    position, and q t^2/2 between them, whatever the number of updates in between. It is linear in the variances.
    """
    t = np.asarray(seconds, float)[..., None]
    found = diagonal(np.concatenate([process * t, drift * t], -1))
    place = np.arange(nv)
    speed = process[..., nv : 2 * nv]
    found[..., place, place] += speed * t**3 / 3
    found[..., place, place + nv] = found[..., place + nv, place] = speed * t**2 / 2
    return found


def rotation_matrix(quat: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    w, x, y, z = (quat[..., i] for i in range(4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def diagonal(values: np.ndarray) -> np.ndarray:
    """Diagonal matrices (..., n, n)."""
    return values[..., None] * np.eye(values.shape[-1])


class Correction(NamedTuple):
    """One measurement update.

    change: of the state's tangent and the biases, (..., K).
    covariance: after it, (..., K, K).
    gain: (..., K, ny), zero for missing channels.
    spread: S, the covariance of the innovations, (..., ny, ny); the identity for missing channels.
    """

    change: np.ndarray
    covariance: np.ndarray
    gain: np.ndarray
    spread: np.ndarray


@functools.cache
def _eye(size: int) -> np.ndarray:
    found = np.eye(size)
    found.flags.writeable = False
    return found


def transposed(matrix: np.ndarray) -> np.ndarray:
    """The matrices (..., m, n) as (..., n, m)."""
    return np.swapaxes(matrix, -1, -2)


def correction(
    covariance: np.ndarray, slope: np.ndarray, noise: np.ndarray, innovation: np.ndarray, seen: np.ndarray
) -> Correction:
    """The update by `innovation` (..., ny) of a state of `covariance` (..., K, K).

    slope: H (..., ny, K). noise: R's variances (..., ny). seen: (..., ny) bool; other channels change nothing.
    """
    h, r = np.where(seen[..., None], slope, 0.0), np.where(seen, noise, 1.0)
    cross = covariance @ transposed(h)
    spread = h @ cross + r[..., None] * _eye(r.shape[-1])
    gain = transposed(np.linalg.solve(spread, transposed(cross)))
    left = _eye(covariance.shape[-1]) - gain @ h
    # Columns of the gain are zero where nothing was seen, so R's numbers there do not count.
    after = left @ covariance @ transposed(left) + (gain * r[..., None, :]) @ transposed(gain)
    change = (gain @ np.where(seen, innovation, 0.0)[..., None])[..., 0]
    return Correction(change, (after + transposed(after)) / 2, gain, spread)


def turned(
    predicted: np.ndarray, innovation: np.ndarray, slope: np.ndarray, quaternions: Places
) -> tuple[np.ndarray, np.ndarray]:
    """Innovations and slopes in which each quaternion's four channels are a rotation vector [rad] and a zero.

    A unit quaternion has three numbers to be wrong in. Two near unit quaternions p and q differ by the vector part of
    2 conj(p) q, a rotation in the frame that p describes.

    predicted: (..., ny), the readings that were predicted.
    """
    if not quaternions:
        return innovation, slope
    innovation, slope = innovation.copy(), slope.copy()
    for places in quaternions:
        at = list(places)
        w, x, y, z = (predicted[..., i] for i in at)
        none = np.zeros_like(w)
        rows = np.stack(
            [np.stack(r, -1) for r in ((-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w), (none, none, none, none))], -2
        )
        innovation[..., at] = 2 * (rows @ innovation[..., at][..., None])[..., 0]
        slope[..., at, :] = 2 * rows @ slope[..., at, :]
    return innovation, slope


def measurable(seen: np.ndarray, quaternions: Places) -> np.ndarray:
    """`seen` (..., ny) without the fourth channel of each quaternion, which `turned` leaves empty, and without parts of one."""
    if quaternions:
        seen = seen.copy()
        for places in quaternions:
            whole = seen[..., list(places)].all(-1, keepdims=True)
            seen[..., list(places)] = whole & (np.arange(4) < 3)
    return seen


def reading_variances(spread: np.ndarray, quaternions: Places) -> np.ndarray:
    """Variances (..., ny) of the innovations by channel from their covariance (..., ny, ny) after `turned`."""
    found = np.diagonal(spread, axis1=-2, axis2=-1)
    if quaternions:
        found = found.copy()
        for places in quaternions:
            # An angle of a radian moves the channels of a quaternion by at most a half.
            found[..., list(places)] = found[..., list(places[:3])].mean(-1, keepdims=True) / 4
    return found
