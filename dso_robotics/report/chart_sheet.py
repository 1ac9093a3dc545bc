"""Charts of a report as PNG files, for slides and papers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.report import canvas
from dso_robotics.report.chart import Chart, Line
from dso_robotics.report.quantity import unit

_COLOURS = {"measured": canvas.GREY, "ink": canvas.INK, "train": canvas.BLUE, "hold_out": canvas.VERMILLION}
_COLOURS |= {f"p{i}": colour for i, colour in enumerate(canvas.PALETTE)}
_STYLES = {"dash": "--", "band": "--"}
# Charts of one figure: matplotlib takes some 40 ms for each.
_MOST_ROWS = 40


def write_sheets(folder: Path, sheets: Mapping[str, Sequence[Chart]]) -> None:
    """Write a PNG file NAME.png of each sheet of charts to `folder`, made if it is missing; a sheet without charts is removed.

    Raises:
      DsoError: the folder is not writable.
    """
    try:
        folder.mkdir(exist_ok=True)
        for name, charts in sheets.items():
            if not charts:
                (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise DsoError(
            f"{folder}: cannot write figures there ({error.strerror}); remove the file or folder of that name."
        ) from error
    for name, charts in sheets.items():
        if charts:
            draw(charts, name).write(folder)


def draw(charts: Sequence[Chart], name: str) -> canvas.Picture:
    """One figure with a row for each chart."""
    charts = charts[:_MOST_ROWS]
    figure, axes = canvas.rows(1.7, len(charts), share=False)
    for axis, chart in zip(axes[:, 0], charts, strict=True):
        for line in chart.lines:
            _line(axis, chart, line)
        if chart.scale == "log":
            axis.set_yscale("log")
        elif chart.scale == "asinh":
            axis.set_yscale("symlog", linthresh=1.0)
        for at in chart.marks:
            axis.axvline(at, color=canvas.FAINT, linewidth=0.6)
        text = f"{chart.title} [{unit(chart.unit) or '1'}]" if chart.unit else chart.title
        canvas.title(axis, text, chart.remark)
        named = [line for line in chart.lines if line.style != "band"]
        if len(named) > 1:
            axis.legend(fontsize=canvas.SMALL, frameon=False, ncols=min(len(named), 6), loc="upper right")
    canvas.label(axes[-1, 0], x=charts[-1].x_label, inches=(0.24, 0.5))
    return canvas.picture(figure, f"{name}.png", "; ".join(chart.title for chart in charts))


def _line(axis, chart: Chart, line: Line) -> None:
    colour = _COLOURS.get(line.colour, canvas.INK)
    if line.style == "dots":
        seen = np.isfinite(line.values)
        axis.plot(chart.x[seen], line.values[seen], "o", color=colour, markersize=4, label=line.label)
        return
    if line.style == "bars":
        axis.bar(
            chart.x, line.values, width=float(np.median(np.diff(chart.x))), color=colour, alpha=0.5, label=line.label
        )
        return
    label = "_" if line.style == "band" else line.label
    wide = 1.6 if line.style == "thick" else 1.0
    axis.plot(
        *canvas.thin(chart.x, line.values), _STYLES.get(line.style, "-"), color=colour, linewidth=wide, label=label
    )
