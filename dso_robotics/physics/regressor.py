"""Inverse dynamics, linear in the inertial numbers of bodies: tau = W(q, v, a) pi (Atkeson, An and Hollerbach, 1986).

The ten numbers of a body are pi = (m, m c, I_o), with the inertia I_o = (xx, yy, zz, xy, xz, yz) about the origin of the
body frame. W does not depend on them, so it is computed once for all values of pi.
"""

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from dso_robotics.physics.inertia import rotation


def regressor(
    model: mujoco.MjModel,
    qpos: NDArray[np.float64],
    qvel: NDArray[np.float64],
    qacc: NDArray[np.float64],
    bodies: Sequence[int],
) -> NDArray[np.float64]:
    """W (N, nv, b, 10) of b bodies: the generalised force that moves them, by their ten numbers. Gravity is included.

    qpos, qvel, qacc: states and accelerations, (N, nq), (N, nv), (N, nv).

    The share of the weight that `gravcomp` carries is not in W.
    """
    data, count, nv = mujoco.MjData(model), len(qpos), model.nv
    speed, acceleration = np.zeros(6), np.zeros(6)
    moving, driven = np.empty((2, count, len(bodies), 6))
    translation, turning = np.empty((2, count, len(bodies), 3, nv))
    axes, point, turn = np.empty((count, len(bodies), 3, 3)), np.empty((3, nv)), np.empty((3, nv))
    frame = mujoco.mjtObj.mjOBJ_XBODY
    for n in range(count):
        data.qpos[:], data.qvel[:], data.qacc[:] = qpos[n], qvel[n], qacc[n]
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fwdVelocity(model, data)
        data.qacc[:] = qacc[n]
        mujoco.mj_rnePostConstraint(model, data)
        for k, body in enumerate(bodies):
            mujoco.mj_objectVelocity(model, data, frame, body, speed, 1)
            mujoco.mj_objectAcceleration(model, data, frame, body, acceleration, 1)
            mujoco.mj_jacBody(model, data, point, turn, body)
            moving[n, k], driven[n, k] = speed, acceleration
            translation[n, k], turning[n, k] = point, turn
            axes[n, k] = data.xmat[body].reshape(3, 3)
    # Rows of J in the body's own axes.
    translation, turning = (np.swapaxes(axes, -1, -2) @ part for part in (translation, turning))
    force, moment = _wrench(moving[..., :3], driven[..., :3], driven[..., 3:])
    return np.einsum("nkiv,nkip->nvkp", translation, force) + np.einsum("nkiv,nkip->nvkp", turning, moment)


def _wrench(spin: np.ndarray, spun: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Force and moment about the body's origin by pi, (..., 3, 10) each, from the Newton-Euler equations.

    spin, spun: angular velocity and acceleration. pull: acceleration of the origin, less gravity. (..., 3) in body axes.
    """
    cross, crossed = _cross(spin), _cross(spun)
    shape = (*spin.shape[:-1], 3)
    force, moment = np.zeros((*shape, 10)), np.zeros((*shape, 10))
    force[..., 0] = pull
    force[..., 1:4] = crossed + cross @ cross
    moment[..., 1:4] = -_cross(pull)
    moment[..., 4:] = _by_inertia(spun) + cross @ _by_inertia(spin)
    return force, moment


def _cross(vector: np.ndarray) -> np.ndarray:
    """The matrix of v x, (..., 3, 3)."""
    x, y, z = np.moveaxis(vector, -1, 0)
    none = np.zeros_like(x)
    return np.stack([np.stack(row, -1) for row in ((none, -z, y), (z, none, -x), (-y, x, none))], -2)


def _by_inertia(vector: np.ndarray) -> np.ndarray:
    """The matrix (..., 3, 6) that gives I v from the entries xx, yy, zz, xy, xz, yz of I."""
    x, y, z = np.moveaxis(vector, -1, 0)
    none = np.zeros_like(x)
    rows = ((x, none, none, y, z, none), (none, y, none, x, none, z), (none, none, z, none, x, y))
    return np.stack([np.stack(row, -1) for row in rows], -2)


def inertial_numbers(
    mass: NDArray[np.float64], com: NDArray[np.float64], tensor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """pi (..., b, 10) of bodies.

    mass: (..., b) [kg].
    com: centres of mass, (..., b, 3) [m].
    tensor: inertias about them in body axes, (..., b, 3, 3) [kg m^2].
    """
    shifted = tensor + mass[..., None, None] * (
        (com**2).sum(-1)[..., None, None] * np.eye(3) - com[..., :, None] * com[..., None, :]
    )
    entries = [shifted[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    return np.concatenate([mass[..., None], mass[..., None] * com, np.stack(entries, -1)], -1)


def tensors(moments: NDArray[np.float64], quat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inertias in body axes (..., b, 3, 3) from principal moments (..., b, 3) and their frame's orientation (..., b, 4)."""
    turn = rotation(quat)
    return turn @ (moments[..., None] * np.swapaxes(turn, -1, -2))
