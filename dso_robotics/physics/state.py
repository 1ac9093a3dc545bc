"""The tangent space of a MuJoCo state: quaternions stay unit quaternions, everything else is added."""

import mujoco
import numpy as np


class Tangent:
    """Changes of the state (qpos, qvel, act) by 2*nv + na numbers: position change [m, rad], then qvel, then act.

    Only models with ball or free joints need MuJoCo's quaternion arithmetic; for others it is one array addition.
    """

    def __init__(self, model: mujoco.MjModel):
        self._model = model
        self._euclidean = model.nq == model.nv
        self.size = 2 * model.nv + model.na

    @property
    def flat(self) -> bool:
        """Whether the state has no quaternions, so that changes are simply added."""
        return self._euclidean

    def move(self, state: np.ndarray, change: np.ndarray) -> np.ndarray:
        """`state` (..., nq+nv+na) moved by `change` (..., 2*nv+na)."""
        model = self._model
        qpos, rest = state[..., : model.nq], state[..., model.nq :]
        dq, drest = change[..., : model.nv], change[..., model.nv :]
        if self._euclidean:
            return np.concatenate([qpos + dq, rest + drest], -1)
        shape = np.broadcast_shapes(qpos.shape[:-1], dq.shape[:-1])
        moved = np.array(np.broadcast_to(qpos, (*shape, model.nq)), order="C")
        steps = np.broadcast_to(dq, (*shape, model.nv))
        for index in np.ndindex(shape):
            row = moved[index]
            mujoco.mj_integratePos(model, row, np.ascontiguousarray(steps[index]), 1.0)
            moved[index] = row
        return np.concatenate([moved, np.broadcast_to(rest + drest, (*shape, model.nv + model.na))], -1)

    def difference(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The change (..., 2*nv+na) that moves `start` (..., nq+nv+na) to `end`; the two broadcast."""
        model = self._model
        rest = end[..., model.nq :] - start[..., model.nq :]
        if self._euclidean:
            return np.concatenate([end[..., : model.nq] - start[..., : model.nq], rest], -1)
        shape = np.broadcast_shapes(start.shape[:-1], end.shape[:-1])
        first, last = (np.broadcast_to(v[..., : model.nq], (*shape, model.nq)) for v in (start, end))
        change = np.zeros((*shape, model.nv))
        for index in np.ndindex(shape):
            mujoco.mj_differentiatePos(
                model, change[index], 1.0, np.ascontiguousarray(first[index]), np.ascontiguousarray(last[index])
            )
        return np.concatenate([change, np.broadcast_to(rest, (*shape, rest.shape[-1]))], -1)


def activation_range(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest activations (na,) that the actuators can reach; infinite where nothing limits them."""
    low, high = np.full(model.na, -np.inf), np.full(model.na, np.inf)
    for i in range(model.nu):
        first, count = int(model.actuator_actadr[i]), int(model.actuator_actnum[i])
        if first < 0:
            continue
        if model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_MUSCLE:
            # The activation goes after a control between 0 and 1.
            low[first : first + count], high[first : first + count] = 0.0, 1.0
        if model.actuator_actlimited[i]:
            low[first : first + count], high[first : first + count] = model.actuator_actrange[i]
    return low, high
