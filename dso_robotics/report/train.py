"""The report of a training: costs, what they moved, learning curve, an episode on C MuJoCo, the robot before and after."""

import html
from collections.abc import Sequence
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.report import canvas
from dso_robotics.report.glimpse import Glimpse
from dso_robotics.report.loop_estimate import draw_estimate
from dso_robotics.report.quantity import number, unit
from dso_robotics.report.strip import strip
from dso_robotics.report.table import judge_line, method_line, steps_line
from dso_robotics.studies import folder as folders
from dso_robotics.studies.flow import ROLLOUTS
from dso_robotics.studies.train import Trained

_STYLE = (
    "body{font:15px sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}img{max-width:100%;height:auto}"
    "table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}"
    "td.n,th.n{text-align:right}figure{margin:1.5em 0}.warning{color:#a30}"
)


def write_report(found: Trained, folder: Path, *, video: bool = True) -> None:
    """Write report.html, which opens offline, and its figures to `folder`. With `video`, and if OpenGL works, also a film."""
    moves = found.task.rolls or bool(found.task.flow.moved.get("policy"))
    with Glimpse(folder, wanted=video and moves, episode=True) as glimpse:
        pictures = [curve(found)]
        if moves:
            pictures += [episode(found), *strips(found, folder)]
        if found.episodes[0].estimate is not None:
            robot = found.task.robot
            pictures.insert(2, draw_estimate(robot.mj, _joints(found), found.episodes[0]))
    for picture in pictures:
        picture.write(folder)
    figures = "".join(f'<figure><img src="{p.source}" alt="{html.escape(p.text)}"></figure>' for p in pictures)
    if glimpse.source:
        width, height = glimpse.size
        film = f'<img src="{glimpse.source}" width={width} height={height} alt="The episode as a film">'
        figures = f"<figure>{film}<figcaption>{html.escape(glimpse.text)}</figcaption></figure>{figures}"
    title = html.escape(f"dso {found.summary['command']}: {Path(found.task.study.model).name}")
    text = (
        f"<!doctype html><!-- {folders.MARK} -->"
        f"<meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"{_opening(found)}{_costs(found)}{_flow(found)}{_parameters(found)}{figures}"
    )
    folders.write_text(folder / folders.REPORT, text)


def _opening(found: Trained) -> str:
    """How it ended, the method and its reason, the cost on another robot, notes of the study, and warnings."""
    summary, notes = found.summary, found.task.notes
    lines = [summary["message"], method_line(summary), steps_line(summary)]
    if found.task.rolls:
        lines.append(f"cost at a quarter of the time step: {number(summary['cost']['quarter_timestep'])}")
    lines += [judge_line(summary), *notes]
    texts = "".join(f"<p>{html.escape(_sentence(line))}</p>" for line in lines if line)
    warnings = [text for text in summary["warnings"] if text not in notes]
    return texts + "".join(f"<p class=warning>{html.escape(text)}</p>" for text in warnings)


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _costs(found: Trained) -> str:
    """Every cost with its weight and its weighted value at the end."""
    summary, study = found.summary["cost"], found.task.study
    rows = []
    for name, value in (summary["terms"] | summary["supervised"]).items():
        cost = study.cost[name]
        how = " (balanced)" if cost.weight == "balance" else ""
        of = "an episode" if name in summary["terms"] else "a log" if getattr(cost, "log", None) else "theta"
        rows.append((name, str(cost.as_dict()["kind"]), of, number(summary["weights"][name]) + how, number(value)))
    table = _table("Costs", ("cost", "kind", "value of", "weight", "weighted value"), rows, "llllr")
    count = len(found.episodes)
    mean = f", mean of {count} episodes" if count > 1 else ""
    return table + (f"<p>Values of an episode are sums over its steps{mean}.</p>" if found.task.rolls else "")


def _flow(found: Trained) -> str:
    """Which costs move which block of theta."""
    task, motion = found.task, list(found.task.scene_cost.names)
    every = np.any([*task.flow.masks.values()], axis=0)
    rows = []
    for block in task.chain.layout.free:
        if not block.size:
            continue
        sources = task.flow.moved.get(block.name, ())
        count = int(every[task.chain.layout.where(block.name)].sum()) if sources else block.size
        texts = [", ".join(motion) if source == ROLLOUTS else source for source in sources]
        rows.append((block.name, str(count), ", ".join(texts) or "nothing; it stays as it started"))
    return _table("What moves what", ("block of theta", "numbers", "moved by"), rows, "lrl")


