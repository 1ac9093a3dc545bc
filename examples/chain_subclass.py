"""A user-defined chain in ten lines: a noisy pendulum with a linear policy, optimised by natural gradient.

Run: python examples/chain_subclass.py
"""

import jax
import jax.numpy as jnp

from dso_robotics.core.fitting import fit_linear
from dso_robotics.core.gaussian import GaussianChain
from dso_robotics.core.gradient.score import DriftBaseline
from dso_robotics.core.method.natural import Natural
from dso_robotics.core.method.sampled import minimise
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.sampler import ScoreSampler
from dso_robotics.core.value import linear_value, polynomial_features


# Model: the ten lines. x = (angle [rad] from upright, angular velocity [rad/s]); theta = two feedback gains.
class Pendulum(GaussianChain):
    noise: jax.Array

    def initial(self, key, theta):
        return jnp.array([0.5, 0.0]) + 0.1 * jax.random.normal(key, (2,))

    def drift(self, state, theta):
        torque = 4.0 * jnp.tanh(theta @ state / 4.0)
        return state + 0.05 * jnp.array([state[1], 9.81 * jnp.sin(state[0]) + 8.0 * torque])

    def cost(self, state, theta):
        return 1.0 - jnp.cos(state[0]) + 0.01 * state[1] ** 2 + 0.001 * (theta @ state) ** 2


# Step 4 of Algorithm 1: the value is refitted on each batch, for the next one.
def refit(batch, baseline):
    return DriftBaseline(fit_linear(baseline.value, batch.trajectory, batch.problem.objective, lam=0.9))


def main(iterations: int = 25) -> tuple[float, float]:
    # Parameters and data: a start that barely balances, noise on both states.
    theta = jnp.array([-1.4, -0.1])
    chain = Pendulum(jnp.diag(jnp.array([0.01, 0.05])))

    # Cost: discounted, over rollouts of 100 steps.
    problem = Problem(chain, Episodic(0.98, 100), theta=theta)
    value = linear_value(polynomial_features(2), jnp.zeros(2))

    # Optimise.
    sampler = ScoreSampler(problem, 200, DriftBaseline(value), refit)
    result = minimise(jax.random.key(0), sampler, theta, Natural(TrustRegion(radius=0.05)), iterations=iterations)

    # Show.
    for record in result.history[:: max(iterations // 5, 1)]:
        print(f"iteration {record.iteration:3d}   J = {record.value:7.3f} +- {record.value_error:.3f}   {record.note}")
    print(result.message)
    print("gains", result.theta)
    return result.history[0].value, result.history[-1].value


if __name__ == "__main__":
    main()
