"""Window length and friction law, chosen by cross-validation over the runs that are fitted; held-out runs have no say.

Each candidate is fitted to some of these runs and predicts the others, open loop over windows of one length. Each window starts
at the state that suits it best, so that noise of the start states hides no difference. Of candidates that predict alike, the
simpler one is taken: the fewer terms, or the window nearest to what was asked for.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.problems import median_interval
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.studies.checkpoint import Reading
from dso_robotics.studies.evaluate import Evaluation
from dso_robotics.studies.friction_law import LAWS, moved_joints, with_law
from dso_robotics.studies.study import CHOICES, FULL, IdentifyStudy

# Lengths that are tried [s], and least samples in a window.
_WINDOWS, _SAMPLES = (0.25, 0.5, 1.0, 2.0, 4.0, math.inf), 10
# Most folds, and the pieces that a single run is cut into.
_FOLDS, _PIECES = 4, 4
# Length of the windows that are predicted, unless the study says one [s], as far as the runs allow.
_SCORED = 2.0
# Errors are alike if their difference is less than this many of its standard errors, or than this share.
_NOISE, _ALIKE = 1.0, 0.01

Fit = Callable[[IdentifyStudy, Log], dict[str, Evaluation]]


@dataclasses.dataclass(frozen=True)
class Tried:
    """One candidate: its label, the study with it, how many terms it has, and its log errors by fold (F,), NaN if it failed."""

    label: str
    study: IdentifyStudy
    terms: float
    score: np.ndarray

    @property
    def percent(self) -> float:
        """Geometric mean of the errors over the spread of the channels [%]."""
        return float(np.exp(self.score.mean()))


def choose(study: IdentifyStudy, log: Log, fit: Fit, tell: Callable[[int, float], None]) -> dict[str, Any]:
    """The table of what was tried and what was best, as in summary.json; `chosen_study` applies it.

    log: the runs to fit. fit: identifies and returns the errors of "hold_out".

    Raises:
      DsoError: the runs are too short, or each candidate fails.
    """
    if any(declaration.path.startswith("log/") for declaration in study.free):
        raise DsoError(
            "--choose: a number that differs between recordings has no value for the others; leave out log/."
        )
    parts = _parts(log)
    shortest = min(float(r.time[-1] - r.time[0]) for r in parts)
    scored = study.score_window or min(_SCORED, shortest / 2)
    outcome: dict[str, Any] = {
        "score_seconds": scored,
        "folds": min(len(parts), _FOLDS),
        "pieces": parts != log.rollouts,
    }
    count = 0
    asked = [part.strip() for part in (study.choose or "").split(",")]
    for what in CHOICES:
        if what not in asked:
            continue
        tried = []
        base = dataclasses.replace(study, choose=None, score_window=scored, starts=1, warm_start=False)
        for label, candidate, terms in _candidates(what, base, parts, asked):
            tried.append(Tried(label, candidate, terms, _score(candidate, log, parts, fit)))
            count += 1
            tell(count, tried[-1].percent)
        chosen, alike = _best(tried, what, study)
        outcome[what] = {
            "tried": [{"label": t.label, "error_percent": t.percent, "alike": t in alike} for t in tried],
            "chosen": chosen.label,
            "warnings": _warnings(what, tried, chosen, alike, scored),
        }
        study = dataclasses.replace(study, window=chosen.study.window) if what == "window" else study
    return outcome


def chosen_study(study: IdentifyStudy, outcome: dict[str, Any]) -> IdentifyStudy:
    """`study` with what `outcome`, the table of `choose`, says was chosen."""
    if "window" in outcome:
        label = outcome["window"]["chosen"]
        study = dataclasses.replace(study, window=math.inf if label == FULL else float(label.removesuffix(" s")))
    if "friction" in outcome:
        study = with_law(study, moved_joints(study), LAWS[outcome["friction"]["chosen"]])
    return study


def stored_choice(group: Any, study: IdentifyStudy, path: Path) -> dict[str, Any]:
    """The table of `choose` as the run file at `path` keeps it. Raises DsoError if it is damaged."""
    with Reading(path):
        found = json.loads(group["outcome"])
        numbers = {"score_seconds": float(found["score_seconds"]), "folds": int(found["folds"])}
        table = {what: _of(found[what]) for what in CHOICES if what in found}
        chosen_study(study, table)
        return {**numbers, "pieces": bool(found["pieces"]), **table}


def _of(found: Any) -> dict[str, Any]:
    rows = [
        {"label": str(t["label"]), "error_percent": float(t["error_percent"]), "alike": bool(t["alike"])}
        for t in found["tried"]
    ]
    chosen = str(found["chosen"])
    if chosen not in {row["label"] for row in rows}:
        raise ValueError(f"{chosen!r} was chosen and not tried")
    return {"tried": rows, "chosen": chosen, "warnings": [str(text) for text in found["warnings"]]}


def _parts(log: Log) -> tuple[Rollout, ...]:
    """The runs, or a single run in pieces."""
    whole, *others = log.rollouts
    if others:
        return log.rollouts
    ends = np.linspace(0, len(whole.time), _PIECES + 1).astype(int)
    if ends[1] < 2 * _SAMPLES:
        raise DsoError(
            f"{log.label}: --choose: the only run has {len(whole.time)} samples, too few to cut it in pieces."
        )
    found = []
    for k, (a, b) in enumerate(itertools.pairwise(ends)):
        arrays = {kind: getattr(whole, kind) for kind in ("time", "ctrl", "sensordata", "qpos", "qvel")}
        cut = {kind: values[a:b] for kind, values in arrays.items() if values is not None}
        found.append(dataclasses.replace(whole, name=f"{whole.name}[{k + 1}]", **cut))
    return tuple(found)


def _candidates(
    what: str, study: IdentifyStudy, parts: Sequence[Rollout], asked: Sequence[str]
) -> Iterator[tuple[str, IdentifyStudy, float]]:
    """Label, study and number of terms of each candidate."""
    if what == "friction":
        joints = moved_joints(study)
        for law, terms in LAWS.items():
            yield law, with_law(study, joints, terms), len(terms)
        return
    if "friction" in asked:
        # With the richest law, so that no window is blamed for what the law lacks.
        study = with_law(study, moved_joints(study), list(LAWS.values())[-1])
    shortest = min(float(r.time[-1] - r.time[0]) for r in parts)
    interval = max(median_interval(r) for r in parts)
    for seconds in sorted({*_WINDOWS, study.window} - {0.0}):
        if math.isinf(seconds) or _SAMPLES * interval <= seconds <= shortest / 2:
            label = FULL if math.isinf(seconds) else f"{seconds:g} s"
            yield (
                label,
                dataclasses.replace(study, window=seconds),
                abs(math.log(min(seconds, shortest) / min(study.window, shortest))),
            )


def _score(study: IdentifyStudy, log: Log, parts: Sequence[Rollout], fit: Fit) -> np.ndarray:
    """Mean over channels of the logarithm of the error over the spread [%], by fold (F,)."""
    folds = min(len(parts), _FOLDS)
    found = np.full(folds, np.nan)
    for k in range(folds):
        held = ",".join(part.name for part in parts[k::folds])
        try:
            errors = fit(dataclasses.replace(study, hold_out=held), dataclasses.replace(log, rollouts=tuple(parts)))[
                "hold_out"
            ]
        except DsoError:
            continue
        seen = np.isfinite(errors.nrmse_percent) & (errors.nrmse_percent > 0)
        if seen.any():
            found[k] = np.log(errors.nrmse_percent[seen]).mean()
    return found


def _best(tried: Sequence[Tried], what: str, study: IdentifyStudy) -> tuple[Tried, list[Tried]]:
    """The chosen candidate, and all that predict like the best one."""
    usable = [t for t in tried if np.isfinite(t.score).all()]
    if not usable:
        raise DsoError(
            f"--choose {what}: no candidate could be fitted in every fold; identify without --choose to see why, or give other "
            "start values."
        )
    best = min(usable, key=lambda t: t.score.mean())
    alike = []
    for t in usable:
        apart = t.score - best.score
        error = apart.std(ddof=1) / np.sqrt(len(apart)) if len(apart) > 1 else 0.0
        if apart.mean() <= max(_NOISE * error, math.log(1 + _ALIKE)):
            alike.append(t)
    return min(alike, key=lambda t: (t.terms, t.score.mean())), alike


def _warnings(what: str, tried: Sequence[Tried], chosen: Tried, alike: Sequence[Tried], seconds: float) -> list[str]:
    found = []
    # A law with more terms always predicts alike if the simpler one is right.
    mine = set(LAWS[chosen.label]) if what == "friction" else set()
    others = [t.label for t in alike if t is not chosen and not (mine and mine < set(LAWS[t.label]))]
    name = {"window": "window", "friction": "friction law"}[what]
    if others:
        why = "nearest to what was asked" if what == "window" else "simplest"
        found.append(
            f"--choose {what}: {chosen.label} was taken as the {why}; {', '.join(others)} "
            f"{'is' if len(others) == 1 else 'are'} no worse within noise, over {seconds:g} s. Longer or more runs would tell "
            "them apart."
        )
    lengths = [t for t in tried if np.isfinite(t.score).all()]
    if not others and what == "window" and chosen in (lengths[0], lengths[-1]) and chosen.label != FULL:
        side = "shortest" if chosen is lengths[0] else "longest"
        found.append(
            f"--choose window: {chosen.label} is the {side} that was tried, so the best {name} may lie beyond it."
        )
    if what == "friction" and len(alike) == 1 and chosen is lengths[-1]:
        found.append(
            f"--choose friction: the richest law, {chosen.label}, is clearly the best, so the joints may have friction that "
            "none of these describes, such as one that grows with load or falls with speed."
        )
    failed = [t.label for t in tried if not np.isfinite(t.score).all()]
    if failed:
        found.append(
            f"--choose {what}: {', '.join(failed)} could not be fitted or predicted in every fold and had no chance."
        )
    return found
