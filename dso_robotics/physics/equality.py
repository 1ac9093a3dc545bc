"""Velocity-product acceleration of connect and weld constraints. C MuJoCo compensates it; MJX leaves it out.

The rows of a connect or weld make the accelerations of two body-fixed frames equal. A part of these accelerations is
quadratic in velocity (centripetal and Coriolis): the time derivative of the constraint Jacobian times the velocity. C
subtracts it from the reference acceleration.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics.backend import mjx, mjx_math, support


def velocity_acceleration(model: mjx.Model, data: mjx.Data) -> Float[Array, " rows"]:
    """d(J)/dt·v of all connect rows (3 each), then all weld rows (6 each), in MJX's order; zero where inactive.

    The velocity stage must have run.
    """
    if model.opt.disableflags & (mjx.DisableBit.CONSTRAINT | mjx.DisableBit.EQUALITY):
        return jnp.zeros(0)
    parts = [jnp.zeros(0)]
    for kind, rows in ((mjx.EqType.CONNECT, _connect), (mjx.EqType.WELD, _weld)):
        for index in np.flatnonzero(model.eq_type == kind):
            parts.append(rows(model, data, int(index)) * data.eq_active[index])
    return jnp.concatenate(parts)


def _bodies(model: mjx.Model, index: int) -> tuple[bool, int, int, int, int]:
    """Whether equality `index` connects sites, its two bodies, and its two objects."""
    one, two = int(model.eq_obj1id[index]), int(model.eq_obj2id[index])
    site = model.eq_objtype[index] == mjx.ObjType.SITE
    if site:
        return True, int(model.site_bodyid[one]), int(model.site_bodyid[two]), one, two
    return False, one, two, one, two


def _drift(
    model: mjx.Model, data: mjx.Data, body: int, point: Float[Array, "3"]
) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Linear [m/s²] and angular [rad/s²] acceleration of a point fixed in `body` when all joint accelerations are zero."""
    linear, angular = support.jac_dot(model, data, point, jnp.asarray(body))
    return data.qvel @ linear, data.qvel @ angular


def _connect(model: mjx.Model, data: mjx.Data, index: int) -> Float[Array, "3"]:
    site, body1, body2, one, two = _bodies(model, index)
    anchor1, anchor2 = model.eq_data[index, :3], model.eq_data[index, 3:6]
    point1 = data.site_xpos[one] if site else data.xpos[body1] + data.xmat[body1] @ anchor1
    point2 = data.site_xpos[two] if site else data.xpos[body2] + data.xmat[body2] @ anchor2
    return _drift(model, data, body1, point1)[0] - _drift(model, data, body2, point2)[0]


def _weld(model: mjx.Model, data: mjx.Data, index: int) -> Float[Array, "6"]:
    site, body1, body2, one, two = _bodies(model, index)
    anchor2, anchor1 = model.eq_data[index, :3], model.eq_data[index, 3:6]
    point1 = data.site_xpos[one] if site else data.xpos[body1] + data.xmat[body1] @ anchor1
    point2 = data.site_xpos[two] if site else data.xpos[body2] + data.xmat[body2] @ anchor2
    turn1 = mjx_math.quat_mul(data.xquat[body1], model.site_quat[one] if site else model.eq_data[index, 6:10])
    turn2 = mjx_math.quat_mul(data.xquat[body2], model.site_quat[two]) if site else data.xquat[body2]
    linear1, angular1 = _drift(model, data, body1, point1)
    linear2, angular2 = _drift(model, data, body2, point2)
    omega1, omega2 = data.cvel[body1, :3], data.cvel[body2, :3]

    def velocity(inverse: Float[Array, "4"], turn: Float[Array, "4"], omega: Float[Array, "3"]) -> Float[Array, "3"]:
        """Vector part of ½ q2* ω q1, the velocity of the rotational rows."""
        return 0.5 * mjx_math.quat_mul(mjx_math.quat_mul_axis(inverse, omega), turn)[1:]

    inverse = mjx_math.quat_inv(turn2)
    spin1 = 0.5 * mjx_math.quat_mul(jnp.concatenate([jnp.zeros(1), omega1]), turn1)
    spin2 = -0.5 * mjx_math.quat_mul_axis(inverse, omega2)
    moves = (spin2, spin1, angular1 - angular2)  # dq/dt = ½ ω q
    _, rotation = jax.jvp(velocity, (inverse, turn1, omega1 - omega2), moves)
    return jnp.concatenate([linear1 - linear2, model.eq_data[index, 10] * rotation])
