"""Charts of the state of a robot over time: true and estimated positions and velocities, and the error of the estimate."""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.core.covariance import Z95
from dso_robotics.report.chart import Chart, Line
from dso_robotics.report.quantity import quantity

_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)


def state_charts(
    model: mujoco.MjModel,
    names: Sequence[str],
    time: np.ndarray,
    estimate: np.ndarray,
    error: np.ndarray,
    deviation: np.ndarray | None = None,
    *,
    smoothed: np.ndarray | None = None,
    smoothed_error: np.ndarray | None = None,
    group: str = "",
) -> list[Chart]:
    """For each degree of freedom its position, its velocity, and the errors of both.

    names: of the model's joints. time: (T,) [s]. estimate: (T, 2 nv), tangents from the model's reference.
    error: (T, 2 nv), estimate minus truth; NaN where the truth is unknown. deviation: (T, 2 nv), what the estimator
    takes for the standard deviation of its error. smoothed: (T, 2 nv), the estimate given all readings, if there is one;
    smoothed_error: (T, 2 nv), that minus the truth, in the tangent space.
    group: charts of one group zoom together.
    """
    nv = int(model.nv)
    labels, units, offset = degrees_of_freedom(model, names)
    known = bool(np.isfinite(error).any())
    charts = []
    for i in range(nv):
        for what, rate, k, shift in (("position", "", i, offset[i]), ("velocity", "/s", nv + i, 0.0)):
            shown = estimate[:, k] + shift
            lines = [Line("true", shown - error[:, k], "measured", "thick")] if known else []
            more: dict[str, Any] = {"unit": f"{units[i]}{rate}", "group": group, "x_label": "time [s]"}
            lines.append(Line("estimated", shown, "p0"))
            if smoothed is not None:
                lines.append(Line("smoothed", smoothed[:, k] + shift, "p2"))
            charts.append(Chart(f"{labels[i]}, {what}", time, lines, **more))
            if not known:
                continue
            lines = [Line("estimated minus true", error[:, k], "p1")]
            if deviation is not None:
                band = shown_band(Z95 * deviation[:, k], error[:, k])
                lines = [Line("95% of its own", side, "measured", "band") for side in (-band, band)] + lines
            if smoothed_error is not None:
                lines.append(Line("smoothed minus true", smoothed_error[:, k], "p2"))
            seen = error[np.isfinite(error[:, k]), k]
            remark = f"RMS {quantity(float(np.sqrt(np.mean(seen**2))), more['unit'], 3)}" if len(seen) else ""
            charts.append(Chart(f"{labels[i]}, error of the {what}", time, lines, remark=remark, height=100, **more))
    return charts


def shown_band(band: np.ndarray, error: np.ndarray) -> np.ndarray:
    """`band` (T,) without what is far wider than the rest and than the errors (T,), as at a filter's start: it hides them."""
    usual = np.percentile(band[np.isfinite(band)], 95) if np.isfinite(band).any() else 0.0
    most = 1.15 * max(float(np.abs(error[np.isfinite(error)]).max(initial=0.0)), float(usual))
    return np.where(band <= most, band, np.nan)


def degrees_of_freedom(model: mujoco.MjModel, names: Sequence[str]) -> tuple[list[str], list[str], np.ndarray]:
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
