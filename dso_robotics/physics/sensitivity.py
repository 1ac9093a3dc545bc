"""One step of C MuJoCo, linearised at many states at once: the input of an adjoint, without compilation.

After a simulation all states of the trajectory are known. Their linearisations are independent, so `mujoco.batch` computes
them in one call. The gradient of a rollout then costs 1 + k + nu steps for each step, for any number of policy or network
weights.
"""

import copy
import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import mujoco
import numpy as np

from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.state import Tangent

_STEP = 1e-6
# A thread of its own is worth at least so many states.
_WORTH = 64


@dataclasses.dataclass(frozen=True)
class StepJacobians:
    """Forward differences of N steps (x, u) -> (x', y), in tangent coordinates of k = 2*nv+na numbers.

    state_by_state: (N, k, k).
    state_by_ctrl: (N, k, nu).
    sensor_by_state: (N, ns, k).
    sensor_by_ctrl: (N, ns, nu).
    All are NaN where a simulation diverged.
    """

    state_by_state: np.ndarray
    state_by_ctrl: np.ndarray
    sensor_by_state: np.ndarray
    sensor_by_ctrl: np.ndarray


def linearize_steps(engine: BatchEngine, state: np.ndarray, ctrl: np.ndarray) -> StepJacobians:
    """Linearise one step of the engine's model at states (N, nq+nv+na) and controls (N, nu)."""
    model = engine.model
    tangent = Tangent(model)
    n, k, nu = len(state), tangent.size, model.nu
    starts = np.tile(state, (1 + k + nu, 1, 1))
    change = np.broadcast_to(_STEP * np.eye(k)[:, None], (k, n, k))
    starts[1 : 1 + k] = tangent.move(state[None], change)
    ctrls = np.tile(ctrl, (1 + k + nu, 1, 1))
    if nu:
        ctrls[1 + k :] += _STEP * np.eye(nu)[:, None]
    out = engine.simulate({}, starts.reshape(-1, state.shape[-1]), ctrls.reshape(n * (1 + k + nu), 1, nu))
    after = out.state[:, 0].reshape(1 + k + nu, n, -1)
    sensors = out.sensordata[:, 0].reshape(1 + k + nu, n, -1)
    moved = np.moveaxis(tangent.difference(after[0], after[1:]), 0, -1) / _STEP
    read = np.moveaxis(sensors[1:] - sensors[0], 0, -1) / _STEP
    return StepJacobians(moved[..., :k], moved[..., k:], read[..., :k], read[..., k:])


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Derivatives along E windows of T control steps, in tangent coordinates of k = 2 nv + na numbers.

    state: (E, T, k, k) of the state after a step by the state before it.
    ctrl: (E, T, k, nu).
    sensor_state: (E, T+1, s, k) of sensors in the T+1 states of a window.
    sensor_ctrl: (E, T+1, s, nu) by the control that led to the state.
    All are zero where a simulation diverged.
    """

    state: np.ndarray
    ctrl: np.ndarray
    sensor_state: np.ndarray
    sensor_ctrl: np.ndarray


def window_slopes(
    models: Sequence[mujoco.MjModel],
    state: np.ndarray,
    warmstart: np.ndarray,
    ctrl: np.ndarray,
    *,
    substeps: int,
    sensors: Sequence[int] = (),
    forces: bool = False,
    sound: np.ndarray,
    centred: bool = False,
    threads: int = 0,
) -> Slopes:
    """Linearise every control step of E windows that were simulated. `mjd_transitionFD` skips what a change leaves as it is.

    models: one for each window, or one for all.
    state: (E, T+1, nq+nv+na).
    warmstart: (E, T+1, nv) of the solver, in each state.
    ctrl: (E, T+1, nu), the control that led to each state. That of the first state is used for its sensors.
    substeps: steps of the model in a control step.
    sensors: positions (s,) in sensordata.
    forces: whether a sensor depends on accelerations or forces. A second linearisation is then made of each state, under the
      control that led to it.
    sound: (E, T+1), whether the simulation has not diverged in a state.
    centred: centred differences instead of forward ones.
    threads: among which the windows are divided; 0: one for each processor. The result is the same for any number.
    """
    (envs, ends, _), first, columns = state.shape, models[0], list(sensors)
    nu, k = first.nu, 2 * first.nv + first.na
    found = Slopes(
        np.zeros((envs, ends - 1, k, k)),
        np.zeros((envs, ends - 1, k, nu)),
        np.zeros((envs, ends, len(columns), k)),
        np.zeros((envs, ends, len(columns), nu)),
    )

    def some(part: range) -> None:
        shared = _Linearised(first, centred, columns) if len(models) == 1 else None
        for e in part:
            step = shared or _Linearised(models[e], centred, columns)
            for t in range(ends):
                if not sound[e, t]:
                    break
                moves = t + 1 < ends and sound[e, t + 1]
                if columns and (forces or not moves):
                    step.load(state[e, t], warmstart[e, t], ctrl[e, t])
                    found.sensor_state[e, t], found.sensor_ctrl[e, t] = step.sensors()
                if not moves:
                    continue
                step.load(state[e, t], warmstart[e, t], ctrl[e, t + 1])
                for i in range(substeps):
                    a, b, c = step.move(reads=bool(columns) and not forces and not i, last=i + 1 == substeps)
                    if i:
                        found.state[e, t], found.ctrl[e, t] = a @ found.state[e, t], a @ found.ctrl[e, t] + b
                    else:
                        found.state[e, t], found.ctrl[e, t] = a, b
                        if c is not None:
                            found.sensor_state[e, t] = c

    count = max(min(threads or os.cpu_count() or 1, envs, envs * ends // _WORTH), 1)
    if count == 1:
        some(range(envs))
    else:
        # MuJoCo computes without the interpreter's lock.
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(some, (range(envs * i // count, envs * (i + 1) // count) for i in range(count))))
    return found


class _Linearised:
    """A simulation of one model with the linearisation of its steps.

    `mjd_transitionFD` does not know Runge-Kutta. Where a force is a product of speed and control or activation, and the
    integrator is implicit, it takes the derivative of the force by the speed as constant. Such columns are differences of
    whole steps here.
    """

    def __init__(self, model: mujoco.MjModel, centred: bool, columns: list[int]):
        self._model, self._centred, self._columns, self._data = model, centred, columns, mujoco.MjData(model)
        nv, na, nu = model.nv, model.na, model.nu
        self._k, self._tangent = 2 * nv + na, Tangent(model)
        by_stages, self._reader = model, model
        if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
            # Sensors do not depend on the integrator.
            self._reader, by_stages = copy.copy(model), None
            self._reader.opt.integrator = int(mujoco.mjtIntegrator.mjINT_EULER)
        self._by_stages = by_stages is not None
        whole = range(0 if by_stages is None else 2 * nv, self._k + nu)
        self._whole = list(whole) if by_stages is None or _damps_by_control(model) else []
        self._a, self._b = np.zeros((self._k, self._k)), np.zeros((self._k, nu))
        self._c, self._d = np.zeros((model.nsensordata, self._k)), np.zeros((model.nsensordata, nu))

    def load(self, state: np.ndarray, warmstart: np.ndarray, ctrl: np.ndarray) -> None:
        """Set the state (nq+nv+na), the warm start of the solver (nv,) and the control (nu,)."""
        data, nq, nv = self._data, self._model.nq, self._model.nv
        data.qpos[:], data.qvel[:], data.ctrl[:] = state[:nq], state[nq : nq + nv], ctrl
        if self._model.na:
            data.act[:] = state[nq + nv :]
        data.qacc_warmstart[:] = warmstart

    def sensors(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (s, k) and (s, nu) of the sensors in this state under this control."""
        d = None if self._centred else self._d
        mujoco.mjd_transitionFD(self._reader, self._data, _STEP, self._centred, None, None, self._c, d)
        if self._centred:
            # MuJoCo's own centred differences by the control have the wrong sign (3.17).
            self._by_control()
        return self._c[self._columns], self._d[self._columns]

    def _by_control(self) -> None:
        data = self._data
        for i in range(self._model.nu):
            ends, middle = [], data.ctrl[i]
            for sign in (1.0, -1.0):
                data.ctrl[i] = middle + sign * _STEP
                mujoco.mj_forward(self._reader, data)
                ends.append(data.sensordata.copy())
            data.ctrl[i] = middle
            self._d[:, i] = (ends[0] - ends[1]) / (2 * _STEP)

    def move(self, *, reads: bool, last: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Derivatives (k, k), (k, nu) of a step, and (s, k) of the sensors before it if `reads`. Steps, unless `last`."""
        model, data = self._model, self._data
        if self._by_stages:
            c = self._c if reads else None
            mujoco.mjd_transitionFD(model, data, _STEP, self._centred, self._a, self._b, c, None)
        elif reads:
            mujoco.mjd_transitionFD(self._reader, data, _STEP, self._centred, None, None, self._c, None)
        if self._whole:
            self._by_whole_steps()
        if not last:
            mujoco.mj_step(model, data)
        return self._a, self._b, self._c[self._columns] if reads else None

    def _by_whole_steps(self) -> None:
        model, data, spec = self._model, self._data, int(mujoco.mjtState.mjSTATE_INTEGRATION)
        kept = np.zeros(mujoco.mj_stateSize(model, spec))
        mujoco.mj_getState(model, data, kept, spec)
        here, ctrl = self._state(), data.ctrl.copy()

        def after(column: int, size: float) -> np.ndarray:
            mujoco.mj_setState(model, data, kept, spec)
            if column < self._k:
                moved = self._tangent.move(here, size * np.eye(self._k)[column])
                self.load(moved, data.qacc_warmstart.copy(), ctrl)
            else:
                data.ctrl[column - self._k] += size
            mujoco.mj_step(model, data)
            return self._state()

        base = after(0, 0.0)
        for column in self._whole:
            low = after(column, -_STEP) if self._centred else base
            slope = self._tangent.difference(low, after(column, _STEP)) / (_STEP * (2 if self._centred else 1))
            into, at = (self._a, column) if column < self._k else (self._b, column - self._k)
            into[:, at] = slope
        mujoco.mj_setState(model, data, kept, spec)

    def _state(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel, self._data.act])


def _damps_by_control(model: mujoco.MjModel) -> bool:
    """Whether an implicit integrator sees a derivative of a force by the speed that depends on control or activation."""
    integrators = (mujoco.mjtIntegrator.mjINT_IMPLICIT, mujoco.mjtIntegrator.mjINT_IMPLICITFAST)
    gain, affine = model.actuator_gaintype, mujoco.mjtGain.mjGAIN_AFFINE
    moving = (gain == affine) & (model.actuator_gainprm[:, 2] != 0)
    others = ~np.isin(gain, [int(mujoco.mjtGain.mjGAIN_FIXED), int(affine)])
    return model.opt.integrator in integrators and bool(np.any(moving | others))
