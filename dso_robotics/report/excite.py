"""The plan of `dso excite` as text and as a film."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.report.film import Film
from dso_robotics.report.replay import Replay, bright
from dso_robotics.report.table import columns
from dso_robotics.studies.excite import Plan

# What each aim makes small, as the beginning of a sentence.
_GAINS = {
    "d": "a typical axis of the ellipsoid of confidence is",
    "a": "the mean square interval is",
    "e": "the longest axis of the ellipsoid of confidence is",
    "widest": "the widest interval is",
    "halve": "the widest interval is",
}


def plan_table(summary: Mapping[str, Any]) -> str:
    """Values with the half-widths of their intervals before and after, what stays invisible, and how the search went."""
    rows = [("parameter", "value", "95% interval before", "after the plan", "narrower", "unit")]
    hidden = []
    for name, p in summary["parameters"].items():
        before, after = p["half_width_before"], p["half_width_after"]
        gain = f"{before / after:.3g} times" if before and after else ""
        rows.append((name, f"{p['value']:.4g}", half_width(before), half_width(after), gain, p["unit"]))
        if not p["visible"]:
            hidden.append(f"stays invisible: {name}: {p['why_not']}.")
    blocks = [columns(rows, "<>>>><")]
    if hidden:
        blocks.append("\n".join(hidden))
    lines = []
    for name, run in summary["runs"].items():
        beside = ""
        if run["narrower_than_random"] and run["random_motions"]:
            beside = (
                f"; {_GAINS[summary['study']['aim']]} {run['narrower_than_random']:.3g} times smaller than with the median of "
                f"{run['random_motions']} random motions within the same limits"
            )
        lines.append(f"run {name}: {summary['seconds']:g} s, {run['trials']} motions tried, {run['message']}{beside}")
    blocks.append("\n".join(lines))
    more = [f"note: {text}" for text in summary["notes"]]
    return "\n\n".join([*blocks, *(["\n".join(more)] if more else [])])


def half_width(value: float | None) -> str:
    """Half of an interval as text."""
    return "unknown" if value is None or not math.isfinite(value) else f"± {value:.3g}"


def film_plan(plan: Plan, path: str | Path, *, index: int = 0) -> None:
    """Write a film of the expected motion of one run.

    Raises:
      DsoError: the format cannot be written here, or no OpenGL works here.
    """
    run, model = plan.runs[index], bright(plan.robot)
    poses = run.path[:, : model.nq]
    text = f"run {run.name} of the plan, as expected"
    replay = Replay(model, "plan", run.name, plan.time, np.full_like(poses, np.nan), poses, plan.time[:1], text, text)
    Film(legend=text).shoot(replay, path)
