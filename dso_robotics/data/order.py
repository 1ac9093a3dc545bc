"""Repairs of a recording's time: sorts samples, drops repeats, trims the ends, and cuts where time begins again."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dso_robotics.data.rollout import Array
from dso_robotics.errors import DsoError

Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What may be done to a recording whose time or controls are not in order. Nothing is done unless it is asked for.

    sort: samples are put in the order of their times.
    drop_repeats: of samples with the same time the first is kept.
    trim: samples without a time are left out, and those before the first and after the last value of every control and state.
    split_gap: a new rollout begins after a pause longer than this [s]; a piece of one sample is dropped.
    split_restarts: a new rollout begins where time begins again; a piece of one sample is dropped.
    hold_ctrl: an empty cell of a control takes the previous value.
    """

    sort: bool = False
    drop_repeats: bool = False
    trim: bool = False
    split_gap: float | None = None
    split_restarts: bool = False
    hold_ctrl: bool = False

    def __post_init__(self):
        if self.sort and self.split_restarts:
            raise DsoError(
                "--sort and --split-restarts contradict each other: samples that are sorted never begin again."
            )
        if self.split_gap is not None and not self.split_gap > 0:
            raise DsoError(f"--split-gap {self.split_gap:g}: a pause is longer than 0 s.")

    def pieces(self, path: str, time: Array, needed: Array | None) -> list[Indices]:
        """The samples of each rollout, as indices into the recording.

        time: (T,) [s].
        needed: (T, n), the values that must be known at every sample.
        Raises DsoError when nothing is left, and where time goes back and nothing was asked for.
        """
        keep = np.arange(len(time))
        if self.trim:
            keep = keep[np.isfinite(time)]
        if self.sort:
            keep = keep[np.argsort(time[keep], kind="stable")]
        cuts = np.zeros(len(keep), bool)
        if self.split_restarts:
            cuts[1:] |= np.diff(time[keep]) < 0
        if self.split_gap is not None:
            cuts[1:] |= np.diff(time[keep]) > self.split_gap
        edges = [0, *np.flatnonzero(cuts).tolist(), len(keep)]
        parts = [keep[a:b] for a, b in pairwise(edges)]
        if self.drop_repeats:
            parts = [part[np.r_[True, np.diff(time[part]) != 0]] if len(part) else part for part in parts]
        if self.trim and needed is not None:
            parts = [_trimmed(part, needed) for part in parts]
        if self.split_gap is None and not self.split_restarts:
            if self.trim and len(parts[0]) < 2:
                raise DsoError(f"{path}: after --trim no two samples are left in which every control is known.")
            _check(path, time[parts[0]])
            return parts
        parts = [part for part in parts if len(part) > 1]
        if not parts:
            what = "begins again" if self.split_gap is None else f"pauses for over {self.split_gap:g} s"
            raise DsoError(f"{path}: time {what} after every sample; split at longer pauses, or not at all.")
        for part in parts:
            _check(path, time[part])
        return parts


def held(values: Array) -> Array:
    """Each NaN replaced by the last number before it. A NaN without a number before it stays and is refused later."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)


def _trimmed(part: Indices, needed: Array) -> Indices:
    good = np.flatnonzero(np.isfinite(needed[part]).all(axis=1))
    return part[good[0] : good[-1] + 1] if len(good) else part[:0]


def _check(path: str, time: Array) -> None:
    """Refuse time that stands or goes back, with the option for each case."""
    if not np.isfinite(time).all():
        missing = np.flatnonzero(~np.isfinite(time))
        raise DsoError(
            f"{path}: time is {time[missing[0]]} at sample {missing[0]}, {len(missing)} time(s) in all; leave these out "
            "with --trim, or repair the time stamps."
        )
    steps = np.diff(time)
    back, same = np.flatnonzero(steps < 0) + 1, np.flatnonzero(steps == 0) + 1
    if len(back):
        t = int(back[0])
        again = time[t] <= time[0] + 0.5 * (time[t - 1] - time[0])
        cure = (
            "time begins again, so --split-restarts makes a rollout of each part"
            if again
            else "--sort puts the samples in order, --split-restarts makes a rollout of each part"
        )
        raise DsoError(
            f"{path}: time does not increase at sample {t} ({time[t]:.9g} s after {time[t - 1]:.9g} s"
            f"{f', and {len(back) - 1} more' if len(back) > 1 else ''}); {cure}."
        )
    if len(same):
        t = int(same[0])
        raise DsoError(
            f"{path}: time does not increase at sample {t} ({time[t]:.9g} s twice"
            f"{f', and {len(same) - 1} more' if len(same) > 1 else ''}); --drop-repeats keeps the first sample of each time."
        )
