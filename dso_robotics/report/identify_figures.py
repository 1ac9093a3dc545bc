"""The charts of an identification as PNG files, for slides and papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.report.canvas import Picture
from dso_robotics.report.figures import draw_convergence, draw_correlation, draw_errors, draw_intervals
from dso_robotics.report.residual import Whiteness
from dso_robotics.report.residual_sheet import draw_residuals
from dso_robotics.report.trace import Trace
from dso_robotics.report.trace_sheet import TraceSheet

_OURS = ("trace-*.png", "residuals-*.png", "intervals.png", "correlation.png", "convergence.png", "errors.png")
# Rows of axes of runs: each takes matplotlib some 40 ms, and a figure of more has more pixels than it can make.
_MOST_ROWS = 96


def write_figures(
    folder: Path,
    tree: Mapping[str, Any],
    summary: Mapping[str, Any],
    parts: Mapping[str, Sequence[Trace]],
    statistics: Mapping[str, Sequence[Whiteness]],
    shown: Mapping[str, Sequence[int]],
) -> None:
    """Write a PNG file of each chart to `folder`; those of an earlier run are removed.

    parts: the runs of each part. statistics: of their residuals. shown: the runs of each part to draw.

    Raises:
      DsoError: the folder is not writable.
    """
    units = {name: noise["unit"] for name, noise in summary["noise"].items()}
    few = dict(list(units.items())[:_MOST_ROWS])
    names, correlation = list(tree["names"]), np.atleast_2d(np.asarray(tree["correlation"], float))
    pictures: list[Picture | None] = [
        draw_intervals(summary["parameters"]) if summary["parameters"] else None,
        draw_correlation(correlation, names),
        draw_convergence(tree["history"], names),
        draw_errors(summary["fit"]) if units else None,
        *(draw_residuals(mine, few, statistics[part]) for part, mine in parts.items()),
    ]
    sheet, most = TraceSheet(few), max(1, _MOST_ROWS // max(1, len(few) * len(parts)))
    for part, mine in parts.items():
        pictures += [sheet.draw(mine[i], i) for i in shown[part][:most]]
    try:
        folder.mkdir(exist_ok=True)
        for old in (path for pattern in _OURS for path in folder.glob(pattern)):
            old.unlink()
    except OSError as error:
        raise DsoError(
            f"{folder}: cannot write figures there ({error.strerror}); remove the file or folder of that name."
        ) from error
    for picture in filter(None, pictures):
        picture.write(folder)
