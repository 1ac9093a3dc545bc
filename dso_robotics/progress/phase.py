"""Phases: what the work at hand is called and how far it is.

Code that takes long says so with `phase` or `each`, at any depth and without an argument for it. Whoever runs the work listens
with `listening`. Without a listener a phase costs nothing.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any, TypeVar

from dso_robotics.progress.report import Progress

T = TypeVar("T")
Listener = Callable[[Progress], None]
# The rate is that of so many last reports.
_RECENT = 32


class Phase:
    """A phase under way. `at` tells how far it is.

    loose: it ends when another phase is told in its place, see `tell`.
    """

    def __init__(self, work: "Work | None", name: str, *, loose: bool = False, **counted: Any):
        self.work, self.name, self.loose = work, name, loose
        self.counted: dict[str, Any] = {key: value for key, value in counted.items() if value}
        self.began = time.perf_counter()
        self.latest: dict[str, Any] = {}
        self.recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def at(self, iteration: int, cost: float = math.nan, **more: Any) -> None:
        """Report that `iteration` units are done; `more` are other fields of `Progress`."""
        if self.work is None:
            return
        self.latest = {"iteration": iteration, "cost": cost, **more}
        self.recent.append((time.perf_counter(), iteration))
        self.work.report(self, "at")

    def progress(self, event: str, began: float) -> Progress:
        """The state of the phase as a report. began: time at which the run began."""
        now, known = time.perf_counter(), self.counted | self.latest
        rate = remaining = math.nan
        (first, low), (last, high) = (self.recent[0], self.recent[-1]) if self.recent else ((now, 0), (now, 0))
        if high > low and last > first:
            rate = (high - low) / (last - first)
            # Time that passed since the last report counts as work on the next unit.
            due = max(known.get("total", 0) - high, 0) / rate
            remaining = max(due - (now - last), 0.0) if known.get("total") else math.nan
        times = {"seconds": now - began, "stage_seconds": now - self.began, "rate": rate, "remaining": remaining}
        return Progress(self.name, event=event, **times, **known)


class Work:
    """All phases of a piece of work, the innermost last, and its listener."""

    def __init__(self, listener: Listener):
        self.listener, self.began = listener, time.perf_counter()
        self.stack: list[Phase] = []
        self.thread = threading.get_ident()

    def report(self, phase: Phase, event: str) -> None:
        """Send a report of `phase`."""
        self.listener(phase.progress(event, self.began))

    def now(self) -> Progress | None:
        """A report of the innermost phase, for showing that time passes; None between phases."""
        try:
            return self.stack[-1].progress("wait", self.began)
        except (IndexError, RuntimeError):  # another thread has just changed it
            return None

    def enter(self, phase: Phase) -> Phase:
        """Begin a phase inside the present one."""
        self.stack.append(phase)
        self.report(phase, "begin")
        return phase

    def leave(self, phase: Phase) -> None:
        """End `phase` and what is loose inside it."""
        while self.stack and phase in self.stack:
            self.report(self.stack[-1], "end")
            self.stack.pop()

    def cut(self, phase: Phase) -> None:
        """Forget `phase`, which an exception ended, and what is inside it."""
        if phase in self.stack:
            del self.stack[self.stack.index(phase) :]


_WORK: ContextVar[Work | None] = ContextVar("work", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[Work]:
    """Within the context `listener` is called with every report."""
    work = Work(listener)
    token = _WORK.set(work)
    try:
        yield work
        while work.stack:
            work.leave(work.stack[0])
    finally:
        _WORK.reset(token)


@contextlib.contextmanager
def phase(name: str, *, total: int = 0, unit: str = "", at_most: bool = False) -> Iterator[Phase]:
    """Within the context the work at hand is `name`. The value's `at` tells how many of `total` units are done."""
    work = _WORK.get()
    here = Phase(work, name, total=total, unit=unit, at_most=at_most)
    if work is None:
        yield here
        return
    work.enter(here)
    try:
        yield here
    except BaseException:
        work.cut(here)
        raise
    work.leave(here)


def each(things: Iterable[T], name: str, unit: str) -> Iterator[T]:
    """The things, one after the other, as a phase that counts how many are done."""
    total = len(things) if isinstance(things, Sized) else 0
    with phase(name, total=total, unit=unit) as here:
        for done, thing in enumerate(things):
            yield thing
            here.at(done + 1)


def tell(
    stage: str,
    iteration: int | None = None,
    cost: float = math.nan,
    *,
    total: int = 0,
    unit: str = "",
    at_most: bool = False,
    **more: Any,
) -> None:
    """Report progress of the phase `stage`, which begins with its first report and ends with that of another one.

    Without an `iteration` the phase only begins. more: other fields of `Progress`.
    """
    work = _WORK.get()
    if work is None:
        return
    here = work.stack[-1] if work.stack else None
    if here is None or not here.loose or here.name != stage:
        if here is not None and here.loose:
            work.leave(here)
        counted = {"total": total, "unit": unit, "at_most": at_most}
        here = work.enter(Phase(work, stage, loose=True, **counted))
    if iteration is not None:
        here.at(iteration, cost, **more)


def earlier(seconds: float) -> None:
    """Count `seconds` of earlier sessions to the time of the run."""
    work = _WORK.get()
    if work is not None:
        work.began -= seconds
