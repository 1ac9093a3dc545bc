"""Quantities of a body: place, attitude, and velocities in the world, in the body and in its heading frame.

The heading frame stands upright in the world and looks where the body's x axis points: its x axis is that axis without its
vertical part. Velocities are those of the centre of mass.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.robot.scene import Scene

Reader = Callable[[Scene], Float[Array, " k"]]
_LEAST = 1e-9  # of the squared length of the x axis seen from above, so that nothing divides by zero


def readers(body: int) -> dict[str, tuple[str, Reader]]:
    """Unit and reader of each quantity of a body, by name."""
    found: dict[str, tuple[str, Reader]] = {}
    for k, axis in enumerate("xyz"):
        found[axis] = "m", lambda s, k=k: s.body_place(body)[k : k + 1]
    found["height"] = "m", lambda s: s.body_origin(body)[2:3]
    found["upright"] = "1", lambda s: s.body_turn(body)[2, 2:3]
    found["gravity"] = "1", lambda s: -s.body_turn(body)[2]
    found["tilt"] = "rad", lambda s: _tilt(s.body_turn(body))
    found["heading"] = "rad", lambda s: jnp.arctan2(*_nose(s.body_turn(body))[::-1])[None]
    for k, name in enumerate(("vx", "vy", "vz")):
        found[name] = "m/s", lambda s, k=k: s.body_velocity(body)[k : k + 1]
    for name, unit, of in (("velocity", "m/s", Scene.body_velocity), ("spin", "rad/s", Scene.body_spin)):
        found[name] = unit, lambda s, of=of: of(s, body)
        found[f"{name}_body"] = unit, lambda s, of=of: s.body_turn(body).T @ of(s, body)
        found[f"{name}_heading"] = unit, lambda s, of=of: _level(s.body_turn(body)).T @ of(s, body)
    return found


def _tilt(turn: Float[Array, "3 3"]) -> Float[Array, "1"]:
    """Angle between the body's z axis and the vertical [rad], with a derivative of zero where it is upright."""
    square = turn[0, 2] ** 2 + turn[1, 2] ** 2
    sine = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return jnp.arctan2(jnp.where(square > 0, sine, 0.0), turn[2, 2])[None]


def _nose(turn: Float[Array, "3 3"]) -> Float[Array, "2"]:
    """Direction of the body's x axis seen from above, of length one; the world's x axis where it is vertical."""
    ahead = turn[:2, 0]
    square = jnp.sum(ahead**2)
    flat = square > _LEAST
    ahead = jnp.where(flat, ahead, jnp.array([1.0, 0.0]))
    return ahead / jnp.sqrt(jnp.where(flat, square, 1.0))


def _level(turn: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Rotation of the heading frame."""
    c, s = _nose(turn)
    zero, one = jnp.zeros(()), jnp.ones(())
    return jnp.stack([jnp.stack(row) for row in ((c, -s, zero), (s, c, zero), (zero, zero, one))])
