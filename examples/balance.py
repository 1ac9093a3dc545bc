"""Balances a cart-pole from noisy readings of position and angle.

The motor in the estimator's model is too strong. The estimator is trained on prediction errors, then on the balancing task.

Run: python examples/balance.py [SEED]
"""

import sys

import jax
import jax.numpy as jnp
import mujoco

from dso_robotics.data.assets import asset
from dso_robotics.physics.model import load
from dso_robotics.robot.closed_loop import closed_loop_cost, train_in_loop
from dso_robotics.robot.closed_loop_mjx import mujoco_loop
from dso_robotics.robot.filter_jax import train


def main(
    seed: int = 0, iterations: int = 100, rollouts: int = 16, steps: int = 300, judged: int = 256
) -> dict[str, float]:
    jax.config.update("jax_enable_x64", True)
    # Models: the world's motor has 60% of the force that the estimator, and the policy designed on its model, believe in.
    world, model = load(asset("models/cartpole.xml")), load(asset("models/cartpole.xml"))
    for robot in (world, model):
        robot.mj.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_LIMIT)
    world.mj.actuator_gear[0, 0] *= 0.6
    settings = {"task": lambda x, u: x[0] ** 2 + 10 * x[1] ** 2 + 0.1 * (x[2] ** 2 + x[3] ** 2) + 0.1 * jnp.sum(u**2)}
    settings |= {"goal": (0.0, 0.0), "state_weight": (1, 10, 0.1, 0.1), "control_weight": 0.1}
    settings |= {
        "sensor_noise": {"cart_position": 0.02, "pole_axis[2]": 0.03},
        "action_noise": 0.1,
        "start_spread": 0.02,
    }
    loop, theta = mujoco_loop(world, model, **settings)

    # Optimise: each begins where the one before ended.
    batch = {"steps": steps, "burn_in": steps // 3, "rollouts": rollouts, "iterations": iterations, "seed": seed}
    record = loop.record(theta, seed=seed, rollouts=64, steps=steps)
    by_prediction = train(loop.filter, theta, record, iterations=iterations, learning_rate=0.03).theta
    by_task = train_in_loop(loop, by_prediction, learning_rate=0.03, **batch).theta

    # Show: average cost of a step in the world, on noise that no training saw.
    found = {
        "Kalman filter of the model": theta,
        "trained on prediction": by_prediction,
        "trained on the task": by_task,
    }
    costs = {}
    for name, at in found.items():
        judge = {"steps": 3 * steps, "burn_in": steps, "rollouts": judged, "seed": 1000}
        mean, error = closed_loop_cost(loop, jnp.asarray(at), **judge)
        print(f"{name:30s} cost of a step {mean:.4f} ± {error:.4f}", flush=True)
        costs[name] = mean
    return costs


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
