"""A policy that is planned with a model: what fits it in a study, and the regulator that [plan] gives the chain."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.costs.quantity import find_id
from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.theta import Theta
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import Robot, actuator_labels, load
from dso_robotics.physics.posture import HINGE, SLIDE
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import no_scaling
from dso_robotics.robot.planned import Regulator, seen_state
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_build import multiple
from dso_robotics.studies.action import driven
from dso_robotics.studies.plan_table import PlanTable

_KINDS = ("free", "ball", "slide", "hinge")
# The methods for a planned policy, the one for `auto` first.
METHODS = ("model_design", "model_design_score")


def method_of_plan(study: Any) -> str:
    """The method that a study asks for; with a [plan], `auto` is the one that there is for it.

    Raises:
      DsoError: [plan] and the method do not belong together, or a part of the study does not fit a planned policy.
    """
    asked = study.training.method
    if study.plan is None:
        if asked in METHODS:
            raise DsoError(
                f"{study.source}: [training] method = '{asked}' moves the numbers of a model that the policy is planned with; "
                "add a [plan] table with `model` and `free`."
            )
        return asked
    if asked not in ("auto", *METHODS):
        raise DsoError(
            f"{study.source}: [training] method = '{asked}' trains the policy itself, and [plan] says that it is planned "
            f"with a model; write method = '{METHODS[0]}', or leave [plan] out."
        )
    for where, reason in _beside(study):
        raise DsoError(f"{study.source}: {where} does not go with a [plan]: {reason}")
    return METHODS[0] if asked == "auto" else asked


def _beside(study: Any) -> Iterator[tuple[str, str]]:
    """What of a study does not fit a planned policy, and why, with the cure."""
    policy = study.policy
    if policy.kind != "linear":
        yield f'[policy] kind = "{policy.kind}"', 'the regulator is a linear policy. Write kind = "linear".'
    if policy.observe != "state":
        yield "[policy] observe", 'the regulator sees the state. Leave it out, or write observe = "state".'
    if policy.time_features:
        yield "[policy] time_features", "the regulator does not see the time. Leave it out."
    if policy.see_design:
        yield "[policy] see_design", "the regulator sees the state alone. Leave it out."
    if study.task:
        yield f"[task.{next(iter(study.task))}]", "the regulator sees no task. Leave it out."
    if study.estimator is not None:
        yield "[estimator]", "the regulator sees the state, not an estimate. Leave it out."
    if study.design or study.motor:
        table = "design" if study.design else "motor"
        yield (
            f"[{table}.{next(iter(getattr(study, table)))}]",
            ("the planning model would not know of it. Design the mechanism in a study of its own."),
        )
    if study.free:
        yield (
            f"free = {study.free[0].path}",
            (
                "what is found are numbers of the planning model. Write it into `free` of [plan], or give the study's model "
                "that value."
            ),
        )
    if study.flow:
        yield (
            "[flow]",
            "the costs of the motion move the numbers of the planning model, and nothing else does. Leave it out.",
        )
    if study.init is not None:
        yield (
            "init",
            (
                "the policy follows from the numbers of the planning model. Write their start values into `free` of [plan], as "
                "PATH=VALUE, or take the model.xml of that result as its model."
            ),
        )
    if study.training.starts > 1:
        yield "[training] starts", "there are no other weights to start from. Leave it out."
    prior = [declared.path for declared in study.plan.free if declared.prior is not None]
    if prior:
        yield f"the prior of {prior[0]}", "the numbers serve the control, not the likelihood. Leave it out."


def with_plan(study: Any, chain: RobotSystem, robot: Robot) -> RobotSystem:
    """The chain with the plan of the study, whose free numbers are a block of theta.

    Raises:
      DsoError: the planning model has what the study's model has not, nothing holds it at the posture, or a name is none of it.
    """
    table, source = study.plan, f"{study.source}: [plan]"
    if table is None:
        return chain
    try:
        model = driven(study.action, load(table.model))
        found = _regulator(table, chain, robot, model)
        found.check()
    except DsoError as error:
        raise DsoError(f"{source} {error}") from error
    part = jnp.asarray(found.block.start("open"))
    weights = np.asarray(found.weights(part, no_scaling(chain.scaling.mean.shape[0])))
    blocks = [
        dataclasses.replace(block, initial=weights) if block.name == "policy" else block
        for block in chain.layout.blocks
    ]
    return dataclasses.replace(chain, plan=found, layout=Theta((*blocks, found.block), chart="open"))


def notes_of_plan(chain: RobotSystem) -> list[str]:
    """Sentences for the summary."""
    if chain.plan is None:
        return []
    source = os.path.normpath(chain.plan.model.robot.source)
    return [
        f"The policy is the regulator of {source} with the numbers of the block 'plan': they are good "
        "for this controller, and no measurement of the robot."
    ]


def _regulator(table: PlanTable, chain: RobotSystem, robot: Robot, planning: Robot) -> Regulator:
    model = Mechanism(planning, pack(table.free, planning))
    mj, observed = model.mj, chain.observation.names
    if "sensor" in model.groups:
        raise DsoError(f"free: {model.groups['sensor'].names[0]} is of a sensor, and a plan reads none; leave it out.")
    if mj.na:
        raise DsoError(
            f"{planning.source}: its actuators have states of their own (dyntype), which the policy does not see there; take "
            "dyntype out of the planning model. The study's model may have them."
        )
    names = _matched(robot, planning)
    control = multiple(chain.control_step, float(mj.opt.timestep), "control step", "the planning model's time step")
    seen, home = seen_state(mj, _posture(table, planning), observed, names)
    width = [int(np.sum(mj.dof_jntid == joint)) for joint in range(mj.njnt)]
    position = _by_name("position_cost", table.position_cost, names, "joint", 1.0)
    velocity = _by_name("velocity_cost", table.velocity_cost, names, "joint", 0.0)
    mine, theirs = actuator_labels(mj), actuator_labels(robot.mj)
    return Regulator(
        model=model,
        posture=_posture(table, planning),
        substeps=control,
        state_cost=np.concatenate([np.repeat(position, width), np.repeat(velocity, width)]),
        action_cost=_by_name("control_cost", table.control_cost, mine, "actuator", 1.0),
        seen=seen,
        home=home,
        drives=np.array([mine.index(name) for name in theirs], int),
        squash=chain.squash,
    )


def _matched(robot: Robot, planning: Robot) -> list[str]:
    """The names of the planning model's joints, which the study's model must have too, as it must have the same actuators."""
    mine, theirs = planning.names("joint"), robot.names("joint")
    for joint, name in enumerate(mine):
        kind = int(planning.mj.jnt_type[joint])
        if name not in theirs or not name:
            raise DsoError(
                f"{planning.source}: the study's model has no joint '{name or joint}'; it has {nearest(name, theirs, 8)}. "
                "Joints of the planning model are matched by name."
            )
        other = int(robot.mj.jnt_type[theirs.index(name)])
        if kind != other:
            raise DsoError(
                f"{planning.source}: joint '{name}' is a {_KINDS[kind]} joint, and in the study's model a {_KINDS[other]} "
                "joint; give both the same."
            )
    actuators = [sorted(actuator_labels(one.mj)) for one in (planning, robot)]
    if actuators[0] != actuators[1]:
        raise DsoError(
            f"{planning.source}: has the actuators {', '.join(actuators[0])}, and the study's model "
            f"{', '.join(actuators[1])}; a plan drives all of them, by name."
        )
    return mine


def _posture(table: PlanTable, planning: Robot) -> np.ndarray:
    mj = planning.mj
    qpos = np.array(mj.qpos0)
    if table.keyframe is not None:
        known = [mj.key(i).name for i in range(mj.nkey)]
        if table.keyframe not in known:
            has = nearest(table.keyframe, known, 8) or "none with a name"
            raise DsoError(f"keyframe: the model has no keyframe '{table.keyframe}'; it has {has}.")
        qpos = np.array(mj.key_qpos[known.index(table.keyframe)])
    for name, value in table.position.items():
        joint = find_id("joint", name, f"position: {name}", planning)
        if int(mj.jnt_type[joint]) not in (HINGE, SLIDE):
            raise DsoError(f"position: {name} is no hinge and no slide; give its posture by a keyframe of the model.")
        qpos[int(mj.jnt_qposadr[joint])] = value
    mujoco.mj_normalizeQuat(mj, qpos)
    return qpos


def _by_name(what: str, given: Mapping[str, float], names: Sequence[str], kind: str, default: float) -> np.ndarray:
    """Numbers of joints or actuators: each its own, else that of "*", else the default."""
    for name in given:
        if name not in (*names, "*"):
            raise DsoError(f"{what}: there is no {kind} '{name}'; there are {nearest(name, names, 8)}.")
    return np.array([given.get(name, given.get("*", default)) for name in names], float)
