"""Plain C MuJoCo as the oracle: one step, one reading of the sensors, and their central differences."""

from collections.abc import Callable

import mujoco
import numpy as np


def fill(model: mujoco.MjModel, state: np.ndarray, ctrl: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:], data.act[:] = np.split(state, [model.nq, model.nq + model.nv])
    data.ctrl[:] = ctrl
    return data


def c_step(model: mujoco.MjModel, state: np.ndarray, ctrl: np.ndarray) -> np.ndarray:
    data = fill(model, state, ctrl)
    mujoco.mj_step(model, data)
    return np.concatenate([data.qpos, data.qvel, data.act])


def c_sensors(model: mujoco.MjModel, state: np.ndarray, ctrl: np.ndarray) -> np.ndarray:
    data = fill(model, state, ctrl)
    mujoco.mj_forward(model, data)
    return data.sensordata.copy()


def start(model: mujoco.MjModel) -> np.ndarray:
    return np.concatenate([model.qpos0, np.zeros(model.nv + model.na)])


def rollout(model: mujoco.MjModel, steps: int, seed: int = 0, kick: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """States and controls along a C rollout under random controls, the velocity kicked once in a while."""
    rng = np.random.default_rng(seed)
    state, out = start(model), []
    for k in range(steps):
        ctrl = 0.5 * rng.normal(size=model.nu)
        if k % 20 == 0:
            state[model.nq : model.nq + model.nv] += kick * rng.normal(size=model.nv)
        out.append((state.copy(), ctrl))
        state = c_step(model, state, ctrl)
    return out


def differences(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Fourth-order central differences of `function` (n,) -> (m,) as (m, n), the move relative to each element's size."""
    columns = []
    for i in range(at.size):
        move = np.zeros(at.size)
        move[i] = size = eps * max(abs(at[i]), 0.02)
        near, far = function(at + move) - function(at - move), function(at + 2 * move) - function(at - 2 * move)
        columns.append((8 * near - far) / (12 * size))
    return np.stack(columns, axis=-1)


def field_differences(
    model: mujoco.MjModel, name: str, run: Callable[[], np.ndarray], eps: float = 1e-5, *, reset: bool = False
) -> np.ndarray:
    """Central differences of `run` in all elements of a model field; `reset` calls mj_setConst after each change."""
    values, saved = getattr(model, name), getattr(model, name).copy()
    data = mujoco.MjData(model)

    def at(flat: np.ndarray) -> np.ndarray:
        values[...] = flat.reshape(values.shape)
        if reset:
            mujoco.mj_setConst(model, data)
        return run()

    try:
        return differences(at, saved.ravel().astype(float), eps)
    finally:
        at(saved.ravel())


def mismatch(got: np.ndarray, want: np.ndarray) -> float:
    """Largest error relative to the largest element, with a floor that keeps zeros comparable."""
    got, want = np.asarray(got, float), np.asarray(want, float)
    return float(np.abs(got - want).max() / (np.abs(want).max() + 1e-3)) if want.size else 0.0
