"""Closed loops: how far a state is from satisfying the equality constraints of a model."""

import mujoco
import numpy as np

from dso_robotics.physics.state import Tangent

_EQUALITY = int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)
# Step of finite differences of positions [m, rad].
_STEP = 1e-6


class Closure:
    """Violations of the active equality constraints of a model, as a function of its position.

    Positions and tendons are computed too: `data` has those of the last call.
    """

    def __init__(self, model: mujoco.MjModel):
        bare = model.__copy__()
        flags = mujoco.mjtDisableBit
        bare.opt.disableflags |= int(flags.mjDSBL_CONTACT | flags.mjDSBL_LIMIT | flags.mjDSBL_FRICTIONLOSS)
        self.model, self.data, self.tangent = bare, mujoco.MjData(bare), Tangent(bare)
        self.rows = len(self.violation(np.array(model.qpos0)))
        self.length = max(float(model.stat.meansize), 1e-3)

    def violation(self, qpos: np.ndarray) -> np.ndarray:
        """Violation (rows,) [m, rad] at `qpos` (nq,)."""
        self.data.qpos[:] = qpos
        mujoco.mj_fwdPosition(self.model, self.data)
        return np.array(self.data.efc_pos[self.data.efc_type == _EQUALITY])

    def moved(self, qpos: np.ndarray, change: np.ndarray) -> np.ndarray:
        """`qpos` (nq,) moved by `change` (nv,)."""
        return moved(self.model, qpos, change)

    def slope(self, qpos: np.ndarray) -> np.ndarray:
        """Derivative (rows, nv) of `violation` by the tangent of `qpos`."""
        steps = _STEP * np.eye(self.model.nv)
        columns = [(self.violation(self.moved(qpos, d)) - self.violation(self.moved(qpos, -d))) for d in steps]
        return np.stack(columns, -1) / (2 * _STEP)

    def residual(self, states: np.ndarray) -> np.ndarray:
        """Violations and their rates (B, 2 * rows) of states (B, nq+nv+na), over their tolerances."""
        return self.linearize(states)[0]

    def linearize(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`residual`, and its derivatives (B, 2 * rows, 2*nv+na) by the states' tangents.

        The change of the slope with the position is left out.
        """
        nq, nv, rows = self.model.nq, self.model.nv, self.rows
        away, slopes = np.zeros((len(states), 2 * rows)), np.zeros((len(states), 2 * rows, self.tangent.size))
        for b, state in enumerate(states):
            slope = self.slope(state[:nq])
            away[b, :rows], away[b, rows:] = self.violation(state[:nq]), slope @ state[nq : nq + nv]
            slopes[b, :rows, :nv], slopes[b, rows:, nv : 2 * nv] = slope, slope
        weight = np.repeat([1 / (_TOLERANCE * self.length), _SETTLING / (_TOLERANCE * self.length)], rows)
        return away * weight, slopes * weight[:, None]


# A loop may be open by this fraction of the mean size of a body, since MuJoCo's constraints are soft, and may change by that
# much within `_SETTLING` [s].
_TOLERANCE, _SETTLING = 1e-3, 0.02


def moved(model: mujoco.MjModel, qpos: np.ndarray, change: np.ndarray) -> np.ndarray:
    """`qpos` (nq,) moved by `change` (nv,)."""
    out = np.array(qpos, float)
    mujoco.mj_integratePos(model, out, np.ascontiguousarray(change), 1.0)
    return out
