"""Rounding: from numbers in between to values that there are, after a search that passed over what lies between them.

Combinations near what the search found are played with its policy. The best of them go on to be trained, with what was rounded
held. What the search found is kept beside the result, so that the loss is known.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.descent import Best, descend
from dso_robotics.core.method.learner import Learner
from dso_robotics.physics.design.choice import Choice
from dso_robotics.progress.phase import phase
from dso_robotics.studies.checkpoint import flatten, restore
from dso_robotics.studies.run import RunFile
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.train_summary import ranked
from dso_robotics.studies.trained_robot import mechanism_numbers

# Combinations that are ranked by distance, at most.
_RANKED = 4096
# Share of the gain of a search that rounding may take without a word.
_DEAR = 0.05
# How often a training after rounding looks at episodes.
_LOOKS = 5

Judge = Callable[[Any, Any], tuple[float, float]]
"""theta and scaling -> the cost that is reported, infinite where there is none, and by how much limits are broken."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rounded:
    """theta (n,) and the scaling with all choices made, and what summary.json says of it."""

    theta: np.ndarray
    scaling: Any
    told: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Tried:
    """A combination: its options, theta, and how it came off; `cost` with the policy of the search."""

    options: tuple[int, ...]
    theta: np.ndarray
    cost: float
    broken: float


def choices(task: Task) -> tuple[Choice, ...]:
    """The numbers of a task that can have a few values only."""
    mechanism = task.chain.mechanism
    return () if mechanism is None or mechanism.design is None else mechanism.design.choices


def round_choices(
    task: Task,
    theta: np.ndarray,
    scaling: Any,
    ended: Any,
    judge: Judge,
    method: Any,
    method_of: Callable[[Task, Any], Any],
    file: RunFile,
) -> Rounded:
    """Round what a search found.

    theta, scaling: what is kept of it.
    ended: the state in which it ended, whose critic goes on.
    method: that of the search.
    method_of: makes the training method of a task like another one for the same chain.
    file: the run file, which keeps what was trained here.
    """
    found, settings = choices(task), task.study.rounding
    numbers = _numbers(task, theta)
    before = judge(theta, scaling)
    with phase("rounding: combinations, on C MuJoCo"):
        tried = []
        for options in _near(found, numbers, settings.tried):
            at = _with(task, theta, found, options)
            tried.append(_Tried(options, at, *judge(at, scaling)))
    nearest, ranked = tried[0], sorted(tried, key=lambda one: (one.broken, one.cost))
    tuned: dict[tuple[int, ...], tuple[np.ndarray, Any, float, float]] = {}
    iterations = max(round(settings.share * task.windows.iterations), 1)
    if settings.tuned and isinstance(ended, Learner) and math.isfinite(ranked[0].cost):
        again = _Again(task, scaling, ended, judge, method, method_of, iterations, file)
        for one in ranked[: settings.tuned]:
            if math.isfinite(one.cost):
                tuned[one.options] = again(one.theta, _told(found, one.options))
    results = [(t.broken, t.cost, t.theta, scaling, t.options) for t in tried]
    results += [(t[3], t[2], t[0], t[1], options) for options, t in tuned.items()]
    best = min(results, key=lambda row: row[:2])
    rows = [
        {
            "numbers": dict(zip(_names(found), map(float, _values(found, one.options)), strict=True)),
            "label": _told(found, one.options),
            "cost": one.cost,
            "tuned": tuned[one.options][2] if one.options in tuned else None,
            "meets_limits": (tuned[one.options][3] if one.options in tuned else one.broken) == 0.0,
            "chosen": one.options == best[4],
        }
        for one in tried
    ]
    told = {
        "searched": {"numbers": dict(zip(_names(found), map(float, numbers), strict=True)), "cost": before[0]},
        "nearest": {"label": _told(found, nearest.options), "cost": nearest.cost},
        "chosen": {"label": _told(found, best[4]), "cost": best[1]},
        "loss": nearest.cost - before[0],
        "loss_after_training": best[1] - before[0],
        "iterations": iterations * len(tuned),
        "tried": rows,
    }
    return Rounded(best[2], best[3], told)


