"""The constraint solve as a root of the force balance, differentiated implicitly to any order.

MuJoCo finds the acceleration a that balances smooth and constraint forces,

    g(a) = M a − q_smooth − Jᵀ f(J a − a_ref) = 0,

where f is the force law of the rows: linear for equalities, clipped for friction loss, one-sided for limits and for
frictionless and pyramidal contacts, and the elliptic cone (MuJoCo documentation, "Computation", "Constraint model").
The iterations that find a (`newton.py`) are not differentiated. The derivative follows from g = 0: da = −H⁻¹ dg with
H = ∂g/∂a. Applying the rule again gives higher orders. This is the derivative of the converged solve, whatever the number
of iterations. It is correct wherever the set of active rows does not change.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics.backend import mjx, support
from dso_robotics.physics.linear import solve_spd


class Balance(eqx.Module):
    """The inputs of the force balance of one step. Row order: equality, friction loss, then one-sided and cone rows.

    The `friction` of a cone is (mu, tangential coefficients), where mu is the regularised coefficient of the cone's axis.
    """

    mass: Float[Array, "nv nv"]  # joint-space inertia M [kg, kg m²]
    smooth: Float[Array, " nv"]  # all forces except constraint forces [N, N m]
    jacobian: Float[Array, "nefc nv"]
    reference: Float[Array, " nefc"]  # reference acceleration [m/s², rad/s²]
    weight: Float[Array, " nefc"]  # inverse regularisation D
    loss: Float[Array, " nf"]  # friction loss [N, N m]
    friction: tuple[Float[Array, "ncone condim"], ...]  # by contact dimension
    equalities: int = eqx.field(static=True)
    cones: tuple[tuple[tuple[int, ...], ...], ...] = eqx.field(static=True)  # row numbers, in the order of friction

    def rows(self, index: int) -> np.ndarray:
        """Row numbers (ncone, condim) of cone group `index`."""
        return np.array(self.cones[index])


def _cone_force(
    row: Float[Array, " condim"], weight: Float[Array, " condim"], friction: Float[Array, " condim"]
) -> Float[Array, " condim"]:
    """Force of one elliptic cone at `row` = J a − a_ref, normal first."""
    scaled = row * friction
    mu, normal = friction[0], scaled[0]
    square = jnp.dot(scaled[1:], scaled[1:])
    sliding = square > 0
    tangent = jnp.sqrt(jnp.where(sliding, square, 1.0))  # an unguarded root has an infinite derivative at rest
    length = jnp.where(sliding, tangent, 0.0)
    bottom = jnp.where(sliding, mu * normal + length <= 0, normal < 0)
    middle = sliding & (normal < mu * length) & ~bottom
    stiffness = weight[0] / jnp.maximum(mu * mu * (1 + mu * mu), mujoco.mjMINVAL)
    axial = -stiffness * (normal - mu * length) * mu
    cone = jnp.concatenate([axial[None], -axial / tangent * scaled[1:] * friction[1:]])
    return jnp.where(bottom, -weight * row, jnp.where(middle, cone, 0.0))


def row_force(balance: Balance, row: Float[Array, " nefc"]) -> Float[Array, " nefc"]:
    """Force of every constraint row, from `row` = J a − a_ref."""
    pull = -balance.weight * row
    first, last = balance.equalities, balance.equalities + balance.loss.size
    # Not `clip`: at a loss of zero, its derivative by the loss is the mean of both sides, which is wrong.
    dry, loss = pull[first:last], balance.loss
    dry = jnp.where(dry >= loss, loss, jnp.where(dry <= -loss, -loss, dry))
    out = jnp.concatenate([pull[:first], dry, jnp.where(row[last:] < 0, pull[last:], 0.0)])
    for index, friction in enumerate(balance.friction):
        rows = balance.rows(index)
        out = out.at[rows].set(jax.vmap(_cone_force)(row[rows], balance.weight[rows], friction))
    return out


def force(balance: Balance, acceleration: Float[Array, " nv"]) -> Float[Array, " nefc"]:
    """Force of every constraint row at `acceleration`."""
    return row_force(balance, balance.jacobian @ acceleration - balance.reference)


def residual(balance: Balance, acceleration: Float[Array, " nv"]) -> Float[Array, " nv"]:
    """The force balance g [N, N m], zero at the solution."""
    return balance.mass @ acceleration - balance.smooth - balance.jacobian.T @ force(balance, acceleration)


def hessian(balance: Balance, acceleration: Float[Array, " nv"]) -> Float[Array, "nv nv"]:
    """H = ∂g/∂a, symmetric positive definite."""
    row = balance.jacobian @ acceleration - balance.reference
    first, last = balance.equalities, balance.equalities + balance.loss.size
    loose = jnp.abs(balance.weight * row)[first:last] < balance.loss
    active = jnp.concatenate([jnp.ones(first, bool), loose, row[last:] < 0])
    for index in range(len(balance.cones)):
        active = active.at[balance.rows(index)].set(False)
    out = balance.mass + (balance.jacobian.T * (balance.weight * active)) @ balance.jacobian
    for index, friction in enumerate(balance.friction):
        rows = balance.rows(index)
        block = -jax.vmap(jax.jacfwd(_cone_force))(row[rows], balance.weight[rows], friction)
        part = balance.jacobian[rows]
        out = out + jnp.einsum("cri,crs,csj->ij", part, block, part)
    return out


@jax.custom_jvp
def equilibrium(balance: Balance, solution: Float[Array, " nv"]) -> Float[Array, " nv"]:
    """`solution`, with the derivative by `balance` of the root of `balance`."""
    del balance
    return solution


@equilibrium.defjvp
def _equilibrium_jvp(primals, tangents):
    balance, solution = primals
    acceleration = equilibrium(balance, solution)  # so that derivatives of this rule include the change of the root
    _, pushed = jax.jvp(lambda b: residual(b, acceleration), (balance,), (tangents[0],))
    return acceleration, -solve_spd(hessian(balance, acceleration), pushed)


def assemble(model: mjx.Model, data: mjx.Data) -> Balance:
    """The force balance of `data`, after the position, velocity and smooth-force stages."""
    inner = data._impl
    first, last = inner.ne, inner.ne + inner.nf
    friction, cones = [], []
    if model.opt.cone == mjx.ConeType.ELLIPTIC:
        for condim in (3, 4, 6):
            found = np.flatnonzero(inner.contact.dim == condim)
            if found.size:
                coefficient = inner.contact.friction[found, : condim - 1]
                mu = coefficient[:, :1] / jnp.sqrt(model.opt.impratio)
                friction.append(jnp.concatenate([mu, coefficient], axis=1))
                rows = inner.contact.efc_address[found, None] + np.arange(condim)
                cones.append(tuple(tuple(int(i) for i in row) for row in rows))
    return Balance(
        mass=support.full_m(model, data),
        smooth=data.qfrc_smooth,
        jacobian=inner.efc_J,
        reference=inner.efc_aref,
        weight=inner.efc_D,
        loss=inner.efc_frictionloss[first:last],
        friction=tuple(friction),
        equalities=int(first),
        cones=tuple(cones),
    )
