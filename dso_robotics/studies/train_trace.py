"""Costs that a user wrote in Python, traced once before anything is compiled: their mistakes are told then."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from dso_robotics.costs.composite import Composite
from dso_robotics.costs.task import Function
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.train_study import TrainStudy


class CostFault(DsoError):
    """A cost that is a function of the user's cannot be traced. `name` is the cost's."""

    def __init__(self, name: str, message: str):
        super().__init__(message)
        self.name = name


def trace_costs(study: TrainStudy, chain: RobotSystem, scene_cost: Composite) -> tuple[str, ...]:
    """Trace each cost that is a function of the user's, without compiling it. Returns the names of those that only step.

    Such a cost, 0.0 near a target and 1.0 elsewhere, say, has the derivative zero wherever it has one.

    Raises:
      CostFault: it fails, asks for a number that is not there yet, returns no number, or does not depend on the scene at all.
    """
    theta, steps = jnp.asarray(chain.layout.initial), []
    for name, term in zip(scene_cost.names, scene_cost.parts, strict=True):
        function = getattr(term, "part", term)
        if not isinstance(function, Function):
            continue

        def made(state: Any, function: Any = function) -> Any:
            return function(chain.scene(state, theta))

        try:
            traced = jax.make_jaxpr(made)(chain.rest())
        except DsoError as error:
            raise CostFault(name, f"{study.source}: [cost.{name}]: {error}") from error
        if not _depends(traced.jaxpr):
            raise CostFault(
                name,
                f"{study.source}: [cost.{name}]: its number is the same in every state, so there is nothing to minimise; "
                "compute it from scene.state, scene.ctrl, scene.kinematics or scene.sensors.",
            )
        if not _slopes(made, chain.rest()):
            steps.append(name)
    return tuple(steps)


def _slopes(function: Callable[[Any], Any], state: Any) -> bool:
    """Whether a function of a state has a derivative that is not zero by construction."""
    moving, fixed = eqx.partition(state, eqx.is_inexact_array_like)
    moving = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), moving)

    def slope(at: Any, along: Any) -> Any:
        return jax.jvp(lambda here: function(eqx.combine(here, fixed)), (at,), (along,))[1]

    traced = jax.make_jaxpr(slope)(moving, moving).jaxpr
    return _depends(traced, traced.invars[len(jax.tree.leaves(moving)) :])


def _depends(jaxpr: Any, inputs: Sequence[Any] | None = None) -> bool:
    """Whether the result of a program depends on one of its inputs, or of these."""
    known = set(jaxpr.invars if inputs is None else inputs)
    for equation in jaxpr.eqns:
        if any(variable in known for variable in equation.invars if not isinstance(variable, Literal)):
            known |= set(equation.outvars)
    return any(variable in known for variable in jaxpr.outvars if not isinstance(variable, Literal))
