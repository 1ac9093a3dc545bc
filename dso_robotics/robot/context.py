"""What is drawn anew for every episode and stays: tasks, which policy and costs see, and physical numbers, which act."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.errors import DsoError

_ROWS = 8  # an evaluation plays at most so many combinations


@dataclasses.dataclass(frozen=True)
class Draw:
    """One number of a context: one of `values`, each as likely, or uniform between `low` and `high` where there are none."""

    name: str
    low: float
    high: float
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low <= self.high):
            raise DsoError(f"{self.name}: expected numbers low <= high, got {self.low:g} and {self.high:g}.")

    def one(self, key: PRNGKeyArray) -> Float[Array, ""]:
        """A sample."""
        if self.values:
            return jax.random.choice(key, jnp.asarray(self.values))
        return jax.random.uniform(key, minval=self.low, maxval=self.high)

    @property
    def trials(self) -> tuple[float, ...]:
        """What an evaluation tries: all values, or both ends."""
        return self.values or (self.low, self.high)


def one_of(name: str, values: tuple[float, ...]) -> Draw:
    """A number that is one of `values`.

    Raises:
      DsoError: there is none, or one is not finite.
    """
    if not values or not np.isfinite(values).all():
        raise DsoError(f"{name}: values = {list(values)}; give at least one finite number.")
    return Draw(name, min(values), max(values), tuple(values))


@dataclasses.dataclass(frozen=True)
class Context:
    """Numbers c (k + r,): k tasks, then r physical numbers, whose `nominal` (r,) values are the model's own."""

    tasks: tuple[Draw, ...] = ()
    physics: tuple[Draw, ...] = ()
    nominal: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers."""
        return len(self.tasks) + len(self.physics)

    @property
    def rest(self) -> np.ndarray:
        """The context (k + r,) of a state at rest: first trials of the tasks, the model's own physical numbers."""
        return np.array([*(d.trials[0] for d in self.tasks), *self.nominal], float)

    def draw(self, key: PRNGKeyArray) -> Float[Array, " size"]:
        """A sample."""
        keys = jax.random.split(key, max(self.size, 1))
        draws = [d.one(k) for d, k in zip((*self.tasks, *self.physics), keys, strict=False)]
        return jnp.stack(draws) if draws else jnp.zeros(0)

    def task(self, context: Any) -> Any:
        """The part (k,) that policy and costs see."""
        return context[: len(self.tasks)]

    def physical(self, context: Any) -> Any:
        """The part (r,) that acts."""
        return context[len(self.tasks) :]

    def normalised(self, context: Any) -> Any:
        """The context with every range between -1 and 1."""
        ends = np.array([[d.low, d.high] for d in (*self.tasks, *self.physics)], float).reshape(-1, 2)
        half = (ends[:, 1] - ends[:, 0]) / 2
        return (context - ends.mean(1)) / np.where(half > 0, half, 1.0)

    def trials(self) -> np.ndarray:
        """Contexts (m, k + r) that an evaluation plays: every combination of tasks on the model's own physical numbers, then,
        where some are drawn, on all at their lower and all at their upper ends; at most eight of them.
        """
        tasks = list(itertools.product(*(d.trials for d in self.tasks)))
        bodies = [self.nominal]
        if self.physics:
            bodies += [tuple(d.low for d in self.physics), tuple(d.high for d in self.physics)]
        rows = [[*t, *b] for b in bodies for t in tasks][:_ROWS]
        return np.array(rows, float).reshape(len(rows), self.size)


class Varied(eqx.Module):
    """Starts of `start`, each in a context of its own."""

    start: Any
    context: Context = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Any:
        """One start."""
        one, two = jax.random.split(key)
        return eqx.tree_at(lambda state: state.context, self.start(one), self.context.draw(two))
