"""A model for control: the two-state process of the Optimal Model Design paper (Nikishin et al. 2022, section 4.2).

The model may only use parameters of a small norm, so it cannot be right. Fitted by likelihood it predicts well where it can,
and the policy planned with it is poor. Designed, it is moved by the return of the policy that is optimal for it: the gradient
goes through the fixed point of the model's Bellman operator by implicit differentiation. Both run through the one loop, all
seeds at once. Run: python examples/model_design.py
"""

import jax
import jax.numpy as jnp
import optax

from dso_robotics.core import exact
from dso_robotics.core.families import FiniteMDP, general_chain
from dso_robotics.core.implicit import Dense
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.model_design import PlannedPolicy, SoftmaxModel, model_error
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.sampler import ExactSampler

GAMMA, TEMPERATURE = 0.9, 0.01

TRUE = FiniteMDP(
    dynamics=jnp.array([[[0.7, 0.3], [0.99, 0.01]], [[0.2, 0.8], [0.99, 0.01]]]),  # state, action, next state
    costs=-jnp.array([[-0.45, -0.1], [0.5, 0.5]]),
    start=jnp.ones(2) / 2,
)
MODEL = SoftmaxModel(2, 2, scale=1.0 / TEMPERATURE)
POLICY = PlannedPolicy(MODEL, gamma=GAMMA, temperature=TEMPERATURE, inverse=Dense())
PROBLEM = Problem(
    general_chain(TRUE, POLICY, theta=jnp.zeros(MODEL.size)), Episodic(GAMMA, 1), theta=jnp.zeros(MODEL.size)
)


def cost(theta: jax.Array) -> jax.Array:
    """J on the true process of the policy that is optimal for the model."""
    return exact.cost(PROBLEM, theta)


def error(theta: jax.Array) -> jax.Array:
    """What maximum likelihood minimises."""
    return model_error(TRUE, *MODEL(theta))


def rows(theta: jax.Array) -> jax.Array:
    return theta.reshape(-1, MODEL.size)


def fit(criterion, bounds: jax.Array, iterations: int, key: jax.Array) -> jax.Array:
    """Models (M, n) after projected Adam on `criterion`; `bounds` (M,) are their largest norms.

    One theta holds all of them: the criterion is summed over models, so their descents do not touch each other.
    """
    start = jax.random.uniform(key, (bounds.size, MODEL.size))
    start = start.at[:, -TRUE.costs.size :].multiply(-1.0)  # rewards from 0 to 1
    sampler = ExactSampler(lambda theta: jnp.sum(jax.vmap(criterion)(rows(theta))))
    rule = FirstOrder(optax.adam(0.01), lambda theta: jax.vmap(MODEL.bounded)(rows(theta), bounds).ravel())
    stopping = Stopping(tolerance=0.0, noise_floor=False)
    result = minimise(key, sampler, start.ravel(), rule, iterations=iterations, stopping=stopping)
    return rows(result.theta)


def main(iterations: int = 2000, seeds: int = 10, bound: float = 1.2631579) -> tuple[float, float, float]:
    truth = jnp.concatenate([TEMPERATURE * jnp.log(TRUE.dynamics).ravel(), TRUE.costs.ravel()])
    best = -float(cost(truth))
    print(f"return of the policy planned with the true model {best:.7f}")
    found = [best]
    for name, criterion in (("fitted by likelihood", error), ("designed", cost)):
        models = fit(criterion, jnp.full(seeds, bound), iterations, jax.random.key(0))
        returns = -jax.vmap(cost)(models)
        found.append(float(returns.mean()))
        print(
            f"models of norm {bound:.2f}, {name}: {found[-1]:.3f} (standard deviation {returns.std():.3f}, {seeds} seeds)"
        )
    return found[0], found[1], found[2]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
