"""Stiffness, damping and impedance of a constraint row, safe to differentiate in solref, solimp and position.

MuJoCo documentation, "Computation", section "Parameters", and mj_makeImpedance.
"""

from typing import Any

import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float

from dso_robotics.physics.backend import mjx


def _power(base: Float[Array, ""], exponent: Float[Array, ""]) -> Float[Array, ""]:
    """`base` ** `exponent` for base in [0, 1] and exponent >= 1, with finite derivatives at base 0."""
    positive = base > 0
    return jnp.where(positive, jnp.exp(exponent * jnp.log(jnp.where(positive, base, 1.0))), 0.0)


def stiffness_damping_impedance(
    model: mjx.Model, solref: Float[Array, "2"], solimp: Float[Array, "5"], position: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Reference stiffness k [1/s²], damping b [1/s] and impedance in (0, 1) at constraint violation `position`.

    `solref` is (time constant [s], damping ratio) or, both negative, (−stiffness, −damping).
    """
    dmin, dmax = (jnp.clip(solimp[i], mujoco.mjMINIMP, mujoco.mjMAXIMP) for i in (0, 1))
    width = jnp.maximum(solimp[2], mujoco.mjMINVAL)
    middle = jnp.clip(solimp[3], mujoco.mjMINIMP, mujoco.mjMAXIMP)
    power = jnp.maximum(solimp[4], 1.0)

    # Both formats are evaluated, so the unused one gets safe numbers.
    direct_k, direct_b = solref[0] <= 0, solref[1] <= 0
    timeconst = jnp.where(direct_k, 1.0, solref[0])
    if not model.opt.disableflags & mjx.DisableBit.REFSAFE:
        timeconst = jnp.maximum(timeconst, 2 * model.opt.timestep)
    ratio = jnp.where(direct_b, 1.0, solref[1])
    stiffness = jnp.where(direct_k, -solref[0] / dmax**2, 1 / (dmax * timeconst * ratio) ** 2)
    damping = jnp.where(direct_b, -solref[1] / dmax, 2 / (dmax * timeconst))

    depth = jnp.minimum(jnp.abs(position) / width, 1.0)
    below = depth < middle
    low, high = jnp.where(below, depth, middle), jnp.where(below, middle, depth)
    rising = _power(low, power) / _power(middle, power - 1)
    falling = 1 - _power(1 - high, power) / _power(1 - middle, power - 1)
    impedance = dmin + jnp.where(below, rising, falling) * (dmax - dmin)
    return stiffness, damping, impedance


def softened(model: mjx.Model, factor: Float[Array, ""] | float) -> mjx.Model:
    """The model with softer contacts, see `stretched`."""
    return model.replace(
        geom_solref=stretched(model.geom_solref, factor), pair_solref=stretched(model.pair_solref, factor)
    )


def stretched(solref: Any, factor: Any) -> Any:
    """Contact parameters (..., 2), NumPy or JAX, of softer contacts.

    Time constants are multiplied by `factor`. In the direct format, k is divided by factor², b by factor.
    """
    xp = solref.__array_namespace__()
    direct = solref <= 0
    stiff = xp.where(direct[..., 0], solref[..., 0] / factor**2, solref[..., 0] * factor)
    damped = xp.where(direct[..., 1], solref[..., 1] / factor, solref[..., 1])
    return xp.stack([stiff, damped], axis=-1)
