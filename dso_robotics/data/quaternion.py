"""Quaternions among channels: q and -q are one rotation, so a sign carries no information."""

from typing import Any

import numpy as np

from dso_robotics.data.rollout import Array

Places = tuple[tuple[int, ...], ...]
"""For each quaternion the four columns that hold it."""


def continuous(values: Array, places: Places) -> tuple[Array, int]:
    """The values (T, C) with each quaternion's sign as in the sample before, and how many flips were undone.

    Samples in which a quaternion is not measured keep the sign of the last that was.
    """
    out, flips = np.array(values), 0
    for place in places:
        columns = list(place)
        known = np.flatnonzero(np.isfinite(out[:, columns]).all(axis=1))
        turns = np.sum(out[known[1:]][:, columns] * out[known[:-1]][:, columns], axis=1) < 0
        flips += int(turns.sum())
        sign = np.where(np.cumsum(np.r_[False, turns]) % 2, -1.0, 1.0) if len(known) else np.ones(0)
        out[known[:, None], np.array(columns)] *= sign[:, None]
    return out, flips


def facing(predicted: Any, measured: Any, places: Places) -> Any:
    """1 or -1 for each column (..., C): the sign with which a predicted quaternion faces the measured one.

    predicted, measured: (..., C) arrays of NumPy or JAX; where a part is not measured, it counts as 0.
    """
    xp = predicted.__array_namespace__()
    member = np.zeros((len(places), predicted.shape[-1]))
    for row, place in enumerate(places):
        member[row, list(place)] = 1.0
    agreement = (predicted * xp.where(xp.isfinite(measured), measured, 0.0)) @ member.T
    return 1.0 - 2.0 * (xp.where(agreement < 0, 1.0, 0.0) @ member)
