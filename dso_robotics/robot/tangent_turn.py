"""Which tangent directions of a model turn something, and how changes of rotations add, for many states at once."""

import mujoco
import numpy as np

_SERIES = 1e-4


class TangentTurns:
    """The rotations of a model's free bodies and ball joints; False if it has none.

    places: first of the three tangent directions of each of them. hinges: the direction of each hinge.
    """

    def __init__(self, model: mujoco.MjModel):
        free, ball = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
        kinds = list(zip(map(int, model.jnt_type), map(int, model.jnt_dofadr), strict=True))
        self.places = [v + 3 * (kind == free) for kind, v in kinds if kind in (free, ball)]
        self.hinges = [v for kind, v in kinds if kind == int(mujoco.mjtJoint.mjJNT_HINGE)]

    def __bool__(self) -> bool:
        return bool(self.places)

    @property
    def angles(self) -> np.ndarray:
        """The directions of positions that are angles, in order."""
        return np.array(sorted(self.hinges + [v + i for v in self.places for i in range(3)]), int)

    def far(self, change: np.ndarray, angle: float) -> bool:
        """Whether `change` (k,) turns a free body or a ball joint by more than this angle [rad] about an axis."""
        return any(float(np.abs(change[v : v + 3]).max()) > angle for v in self.places)

    def jacobian(self, change: np.ndarray, size: int) -> np.ndarray:
        """What a small further change amounts to in the tangent after `change` (..., k), (..., size, size)."""
        found = np.broadcast_to(np.eye(size), (*change.shape[:-1], size, size)).copy()
        for v in self.places:
            found[..., v : v + 3, v : v + 3] = right_jacobians(change[..., v : v + 3])
        return found

    def inverse(self, change: np.ndarray, size: int) -> np.ndarray:
        """The inverse of `jacobian`."""
        found = self.jacobian(change, size)
        for v in self.places:
            found[..., v : v + 3, v : v + 3] = np.linalg.inv(found[..., v : v + 3, v : v + 3])
        return found


def right_jacobians(rotation: np.ndarray) -> np.ndarray:
    """The derivative (..., 3, 3) of rotations, in their own frames, by their rotation vectors (..., 3) [rad]."""
    x, y, z = (rotation[..., i] for i in range(3))
    none = np.zeros_like(x)
    cross = np.stack([np.stack(row, -1) for row in ((none, -z, y), (z, none, -x), (-y, x, none))], -2)
    angle = np.linalg.norm(rotation, axis=-1)[..., None, None]
    small, safe = angle < _SERIES, np.maximum(angle, _SERIES)
    first = np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    second = np.where(small, 1 / 6, (safe - np.sin(safe)) / safe**3)
    return np.eye(3) - first * cross + second * cross @ cross
