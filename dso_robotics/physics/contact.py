"""Contacts: MJX's collision detection, with capsule contacts computed as in C MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dso_robotics.physics.backend import collision_driver, mjx, mjx_math, replaced

_PLANE, _SPHERE, _CAPSULE = (int(mjx.GeomType[name]) for name in ("PLANE", "SPHERE", "CAPSULE"))


def collide(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Fill the contacts of `data`.

    Capsule on plane: C aligns the first tangent with the capsule's axis at any tilt. MJX does so only beyond 30 degrees from
    the normal. A pyramidal cone depends on its frame, so below 30 degrees MJX's forces and derivatives differ from C's.

    Capsule on sphere or capsule: MJX adds 1e-6 m² to squared lengths when it computes the nearest points. This moves the
    contact by some 1e-7 m and the next velocity by up to 1e-4. The nearest points here are exact. Where two capsules are
    parallel to rounding, C makes up to two contacts; here MJX's single contact is kept.
    """
    data = collision_driver.collision(model, data)
    kinds = set(zip(*np.asarray(model.geom_type)[pairs(model)].T.tolist(), strict=True)) if model.ngeom else set()
    if data._impl.ncon == 0:
        return data
    contact = data._impl.contact
    types = jnp.asarray(model.geom_type)[contact.geom]
    if (_PLANE, _CAPSULE) in kinds:
        lying = (types[:, 0] == _PLANE) & (types[:, 1] == _CAPSULE)
        axes = data.geom_xmat[contact.geom[:, 1], :, 2]
        frames = jax.vmap(_aligned)(contact.frame[:, 0], axes)
        contact = contact.replace(frame=jnp.where(lying[:, None, None], frames, contact.frame))
    if kinds & {(_SPHERE, _CAPSULE), (_CAPSULE, _CAPSULE)}:
        found, dist, pos, frame = jax.vmap(lambda geoms: _rounded(model, data, geoms))(contact.geom)
        exact = ((types[:, 0] == _SPHERE) | (types[:, 0] == _CAPSULE)) & (types[:, 1] == _CAPSULE) & found
        contact = contact.replace(
            dist=jnp.where(exact, dist, contact.dist),
            pos=jnp.where(exact[:, None], pos, contact.pos),
            frame=jnp.where(exact[:, None, None], frame, contact.frame),
        )
    return replaced(data, {"_impl.contact": contact})


def _rounded(
    model: mjx.Model, data: mjx.Data, geoms: Int[Array, "2"]
) -> tuple[Bool[Array, ""], Float[Array, ""], Float[Array, "3"], Float[Array, "3 3"]]:
    """Contact of a sphere or capsule with a capsule: whether the nearest points are unique, distance [m], position, frame.

    The nearest points are pos1 + x1 axis1 and pos2 + x2 axis2 with x in [-1, 1], as in mjraw_CapsuleCapsule.
    """
    sphere = jnp.asarray(model.geom_type)[geoms[0]] == _SPHERE
    pos, radii, lengths = data.geom_xpos[geoms], model.geom_size[geoms, 0], model.geom_size[geoms, 1]
    axes = data.geom_xmat[geoms, :, 2] * lengths[:, None]
    apart = pos[0] - pos[1]
    aa, ab, bb = jnp.dot(axes[0], axes[0]), -jnp.dot(axes[0], axes[1]), jnp.dot(axes[1], axes[1])
    u, v = -jnp.dot(axes[0], apart), jnp.dot(axes[1], apart)
    det = aa * bb - ab * ab
    crossing = det >= mujoco.mjMINVAL
    aa, bb, det = (jnp.where(x > 0, x, 1.0) for x in (aa, bb, jnp.where(crossing, det, 1.0)))
    free1, free2 = (bb * u - ab * v) / det, (aa * v - ab * u) / det
    x1 = jnp.clip(free1, -1.0, 1.0)
    along = jnp.where(free1 == x1, free2, (v - ab * x1) / bb)
    x2 = jnp.clip(along, -1.0, 1.0)
    x1 = jnp.where(along == x2, x1, jnp.clip((u - ab * x2) / aa, -1.0, 1.0))
    x1, x2 = jnp.where(sphere, 0.0, x1), jnp.where(sphere, jnp.clip(v / bb, -1.0, 1.0), x2)
    one, two = pos[0] + x1 * axes[0], pos[1] + x2 * axes[1]
    square = jnp.dot(two - one, two - one)
    between = square > mujoco.mjMINVAL**2
    length = jnp.sqrt(jnp.where(between, square, 1.0))
    normal = jnp.where(between, (two - one) / length, jnp.array([1.0, 0.0, 0.0]))
    dist = jnp.where(between, length, 0.0) - radii.sum()
    return (sphere | crossing) & between, dist, one + normal * (radii[0] + dist / 2), mjx_math.make_frame(normal)


def pairs(model: mjx.Model | mujoco.MjModel) -> np.ndarray:
    """Geom pairs (npair, 2) that may collide, the lower type first."""
    return np.array([(first, second) for first, second, _ in collision_driver.geom_pairs(model)], int).reshape(-1, 2)


def _aligned(normal: Float[Array, "3"], axis: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The frame with rows (normal, projected axis, their cross product). Global x replaces an axis parallel to the normal."""
    flat = axis - normal * jnp.dot(normal, axis)
    square = jnp.dot(flat, flat)
    tilted = square > mujoco.mjMINVAL**2
    tangent = jnp.where(tilted, flat / jnp.sqrt(jnp.where(tilted, square, 1.0)), jnp.array([1.0, 0.0, 0.0]))
    return jnp.stack([normal, tangent, jnp.cross(normal, tangent)])