class _Again:
    """Trains on from a rounded theta, with the rounded numbers held. The step is compiled once for all."""

    def __init__(
        self,
        task: Task,
        scaling: Any,
        ended: Learner,
        judge: Judge,
        method: Any,
        method_of: Callable[[Task, Any], Any],
        iterations: int,
        file: RunFile,
    ):
        self._task, self._scaling, self._ended = task, scaling, ended
        self._judge, self._iterations, self._file = judge, iterations, file
        self._held, self._method_of = held(task, iterations), method_of
        self._search: Any = method
        self._method: Any = None

    def __call__(self, theta: np.ndarray, label: str) -> tuple[np.ndarray, Any, float, float]:
        """The best theta of this training, its scaling, its cost, and by how much limits are broken."""
        template = {"theta": jnp.asarray(theta), "scaling": self._scaling, "cost": 0.0, "broken": 0.0}
        key = f"{label} after {int(self._ended.iteration)}"
        stored = dict(self._file.kept("rounding") or {})
        if key in stored:
            kept = restore(template, stored[key], self._file.path)
            return np.asarray(kept["theta"]), kept["scaling"], float(kept["cost"]), float(kept["broken"])
        with phase(f"training with {label}"):
            if self._method is None:
                self._method = self._method_of(self._held, self._search)
                state = self._begun(theta)
                self._method.compile(state)
            keep = Best(
                self._score, every=max(self._iterations // _LOOKS, 1), take=lambda state: (state.theta, state.memory)
            )
            result = descend(self._method, self._begun(theta), iterations=self._iterations, keep=keep, survive=True)
        assert result.best is not None or keep.best is None
        best = keep.best
        end, scaling = (jnp.asarray(theta), self._scaling) if best is None else best.kept
        cost, broken = self._judge(np.asarray(end), scaling)
        found = {"theta": end, "scaling": scaling, "cost": cost, "broken": broken}
        self._file.keep(rounding={**stored, key: flatten(found)})
        self._file.write()
        return np.asarray(end), scaling, cost, broken

    def _begun(self, theta: np.ndarray) -> Learner:
        """A new learner with the critic and the scaling of the search, late in its schedule."""
        # The search's own function, which is compiled: no learner begins with what is held.
        fresh, old = self._search.init(jax.random.key(self._task.study.seed), jnp.asarray(theta)), self._ended
        return dataclasses.replace(
            fresh,
            critic=old.critic,
            slow=old.slow,
            critic_optimiser=old.critic_optimiser,
            critic_scale=old.critic_scale,
            memory=self._scaling,
            iteration=old.iteration,
        )

    def _score(self, state: Any) -> float:
        return ranked(*self._judge(np.asarray(state.theta), state.memory))


def held(task: Task, more: int) -> Task:
    """The task with the numbers of its choices held, and `more` iterations at the end of its schedule."""
    layout, names = task.chain.layout, [name for choice in choices(task) for name in choice.names]
    where = layout.where("design")
    block = next(b for b in layout.free if b.name == "design")
    free = np.ones(layout.size, bool)
    free[where] = [name not in names for name in block.names]
    flow = dataclasses.replace(task.flow, masks={name: mask & free for name, mask in task.flow.masks.items()})
    apart = {name: dataclasses.replace(cost, moved=cost.moved & free) for name, cost in task.supervised.items()}
    windows = dataclasses.replace(task.windows, iterations=task.windows.iterations + more)
    return dataclasses.replace(task, flow=flow, supervised=apart, windows=windows)


def _near(found: Sequence[Choice], numbers: np.ndarray, count: int) -> Iterator[tuple[int, ...]]:
    """The `count` combinations of options nearest to `numbers`, the nearest first."""
    parts, at = [], 0
    for choice in found:
        own = numbers[at : at + len(choice.names)]
        parts.append((choice.near(own), choice.distance(own)))
        at += len(choice.names)
    widths = [min(len(order), count) for order, _ in parts]
    while math.prod(widths) > _RANKED and max(widths) > 1:
        widths[int(np.argmax(widths))] -= 1
    rows = itertools.product(*(order[:width] for (order, _), width in zip(parts, widths, strict=True)))
    ranked = sorted(rows, key=lambda row: sum(away[i] for (_, away), i in zip(parts, row, strict=True)))
    for row in ranked[:count]:
        yield tuple(map(int, row))


def _names(found: Sequence[Choice]) -> list[str]:
    return [name for choice in found for name in choice.names]


def _values(found: Sequence[Choice], options: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([choice.options[i] for choice, i in zip(found, options, strict=True)])


def _told(found: Sequence[Choice], options: tuple[int, ...]) -> str:
    """A combination in words: of a motor its name and gear, of other numbers their names and values."""
    parts = [(choice, choice.labels[i]) for choice, i in zip(found, options, strict=True)]
    return "; ".join(f"{choice.names[0].rpartition('/')[0]} {label}" for choice, label in parts)


def _numbers(task: Task, theta: np.ndarray) -> np.ndarray:
    """The numbers of all choices at theta."""
    mechanism: Any = task.chain.mechanism
    z = mechanism_numbers(task, theta)
    return np.array([z[mechanism.names.index(name)] for name in _names(choices(task))])


def _with(task: Task, theta: np.ndarray, found: Sequence[Choice], options: tuple[int, ...]) -> np.ndarray:
    """theta (n,) with the numbers of a combination."""
    layout, here = task.chain.layout, np.array(theta)
    block, at = next((b, at) for b, at in layout.places() if b.name == "design")
    design = np.asarray(layout.values(here)["design"], float).copy()
    design[[block.names.index(name) for name in _names(found)]] = _values(found, options)
    moved = dataclasses.replace(block, initial=design).start(layout.chart)
    # Of the others not even the last digit changes.
    mine = np.array([name in _names(found) for name in block.names])
    here[at] = np.where(mine, moved, here[at])
    return here


def rounding_doubts(summary: Mapping[str, Any]) -> list[str]:
    """A sentence where rounding took much of what the search had gained."""
    rounding, before = summary["rounding"], summary["cost"]["before"]
    gain, loss = before - rounding["searched"]["cost"], rounding["loss_after_training"]
    if not loss > _DEAR * max(gain, 0.0):
        return []
    of = f", {100 * loss / gain:.0f}% of what the search had gained" if gain > 0 else ""
    return [
        f"Rounding raised the cost of an episode by {loss:.4g}{of}: with values in between it would be "
        f"{rounding['searched']['cost']:.4g}. Give more values to choose from, or [rounding] with more "
        "`tuned` and a larger `share`."
    ]
