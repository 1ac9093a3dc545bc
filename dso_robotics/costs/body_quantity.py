"""Quantities of a body: place, attitude, and velocities in the world, in the body and in its heading frame.

The heading frame stands upright in the world and looks where the body's x axis points: its x axis is that axis without its
vertical part. Velocities are those of the centre of mass.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.physics import stages
from dso_robotics.robot.scene import Scene

Reader = Callable[[Scene], Float[Array, " k"]]
_LEAST = 1e-9  # of the squared length of the x axis seen from above, so that nothing divides by zero


def readers(body: int) -> dict[str, tuple[str, Reader]]:
    """Unit and reader of each quantity of a body, by name."""
    found: dict[str, tuple[str, Reader]] = {}
    for k, axis in enumerate("xyz"):
        found[axis] = "m", lambda s, k=k: s.kinematics.xipos[body, k : k + 1]
    found["height"] = "m", lambda s: s.kinematics.xpos[body, 2:3]
    found["upright"] = "1", lambda s: _turn(s, body)[2, 2:3]
    found["gravity"] = "1", lambda s: -_turn(s, body)[2]
    found["tilt"] = "rad", lambda s: _tilt(_turn(s, body))
    found["heading"] = "rad", lambda s: jnp.arctan2(*_nose(_turn(s, body))[::-1])[None]
    for k, name in enumerate(("vx", "vy", "vz")):
        found[name] = "m/s", lambda s, k=k: _motion(s, body)[0][k : k + 1]
    for name, unit, part in (("velocity", "m/s", 0), ("spin", "rad/s", 1)):
        found[name] = unit, lambda s, part=part: _motion(s, body)[part]
        found[f"{name}_body"] = unit, lambda s, part=part: _turn(s, body).T @ _motion(s, body)[part]
        found[f"{name}_heading"] = unit, lambda s, part=part: _level(_turn(s, body)).T @ _motion(s, body)[part]
    return found


def _turn(scene: Scene, body: int) -> Float[Array, "3 3"]:
    return scene.kinematics.xmat[body].reshape(3, 3)


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


def _motion(scene: Scene, body: int) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Velocity of a body's centre of mass [m/s] and its angular velocity [rad/s] in the world.

    They are derivatives of its pose along the motion.
    """

    model, products = scene.model, scene.products

    def pose(dt: Array) -> tuple[Array, Array]:
        qpos = stages.integrate_position(model, scene.state.qpos, scene.state.qvel, dt)
        moved = Scene(scene.mj, model, products, _at(scene, qpos), scene.ctrl, scene.before, scene.task)
        return moved.kinematics.xipos[body], _turn(moved, body)

    (_, turn), (velocity, change) = jax.jvp(pose, (jnp.zeros(()),), (jnp.ones(()),))
    spin = change @ turn.T
    return velocity, jnp.stack([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]]) / 2


def _at(scene: Scene, qpos: Array) -> Any:
    return eqx.tree_at(lambda state: state.qpos, scene.state, qpos)
