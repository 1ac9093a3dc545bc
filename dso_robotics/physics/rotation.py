"""Quaternions [w, x, y, z] with correct derivatives where those of MJX are zero: at rest and at aligned orientations."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.physics.backend import mjx_math

_SERIES = 1e-3  # below this squared angle the power series is exact to rounding, and smooth


def _half_angle(square: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """cos(h) and sin(h)/h as smooth functions of `square` = h² >= 0 [rad²]."""
    small = square < _SERIES
    safe = jnp.where(small, 1.0, square)
    half = jnp.sqrt(safe)
    cos = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56)))
    sinc = 1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72)))
    return jnp.where(small, cos, jnp.cos(half)), jnp.where(small, sinc, jnp.sin(half) / half)


def integrate(quat: Float[Array, "4"], omega: Float[Array, "3"], dt: Float[Array, ""] | float) -> Float[Array, "4"]:
    """`quat` turned for `dt` [s] at the body-frame angular velocity `omega` [rad/s].

    MJX normalises `omega` first, which makes the derivative at rest zero; the right one is dt/2 times the quaternion rate.
    """
    step = 0.5 * dt * omega
    cos, sinc = _half_angle(jnp.dot(step, step))
    turned = mjx_math.quat_mul(quat, jnp.concatenate([cos[None], sinc * step]))
    return turned / jnp.linalg.norm(turned)


def rotation_vector(quat: Float[Array, "4"]) -> Float[Array, "3"]:
    """The rotation axis·angle [rad] of a unit quaternion, the angle in (−π, π].

    MJX divides by the norm of the vector part, which makes the Jacobian zero at the identity; the right one is 2.
    """
    scalar, vector = quat[0], quat[1:]
    square = jnp.dot(vector, vector)
    small = square < _SERIES * scalar * scalar
    sine = jnp.sqrt(jnp.where(small, 1.0, square))
    angle = 2 * jnp.arctan2(sine, scalar)
    angle = jnp.where(angle > jnp.pi, angle - 2 * jnp.pi, angle)
    real = jnp.where(small, scalar, 1.0)
    ratio = square / (real * real)
    ratio = jnp.where(small, ratio, 0.0)
    series = 1 - ratio * (1 / 3 - ratio * (1 / 5 - ratio * (1 / 7 - ratio * (1 / 9 - ratio / 11))))
    return vector * jnp.where(small, 2 / real * series, angle / sine)


def difference(end: Float[Array, "4"], start: Float[Array, "4"]) -> Float[Array, "3"]:
    """The rotation vector [rad] that turns `start` to `end`, in the frame of `start`."""
    return rotation_vector(mjx_math.quat_mul(mjx_math.quat_inv(start), end))
