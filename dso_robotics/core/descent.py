"""The one optimisation loop. Every study runs through `descend`; a method (`core.method`) defines what a step is.

This module imports no array library, so a method that uses only NumPy loads no JAX.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dso_robotics.errors import DsoError, told


class Status(enum.StrEnum):
    """Why a descent ended."""

    CONVERGED = "converged"
    NOISE_FLOOR = "noise floor"
    ITERATIONS = "iterations"
    DIVERGED = "diverged"
    STALLED = "stalled"
    STOPPED = "stopped"
    FAILED = "failed"


class Method(Protocol):
    """A way to minimise a cost.

    A state is a dataclass of arrays, plain numbers and nested dataclasses. It holds everything that the next step depends on,
    so a run resumed from a stored state gives the same numbers. Fields with the metadata `CACHE` are not stored; they are
    recomputed.
    """

    def init(self, key: Any, theta: Any) -> Any:
        """The state before the first step, at the parameter vector `theta` (n,)."""
        ...

    def step(self, state: Any) -> tuple[Any, Any]:
        """Return the next state and a record of the step. Line searches, rejections and halvings are part of one step."""
        ...

    def done(self, state: Any, record: Any) -> Status | None:
        """Return the reason to stop here, or None. `record` is the record of the last step, or None before the first step."""
        ...

    def message(self, state: Any, status: Status, steps: int) -> str:
        """An explanation of the status for the user."""
        ...


# Metadata of a state field that can be recomputed from the other fields. Such a field is not stored.
CACHE = {"cache": True}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A point that a descent may return.

    iteration: number of steps taken to reach it.
    cost: its judged cost.
    kept: the part of the state that is kept.
    """

    iteration: int
    cost: float
    kept: Any


class Last:
    """Return the last state.

    judge: optional function from a state to its cost. The descent only reports these costs.
    every: judge one state in this many.
    """

    def __init__(self, judge: Callable[[Any], float] | None = None, *, every: int = 1):
        self._judge, self._every = judge, every
        self.best: Candidate | None = None

    def see(self, iteration: int, state: Any, *, last: bool) -> float | None:
        """Judge the state after `iteration` steps if it is due. Return its cost, or None."""
        if self._judge is None or not (last or iteration % self._every == 0):
            return None
        return self._judge(state)


class Best(Last):
    """Return the state with the lowest judged cost, or the first one if several are equal.

    judge: function from a state to its cost. A state whose cost is not finite is not a candidate.
    take: function from a state to the part that is kept (by default the whole state).
    best: the candidate of an earlier run, to continue from.
    """

    def __init__(
        self,
        judge: Callable[[Any], float],
        *,
        every: int = 1,
        take: Callable[[Any], Any] = lambda state: state,
        best: Candidate | None = None,
    ):
        super().__init__(judge, every=every)
        self.take, self.best = take, best

    def see(self, iteration: int, state: Any, *, last: bool) -> float | None:
        """Judge the state, and keep it if it is the best so far."""
        cost = super().see(iteration, state, last=last)
        if cost is not None and math.isfinite(cost) and (self.best is None or cost < self.best.cost):
            self.best = Candidate(iteration, cost, self.take(state))
        return cost


@dataclasses.dataclass(frozen=True)
class Moment:
    """The descent after one step.

    state: the current state.
    history: all records so far. It grows during the descent; copy it to keep it.
    judged: the cost of this state if it was judged at this step, else None.
    best: the best candidate so far, or None.
    """

    state: Any
    history: Sequence[Any]
    judged: float | None
    best: Candidate | None

    @property
    def iteration(self) -> int:
        """Number of steps so far, including those of earlier runs."""
        return len(self.history)

    @property
    def record(self) -> Any:
        """The record of the last step."""
        return self.history[-1]


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a descent.

    state: the last state.
    status: why the descent ended.
    message: the same, explained for the user.
    history: the record of every step.
    best: the candidate that was kept, if any.
    """

    state: Any
    status: Status
    message: str
    history: tuple[Any, ...]
    best: Candidate | None = None

    @property
    def theta(self) -> Any:
        """The vector (n,) of the last state."""
        return self.state.theta


def descend(
    method: Method,
    state: Any,
    *,
    iterations: int,
    past: Sequence[Any] = (),
    keep: Last | None = None,
    watch: Callable[[Moment], bool | None] | None = None,
    checkpoint: Callable[[Moment], None] | None = None,
    survive: bool = False,
) -> Result:
    """Take steps of `method` from `state` until it is done or there are `iterations` records.

    past: the records of earlier runs.
    keep: judges states during the descent.
    checkpoint: called after every step with the `Moment`. To resume with the same numbers, store its state, history and best,
      and pass them back.
    watch: called after `checkpoint`, also after every step. It may return True to stop.

    survive: a step that raises ends the descent with the status FAILED and all that was found before, where something was.

    Raises:
      DsoError: `iterations` is negative.
    """
    if iterations < 0:
        raise DsoError(f"iterations: expected a whole number from 0, got {iterations}.")
    keep = Last() if keep is None else keep
    history = list(past)
    status = method.done(state, history[-1] if history else None)
    if not history:
        keep.see(0, state, last=status is not None or not iterations)
    while status is None:
        if len(history) >= iterations:
            status = Status.ITERATIONS
            break
        try:
            state, record = method.step(state)
        except Exception as error:
            if not (survive and history):
                raise
            message = f"step {len(history) + 1} failed: {told(error)}"
            return Result(state, Status.FAILED, message, tuple(history), keep.best)
        history.append(record)
        status = method.done(state, record)
        judged = keep.see(len(history), state, last=status is not None or len(history) == iterations)
        moment = Moment(state, history, judged, keep.best)
        if checkpoint is not None:
            checkpoint(moment)
        if watch is not None and watch(moment) and status is None:
            status = Status.STOPPED
    return Result(state, status, method.message(state, status, len(history)), tuple(history), keep.best)
