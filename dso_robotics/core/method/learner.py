"""The learner of a training by windows: its state, one step of theta, and the record of an iteration."""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Learner(eqx.Module):
    """Everything that the next iteration depends on.

    anchor: the theta that a proximal cost measures from.
    lost: consecutive iterations without a usable gradient.
    """

    theta: Float[Array, " n"]
    anchor: Float[Array, " n"]
    optimiser: Any
    critic: Any
    slow: Any
    critic_optimiser: Any
    critic_scale: Float[Array, ""]
    memory: Any
    states: Any
    age: Array
    key: PRNGKeyArray
    iteration: Array
    lost: Array


Kind = TypeVar("Kind", bound=Learner)


def extended(kind: type[Kind], learner: Learner, **more: Any) -> Kind:
    """The learner with what a method learns besides, as its own kind of learner."""
    return kind(**{field.name: getattr(learner, field.name) for field in dataclasses.fields(Learner)}, **more)


@dataclasses.dataclass(frozen=True)
class Record:
    """One iteration: mean cost per step, its terms (k,), the norm of the gradient, and the critic's error.

    blown: fraction of windows that blew up.
    accepted: whether the step was finite.
    """

    cost: float
    terms: np.ndarray
    gradient_norm: float
    value_error: float
    blown: float
    accepted: bool


class Step(eqx.Module):
    """One step: theta, the optimiser's state, whether the step was finite, and the norm of its gradient."""

    theta: Float[Array, " n"]
    optimiser: Any
    accepted: Bool[Array, ""]
    norm: Float[Array, ""]
