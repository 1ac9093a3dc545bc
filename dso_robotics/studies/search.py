"""The search of a study: the descent loop, whose state goes into the run file as it moves on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dso_robotics.core.descent import Candidate, Last, Method, Moment, Result, descend
from dso_robotics.studies.checkpoint import Reading, columns, flatten, records, restore
from dso_robotics.studies.run import RunFile


def search(
    file: RunFile,
    method: Method,
    first: Any,
    record: type,
    *,
    iterations: int,
    stage: int = 0,
    keep: Last | None = None,
    watch: Callable[[Moment], bool | None] | None = None,
    survive: bool = False,
    spent: Callable[[Moment], Mapping[str, Any]] = lambda moment: {},
    blocks: Callable[[Any], Mapping[str, Any]] = lambda state: {},
    past: Sequence[Any] = (),
) -> Result:
    """Run `descend` from the state that `file` holds for this stage, or else from `first`. Store each moment that is due.

    record: the class of the method's records.
    survive: see `descend`.
    spent: returns further values to store with a moment. A resumed run finds them in `file.tree["spent"]`.
    blocks: returns theta by block, and anything else that describes a state to a reader.
    past: the records before `first`, which an earlier stage reached.
    """
    stored = file.tree if file.tree and file.count("stage") == stage else {}
    # Both states become plain numbers, so that a resumed run compiles the same program as an uninterrupted one.
    state = restore(first, stored.get("state") or flatten(first), file.path)
    past = records(record, stored.get("records", {}), file.path) if stored else list(past)
    if keep is not None and "best" in stored:
        best, taken = stored["best"], getattr(keep, "take", None)
        with Reading(file.path):
            kept = restore(taken(first), best["kept"], file.path) if taken is not None else None
            keep.best = Candidate(int(best["iteration"]), float(best["cost"]), kept)

    def hold(state: Any, history: Any, best: Candidate | None, more: Mapping[str, Any]) -> None:
        with Reading(file.path):  # of records of other shapes in the file
            table = columns(history)
        file.keep(state=flatten(state), records=table, spent={"stage": stage, **more}, **blocks(state))
        if best is not None:
            file.keep(best={"iteration": best.iteration, "cost": best.cost, "kept": flatten(best.kept)})

    latest: list[Moment] = []

    def checkpoint(moment: Moment) -> None:
        latest[:] = [moment]
        if file.due():
            hold(moment.state, moment.history, moment.best, spent(moment))
            file.write()

    if not stored:
        best = None if keep is None else keep.best
        hold(state, past, best, spent(Moment(state, past, None, best)))
        file.write()
    ends: dict[str, Any] = {"watch": watch, "checkpoint": checkpoint, "survive": survive}
    result = descend(method, state, iterations=iterations, past=past, keep=keep, **ends)
    if latest:
        hold(result.state, result.history, result.best, spent(latest[0]))
    return result
