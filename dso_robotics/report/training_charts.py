"""Charts of a training: its learning curve, the costs behind it, and an episode."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dso_robotics.report.chart import Chart, Line
from dso_robotics.report.quantity import number
from dso_robotics.robot.play import Episode

# Lines in one chart, at most; more go to further charts.
_MOST_LINES = 7


def learning_charts(
    history: Mapping[str, np.ndarray], before: float, kept: int, *, rolls: bool, noise: str
) -> list[Chart]:
    """The cost over the training, and what it consists of.

    before: the cost before the first iteration. kept: the iteration whose numbers were kept.
    rolls: whether the costs are of episodes. noise: what the evaluated episodes are without.
    """
    iterations = np.insert(history["iteration"], 0, 0)
    places = np.insert(history["steps"], 0, 0) if rolls else iterations
    costs = np.insert(np.asarray(history["episode_cost"], float), 0, before)
    costs = np.where(np.isfinite(costs), costs, np.nan)
    at = int(np.flatnonzero(iterations == kept)[-1]) if kept in iterations else len(costs) - 1
    one = np.full(len(costs), np.nan)
    one[at] = costs[at]
    # The costs above are of further episodes, so they differ a little.
    title = (
        f"cost of one episode on C MuJoCo, without {noise}, as the training looked at it"
        if rolls
        else "sum of the weighted costs"
    )
    x_label = "environment steps" if rolls else "iteration"
    remark = f"kept {number(costs[at])}" + ("" if at == len(costs) - 1 else f", last {number(costs[-1])}")
    lines = [Line("cost", costs, "p0"), Line("kept", one, "p1", "dots")]
    charts = [Chart(title, places.astype(float), lines, x_label, remark=remark, height=220, group="training")]
    if not rolls or not len(history["iteration"]):
        return charts
    more: dict[str, Any] = {"x": places[1:].astype(float), "x_label": x_label, "group": "training"}
    for name, text, scale in (
        ("training_cost", "cost of a step of the training, with noise", "linear"),
        ("gradient_norm", "length of the gradient", "log"),
    ):
        values = history.get(name)
        if values is not None and np.isfinite(values).any():
            scale = scale if np.nanmax(values) > 0 else "linear"
            charts.append(
                Chart(text, lines=[Line(text, np.asarray(values, float), "p2")], scale=scale, height=140, **more)
            )
    terms = {name.removeprefix("term "): values for name, values in history.items() if name.startswith("term ")}
    if len(terms) > 1:
        charts += _together("cost of a step of the training by term", terms, "", height=180, **more)
    return charts


def episode_charts(
    episode: Episode, positions: Mapping[str, int], actuators: Sequence[str], terms: Sequence[str]
) -> list[Chart]:
    """Positions (by name, and their place in qpos), controls and cost terms of an episode; no costs without names of terms."""
    more: dict[str, Any] = {"x_label": "time [s]", "group": "episode"}
    shown = {name: episode.qpos[:, at] for name, at in positions.items()}
    charts = _together("positions", shown, "m, rad", x=episode.time, **more)
    controls = {name: episode.ctrl[:, k] for k, name in enumerate(actuators)}
    charts += _together("controls", controls, "", x=episode.time[1 : len(episode.ctrl) + 1], **more)
    costs = {name: episode.terms[:, k] for k, name in enumerate(terms)}
    return charts + _together("cost of a step by term", costs, "", x=episode.time[1 : len(episode.terms) + 1], **more)


def _together(
    title: str, lines: Mapping[str, np.ndarray], unit: str, *, x: np.ndarray, height: int = 170, **more
) -> list[Chart]:
    """Charts of many lines, a few in each."""
    names = list(lines)
    pieces = [names[i : i + _MOST_LINES] for i in range(0, len(names), _MOST_LINES)]
    return [
        Chart(
            title if len(pieces) == 1 else f"{title}, {k + 1} of {len(pieces)}",
            x,
            [Line(name, np.asarray(lines[name], float), f"p{i}") for i, name in enumerate(piece)],
            unit=unit,
            height=height,
            **more,
        )
        for k, piece in enumerate(pieces)
    ]
