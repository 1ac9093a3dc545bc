"""The curve that the pen of a four-bar linkage has to draw, in closed form."""

import jax.numpy as jnp

CRANK, COUPLER, ROCKER = 0.1, 0.3, 0.2  # [m] lengths that draw the curve exactly
PIVOT = jnp.array([0.32, -0.155])  # [m] of the rocker, x and z; the crank's is the origin
ALONG, ACROSS = 0.3125, 0.12  # the pen: share of the coupler's length, and distance [m] from the coupler
TOLERANCE = 0.01  # [m]


def curve(angle):
    """Place (x, z) [m] of the pen at an angle [rad] of the crank from upright."""
    pin = CRANK * jnp.stack([jnp.sin(angle), jnp.cos(angle)])
    line = PIVOT - pin
    distance = jnp.linalg.norm(line)
    ahead = line / distance
    along = (COUPLER**2 - ROCKER**2 + distance**2) / (2 * distance)
    aside = jnp.sqrt(COUPLER**2 - along**2)
    coupler = (along * ahead + aside * jnp.stack([-ahead[1], ahead[0]])) / COUPLER
    return pin + ALONG * COUPLER * coupler + ACROSS * jnp.stack([-coupler[1], coupler[0]])


def cost(scene):
    """Squared distance of the pen from its place on the curve, in tolerances."""
    pen = scene.site_place(scene.mj.site("pen").id)
    error = jnp.stack([pen[0], pen[2]]) - curve(scene.state.qpos[scene.mj.joint("crank").qposadr[0]])
    return jnp.sum((error / TOLERANCE) ** 2)
