"""The figure of a training's estimator: true and estimated state over an episode, and the estimation error."""

from typing import Any

import mujoco
import numpy as np

from dso_robotics.report import canvas
from dso_robotics.report.quantity import listed
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.play import Episode

_MOST = 4
_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
# Distance of axis labels from the frame [inches]: below, left.
_LABELS = (0.24, 0.5)


def draw_estimate(model: mujoco.MjModel, names: list[str], episode: Episode) -> canvas.Picture:
    """A row for each of the first degrees of freedom, position left and velocity right, and a row of their errors.

    names: of the model's joints.
    """
    assert episode.estimate is not None
    nv, space = int(model.nv), Space(model)
    labels, units, offset = degrees_of_freedom(model, names)
    shown = range(min(nv, _MOST))
    width = model.nq + nv
    true = np.concatenate([episode.qpos, episode.qvel, episode.estimate[:, width:]], axis=1)
    reference = np.concatenate([model.qpos0, np.zeros(nv + model.na)])
    error = space.difference(true, episode.estimate)
    figure, axes = canvas.rows(1.45, len(shown) + 1, (1.0, 1.0), top=0.72)
    for column, (what, rate) in enumerate((("position", ""), ("velocity", "/s"))):
        for i in shown:
            axis, k = axes[i, column], column * nv + i
            shift = offset[i] if column == 0 else 0.0
            for values, line, colour, text in (
                (true, "-", canvas.GREY, "true"),
                (episode.estimate, "--", canvas.INK, "estimated"),
            ):
                tangent = space.difference(np.broadcast_to(reference, values.shape), values)[:, k] + shift
                axis.plot(*canvas.thin(episode.time, tangent), line, color=colour, linewidth=1.4, label=text)
            canvas.title(axis, f"{labels[i]}, {what} [{units[i]}{rate}]")
        axis, sizes = axes[-1, column], []
        for i in shown:
            values, colour = error[:, column * nv + i], canvas.PALETTE[i]
            axis.plot(*canvas.thin(episode.time, values), color=colour, linewidth=1.0, label=f"error, {labels[i]}")
            sizes.append(f"{np.sqrt(np.mean(values**2)):.2g}")
        every = list(dict.fromkeys(f"{units[i]}{rate}" for i in shown))
        canvas.title(axis, f"estimated minus true, {what} [{', '.join(every)}]", f"rms {', '.join(sizes)}")
        axis.axhline(0, color=canvas.INK, linewidth=0.6)
        canvas.label(axis, x="time [s]", inches=_LABELS)
    lines = [axis.get_legend_handles_labels() for axis in (axes[0, 0], axes[-1, 0])]
    canvas.legend(figure, *(a + b for a, b in zip(*lines, strict=True)))
    who = listed([labels[i] for i in shown])
    return canvas.picture(figure, "estimate.png", f"True and estimated position and velocity of {who}, and the error")


def degrees_of_freedom(model: mujoco.MjModel, names: list[str]) -> tuple[list[str], list[str], np.ndarray]:
    """Name and unit of each degree of freedom (nv,), and its position in the model's reference; zero for rotations."""
    labels: list[str] = []
    units: list[str] = []
    offset: list[Any] = []
    for name, kind, at in zip(names, model.jnt_type, model.jnt_qposadr, strict=True):
        if int(kind) == _FREE:
            labels += [f"{name} {axis}" for axis in "xyz"]
            units += ["m"] * 3
            offset += list(model.qpos0[at : at + 3])
        if int(kind) in (_FREE, _BALL):
            labels += [f"{name} rotation {axis}" for axis in "xyz"]
            units += ["rad"] * 3
            offset += [0.0] * 3
            continue
        labels.append(name)
        units.append("m" if int(kind) == _SLIDE else "rad")
        offset.append(model.qpos0[at])
    return labels, units, np.array(offset)
