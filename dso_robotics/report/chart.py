"""A chart of lines over a common axis, as numbers: what a page draws, in a browser or as a still picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np

# A bucket of samples becomes three points: its least and greatest value in their order, and a gap if there is one.
_POINTS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One line of a chart.

    label: in the legend. values: (N,), NaN for a gap. colour: a class of the page's style, such as "train" or "p3".
    style: "line", "thick", "dash", "dots" for samples that stand alone, "bars", or "band" for an end of a shaded band.
    """

    label: str
    values: np.ndarray
    colour: str
    style: str = "line"


@dataclasses.dataclass(frozen=True, eq=False)
class Chart:
    """Lines over a common x.

    title, remark: above its left and its right end. x: (N,), not falling. x_label: with its unit. unit: of the values.
    marks: x of vertical lines. scale: "linear", "log", or "asinh", which is linear between -1 and 1.
    group: charts of one group zoom together. height, width: about how many pixels it has.
    """

    title: str
    x: np.ndarray
    lines: Sequence[Line]
    x_label: str = ""
    unit: str = ""
    remark: str = ""
    marks: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    scale: str = "linear"
    group: str = ""
    height: int = 150
    width: int = 1000


def thinned(x: np.ndarray, columns: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` rows of x (N,) and columns (N, C) that draw the same lines.

    Samples are put into buckets of equal count. Each keeps the least and greatest value of every column, in their order, and
    a gap where it had one: an outlier and a gap of one sample stay visible.
    """
    count = len(x)
    if count <= most or count <= _POINTS:
        return x, columns
    size = -(-count // max(most // _POINTS, 1))
    buckets = -(-count // size)
    padded = np.full((buckets * size, columns.shape[1]), np.nan)
    padded[:count] = columns
    padded[count:] = columns[-1]
    pieces = padded.reshape(buckets, size, -1)
    seen = np.isfinite(pieces)
    low, high = np.where(seen, pieces, np.inf).argmin(1), np.where(seen, pieces, -np.inf).argmax(1)
    found = np.empty((buckets, _POINTS, columns.shape[1]))
    pick = (np.arange(buckets)[:, None], np.arange(columns.shape[1])[None])
    one, two = np.minimum(low, high), np.maximum(low, high)
    found[:, 0], found[:, 1] = pieces[pick[0], one, pick[1]], pieces[pick[0], two, pick[1]]
    found[:, 2] = np.where(seen.all(1), found[:, 1], np.nan)
    ends = np.minimum(np.arange(buckets)[:, None] * size + np.array([0, size // 2, size - 1]), count - 1)
    return x[ends].ravel(), found.reshape(-1, columns.shape[1])


def ticks(low: float, high: float, most: int = 6) -> np.ndarray:
    """Round numbers from `low` to `high`, at most about `most`."""
    span = high - low
    if not (np.isfinite(span) and span > 0):
        return np.array([low])
    raw = span / most
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(s for s in (1.0, 2.0, 5.0, 10.0) if s * power >= raw * (1 - 1e-9))
    first = np.ceil(low / step - 1e-9)
    return step * np.arange(first, np.floor(high / step + 1e-9) + 1) + 0.0