def _parameters(found: Trained) -> str:
    rows = [
        (name, number(p["initial"]), number(p["value"]), unit(p["unit"]), "at bound" if p["at_bound"] else "")
        for name, p in found.summary["parameters"].items()
    ]
    return _table("Physics, sensors and design", ("number", "start", "found", "unit", ""), rows, "lrrll")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A heading and a table, columns aligned "l" or "r"; nothing without rows."""
    if not rows:
        return ""
    sides = ["<{0} class=n>{1}" if side == "r" else "<{0}>{1}" for side in align]
    lines = ["".join(side.format("th", html.escape(cell)) for side, cell in zip(sides, head, strict=True))]
    lines += ["".join(s.format("td", html.escape(cell)) for s, cell in zip(sides, row, strict=True)) for row in rows]
    return f"<h2>{html.escape(title)}</h2><table>{''.join(f'<tr>{line}' for line in lines)}</table>"


def curve(found: Trained) -> canvas.Picture:
    """Cost of an episode on C MuJoCo over environment steps; without costs of the motion, the costs over iterations."""
    figure, axes = canvas.rows(2.4, 1)
    axis, history, rolls = axes[0, 0], found.history, found.task.rolls
    iterations = np.insert(history["iteration"], 0, 0)
    places = np.insert(history["steps"], 0, 0) if rolls else iterations
    costs = np.insert(history["episode_cost"], 0, found.summary["cost"]["before"])
    axis.plot(places, costs, marker=".")
    at, last = found.summary["kept"]["iteration"], f"last {history['episode_cost'][-1]:.4g}"
    if at < history["iteration"][-1]:
        look = int(np.flatnonzero(iterations == at)[0])
        axis.plot(places[look], costs[look], "o", markersize=9, markerfacecolor="none", color=canvas.PALETTE[1])
        last = f"kept {costs[look]:.4g}, {last}"
    if not rolls:
        canvas.title(axis, "sum of the weighted costs", last)
        canvas.label(axis, x="iteration", y="cost", inches=(0.24, 0.5))
        return canvas.picture(figure, "training.png", "Sum of the costs over the iterations of the training")
    noise = "noise" if found.task.chain.sensing is None else "noise of the actions"
    canvas.title(axis, f"cost of an episode on C MuJoCo, without {noise}", last)
    canvas.label(axis, x="environment steps", y="cost", inches=(0.24, 0.5))
    return canvas.picture(figure, "training.png", "Cost of an episode over the steps of the training")


def episode(found: Trained) -> canvas.Picture:
    """Positions, controls and, with costs of the motion, cost terms of the first episode after training."""
    last, task = found.episodes[0], found.task
    names = _joints(found)
    first = [int(task.robot.mj.jnt_qposadr[j]) for j in range(len(names))]
    rows = [
        ("positions [m, rad]", last.time, last.qpos[:, first], names),
        ("controls", last.time[1:], last.ctrl, [n or str(i) for i, n in enumerate(task.robot.names("actuator"))]),
    ]
    if task.rolls:
        rows.append(("cost by term", last.time[1:], last.terms, list(task.scene_cost.names)))
    figure, axes = canvas.rows(1.7, len(rows))
    for axis, (text, time, values, labels) in zip(axes[:, 0], rows, strict=True):
        for k, name in enumerate(labels[:6]):
            axis.plot(time, values[:, k], linewidth=1.0, color=canvas.PALETTE[k % len(canvas.PALETTE)], label=name)
        axis.legend(fontsize=canvas.SMALL, frameon=False, ncols=6, loc="upper right")
        canvas.title(axis, text)
    canvas.label(axes[-1, 0], x="time [s]", inches=(0.24, 0.5))
    what = "Positions, controls and cost" if task.rolls else "Positions and controls"
    return canvas.picture(figure, "episode.png", f"{what} of an episode after training")


def _joints(found: Trained) -> list[str]:
    return [name or f"joint {i}" for i, name in enumerate(found.task.robot.names("joint"))]


def strips(found: Trained, folder: Path) -> list[canvas.Picture]:
    """Frames of the robot before and after training, twelve moments each."""
    task = found.task
    after = (
        mujoco.MjModel.from_xml_path(str(folder / folders.MODEL)) if task.chain.mechanism is not None else task.robot.mj
    )
    return [
        strip(task.robot.mj, found.before.time, found.before.qpos, "before", "before training"),
        strip(after, found.episodes[0].time, found.episodes[0].qpos, "after", "after training"),
    ]
