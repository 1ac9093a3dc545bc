"""Closed forms on finite chains: V, rho, d, J, its gradient by Theorems 1-3, its Hessian, Fisher matrix and optimal z."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.finite import ENDLESS, FiniteChain, refuse
from dso_robotics.core.objective import Average, Problem, TimeVarying
from dso_robotics.errors import DsoError

Theta = Float[Array, " n"]
Vector = Float[Array, " ns"]
Matrix = Float[Array, "ns ns"]


def _finite(chain: Any) -> FiniteChain:
    if not isinstance(chain, FiniteChain):
        raise DsoError(f"Closed forms need a FiniteChain, got {type(chain).__name__}.")
    return chain


def moving_matrix(chain: FiniteChain, theta: Theta) -> Matrix:
    """P with zero rows for terminal states: nothing follows them, so V = L there."""
    return jnp.where(chain.exits[:, None], 0.0, chain.transition(theta))


def values(problem: Problem, theta: Theta) -> Vector:
    """V of (3) for episodic costs, or the differential V of (8) for average costs."""
    chain = _finite(problem.chain)
    if isinstance(problem.objective, TimeVarying):
        raise DsoError("values: the problem varies in time; horizon_values gives V_t for every t.")
    matrix, costs, identity = moving_matrix(chain, theta), chain.costs(theta), jnp.eye(chain.size)
    if isinstance(problem.objective, Average):
        density = stationary(problem, theta)
        # (I - P + 1 d^T) V = L - J has exactly one solution, which satisfies E_d[V] = 0.
        return jnp.linalg.solve(identity - matrix + density[None, :], costs - density @ costs)
    return jnp.linalg.solve(identity - problem.objective.gamma * matrix, costs)


def horizon_values(problem: Problem, theta: Theta, closing: Vector | None = None) -> Float[Array, "T+1 ns"]:
    """V_t of (11) for t = 0..T. `closing` replaces V_T = L_T: it is the value used to close cut rollouts."""
    gamma, steps = problem.objective.gamma, problem.objective.steps
    last = _finite(problem.chain.at(steps))
    rows = [last.costs(theta) if closing is None else jnp.where(last.exits, last.costs(theta), closing)]
    for time in reversed(range(steps)):
        chain = _finite(problem.chain.at(time))
        rows.append(chain.costs(theta) + gamma * moving_matrix(chain, theta) @ rows[-1])
    return jnp.stack(rows[::-1])


def visitation(problem: Problem, theta: Theta) -> Vector:
    """rho(x) = sum_t gamma^t p(x_t = x), equation (4)."""
    chain = _finite(problem.chain)
    matrix = problem.objective.gamma * moving_matrix(chain, theta)
    return jnp.linalg.solve(jnp.eye(chain.size) - matrix.T, chain.initial_density(theta))


def stationary(problem: Problem, theta: Theta) -> Vector:
    """d = P^T d with sum d = 1, equation (6)."""
    chain = _finite(problem.chain)
    matrix = chain.transition(theta)
    ones = jnp.ones((chain.size, chain.size))
    return jnp.linalg.solve(jnp.eye(chain.size) - matrix.T + ones, jnp.ones(chain.size))


def density(problem: Problem, theta: Theta) -> Vector:
    """rho for episodic costs, d for average costs: the density for expectations over states."""
    return stationary(problem, theta) if isinstance(problem.objective, Average) else visitation(problem, theta)


def cost(problem: Problem, theta: Theta) -> Float[Array, ""]:
    """J of (1), (7) or (10)."""
    chain = problem.chain
    if isinstance(problem.objective, TimeVarying):
        return _finite(chain.at(0)).initial_density(theta) @ horizon_values(problem, theta)[0]
    if isinstance(problem.objective, Average):
        return stationary(problem, theta) @ _finite(chain).costs(theta)
    return _finite(chain).initial_density(theta) @ values(problem, theta)


def derivative(problem: Problem, theta: Theta) -> Theta:
    """The gradient of J by differentiating its closed form, including density and value. No theorem is used."""
    return jax.grad(lambda t: cost(problem, t))(theta)


def hessian(problem: Problem, theta: Theta) -> Float[Array, "n n"]:
    """The Hessian of J by differentiating its closed form twice."""
    return jax.hessian(lambda t: cost(problem, t))(theta)


def gradient(problem: Problem, theta: Theta) -> Theta:
    """Theorems 1 (30), 2 (31) and 3 (35): neither the density nor the value is differentiated.

    If the start depends on theta, sum_x dP0(x) V(x) is added.
    """
    if isinstance(problem.objective, TimeVarying):
        return _gradient_in_time(problem, theta)
    chain, gamma = _finite(problem.chain), problem.objective.gamma
    weight, ahead = density(problem, theta), values(problem, theta)

    def total(t: Theta) -> Array:
        return weight @ (chain.costs(t) + gamma * moving_matrix(chain, t) @ ahead) + _start_mass(problem, t) @ ahead

    return jax.grad(total)(theta)


def _start_mass(problem: Problem, theta: Theta) -> Vector:
    """P0(., theta) if J depends on the start, 0 for average costs."""
    chain = _finite(problem.chain.at(0))
    return jnp.zeros(chain.size) if isinstance(problem.objective, Average) else chain.initial_density(theta)


def _gradient_in_time(problem: Problem, theta: Theta) -> Theta:
    ahead = horizon_values(problem, theta)
    probability = _finite(problem.chain.at(0)).initial_density(theta)
    total = jax.grad(lambda t: _start_mass(problem, t) @ ahead[0])(theta)
    for time in range(problem.objective.steps + 1):
        chain = _finite(problem.chain.at(time))
        following = ahead[time + 1] if time < problem.objective.steps else jnp.zeros(chain.size)

        def term(t: Theta, chain: FiniteChain = chain, p: Vector = probability, v: Vector = following) -> Array:
            return p @ (chain.costs(t) + moving_matrix(chain, t) @ v)

        total = total + jax.grad(term)(theta)
        probability = moving_matrix(chain, theta).T @ probability
    return total


def surrogate(problem: Problem, theta: Theta, delta: Theta) -> Float[Array, ""]:
    """J~(theta, delta) = E_{x~rho}[L(x, theta + delta) + gamma E_{x'~P(theta + delta)} V(x', theta)], equation (60).

    If the start depends on theta, sum_x (P0(x, theta + delta) - P0(x, theta)) V(x, theta) is added.
    """
    chain, gamma = _finite(problem.chain), problem.objective.gamma
    ahead = values(problem, theta)
    perturbed = chain.costs(theta + delta) + gamma * moving_matrix(chain, theta + delta) @ ahead
    moved = _start_mass(problem, theta + delta) - _start_mass(problem, theta)
    return density(problem, theta) @ perturbed + moved @ ahead


def fisher(problem: Problem, theta: Theta) -> Float[Array, "n n"]:
    """G = E_{x~rho, x'~P}[dlog P dlog P^T], equation (72)."""
    chain = _finite(problem.chain)
    matrix = moving_matrix(chain, theta)
    slope = jax.jacfwd(lambda t: moving_matrix(chain, t))(theta)
    inverse = jnp.where(matrix > 0.0, 1.0 / jnp.where(matrix > 0.0, matrix, 1.0), 0.0)
    return jnp.einsum("x,xyi,xy,xyj->ij", density(problem, theta), slope, inverse, slope)


def corrected_hessian(problem: Problem, theta: Theta) -> Float[Array, "n n"]:
    """Surrogate Hessian (75) plus gamma E_rho sum_x' [dP dV(x')^T + dV(x') dP^T], which makes it exact.

    If the start depends on theta, sum_x [dP0(x) dV(x)^T + dV(x) dP0(x)^T] is added.
    """
    chain, gamma = _finite(problem.chain), problem.objective.gamma
    slope = jax.jacfwd(lambda t: moving_matrix(chain, t))(theta)
    value_slope = jax.jacfwd(lambda t: values(problem, t))(theta)
    cross = gamma * jnp.einsum("x,xyi,yj->ij", density(problem, theta), slope, value_slope)
    cross = cross + jax.jacfwd(lambda t: _start_mass(problem, t))(theta).T @ value_slope
    return jax.hessian(lambda d: surrogate(problem, theta, d))(jnp.zeros_like(theta)) + cross + cross.T


def optimal_z(
    base: Matrix, costs: Vector, *, gamma: float = 1.0, terminal: Array | None = None, iterations: int = 10_000
) -> Vector:
    """z = exp(-V*) of Lemma 4 (84-85): z = exp(-l) G[z^gamma], with z = exp(-l) at terminal states.

    For gamma = 1 (first-exit) this is one linear solve. Otherwise it is a fixed-point iteration, which contracts log z by
    gamma.

    Raises:
      DsoError: gamma = 1 without a terminal state, where z = exp(-V*) does not exist.
    """
    exits = jnp.zeros(costs.shape, bool) if terminal is None else jnp.asarray(terminal, bool)
    weight = jnp.exp(-costs)
    moving = jnp.where(exits[:, None], 0.0, weight[:, None] * base)
    closing = jnp.where(exits, weight, 0.0)
    if gamma == 1.0:
        closing = refuse(closing, ~jnp.any(exits), ENDLESS)
        return jnp.linalg.solve(jnp.eye(costs.shape[0]) - moving, closing)

    def unsettled(carry: tuple) -> Array:
        count, z, old = carry
        return (count < iterations) & (jnp.max(jnp.abs(jnp.log(z) - jnp.log(old))) > 1e-15)

    def sweep(carry: tuple) -> tuple:
        count, z, _ = carry
        return count + 1, moving @ z**gamma + closing, z

    start = jnp.ones_like(costs)
    return jax.lax.while_loop(unsettled, sweep, (0, start, 2.0 * start))[1]


def optimal_average(base: Matrix, costs: Vector, *, iterations: int = 10_000) -> tuple[Float[Array, ""], Vector]:
    """(c, z) of the average-cost problem: diag(exp(-l)) P z = exp(-c) z, the principal eigenpair, with mean log z = 0."""
    matrix = jnp.exp(-costs)[:, None] * base

    def unsettled(carry: tuple) -> Array:
        count, z, old, _ = carry
        return (count < iterations) & (jnp.max(jnp.abs(z - old)) > 1e-15)

    def sweep(carry: tuple) -> tuple:
        count, z, _, _ = carry
        image = matrix @ z
        size = jnp.max(image)
        return count + 1, image / size, z, size

    start = jnp.ones_like(costs)
    _, z, _, size = jax.lax.while_loop(unsettled, sweep, (0, start, 2.0 * start, jnp.ones(())))
    return -jnp.log(size), z / jnp.exp(jnp.mean(jnp.log(z)))


def optimal_chain(base: Matrix, z: Vector, *, gamma: float = 1.0) -> Matrix:
    """P*(x'|x) = P(x'|x) z(x')^gamma / G[z^gamma](x), equation (84)."""
    tilted = base * z[None, :] ** gamma
    return tilted / jnp.sum(tilted, axis=1, keepdims=True)
