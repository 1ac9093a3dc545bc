"""Contacts: MJX's collision detection, with the frame of a capsule on a plane as C MuJoCo has it."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics.backend import collision_driver, mjx, replaced


def collide(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Fill the contacts of `data`.

    C aligns the first tangent with the capsule's axis at any tilt, MJX only beyond 30 degrees from the normal. A pyramidal
    cone depends on its frame, so forces and their derivatives differ below that.
    """
    data = collision_driver.collision(model, data)
    kinds = set(zip(*np.asarray(model.geom_type)[_pairs(model)].T.tolist(), strict=True)) if model.ngeom else set()
    if (int(mjx.GeomType.PLANE), int(mjx.GeomType.CAPSULE)) not in kinds or data._impl.ncon == 0:
        return data
    contact = data._impl.contact
    types = jnp.asarray(model.geom_type)[contact.geom]
    lying = (types[:, 0] == int(mjx.GeomType.PLANE)) & (types[:, 1] == int(mjx.GeomType.CAPSULE))
    axes = data.geom_xmat[contact.geom[:, 1], :, 2]
    frames = jax.vmap(_aligned)(contact.frame[:, 0], axes)
    return replaced(
        data, {"_impl.contact": contact.replace(frame=jnp.where(lying[:, None, None], frames, contact.frame))}
    )


def _pairs(model: mjx.Model) -> np.ndarray:
    """Geom pairs (npair, 2) that may collide, the lower type first."""
    return np.array([(first, second) for first, second, _ in collision_driver.geom_pairs(model)], int).reshape(-1, 2)


def _aligned(normal: Float[Array, "3"], axis: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The frame with rows (normal, projected axis, their cross product); global x stands for an axis along the normal."""
    flat = axis - normal * jnp.dot(normal, axis)
    square = jnp.dot(flat, flat)
    tilted = square > mujoco.mjMINVAL**2
    tangent = jnp.where(tilted, flat / jnp.sqrt(jnp.where(tilted, square, 1.0)), jnp.array([1.0, 0.0, 0.0]))
    return jnp.stack([normal, tangent, jnp.cross(normal, tangent)])
