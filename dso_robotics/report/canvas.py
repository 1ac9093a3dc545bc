"""Base of all figures: one style, no state shared with the caller's matplotlib, PNG pictures in memory."""

import base64
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.plot import without_mathematics

# Okabe and Ito's palette, distinguishable with every type of colour vision.
INK, GREY, FAINT = "#222222", "#8a8a8a", "#d9d9d9"
BLUE, VERMILLION = "#0072B2", "#D55E00"
PALETTE = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
PARTS = {"train": BLUE, "hold_out": VERMILLION}
"""Colours of fitted runs and of held-out runs, in every figure."""
WIDTH = 10.0
"""Width of a figure [inches]."""
SMALL, NORMAL = 8.5, 9.5
_DPI = 120


@dataclass(frozen=True)
class Picture:
    """A finished figure.

    name: file name.
    text: alternative text.
    png: its PNG bytes.
    """

    name: str
    text: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as a data URI, which is embedded in a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, read from the PNG header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    def write(self, folder: Path) -> None:
        """Write the PNG file to `folder`."""
        with atomic_file(folder / self.name) as temporary:
            temporary.write_bytes(self.png)


class Sheet(Figure):
    """A figure outside pyplot that a notebook shows all the same."""

    def _repr_png_(self) -> bytes:
        return picture(self, "", "").png


def blank(height: float, *, width: float = WIDTH, constrained: bool = False) -> Figure:
    """An empty white figure of so many inches, outside pyplot."""
    figure = Sheet(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def rows(
    height: float,
    count: int,
    widths: tuple[float, ...] = (1.0,),
    *,
    top: float = 0.62,
    left: float = 0.72,
    share: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A figure with `count` rows of axes, each `height` inches high, and columns of relative `widths`.

    Margins are fixed in inches, which is fast: matplotlib's layout engines draw everything twice."""
    bottom, total = 0.5, top + 0.5 + count * height
    figure = blank(total)
    axes = figure.subplots(
        count,
        len(widths),
        sharex="col" if share else False,
        squeeze=False,
        width_ratios=widths,
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1 - 0.12 / WIDTH,
            "top": 1 - top / total,
            "bottom": bottom / total,
            "hspace": 0.42 / (height - 0.3),
            "wspace": 0.22,
        },
    )
    for axis in axes.flat:
        dress(axis)
    return figure, axes


def dress(axis: Axes) -> None:
    """Apply the style of every axis: small numbers, thin frame on two sides, faint grid."""
    axis.set_facecolor("white")
    axis.tick_params(labelsize=SMALL, width=0.6, length=3, colors=INK)
    axis.grid(color=FAINT, linewidth=0.5)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
        spine.set_color(GREY)


def title(axis: Axes, text: str, right: str = "") -> None:
    """Write a row's name above its left end, and a remark above its right end."""
    # With a given height matplotlib need not measure every tick label.
    axis.set_title(text, loc="left", fontsize=NORMAL, color=INK, pad=4, y=1.0)
    if right:
        axis.set_title(right, loc="right", fontsize=SMALL, color="#555555", pad=4, y=1.0)


def label(axis: Axes, *, x: str = "", y: str = "", inches: tuple[float, float] | None = None) -> None:
    """Axis labels in the common size. Without a layout engine, `inches` is their distance below and left of the frame."""
    if x:
        axis.set_xlabel(x, fontsize=SMALL, color=INK)
    if y:
        axis.set_ylabel(y, fontsize=SMALL, color=INK)
    if inches:
        box = axis.get_position()
        height = axis.figure.get_figheight()
        axis.xaxis.set_label_coords(0.5, -inches[0] / (box.height * height))
        axis.yaxis.set_label_coords(-inches[1] / (box.width * WIDTH), 0.5)


def legend(figure: Figure, handles: list, labels: list[str]) -> None:
    """A legend in one line along the top left."""
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=len(labels),
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.4,
        handlelength=1.8,
    )


def picture(figure: Figure, name: str, text: str) -> Picture:
    """Draw the figure."""
    stream = io.BytesIO()
    without_mathematics(figure)
    figure.savefig(stream, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return Picture(name, text, stream.getvalue())


def thin(time: np.ndarray, values: np.ndarray, most: int = 1600) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points that draw the same line: each piece keeps its minimum, its maximum and its gaps."""
    if len(time) <= most:
        return time, values
    size = -(-len(time) // (most // 3))
    padded = np.full(size * -(-len(time) // size), np.nan)
    padded[: len(values)] = values
    pieces = padded.reshape(-1, size)
    seen = np.isfinite(pieces)
    low, high = np.where(seen, pieces, np.inf).argmin(1), np.where(seen, pieces, -np.inf).argmax(1)
    gap = np.where(seen.all(1), low, (~seen).argmax(1))
    index = np.unique(np.arange(len(pieces))[:, None] * size + np.stack([low, high, gap], 1))
    index = index[index < len(time)]
    return time[index], values[index]
