"""How changes of rotations add in the tangent space, for many states at once."""

import mujoco
import numpy as np

_SERIES = 1e-4


class TangentTurns:
    """The rotations of a model's free bodies and ball joints; False if it has none."""

    def __init__(self, model: mujoco.MjModel):
        free, ball = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
        kinds = zip(map(int, model.jnt_type), map(int, model.jnt_dofadr), strict=True)
        self._places = [v + 3 * (kind == free) for kind, v in kinds if kind in (free, ball)]

    def __bool__(self) -> bool:
        return bool(self._places)

    def jacobian(self, change: np.ndarray, size: int) -> np.ndarray:
        """What a small further change amounts to in the tangent after `change` (..., k), (..., size, size)."""
        found = np.broadcast_to(np.eye(size), (*change.shape[:-1], size, size)).copy()
        for v in self._places:
            found[..., v : v + 3, v : v + 3] = right_jacobians(change[..., v : v + 3])
        return found

    def inverse(self, change: np.ndarray, size: int) -> np.ndarray:
        """The inverse of `jacobian`."""
        found = self.jacobian(change, size)
        for v in self._places:
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
