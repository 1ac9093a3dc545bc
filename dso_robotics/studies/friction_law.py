"""Laws of friction at joints, as numbers of the model: which are free, and that the others are zero."""

import dataclasses
from collections.abc import Collection

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, escape, matches
from dso_robotics.physics.model import Robot, load
from dso_robotics.studies.study import IdentifyStudy

# The terms of each law, from the simplest.
LAWS = {
    "viscous": ("damping",),
    "Coulomb": ("frictionloss",),
    "viscous + Coulomb": ("damping", "frictionloss"),
    "viscous + Coulomb + quadratic": ("damping", "frictionloss", "damping_quadratic"),
}
_TERMS = ("damping", "frictionloss", "damping_quadratic", "damping_cubic")
_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))


def moved_joints(study: IdentifyStudy) -> list[str]:
    """Hinges and slides of which a declaration frees friction; all of them if none does.

    Raises:
      DsoError: joints have no names, or friction of several is tied to one number.
    """
    robot = load(study.model)
    names = [robot.mj.joint(j).name for j in range(robot.mj.njnt) if int(robot.mj.jnt_type[j]) in _SCALAR]
    if not all(names):
        raise DsoError(f"{robot.source}: --choose friction: a joint has no name; give it one.")
    freed = [d.path for d in study.free if _is_friction(d.path)]
    if any("+" in path for path in freed):
        raise DsoError(
            "--choose friction: friction that is tied with + keeps its law; free each joint's, or leave it out."
        )
    patterns = [path.removeprefix("joint/").rpartition("/")[0] for path in freed]
    chosen = [name for name in names if any(matches(name, p) for p in patterns)] if patterns else names
    if not chosen:
        raise DsoError(f"{robot.source}: --choose friction: the model has no hinge or slide with friction.")
    return chosen


def _is_friction(path: str) -> bool:
    return path.startswith("joint/") and path.rpartition("/")[2] in _TERMS


def with_law(study: IdentifyStudy, joints: Collection[str], terms: Collection[str]) -> IdentifyStudy:
    """`study` with `terms` of friction free at `joints`, as it declares them where it does, and all other terms zero there."""
    robot = load(study.model)
    kept = [d for d in study.free if not _is_friction(d.path)]
    given = [d for d in study.free if _is_friction(d.path)]
    for joint in joints:
        for term in terms:
            mine = [d for d in given if _names(d.path, joint, term)]
            path = f"joint/{escape(joint)}/{term}"
            kept.append(dataclasses.replace(mine[0], path=path) if mine else Declaration(path))
    return dataclasses.replace(study, free=tuple(kept), model=_without(robot, joints, terms))


def _names(path: str, joint: str, term: str) -> bool:
    pattern, _, field = path.removeprefix("joint/").rpartition("/")
    return field == term and matches(joint, pattern)


def _without(robot: Robot, joints: Collection[str], terms: Collection[str]) -> Robot:
    """`robot` with no friction at `joints` but of `terms`."""
    if robot.spec is None:
        raise DsoError(
            "--choose friction: this model came as a compiled MjModel, so no term can be taken out; load the file."
        )
    spec = robot.spec.copy()
    for joint in spec.joints:
        if joint.name not in joints:
            continue
        if "frictionloss" not in terms:
            joint.frictionloss = 0.0
        damping = np.atleast_1d(np.array(joint.damping, float))
        for k, term in enumerate(("damping", "damping_quadratic", "damping_cubic")[: len(damping)]):
            damping[k] = damping[k] if term in terms else 0.0
        joint.damping = damping if np.ndim(joint.damping) else float(damping[0])
    return dataclasses.replace(load(spec), source=robot.source)
