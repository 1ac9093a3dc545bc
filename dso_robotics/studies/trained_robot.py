"""The robot of a training at some theta: its model, its estimator, its motion, and its cost on the robot of [judge]."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.data.bundle import write_bundled
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.robot.learned import Learned
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Episode, Player
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.train_build import Task

_SHOWN = 60.0


def mjcf_at(task: Task, theta: Any, context: Any = None) -> str:
    """The MJCF at theta, with the physical numbers of `context` if given. Raises DsoError without an MJCF to change."""
    mechanism = task.chain.mechanism
    if task.robot.spec is None:
        raise DsoError(f"{task.study.source}: a compiled MjModel has no MJCF to write; load the XML file.")
    drawn = None if context is None else task.chain.context.physical(np.asarray(context))
    fields = {} if mechanism is None else mechanism.fields(mechanism_numbers(task, theta), drawn)
    return to_mjcf(task.robot, {name: np.asarray(value) for name, value in fields.items()})


def compiled(task: Task, theta: Any, context: Any = None) -> mujoco.MjModel:
    """The model at theta (and in `context`, if given), as C MuJoCo compiles it from the exported MJCF."""
    if task.chain.mechanism is None:
        return task.chain.mj
    return mujoco.MjModel.from_xml_string(mjcf_at(task, theta, context))


def mechanism_numbers(task: Task, theta: Any) -> np.ndarray:
    """The numbers of the mechanism at theta, in their units."""
    numbers = np.asarray(task.chain.numbers(jnp.asarray(theta)))
    return numbers if task.chain.mechanism is None else task.chain.mechanism.snapped(numbers)


def believed(task: Task, theta: np.ndarray, folder: Path) -> dict[str, str]:
    """The MJCF of the model that the estimator predicts with, if it is not model.xml; its meshes are put into `folder`."""
    mechanism = task.chain.mechanism
    if task.chain.believes == "world" or mechanism is None:
        return {}
    fields = mechanism.fields_at(task.chain.believed_parameters(jnp.asarray(theta)), mechanism_numbers(task, theta))
    text = to_mjcf(task.robot, {name: np.asarray(value) for name, value in fields.items()})
    return {"mjcf": write_bundled(folder, text)}


def planned_with(task: Task, theta: Any) -> tuple[str, dict[str, np.ndarray]] | None:
    """The MJCF of the model that the policy is planned with, at theta, and its regulator; None without a [plan].

    The regulator is u = holds - gain (x - posture), for x - posture in tangent coordinates.
    """
    plan = task.chain.plan
    if plan is None:
        return None
    numbers = np.asarray(task.chain.layout.values(jnp.asarray(theta))[plan.block.name])
    fields = {name: np.asarray(value) for name, value in plan.model.fields(numbers).items()}
    holds, gain = (np.asarray(part) for part in plan.gain(jnp.asarray(numbers)))
    return to_mjcf(plan.model.robot, fields), {"posture": plan.posture, "holds": holds, "gain": gain}


def learned_filter(chain: RobotSystem, theta: Any) -> Learned:
    """The estimator at theta, in the form that `Estimator.load` reads."""
    filter, sensing, theta = chain.filter, chain.sensing, jnp.asarray(theta)
    assert filter is not None
    assert sensing is not None
    scale, bias, late = (np.asarray(part) for part in chain.sensors(theta))
    ny, corrector = sensing.size, filter.corrector
    part = np.asarray(chain.layout.split(theta)["corrector"])
    return Learned(
        corrector=corrector,
        weights=part[: corrector.size],
        scales=filter.scales,
        scale=scale,
        bias=bias,
        delay=late,
        sigma=filter.scales.innovation * np.exp(part[corrector.size :]),
        spread=np.zeros((ny, corrector.nf)),
        covariance=None,
        names=sensing.names,
        addresses=np.array(sensing.addresses, int),
        interval=sensing.interval,
        substeps=chain.substeps,
    )


def on_the_real_robot(
    task: Task, player: Player, theta: np.ndarray, scaling: Scaling, first: Any
) -> dict[str, Any] | None:
    """Costs of episodes on the robot of [judge], before and after the training; None without [judge]."""
    if task.real is None or task.study.judge is None:
        return None
    costs: dict[str, list[float]] = {}
    for name, at, scale in (("before", first.theta, first.memory), ("after", theta, scaling)):
        mechanism = task.chain.mechanism
        design = {} if mechanism is None else mechanism.design_fields(mechanism_numbers(task, at))
        more = {"steps": task.steps, "model": task.real.model(design), "sensors": task.real.sensors}
        seeds = range(1000, 1000 + task.study.judge.episodes)
        episodes = [player.play(np.asarray(at), scale, seed=seed, **more) for seed in seeds]
        # An episode that the simulation ended early costs its mean step for the rest.
        costs[name] = [e.cost * task.steps / max(len(e.terms), 1) for e in episodes]
    return {
        "cost": costs["after"],
        "before": costs["before"],
        "return": [float(task.steps - cost) for cost in costs["after"]],
    }


def motion(episode: Episode) -> dict[str, np.ndarray]:
    """Poses of an episode for `dso view`: at most 60 per second, in single precision."""
    interval = float(np.median(np.diff(episode.time))) if len(episode.time) > 1 else 1.0
    shown = slice(None, None, max(1, int(1 / (_SHOWN * interval) + 1e-6)))
    return {"time": episode.time[shown], "qpos": episode.qpos[shown].astype(np.float32)}
