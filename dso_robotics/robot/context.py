"""Numbers that are drawn once for each episode: tasks, which the policy and costs see, and physical parameters."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.errors import DsoError

_ROWS = 8  # maximum number of combinations in an evaluation


@dataclasses.dataclass(frozen=True)
class Draw:
    """One number of a context. It is one of `values` with equal probability or, without `values`, uniform in [low, high]."""

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
        """The values that an evaluation tries: all `values`, or both ends of the range."""
        return self.values or (self.low, self.high)


def one_of(name: str, values: tuple[float, ...]) -> Draw:
    """A draw from `values`.

    Raises:
      DsoError: `values` is empty, or a value is not finite.
    """
    if not values or not np.isfinite(values).all():
        raise DsoError(f"{name}: values = {list(values)}; give at least one finite number.")
    return Draw(name, min(values), max(values), tuple(values))


@dataclasses.dataclass(frozen=True, eq=False)
class Cloud:
    """Physical parameters that are drawn together: an episode takes one of the rows, so their correlations are kept.

    rows: (M, m) numbers.
    places: (m,) which of the context's physical parameters they are.
    """

    rows: np.ndarray
    places: tuple[int, ...]

    def ends(self) -> np.ndarray:
        """Two rows (2, m): nearly the least and nearly the largest along the direction in which the rows vary most."""
        away = self.rows - self.rows.mean(0)
        spread = away.std(0)
        scaled = away / np.where(spread > 0, spread, 1.0)
        along = scaled @ np.linalg.svd(scaled, full_matrices=False)[2][0]
        order = np.argsort(along)
        return self.rows[order[[round(0.025 * (len(order) - 1)), round(0.975 * (len(order) - 1))]]]


@dataclasses.dataclass(frozen=True)
class Context:
    """Numbers c (k + r + d,): k tasks, r physical parameters, and the delay of actions in control steps, if it is drawn.

    nominal: (r,) the model's own physical values.
    delay: whole numbers, of which the middle one is the nominal delay; None if the delay is not drawn.
    cloud: the physical parameters that are drawn together; the others are drawn one by one.
    """

    tasks: tuple[Draw, ...] = ()
    physics: tuple[Draw, ...] = ()
    nominal: tuple[float, ...] = ()
    delay: Draw | None = None
    cloud: Cloud | None = None

    @property
    def draws(self) -> tuple[Draw, ...]:
        """All that is drawn, in order."""
        return (*self.tasks, *self.physics, *(() if self.delay is None else (self.delay,)))

    @property
    def size(self) -> int:
        """Length of the context."""
        return len(self.draws)

    @property
    def rest(self) -> np.ndarray:
        """The context (k + r,) of the rest state: the first trial of each task, and the model's own physical parameters."""
        return np.array([*(d.trials[0] for d in self.tasks), *self.nominal, *self._lates()[0]], float)

    def _lates(self) -> list[tuple[float, ...]]:
        """The delay of a trial: the middle one, the shortest, the longest."""
        if self.delay is None:
            return [()] * 3
        values = self.delay.values
        return [(values[len(values) // 2],), (values[0],), (values[-1],)]

    def draw(self, key: PRNGKeyArray) -> Float[Array, " size"]:
        """A sample."""
        keys = jax.random.split(key, max(self.size, 1))
        draws = [d.one(k) for d, k in zip(self.draws, keys, strict=False)]
        drawn = jnp.stack(draws) if draws else jnp.zeros(0)
        if self.cloud is None:
            return drawn
        row = jax.random.choice(jax.random.fold_in(key, len(draws)), jnp.asarray(self.cloud.rows))
        return drawn.at[np.array(self.cloud.places) + len(self.tasks)].set(row)

    def task(self, context: Any) -> Any:
        """The task part (k,), which the policy and costs see."""
        return context[: len(self.tasks)]

    def physical(self, context: Any) -> Any:
        """The physical part (r,), which changes the model."""
        return context[len(self.tasks) : len(self.tasks) + len(self.physics)]

    def late(self, context: Any) -> Any:
        """The delay of actions in control steps; None if it is not drawn."""
        return None if self.delay is None else context[self.size - 1]

    def normalised(self, context: Any) -> Any:
        """The context, with every range scaled to [-1, 1]."""
        ends = np.array([[d.low, d.high] for d in self.draws], float).reshape(-1, 2)
        half = (ends[:, 1] - ends[:, 0]) / 2
        return (context - ends.mean(1)) / np.where(half > 0, half, 1.0)

    def trials(self) -> np.ndarray:
        """Contexts (m, k + r) for an evaluation, at most eight.

        First comes every combination of tasks with the model's own physical parameters and the middle delay. If such numbers
        are drawn, the combinations follow with all of them at their lower ends, then with all at their upper ends. Those that
        are drawn together are at the ends of the direction in which they vary most.
        """
        tasks = list(itertools.product(*(d.trials for d in self.tasks)))
        middle, soon, late = self._lates()
        bodies = [(*self.nominal, *middle)]
        if self.physics or self.delay is not None:
            both = np.array([[d.low for d in self.physics], [d.high for d in self.physics]])
            if self.cloud is not None:
                both[:, list(self.cloud.places)] = self.cloud.ends()
            bodies += [(*map(float, ends), *delay) for ends, delay in zip(both, (soon, late), strict=True)]
        rows = [[*t, *b] for b in bodies for t in tasks][:_ROWS]
        return np.array(rows, float).reshape(len(rows), self.size)


class Varied(eqx.Module):
    """Draws starts from `start`, each with its own drawn context."""

    start: Any
    context: Context = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> Any:
        """Draw one start."""
        one, two = jax.random.split(key)
        return eqx.tree_at(lambda state: state.context, self.start(one), self.context.draw(two))
