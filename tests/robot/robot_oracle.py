"""A robot under a policy in plain NumPy and C MuJoCo: the oracle of the robot chain's values and gradients."""

import copy
import itertools

import mujoco
import numpy as np

from dso_robotics.physics.inertia import principal_fields
from dso_robotics.robot.system import RobotSystem


def model_at(chain: RobotSystem, theta: np.ndarray) -> mujoco.MjModel:
    """A copy of the chain's model with the fields that theta gives, and mj_setConst."""
    model = copy.copy(chain.mj)
    model.opt.tolerance, model.opt.iterations, model.opt.ls_iterations = 1e-14, 100, 100
    if chain.mechanism is None:
        return model
    z = np.asarray(chain.numbers(np.asarray(theta)))
    fields = {name: np.asarray(value)[None] for name, value in chain.mechanism.fields(z).items()}
    for name, value in principal_fields(model, fields).items():
        getattr(model, name)[...] = value[0].reshape(getattr(model, name).shape)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for name in ("body_sameframe", "geom_sameframe", "site_sameframe"):
        getattr(model, name)[...] = 0
    return model


def network(weights: np.ndarray, widths: tuple[int, ...], seen: np.ndarray) -> np.ndarray:
    """A tanh network whose layers lie in `weights` one after the other, each its matrix, then its offset."""
    start = 0
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        matrix = weights[start : start + a * b].reshape(b, a)
        offset = weights[start + a * b : start + a * b + b]
        start += a * b + b
        seen = matrix @ seen + offset
        seen = np.tanh(seen) if k < len(widths) - 2 else seen
    return seen


def play(
    chain: RobotSystem, theta: np.ndarray, noise: np.ndarray, qpos: np.ndarray, *, see, decide, scene_cost
) -> float:
    """Sum of scene_cost(model, data, ctrl) along a rollout with observation see(data) and policy decide(weights, y, memory)."""
    blocks = {name: np.asarray(part) for name, part in chain.layout.split(theta).items()}
    model = model_at(chain, theta)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    low, high = model.actuator_ctrlrange.T
    memory, total = np.zeros(chain.policy.memory), 0.0
    queue = [np.zeros(model.nu)] * chain.delay
    for xi in noise:
        action, memory = decide(blocks["policy"], see(data), memory)
        action = action + np.exp(blocks["action noise"]) * xi
        ctrl = (low + high) / 2 + (high - low) / 2 * np.tanh(action)
        queue.append(ctrl)
        data.ctrl[:] = queue.pop(0) if chain.delay else queue.pop()
        for _ in range(chain.substeps):
            mujoco.mj_step(model, data)
        mujoco.mj_kinematics(model, data)
        total += scene_cost(model, data, data.ctrl.copy())
    return total


def differences(function, at: np.ndarray, entries: np.ndarray, eps: float = 1e-4) -> np.ndarray:
    """Fourth-order central differences of a scalar function in some entries."""
    found = []
    for i in entries:

        def moved(step, i=i):
            there = at.copy()
            there[i] += step
            return function(there)

        found.append((8 * (moved(eps) - moved(-eps)) - (moved(2 * eps) - moved(-2 * eps))) / (12 * eps))
    return np.array(found)
