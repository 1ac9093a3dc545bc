"""The report of a training: learning curve, an episode on C MuJoCo, frames of the robot before and after."""

import html
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.report import canvas
from dso_robotics.report.glimpse import Glimpse
from dso_robotics.report.strip import strip
from dso_robotics.studies import folder as folders
from dso_robotics.studies.train import Trained


def write_report(found: Trained, folder: Path, *, video: bool = True) -> None:
    """Write report.html, which opens offline, and its figures to `folder`. With `video`, and if OpenGL works, also a film."""
    with Glimpse(folder, wanted=video, episode=True) as glimpse:
        pictures = [curve(found), episode(found), *strips(found, folder)]
    for picture in pictures:
        picture.write(folder)
    summary = found.summary
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{row['initial']:.5g}<td>{row['value']:.5g}<td>{html.escape(row['unit'])}"
        f"<td>{'at bound' if row['at_bound'] else ''}"
        for name, row in summary["parameters"].items()
    )
    table = f"<h2>Mechanism</h2><table><tr><th>number<th>start<th>found<th>unit<th>{rows}</table>" if rows else ""
    warnings = "".join(f"<p class=warning>{html.escape(text)}</p>" for text in summary["warnings"])
    figures = "".join(f'<figure><img src="{p.source}" alt="{html.escape(p.text)}"></figure>' for p in pictures)
    if glimpse.source:
        width, height = glimpse.size
        film = f'<img src="{glimpse.source}" width={width} height={height} alt="The episode as a film">'
        figures = f"<figure>{film}<figcaption>{html.escape(glimpse.text)}</figcaption></figure>{figures}"
    terms = ", ".join(f"{html.escape(n)} {v:.4g}" for n, v in summary["cost"]["terms"].items())
    title = html.escape(f"dso {summary['command']}: {Path(found.task.study.model).name}")
    text = (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>body{{font:15px sans-serif;max-width:62em;margin:2em "
        "auto;padding:0 1em;color:#222}img{max-width:100%}td,th{padding:.15em .8em;text-align:left}.warning{color:#a30}</style>"
        f"<h1>{title}</h1><p>{html.escape(summary['message'])}. {summary['environment_steps']:,} environment steps, "
        f"{summary['seconds']['compile']:.0f} s compiling. At a quarter of the time step: "
        f"{summary['cost']['quarter_timestep']:.4g}. Cost by term: {terms}.</p>{warnings}{table}{figures}"
    )
    folders.write_text(folder / folders.REPORT, text)


def curve(found: Trained) -> canvas.Picture:
    """Cost of an episode on C MuJoCo over environment steps."""
    figure, axes = canvas.rows(2.4, 1)
    axis, history = axes[0, 0], found.history
    iterations, steps = np.insert(history["iteration"], 0, 0), np.insert(history["steps"], 0, 0)
    costs = np.insert(history["episode_cost"], 0, found.before.cost)
    axis.plot(steps, costs, marker=".")
    at, last = found.summary["kept"]["iteration"], f"last {history['episode_cost'][-1]:.4g}"
    if at < history["iteration"][-1]:
        look = int(np.flatnonzero(iterations == at)[0])
        axis.plot(steps[look], costs[look], "o", markersize=9, markerfacecolor="none", color=canvas.PALETTE[1])
        last = f"kept {costs[look]:.4g}, {last}"
    canvas.title(axis, "cost of an episode on C MuJoCo, without noise", last)
    canvas.label(axis, x="environment steps", y="cost", inches=(0.24, 0.5))
    return canvas.picture(figure, "training.png", "Cost of an episode over the steps of the training")


def episode(found: Trained) -> canvas.Picture:
    """Positions, controls and cost of the first episode after training."""
    last, task = found.episodes[0], found.task
    names = [n or f"joint {i}" for i, n in enumerate(task.robot.names("joint"))]
    figure, axes = canvas.rows(1.7, 3)
    first = [int(task.robot.mj.jnt_qposadr[j]) for j in range(len(names))]
    rows = (
        ("positions [m, rad]", last.time, last.qpos[:, first], names),
        ("controls", last.time[1:], last.ctrl, [n or str(i) for i, n in enumerate(task.robot.names("actuator"))]),
        ("cost by term", last.time[1:], last.terms, list(task.scene_cost.names)),
    )
    for axis, (text, time, values, labels) in zip(axes[:, 0], rows, strict=True):
        for k, name in enumerate(labels[:6]):
            axis.plot(time, values[:, k], linewidth=1.0, color=canvas.PALETTE[k % len(canvas.PALETTE)], label=name)
        axis.legend(fontsize=canvas.SMALL, frameon=False, ncols=6, loc="upper right")
        canvas.title(axis, text)
    canvas.label(axes[-1, 0], x="time [s]", inches=(0.24, 0.5))
    return canvas.picture(figure, "episode.png", "Positions, controls and cost of an episode after training")


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
