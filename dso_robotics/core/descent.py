"""The one optimisation loop. Every study runs through `descend`; what a step is, a method says (`core.method`).

It imports no array library, so that a method on NumPy alone loads no JAX.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dso_robotics.errors import DsoError


class Status(enum.StrEnum):
    """Why a descent ended."""

    CONVERGED = "converged"
    NOISE_FLOOR = "noise floor"
    ITERATIONS = "iterations"
    DIVERGED = "diverged"
    STALLED = "stalled"
    STOPPED = "stopped"


class Method(Protocol):
    """A way to minimise a cost.

    A state is a dataclass of arrays and plain numbers, and of nested ones: all that the next step depends on, so that a stored
    state resumes to the same numbers. Fields whose metadata is `CACHE` are left out of a stored state and made again.
    """

    def init(self, key: Any, theta: Any) -> Any:
        """The state before the first step, at the flat vector `theta` (n,)."""
        ...

    def step(self, state: Any) -> tuple[Any, Any]:
        """The next state, and a record of the step. Line searches, rejections and halvings are part of one step."""
        ...

    def done(self, state: Any, record: Any) -> Status | None:
        """Why the descent is to end here, or None. `record` is the last one; None before the first step."""
        ...

    def message(self, state: Any, status: Status, steps: int) -> str:
        """What the status means here, in words."""
        ...


# Metadata of a field of a state that can be made again from the others, and is not stored.
CACHE = {"cache": True}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A point that a descent may end with: what is kept of the state after `iteration` steps, and its judged cost."""

    iteration: int
    cost: float
    kept: Any


class Last:
    """Ends with the last state. A `judge`, if given, judges every so many states; the descent only reports its costs."""

    def __init__(self, judge: Callable[[Any], float] | None = None, *, every: int = 1):
        self._judge, self._every = judge, every
        self.best: Candidate | None = None

    def see(self, iteration: int, state: Any, *, last: bool) -> float | None:
        """Judge the state after `iteration` steps, if it is its turn: its cost, or None."""
        if self._judge is None or not (last or iteration % self._every == 0):
            return None
        return self._judge(state)


class Best(Last):
    """Ends with the state of the lowest judged cost; the first of equal ones.

    judge: state to cost; a cost that is not finite is no candidate. take: what is kept of a state (all of it by default). best:
    the candidate of an earlier sitting, to go on from.
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
    """Where a descent is after a step: its state, all records, the judged cost if it was judged just now, the best so far.

    `history` grows with the descent: copy it to keep it.
    """

    state: Any
    history: Sequence[Any]
    judged: float | None
    best: Candidate | None

    @property
    def iteration(self) -> int:
        """Steps so far, earlier sittings included."""
        return len(self.history)

    @property
    def record(self) -> Any:
        """The record of the last step."""
        return self.history[-1]


@dataclasses.dataclass(frozen=True)
class Result:
    """How a descent ended: the last state, why, in words, the record of every step, and the candidate kept, if any."""

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
) -> Result:
    """Take steps of `method` from `state` until it is done, or `iterations` records are there.

    `past` are the records of earlier sittings. `keep` judges states on the way. `checkpoint` is given every moment: storing its
    state, its history and its best, and passing them back, resumes to the same numbers. `watch` is then given every moment too,
    and may return True to stop.

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
        state, record = method.step(state)
        history.append(record)
        status = method.done(state, record)
        judged = keep.see(len(history), state, last=status is not None or len(history) == iterations)
        moment = Moment(state, history, judged, keep.best)
        if checkpoint is not None:
            checkpoint(moment)
        if watch is not None and watch(moment) and status is None:
            status = Status.STOPPED
    return Result(state, status, method.message(state, status, len(history)), tuple(history), keep.best)
