"""Second-order quantities: Fisher products (72-74), surrogate Hessian (75-76), its exact correction, Lemma 3 (79-81)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.estimate import leave_one_out, standard_error
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.objective import Average, Problem, TimeVarying
from dso_robotics.core.rollout import Trajectory, batched, cost_along, log_prob_along
from dso_robotics.core.surrogate import surrogate
from dso_robotics.errors import DsoError

Vector = Float[Array, " n"]


class MatrixEstimate(eqx.Module):
    """A Hessian with the standard error of each entry and the number of rollouts."""

    value: Float[Array, "n n"]
    standard_error: Float[Array, "n n"]
    samples: int = eqx.field(static=True)


def _density(batch: Batch) -> Float[Array, "N T"]:
    """Weights of the moves under the discounted density rho (gamma^t), without the gamma of the move itself.

    That gamma is a factor of the weight. With random ends it is the probability that the rollout continues after the move.
    """
    return batch.credit.move_weight / batch.problem.objective.gamma


def fisher_product(batch: Batch, vector: Vector) -> Vector:
    """G v with the Fisher matrix of the chain, G = E_{x~rho, x'~P}[dlog P dlog P^T] (72), by one jvp and one vjp."""

    def logs(theta: Vector) -> Float[Array, "N T"]:
        return batched(batch.problem, lambda problem, path: log_prob_along(problem, theta, path), batch.trajectory)

    _, forward = jax.jvp(logs, (batch.theta,), (vector,))
    _, pull = jax.vjp(logs, batch.theta)
    return pull(_density(batch) * forward)[0] / batch.count


def divergence_product(batch: Batch, vector: Vector) -> Vector:
    """G v as the second derivative of KL(P(theta) || P(theta + delta)). With a closed-form KL it has no noise from x'.

    For a Gaussian chain this is E[dF^T S^-1 dF] (74), plus the term of S if S depends on theta. For a bottleneck it is
    E[dh^T G_h dh] (73).
    """

    def total(theta: Vector) -> Float[Array, ""]:
        def one(problem: Problem, path: Trajectory, weight: Float[Array, " T"]) -> Float[Array, ""]:
            times = jnp.arange(problem.objective.steps)
            before = jax.tree.map(lambda leaf: leaf[:-1], path.states)
            keys = jax.random.split(jax.random.key(0), times.shape)

            def at(time: Array, key: Array, state: Array) -> Float[Array, ""]:
                return problem.chain.at(time).divergence(key, state, batch.theta, theta)

            return weight @ jnp.where(path.moved, jax.vmap(at)(times, keys, before), 0.0)

        return jnp.mean(batched(batch.problem, one, batch.trajectory, _density(batch)))

    return jax.jvp(jax.grad(total), (batch.theta,), (vector,))[1]


def gauss_newton_product(residual: Callable[[Vector], Float[Array, " m"]], theta: Vector, vector: Vector) -> Vector:
    """(dr^T dr) v for a cost |r(theta)|^2 / 2, by one jvp and one vjp."""
    _, forward = jax.jvp(residual, (theta,), (vector,))
    return jax.vjp(residual, theta)[1](forward)[0]


def surrogate_hessian(batch: Batch) -> Float[Array, "n n"]:
    """Hessian of the sampled surrogate at delta = 0 (75-76): an approximation of the Hessian of J."""
    return jax.hessian(lambda delta: surrogate(batch, delta))(jnp.zeros_like(batch.theta))


def surrogate_hessian_product(batch: Batch, vector: Vector) -> Vector:
    """The surrogate Hessian times a vector, without forming the matrix."""
    zero = jnp.zeros_like(batch.theta)
    return jax.jvp(jax.grad(lambda delta: surrogate(batch, delta)), (zero,), (vector,))[1]


def _step_gradients(batch: Batch) -> tuple[Float[Array, "N T n"], Float[Array, "N T+1 n"]]:
    """dlog P_t of every move, and the derivative of the cost-to-go at every state, an unbiased sample of dV(x_t)/dtheta.

    The second is the tail of Algorithm 1's sum: D_t = dL_t + gamma dlog P_t A_t + gamma D_{t+1}.
    """
    factor = batch.problem.objective.discount

    def one(problem: Problem, path: Trajectory, advantage: Float[Array, " T"]) -> tuple[Array, Array]:
        logs = jax.jacrev(lambda theta: log_prob_along(problem, theta, path))(batch.theta)
        costs = jax.jacrev(lambda theta: jnp.where(path.counted, cost_along(problem, theta, path.states), 0.0))(
            batch.theta
        )

        def back(following: Vector, now: tuple) -> tuple[Vector, Vector]:
            slope, score, earned, moved = now
            tail = slope + factor * jnp.where(moved, score * earned + following, 0.0)
            return tail, tail

        _, tails = jax.lax.scan(back, costs[-1], (costs[:-1], logs, advantage, path.moved), reverse=True)
        return logs, jnp.concatenate([tails, costs[-1:]])

    return batched(batch.problem, one, batch.trajectory, batch.advantage)


def _start_gradients(batch: Batch) -> Float[Array, "N n"]:
    """dlog P0(x0) of every rollout."""

    def one(problem: Problem, path: Trajectory) -> Vector:
        first = jax.tree.map(lambda leaf: leaf[0], path.states)
        return jax.grad(lambda theta: problem.chain.log_initial(first, theta))(batch.theta)

    return batched(batch.problem, one, batch.trajectory)


def hessian_correction(batch: Batch, value_slope: Callable[[Array], Vector] | None = None) -> MatrixEstimate:
    """The part missing from the surrogate Hessian: gamma E[dlog P dV(x')^T + dV(x') dlog P^T], V differentiated in theta.

    If the start depends on theta, E[dlog P0 dV(x0)^T + dV(x0) dlog P0^T] is added, with dV(x0) relative to its mean over the
    other rollouts.

    Without `value_slope` (a fitted x -> dV(x)/dtheta), dV(x') is the sampled derivative of the cost-to-go. The sum is then
    unbiased if rollouts end by themselves. With `value_slope` there is less noise, but the bias of the fit.
    """
    logs, tails = _step_gradients(batch)
    if value_slope is not None:
        following = jax.tree.map(lambda leaf: leaf[:, 1:], batch.trajectory.states)
        ahead = jax.vmap(jax.vmap(value_slope))(following)
        first = jax.vmap(value_slope)(jax.tree.map(lambda leaf: leaf[:, 0], batch.trajectory.states))
    else:
        ahead, first = tails[:, 1:], tails[:, 0]
    samples = jnp.einsum("nt,nti,ntj->nij", batch.credit.move_weight, logs, ahead)
    starts = type(batch.problem.chain).log_initial is not Chain.log_initial
    if starts and not isinstance(batch.problem.objective, Average):
        first = first - jax.vmap(leave_one_out, in_axes=1, out_axes=1)(first)
        samples = samples + jnp.einsum("ni,nj->nij", _start_gradients(batch), first)
    samples = samples + jnp.swapaxes(samples, 1, 2)
    return MatrixEstimate(jnp.mean(samples, axis=0), standard_error(samples), batch.count)


def exact_hessian(batch: Batch) -> Float[Array, "n n"]:
    """Surrogate Hessian plus its correction: an estimate of the Hessian of J, using Algorithm 1's baseline throughout."""
    return surrogate_hessian(batch) + hessian_correction(batch).value


def unbiased_hessian(batch: Batch, *, control: bool = True) -> tuple[MatrixEstimate, Vector]:
    """Lemma 3 (79-81) for time-varying problems: the unbiased Hessian of J, and the gradient, from whole paths.

    C is the cost and l the log-probability of a path. E[ddC + dC dl^T + dl dC^T + C (ddl + dl dl^T)] is the second
    derivative of C exp(l - l0). With `control`, C and dC are taken relative to their means over the *other* paths. This does
    not change the expectation, because E[dl] = 0 and E[ddl + dl dl^T] = 0.
    """
    if not isinstance(batch.problem.objective, TimeVarying):
        raise DsoError("unbiased_hessian: Lemma 3 is for TimeVarying problems; use exact_hessian for the others.")

    def path_terms(problem: Problem, path: Trajectory, theta: Vector) -> tuple[Float[Array, ""], Float[Array, ""]]:
        cost = jnp.sum(jnp.where(path.counted, cost_along(problem, theta, path.states), 0.0))
        log = jnp.sum(log_prob_along(problem, theta, path))
        if type(problem.chain).log_initial is not Chain.log_initial:
            log = log + problem.chain.log_initial(jax.tree.map(lambda leaf: leaf[0], path.states), theta)
        return cost, log

    slopes = batched(
        batch.problem, lambda p, path: jax.grad(lambda t: path_terms(p, path, t)[0])(batch.theta), batch.trajectory
    )
    costs = jnp.sum(batch.trajectory.costs, axis=1)
    level = leave_one_out(costs) if control else jnp.zeros_like(costs)
    tilt = jax.vmap(leave_one_out, in_axes=1, out_axes=1)(slopes) if control else jnp.zeros_like(slopes)

    def one(problem: Problem, path: Trajectory, mean: Float[Array, ""], slope: Vector) -> tuple[Array, Array]:
        def weighted(theta: Vector) -> Float[Array, ""]:
            cost, log = path_terms(problem, path, theta)
            ratio = jnp.exp(log - jax.lax.stop_gradient(log))
            # The mean cost of the other paths is a linear function of theta here, so both C and dC are centred.
            return cost * ratio - (mean + slope @ (theta - batch.theta)) * (ratio - 1.0)

        return jax.hessian(weighted)(batch.theta), jax.grad(weighted)(batch.theta)

    hessians, gradients = batched(batch.problem, one, batch.trajectory, level, tilt)
    return MatrixEstimate(jnp.mean(hessians, axis=0), standard_error(hessians), batch.count), jnp.mean(
        gradients, axis=0
    )
