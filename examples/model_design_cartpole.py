"""A model of the wrong structure, made good for control: a cart-pole whose motor answers late.

The model knows no lag. Its masses and dampings are moved by the cost that its linear-quadratic regulator has on the real
cart-pole, here one in C MuJoCo. Only rollouts of the real one are needed: 2 for each of the 4 gains. The rest of the derivative
is that of the regulator by the model, through the Riccati equation. Run: python examples/model_design_cartpole.py
"""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import optax

from dso_robotics.core.descent import Best
from dso_robotics.core.differences import measured
from dso_robotics.core.implicit import Dense
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.regulator import regulator
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.data.assets import asset

STATE_COST, ACTION_COST = np.array([1.0, 20.0, 0.1, 0.5]), np.array([0.1])  # cart, pole, their speeds; force of 10 N
SUBSTEPS, STEPS = 2, 150  # control steps of 20 ms, 3 s


def cartpole(lag: float) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(asset("models/cartpole.xml")))
    if lag:
        spec.actuator("drive").dyntype = mujoco.mjtDyn.mjDYN_FILTER
        spec.actuator("drive").dynprm[0] = lag
    return spec.compile()


def linear(model: mujoco.MjModel) -> np.ndarray:
    """A (4, 4) and B (4, 1) of one control step about the upright posture, side by side."""
    a, b = np.zeros((4, 4)), np.zeros((4, 1))
    mujoco.mjd_transitionFD(model, mujoco.MjData(model), 1e-6, 1, a, b, None, None)
    return np.hstack([a @ a, a @ b + b])


def real_cost(model: mujoco.MjModel, gain: np.ndarray, starts: np.ndarray) -> float:
    """Mean cost of a step, from `starts` (M, 4), under u = -gain x. Falling over costs 30."""
    data, total = mujoco.MjData(model), 0.0
    for start in starts:
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = start[:2], start[2:]
        for _ in range(STEPS):
            state = np.concatenate([data.qpos, data.qvel])
            data.ctrl[:] = -gain @ state
            total += 30.0 * np.tanh((STATE_COST @ state**2 + ACTION_COST @ data.ctrl**2) / 30.0)
            mujoco.mj_step(model, data, SUBSTEPS)
    return total / STEPS / len(starts)


def main(iterations: int = 40, lag: float = 0.06) -> tuple[float, float]:
    drawn, real = cartpole(0.0), cartpole(lag)
    rng, spread = np.random.default_rng(0), np.array([0.3, 0.12, 0.2, 0.2])
    seen, unseen = spread * rng.normal(size=(4, 4)), spread * rng.normal(size=(20, 4))

    def edited(theta: np.ndarray) -> np.ndarray:
        """The model with masses and dampings multiplied by exp(theta), linear."""
        model = copy.copy(drawn)
        model.body_mass[1:] *= np.exp(theta[:2])
        model.dof_damping[:] = (drawn.dof_damping + 0.01) * np.exp(theta[2:])
        return linear(model)

    system = measured(edited, (4, 5), step=1e-3)

    def gain(theta: jax.Array) -> jax.Array:
        weights = jnp.diag(STATE_COST), jnp.diag(ACTION_COST)
        return regulator(*jnp.split(system(theta), [4], axis=1), *weights, inverse=Dense())[0].ravel()

    start = jnp.zeros(4)
    tried = measured(lambda k: real_cost(real, k, seen), step=1e-3 * np.abs(np.asarray(gain(start))))
    result = minimise(
        jax.random.key(0),
        ExactSampler(lambda theta: tried(gain(theta))),
        start,
        FirstOrder(optax.adam(0.1), lambda theta: jnp.clip(theta, -2.5, 2.5)),
        iterations=iterations,
        stopping=Stopping(noise_floor=False),
        keep=Best(lambda state: state.value, take=lambda state: state.theta),
    )
    before, after = (real_cost(real, np.asarray(gain(at)), unseen) for at in (start, result.best.kept))
    print(
        f"cost per step on the real cart-pole, unseen starts: {before:.3f} with the model as drawn, {after:.3f} designed"
    )
    print("masses of cart and pole, damping of slider and hinge, times", np.exp(result.best.kept).round(2))
    return before, after


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
