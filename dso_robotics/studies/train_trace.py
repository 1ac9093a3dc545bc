"""Costs that a user wrote in Python, traced once before anything is compiled: their mistakes are told then."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from dso_robotics.costs.composite import Composite
from dso_robotics.costs.task import Function
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.train_study import TrainStudy


def trace_costs(study: TrainStudy, chain: RobotSystem, scene_cost: Composite) -> None:
    """Trace each cost that is a function of the user's, without compiling it.

    Raises:
      DsoError: it fails, asks for a number that is not there yet, returns no number, or does not depend on the scene at all.
    """
    theta = jnp.asarray(chain.layout.initial)
    for name, term in zip(scene_cost.names, scene_cost.parts, strict=True):
        function = getattr(term, "part", term)
        if not isinstance(function, Function):
            continue
        try:
            traced = jax.make_jaxpr(lambda state, made=function: made(chain.scene(state, theta)))(chain.rest())
        except DsoError as error:
            raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error
        if not _depends(traced.jaxpr):
            raise DsoError(
                f"{study.source}: [cost.{name}]: its number is the same in every state, so there is nothing to minimise; "
                "compute it from scene.state, scene.ctrl, scene.kinematics or scene.sensors."
            )


def _depends(jaxpr: Any) -> bool:
    """Whether the result of a program depends on one of its inputs."""
    known = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(variable in known for variable in equation.invars if not isinstance(variable, Literal)):
            known |= set(equation.outvars)
    return any(variable in known for variable in jaxpr.outvars if not isinstance(variable, Literal))
