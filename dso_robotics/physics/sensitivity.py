"""One step of C MuJoCo, linearised at many states at once: the input of an adjoint, without compilation.

After a simulation all states of the trajectory are known. Their linearisations are independent, so `mujoco.batch` computes
them in one call. The gradient of a rollout then costs 1 + k + nu steps for each step, for any number of policy or network
weights.
"""

import dataclasses

import numpy as np

from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.state import Tangent

_STEP = 1e-6


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
