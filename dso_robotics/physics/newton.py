"""Newton's method for the force balance of a step, with an exact line search.

It solves the same convex problem as MuJoCo's Newton solver, with the model's iteration limits and tolerances. MJX's solver is
correct, but each of its line searches evaluates a cost a fixed number of times. The line search here finds the zero of the
slope and stops there. Nothing here is differentiated: see `constraint.py`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from dso_robotics.physics import constraint
from dso_robotics.physics.backend import mjx, replaced
from dso_robotics.physics.constraint import Balance

SOLUTION = "constraint solution"  # name of the value that a rematerialised step stores, so that it is not solved again
_ENOUGH = 1e-3  # the line search ends when the slope is this fraction of the slope at the start of the line


class Limits(eqx.Module):
    """When to stop.

    iterations: limit of Newton iterations.
    line_iterations: limit of iterations of a line search.
    tolerance: MuJoCo's `tolerance`, relative to the trace of the inertia.
    """

    iterations: int = eqx.field(static=True)
    line_iterations: int = eqx.field(static=True)
    tolerance: Float[Array, ""]


class _Progress(eqx.Module):
    acceleration: Float[Array, " nv"]
    gradient: Float[Array, " nv"]
    count: Int[Array, ""]
    running: Bool[Array, ""]


class _Line(eqx.Module):
    """A point on the line.

    length: distance along the line.
    slope: slope of the cost there.
    curvature: curvature of the cost there.
    low: lower end of the bracket of the slope's zero.
    high: upper end of the bracket.
    count: iterations so far.
    """

    length: Float[Array, ""]
    slope: Float[Array, ""]
    curvature: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    count: Int[Array, ""]


def minimise(
    balance: Balance, guesses: tuple[Float[Array, " nv"], Float[Array, " nv"]], limits: Limits
) -> Float[Array, " nv"]:
    """The acceleration [m/s², rad/s²] at which `balance` is satisfied, starting from the better of two guesses."""
    balance, guesses, limits = jax.lax.stop_gradient((balance, guesses, limits))
    scale = 1 / jnp.trace(balance.mass)
    epsilon = jnp.finfo(balance.mass.dtype).eps

    def noise(acceleration: Float[Array, " nv"], gradient: Float[Array, " nv"]) -> Bool[Array, ""]:
        """Whether the gradient is no larger than its rounding errors."""
        inertial = jnp.abs(balance.mass) @ jnp.abs(acceleration)
        return jnp.linalg.norm(gradient) <= epsilon * jnp.linalg.norm(inertial + jnp.abs(balance.smooth))

    def going(progress: _Progress) -> Bool[Array, ""]:
        return progress.running & (progress.count < limits.iterations)

    def iterate(progress: _Progress) -> _Progress:
        here = progress.acceleration
        factor = jax.scipy.linalg.cho_factor(constraint.hessian(balance, here))
        direction = -jax.scipy.linalg.cho_solve(factor, progress.gradient)
        length, gain = _search(balance, here, progress.gradient, direction, limits)
        there = here + length * direction
        gradient = constraint.residual(balance, there)
        settled = (gain * scale < limits.tolerance) | (jnp.linalg.norm(gradient) * scale < limits.tolerance)
        return _Progress(there, gradient, progress.count + 1, ~settled & ~noise(there, gradient))

    first, second = (constraint.residual(balance, guess) for guess in guesses)
    # The gradient of a strictly convex function is small near its minimum: good enough to choose a start.
    better = jnp.linalg.norm(first) < jnp.linalg.norm(second)
    start, gradient = jnp.where(better, guesses[0], guesses[1]), jnp.where(better, first, second)
    begin = _Progress(start, gradient, jnp.zeros((), int), ~noise(start, gradient))
    return jax.lax.while_loop(going, iterate, begin).acceleration


def _search(
    balance: Balance,
    here: Float[Array, " nv"],
    gradient: Float[Array, " nv"],
    direction: Float[Array, " nv"],
    limits: Limits,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Step length along `direction` and the decrease of the cost, by a bracketed Newton search for the zero of the slope."""
    row, change = balance.jacobian @ here - balance.reference, balance.jacobian @ direction
    slope = jnp.dot(direction, gradient)
    smooth = slope + jnp.dot(change, constraint.row_force(balance, row))
    inertial = jnp.dot(direction, balance.mass @ direction)

    def at(length: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        force, bend = jax.jvp(lambda x: constraint.row_force(balance, x), (row + length * change,), (change,))
        return smooth + length * inertial - jnp.dot(change, force), inertial - jnp.dot(change, bend)

    def going(line: _Line) -> Bool[Array, ""]:
        return (jnp.abs(line.slope) > -_ENOUGH * slope) & (line.count < limits.line_iterations)

    def iterate(line: _Line) -> _Line:
        short = line.slope < 0
        low, high = jnp.where(short, line.length, line.low), jnp.where(short, line.high, line.length)
        middle = jnp.where(jnp.isinf(high), 2 * low + 1, 0.5 * (low + high))
        newton = line.length - line.slope / line.curvature
        length = jnp.where((newton > low) & (newton < high), newton, middle)
        return _Line(length, *at(length), low, high, line.count + 1)

    one = jnp.ones_like(slope)  # the full Newton step is exact once the active rows are known
    first = _Line(one, *at(one), jnp.zeros_like(one), jnp.full_like(one, jnp.inf), jnp.zeros((), int))
    line = jax.lax.while_loop(going, iterate, first)
    return line.length, -0.5 * line.length * (slope + line.slope)


def solve(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Compute qacc, qfrc_constraint and efc_force, each with the derivative of the converged solution."""
    balance = constraint.assemble(model, data)
    limits = Limits(model.opt.iterations, model.opt.ls_iterations, jnp.asarray(model.opt.tolerance))
    cold = model.opt.disableflags & mjx.DisableBit.WARMSTART
    guesses = (data.qacc_smooth, data.qacc_smooth if cold else data.qacc_warmstart)
    found = checkpoint_name(minimise(balance, guesses, limits), SOLUTION)
    acceleration = constraint.equilibrium(balance, found)
    forces = constraint.force(balance, acceleration)
    return replaced(
        data, {"qacc": acceleration, "qfrc_constraint": balance.jacobian.T @ forces, "_impl.efc_force": forces}
    )
