"""The curves on which a tendon-driven finger has to close, in closed form, and how its base joint has to move.

A joint is in balance where stiffness times angle is tension times radius of its pulley, so the angles are in fixed proportions.
"""

import jax.numpy as jnp
import numpy as np

LENGTHS = np.array([0.05, 0.04, 0.03])  # [m] of the phalanges of the finger that closes on the curves exactly
RADII = np.array([0.007, 0.0055, 0.004])  # [m] of its pulleys
STIFFNESS = np.array([0.21, 0.165, 0.12])  # [N*m/rad]
TOLERANCE = 0.0005  # [m]
CLOSED, PERIOD = 1.1, 2.0  # [rad] of the base joint, and [s] to close and open


def curves(angle):
    """Places (x, z) [m] of knuckle and tip, (2, 2), at an angle [rad] of the base joint, for a finger that moves slowly."""
    bends = RADII / STIFFNESS
    turned = angle * jnp.cumsum(bends / bends[0])
    ends = jnp.cumsum(LENGTHS * jnp.stack([jnp.sin(turned), jnp.cos(turned)]), 1)
    return ends[:, 1:].T


def path(scene):
    """Squared distances of knuckle and tip from their places on the curves, in tolerances."""
    places = jnp.stack([scene.site_place(scene.mj.site(name).id) for name in ("knuckle", "tip")])
    angle = scene.state.qpos[scene.mj.joint("base").qposadr[0]]
    return jnp.sum(((places[:, jnp.array([0, 2])] - curves(angle)) / TOLERANCE) ** 2)


def closing(scene):
    """Squared distance of the base joint from the angle that it should have by now, in 0.1 rad."""
    wanted = CLOSED / 2 * (1 - jnp.cos(2 * jnp.pi * scene.state.time / PERIOD))
    return ((scene.state.qpos[scene.mj.joint("base").qposadr[0]] - wanted) / 0.1) ** 2
