"""The engine of a training: the one that a study names or, for `auto`, the one that suits it, with the reason in words."""

import dataclasses
from typing import Literal

import jax
import mujoco

from dso_robotics.core import hosts
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.settings import THROUGH_THE_CHAIN
from dso_robotics.errors import DsoError
from dso_robotics.physics.device import put_model
from dso_robotics.physics.loop import FIELDS
from dso_robotics.physics.model import Robot
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.studies.train_study import TrainStudy

# Steps of a training with an estimator for which MJX on a CPU is ahead, its compilation counted (docs/policies.md).
_MANY_ESTIMATES = 250_000
# The same with the integrator RK4, whose steps C can only differentiate by repeating them, from so many degrees of freedom on.
_MANY_RK4, _LARGE = 20_000, 9
# Methods that differentiate windows, which `auto` does too.
_THROUGH = ("auto", *THROUGH_THE_CHAIN)
Engine = Literal["mjx", "mujoco"]


@dataclasses.dataclass(frozen=True)
class EngineChoice:
    """name: "mjx" or "mujoco". reason: why, in words."""

    name: Engine
    reason: str


def choose_engine(study: TrainStudy, robot: Robot) -> EngineChoice:
    """The engine of a study.

    Raises:
      DsoError: the study asks for C MuJoCo, and has a part that is only on MJX.
    """
    if study.engine == "mjx":
        return EngineChoice("mjx", "asked for")
    if lacking := _only_on_mjx(study, robot):
        return instead_of_c(study, lacking)
    if study.engine == "mujoco":
        hosts.refuse_sharing("C MuJoCo")
        return EngineChoice("mujoco", "asked for")
    if jax.default_backend() != "cpu":
        return EngineChoice("mjx", "a GPU simulates thousands of environments at once")
    size = _linearised(study)
    large = robot.mj.nv >= _LARGE and int(robot.mj.opt.integrator) == int(mujoco.mjtIntegrator.mjINT_RK4)
    slow = {"of Runge-Kutta": (large, _MANY_RK4), "with an estimator": (study.estimator is not None, _MANY_ESTIMATES)}
    for steps, (here, many) in slow.items():
        if here and size > many and _on_mjx(robot):
            return EngineChoice("mjx", f"its steps {steps} are faster, and {size:,} of them are worth the compilation")
    hosts.refuse_sharing("C MuJoCo, which suits this study on a CPU,")
    return EngineChoice("mujoco", "C MuJoCo needs no compilation of the physics, and linearises each step")


def instead_of_c(study: TrainStudy, lacking: str) -> EngineChoice:
    """MJX, for `lacking`, which C MuJoCo does not have. Raises DsoError if the study asks for C."""
    if study.engine == "mujoco":
        raise DsoError(f'{study.source}: engine = "mujoco": {lacking} is only on MJX; leave it out, or write "auto".')
    return EngineChoice("mjx", f"{lacking} is only on MJX")


def _linearised(study: TrainStudy) -> int:
    """How many steps of windows are differentiated in the training: none if it plays them only, or has costs of logs alone."""
    training = study.training
    if training.method not in _THROUGH or all(cost.supervised for cost in study.cost.values()):
        return 0
    return training.environments * training.horizon * training.iterations


def of_loops(mechanism: Mechanism) -> bool:
    """Whether a physical number that is free or drawn moves bodies or joints of a closed loop.

    Its anchors follow, of which only MJX has the derivative.
    """
    vector = mechanism.vector
    return vector is not None and bool(mechanism.mj.neq) and bool(set(vector.fields(vector.initial)) & set(FIELDS))


def _on_mjx(robot: Robot) -> bool:
    """Whether MJX simulates the robot."""
    try:
        put_model(robot.mj, source=robot.source)
    except DsoError:
        return False
    return True


def _only_on_mjx(study: TrainStudy, robot: Robot) -> str | None:
    """What of the study needs MJX."""
    method = study.training.method
    if method not in _THROUGH and not TRAINING[method].reads_c:
        return f"the cost of method = '{method}'"
    if robot.mj.neq and study.start.lift:
        return "a closed loop with [start] lift"
    return None
