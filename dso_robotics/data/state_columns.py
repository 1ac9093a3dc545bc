"""The recorded state from columns: which number of qpos and qvel a joint's column is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dso_robotics.data.mapping import Column
from dso_robotics.data.rollout import Array, listed, nearest
from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    import mujoco

# Numbers of qpos and of qvel of a free, ball, slide and hinge joint, as MuJoCo numbers the types.
_QPOS, _QVEL = (7, 4, 1, 1), (6, 3, 1, 1)


def state_names(model: "mujoco.MjModel", kind: str) -> tuple[str, ...]:
    """The names of the numbers of qpos or qvel, in the model's order: `hinge`, `ball[0]` ... `ball[3]`.

    A free joint has x, y, z and a quaternion w, x, y, z; its velocity is linear in the world and angular in the body.
    Raises DsoError when a joint has no name.
    """
    import mujoco

    names = []
    for joint in range(model.njnt):
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint)
        if not name:
            raise DsoError(f"joint number {joint} of the model has no name, so no column can be mapped to it; name it.")
        size = (_QPOS if kind == "qpos" else _QVEL)[int(model.jnt_type[joint])]
        names += [name] if size == 1 else [f"{name}[{k}]" for k in range(size)]
    return tuple(names)


def stacked_state(
    model: "mujoco.MjModel | None", kind: str, columns: Sequence[Column], values: Array | None, path: str
) -> Array | None:
    """The columns (T, k) in the model's order, (T, nq) or (T, nv), with unit quaternions; None if there are none.

    Raises DsoError naming the joints without a column, and those that the model does not have.
    """
    if model is None or values is None:
        return None
    names, given = state_names(model, kind), [column.channel for column in columns]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise DsoError(
            f"{path}: --{kind} {unknown[0]}: the model has no such joint.{nearest(unknown[0], names)} It has {listed(names)}."
        )
    missing = tuple(name for name in names if name not in given)
    if missing:
        raise DsoError(
            f"{path}: --{kind} is missing for {listed(missing)}; a recorded state has all joints. If some were not measured, "
            "map the others as sensors with --sensor."
        )
    if len(set(given)) < len(given):
        raise DsoError(
            f"{path}: --{kind} gives {next(n for n in given if given.count(n) > 1)} more than once; give it once."
        )
    ordered = values[:, [given.index(name) for name in names]].copy()
    if kind == "qpos":
        for joint in range(model.njnt):
            if int(model.jnt_type[joint]) < 2:
                start = int(model.jnt_qposadr[joint]) + (3 if int(model.jnt_type[joint]) == 0 else 0)
                _normalise(ordered[:, start : start + 4], names[start], path)
    return ordered


def _normalise(quaternions: Array, name: str, path: str) -> None:
    norm = np.linalg.norm(quaternions, axis=1)
    wrong = np.flatnonzero(np.abs(norm - 1) > 0.1)
    if len(wrong):
        raise DsoError(
            f"{path}: the quaternion from {name} on has length {norm[wrong[0]]:.3g} at sample {wrong[0]}, not 1; map its four "
            "numbers in the order w, x, y, z."
        )
    quaternions /= norm[:, None]
