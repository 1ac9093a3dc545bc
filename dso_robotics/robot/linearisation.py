"""The derivatives that a Kalman filter needs at run time: of a prediction and of sensor readings at one state of C MuJoCo."""

import mujoco
import numpy as np

_STEP = 1e-6
# Time steps of one update that are linearised one by one. A longer prediction is linearised at this many of its steps, or once
# in each usual update if that is more, at most `_MOST` times.
_PIECES, _MOST = 4, 20


class Linearisation:
    """Linearises `model` in the tangent space (2*nv+na).

    substeps: time steps of a usual update.
    """

    def __init__(self, model: mujoco.MjModel, addresses: np.ndarray, substeps: int):
        self._model, self._addresses, self._substeps = model, addresses, substeps
        self._size = 2 * model.nv + model.na
        self._by_hand = int(model.opt.integrator) == int(mujoco.mjtIntegrator.mjINT_RK4)
        self._a = np.zeros((self._size, self._size))
        self._c = np.zeros((model.nsensordata, self._size))
        self._beside = mujoco.MjData(model) if self._by_hand else None

    def advance(self, data: mujoco.MjData, steps: int) -> np.ndarray:
        """Advance `data` by `steps` time steps and return the derivative of where it ends by where it began, (k, k)."""
        pieces = min(steps, max(_PIECES, -(-steps // self._substeps)), _MOST)
        each, more = divmod(steps, pieces)
        total = None
        for i in range(pieces):
            count = each + (i < more)
            a = self._transition(data)
            a = a if count == 1 else np.linalg.matrix_power(a, count)
            total = a if total is None else a @ total
            mujoco.mj_step(self._model, data, count)
        assert total is not None
        return total

    def readings(self, data: mujoco.MjData) -> np.ndarray:
        """Derivative (ny, k) of the readings in the state of `data`, whose sensors stay as they are."""
        if self._by_hand:
            return self._differences(data, stepping=False)
        kept = data.sensordata.copy()
        mujoco.mjd_transitionFD(self._model, data, _STEP, 0, None, None, self._c, None)
        data.sensordata[:] = kept
        return self._c[self._addresses]

    def _transition(self, data: mujoco.MjData) -> np.ndarray:
        if self._by_hand:
            return self._differences(data, stepping=True)
        mujoco.mjd_transitionFD(self._model, data, _STEP, 0, self._a, None, None, None)
        return self._a.copy()

    def _differences(self, data: mujoco.MjData, *, stepping: bool) -> np.ndarray:
        """Forward differences, where MuJoCo's own refuse the integrator."""
        model, nv, rows = self._model, self._model.nv, []
        other = self._beside
        assert other is not None
        for change in (None, *(_STEP * np.eye(self._size))):
            other.qpos[:], other.qvel[:], other.act[:], other.ctrl[:] = data.qpos, data.qvel, data.act, data.ctrl
            if change is not None:
                mujoco.mj_integratePos(model, other.qpos, change[:nv], 1.0)
                other.qvel[:] += change[nv : 2 * nv]
                other.act[:] += change[2 * nv :]
            if not stepping:
                mujoco.mj_forward(model, other)
                rows.append(other.sensordata[self._addresses].copy())
                continue
            mujoco.mj_step(model, other)
            rows.append((other.qpos.copy(), other.qvel.copy(), other.act.copy()))
        if not stepping:
            return (np.array(rows[1:]) - rows[0]).T / _STEP
        found, first = np.empty((self._size, self._size)), rows[0]
        for i, (qpos, qvel, act) in enumerate(rows[1:]):
            turn = np.zeros(nv)
            mujoco.mj_differentiatePos(model, turn, 1.0, first[0], qpos)
            found[:, i] = np.concatenate([turn, qvel - first[1], act - first[2]]) / _STEP
        return found
