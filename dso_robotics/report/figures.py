"""Figures of a whole identification: intervals, correlations, convergence, prediction error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dso_robotics.report import canvas
from dso_robotics.report.quantity import MISSING, interval, number, percent, quantity, unit

_MOST_INTERVALS = 80
_MOST_NUMBERS, _MOST_LABELS = 20, 60
_MOST_LINES = 12


def draw_intervals(parameters: Mapping[str, Mapping[str, Any]]) -> canvas.Picture:
    """Start, value and 95% interval of each parameter, as fractions of the larger of start and value."""
    names = list(parameters)[:_MOST_INTERVALS]
    figure = canvas.blank(0.95 + (0.3 if len(names) <= 20 else 0.22) * len(names), constrained=True)
    axis = figure.subplots()
    canvas.dress(axis)
    low, high = -0.3, 1.7
    shares = {name: _shares(parameters[name]) for name in names}
    if any(share[0] < 0 for share in shares.values()):
        low = -1.2
    for row, name in enumerate(names):
        start, value, left, right = (float(np.clip(share, low, high)) for share in shares[name][:4])
        colour = canvas.VERMILLION if parameters[name]["at_bound"] else canvas.BLUE
        axis.plot([left, right], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.75)
        for share, end, marker in ((shares[name][2], low, "<"), (shares[name][3], high, ">")):
            if (share - end) * (1 if marker == ">" else -1) > 0:
                axis.plot([end], [row], marker, color=colour, markersize=6, clip_on=False)
        axis.plot([start], [row], "|", color=canvas.INK, markersize=11, markeredgewidth=1.2)
        axis.plot([value], [row], "o", color=colour, markersize=5.5)
    axis.set_xlim(low - 0.05, high + 0.05)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.axvline(0, color=canvas.GREY, linewidth=0.8)
    axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(names)), names, fontsize=canvas.SMALL)
    numbers = axis.secondary_yaxis("right")
    numbers.set_yticks(range(len(names)), [_in_numbers(parameters[name]) for name in names], fontsize=canvas.SMALL)
    numbers.tick_params(length=0)
    numbers.spines["right"].set_visible(False)
    canvas.label(axis, x="fraction of the larger of start and value")
    marks = [
        axis.plot([], [], "|", color=canvas.INK, markersize=11, markeredgewidth=1.2)[0],
        axis.plot([], [], "o-", color=canvas.BLUE, linewidth=2.2, markersize=5.5)[0],
    ]
    texts = ["start", "value and 95% interval (an arrow: it extends further)"]
    if any(parameters[name]["at_bound"] for name in names):
        marks.append(axis.plot([], [], "o-", color=canvas.VERMILLION, linewidth=2.2, markersize=5.5)[0])
        texts.append("at a bound")
    figure.legend(marks, texts, loc="outside upper left", ncols=3, fontsize=canvas.SMALL, frameon=False)
    return canvas.picture(figure, "intervals.png", "Start value, value and 95% interval of " + ", ".join(names))


def _shares(parameter: Mapping[str, Any]) -> list[float]:
    """Start, value, low and high over the larger of start and value; a missing end is infinite."""
    start, value = parameter["initial"], parameter["value"]
    size = max(start, value, key=abs) or 1.0
    ends = [float("nan") if parameter[key] is None else parameter[key] / size for key in ("low95", "high95")]
    ends = [-np.inf if np.isnan(ends[0]) else ends[0], np.inf if np.isnan(ends[1]) else ends[1]]
    return [start / size, value / size, *sorted(ends)]


def _in_numbers(parameter: Mapping[str, Any]) -> str:
    value, ends = number(parameter["value"], zeros=True), interval(parameter["low95"], parameter["high95"])
    return " ".join([value, "" if ends == MISSING else f" ({ends})", unit(parameter["unit"])]).rstrip()


def draw_correlation(correlation: np.ndarray, names: Sequence[str]) -> canvas.Picture | None:
    """The lower half of the correlation matrix, with numbers if they fit; None if it is too large for a page."""
    n = len(names)
    if not 2 <= n <= _MOST_LABELS:
        return None
    cell = 0.38 if n <= _MOST_NUMBERS else 0.19
    figure = canvas.blank(min(1.9 + cell * (n - 1), 10.5), constrained=True)
    axis = figure.subplots()
    # Without the diagonal: rows begin at the second parameter, columns end before the last.
    lower = np.where(np.tri(n - 1, dtype=bool), correlation[1:, :-1], np.nan)
    image = axis.imshow(lower, cmap="RdBu_r", vmin=-1, vmax=1)
    size = canvas.SMALL if n <= _MOST_NUMBERS else 6.5
    axis.set_xticks(range(n - 1), names[:-1], fontsize=size, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(n - 1), names[1:], fontsize=size)
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    for edge in np.arange(1, n - 1) - 0.5:
        axis.axhline(edge, color="white", linewidth=1)
        axis.axvline(edge, color="white", linewidth=1)
    if n <= _MOST_NUMBERS:
        for i, j in np.argwhere(np.tri(n - 1)):
            r = lower[i, j]
            text = MISSING if np.isnan(r) else f"{r:.2f}".replace("0.", ".")
            colour = "white" if abs(r) > 0.6 else canvas.INK
            axis.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)
    axis.set_anchor("W")
    # The colour scale is in the empty upper half, unless the matrix is small.
    bar = figure.colorbar(image, cax=axis.inset_axes((0.86, 0.5, 0.025, 0.5) if n > 7 else (1.1, 0.0, 0.06, 1.0)))
    bar.set_label("correlation [1]", fontsize=canvas.SMALL)
    bar.ax.tick_params(labelsize=canvas.SMALL, width=0.6)
    bar.outline.set_visible(False)
    return canvas.picture(figure, "correlation.png", "Correlation matrix of " + ", ".join(names))


def draw_convergence(history: Mapping[str, np.ndarray], names: Sequence[str]) -> canvas.Picture | None:
    """Cost above its minimum, damping, and parameters relative to their final values, by accepted step; stages marked."""
    cost = np.asarray(history["cost"], float)
    if len(cost) < 2:
        return None
    step = np.arange(len(cost))
    figure = canvas.blank(3.9, constrained=True)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.25), height_ratios=(1.6, 1))
    top, bottom, right = (figure.add_subplot(grid[place]) for place in ((0, 0), (1, 0), (slice(None), 1)))
    for axis in (top, bottom, right):
        canvas.dress(axis)
        for change in np.flatnonzero(np.diff(history["stage"])) + 1:
            axis.axvline(float(change), color=canvas.INK, linewidth=0.8, linestyle=":")
        axis.set_xlim(0, max(1, len(cost) - 1))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    above = cost - np.nanmin(cost)
    top.plot(step, np.where(above > 0, above, np.nan), "o-", color=canvas.BLUE, markersize=3, linewidth=1)
    top.set_yscale("log" if (above > 0).any() else "linear")
    canvas.title(top, "cost above its minimum", f"minimum {number(float(np.nanmin(cost)), 6)}")
    canvas.label(top, y="[nat]")
    damping = np.asarray(history["damping"], float)
    bottom.plot(step, np.where(damping > 0, damping, np.nan), "o-", color="#009E73", markersize=3, linewidth=1)
    bottom.set_yscale("log" if (damping > 0).any() else "linear")
    canvas.title(bottom, "damping of the steps")
    canvas.label(bottom, x="accepted step", y="[1]")
    for axis in (top, bottom):
        _plain_log(axis)
    _draw_paths(right, step, np.asarray(history["z"], float), names)
    return canvas.picture(figure, "convergence.png", "Cost, damping and parameters by accepted step of the search")


def _draw_paths(axis, step: np.ndarray, z: np.ndarray, names: Sequence[str]) -> None:
    """Distance of each coordinate from its final value, over the larger of its first and last size."""
    size = np.maximum(np.abs(z[0]), np.abs(z[-1]))
    paths = (z - z[-1]) / np.where(size > 0, size, 1.0)
    most = np.argsort(-np.abs(paths).max(0))
    for i in most[_MOST_LINES:]:
        axis.plot(step, paths[:, i], color=canvas.FAINT, linewidth=0.8)
    for order, i in enumerate(sorted(most[:_MOST_LINES])):
        style = ("-", "--")[order // len(canvas.PALETTE)]
        colour = canvas.PALETTE[order % len(canvas.PALETTE)]
        axis.plot(step, paths[:, i], style, color=colour, linewidth=1.2, label=names[i])
    reach = np.nanmax(np.abs(paths)) if paths.size else 1.0
    if reach > 3:
        axis.set_yscale("symlog", linthresh=1.0)
        _plain_log(axis)
    axis.axhline(0, color=canvas.INK, linewidth=0.6)
    hidden = f", the {_MOST_LINES} of {len(names)} that changed most" if len(names) > _MOST_LINES else ""
    canvas.title(axis, f"parameters relative to their final values{hidden}")
    canvas.label(axis, x="accepted step (dotted line: next stage)", y="change over the larger of first and last [1]")
    axis.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.8)


def _plain_log(axis) -> None:
    """Powers of ten as plain text, which is drawn much faster than typeset mathematics."""
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_errors(fit: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> canvas.Picture:
    """Prediction error by channel in percent of the channel's spread, with its size and unit, for fitted and held-out runs."""
    channels = list(dict.fromkeys([*fit["train"], *fit["hold_out"]]))
    parts = [part for part in ("train", "hold_out") if fit[part]]
    figure = canvas.blank(1.0 + (0.3 if len(channels) <= 6 else 0.2) * len(channels) * len(parts), constrained=True)
    axis = figure.subplots()
    canvas.dress(axis)
    thick = 0.8 / len(parts)
    widest = 0.0
    for p, part in enumerate(parts):
        shown = [fit[part].get(name, {}) for name in channels]
        value = [_finite(entry.get("nrmse_percent")) for entry in shown]
        place = np.arange(len(channels)) + (p - (len(parts) - 1) / 2) * thick
        axis.barh(place, value, thick * 0.86, color=canvas.PARTS[part])
        widest = max([widest, *value])
        for y, x, entry in zip(place, value, shown, strict=True):
            text = f" {quantity(entry.get('rmse'), entry.get('unit', ''), 3)}  ({percent(entry.get('nrmse_percent'))})"
            axis.text(x, y, text, va="center", fontsize=canvas.SMALL, color=canvas.INK)
    axis.set_xlim(0, 1.3 * widest or 1.0)
    axis.set_ylim(len(channels) - 0.45, -0.55)
    axis.grid(axis="y", visible=False)
    axis.set_yticks(range(len(channels)), channels, fontsize=canvas.NORMAL)
    axis.tick_params(axis="y", length=0)
    canvas.label(axis, x="prediction error, % of the channel's spread")
    if len(parts) > 1:
        marks = [Patch(color=canvas.PARTS[part]) for part in parts]
        texts = [{"train": "fitted runs", "hold_out": "held-out runs"}[part] for part in parts]
        figure.legend(marks, texts, loc="outside upper left", ncols=2, fontsize=canvas.SMALL, frameon=False)
    return canvas.picture(figure, "errors.png", "Prediction error by channel: " + ", ".join(channels))


def _finite(value: float | None) -> float:
    return value if value is not None and np.isfinite(value) and value < 1e6 else 0.0
