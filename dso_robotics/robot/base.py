"""Positions of floating bases: place, height, heading about the vertical, and tilt away from it; with NumPy or JAX.

The orientation of a free joint is that of its tilt, a rotation vector (roll, pitch) without a part about its z axis, turned by
its heading about the world's vertical. Every orientation has one, also upside down.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics.inertia import turned
from dso_robotics.physics.posture import BALL, FREE, times

Array = Any  # a NumPy or a JAX array
_STILL = np.array([1.0, 0.0, 0.0, 0.0])


def free_joints(model: mujoco.MjModel) -> dict[str, tuple[int, int]]:
    """Address in qpos and qvel of every free joint, by name; that of its body if it has none."""
    found = {}
    for joint in np.flatnonzero(model.jnt_type == FREE):
        name = model.joint(joint).name or model.body(model.jnt_bodyid[joint]).name or f"joint {joint}"
        found[name] = int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    return found


def orientation(heading: float, tilt: "Sequence[float] | np.ndarray") -> np.ndarray:
    """The quaternion (4,) of a heading [rad] and a tilt (roll, pitch) [rad]."""
    return times(_about_vertical(np.asarray(float(heading))), turned(_STILL, np.array([*tilt, 0.0])))


def heading_and_tilt(quat: np.ndarray) -> tuple[float, np.ndarray]:
    """The heading [rad] and the tilt (2,) [rad] of a quaternion (4,)."""
    w, x, y, z = quat / np.linalg.norm(quat)
    heading = 2 * np.arctan2(z, w) if w or z else 0.0
    upright = times(_about_vertical(np.asarray(-heading)), np.array([w, x, y, z]))
    length = np.linalg.norm(upright[1:3])
    angle = 2 * np.arctan2(length, upright[0])
    return float(heading), upright[1:3] * (angle / length if length > 1e-12 else 2.0)


def displaced(model: mujoco.MjModel, qpos: Array, change: Array) -> Array:
    """`qpos` (nq,) moved by `change` (nv,).

    The last three of a free joint are a tilt about its own x and y axes and a turn about the world's vertical; those of a
    ball are a rotation vector in its own axes.
    """
    if model.nq == model.nv:
        return qpos + change
    xp, parts = qpos.__array_namespace__(), []
    flat = xp.asarray(np.array([1.0, 1.0, 0.0]))
    for joint in range(model.njnt):
        kind, q, v = (int(getattr(model, f"jnt_{name}")[joint]) for name in ("type", "qposadr", "dofadr"))
        if kind == FREE:
            parts.append(qpos[q : q + 3] + change[v : v + 3])
            tilted = turned(qpos[q + 3 : q + 7], change[v + 3 : v + 6] * flat)
            parts.append(times(_about_vertical(change[v + 5]), tilted))
        elif kind == BALL:
            parts.append(turned(qpos[q : q + 4], change[v : v + 3]))
        else:
            parts.append(qpos[q : q + 1] + change[v : v + 1])
    return xp.concatenate(parts)


def _about_vertical(angle: Array) -> Array:
    xp = angle.__array_namespace__()
    zero = 0.0 * angle
    return xp.stack([xp.cos(angle / 2), zero, zero, xp.sin(angle / 2)])
