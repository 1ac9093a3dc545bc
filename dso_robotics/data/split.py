"""Splits rollouts into those that a study fits and those that it only predicts."""

import re
from dataclasses import dataclass, replace

import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout, listed, nearest
from dso_robotics.errors import DsoError

PART_NAMES = {"train": "fitted", "hold_out": "held-out"}
"""What the parts of a split are called where results are told."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rollouts to fit and rollouts held out.

    train: rollouts to fit.
    hold_out: rollouts held out; empty if none were chosen.
    """

    train: tuple[Rollout, ...]
    hold_out: tuple[Rollout, ...]


def hold_out(log: Log, choice: str | None) -> Split:
    """Split the rollouts of `log` by `choice`: `NAME[,NAME]`, a FRACTION between 0 and 1, or None to hold out nothing.

    A fraction holds out the last rollouts. Their number is the nearest to the fraction, at least one and not all. If the log
    has one rollout, it is cut in time into `NAME[head]` and `NAME[tail]`. A text that is a rollout's name is a name, even if
    it looks like a number. Raises DsoError when `choice` selects nothing, something unknown, or everything.
    """
    if choice is None:
        return Split(log.rollouts, ())
    names = [name for name in (part.strip() for part in choice.split(",")) if name]
    if not names:
        raise DsoError(f"{log.label}: --hold-out {choice!r} names nothing; its rollouts are {listed(log.names)}.")
    if len(names) == 1 and names[0] not in log.names and re.fullmatch(r"[-+]?\d*\.?\d*(?:[eE][-+]?\d+)?%?", names[0]):
        return _fraction(log, names[0])
    for name in names:
        if name not in log.names:
            raise DsoError(
                f"{log.label}: --hold-out {choice!r}: there is no rollout {name!r}.{nearest(name, log.names)} Its "
                f"rollouts: {listed(log.names)}. A fraction is written like 0.25."
            )
    train = tuple(rollout for rollout in log.rollouts if rollout.name not in names)
    if not train:
        raise DsoError(
            f"{log.label}: --hold-out {choice!r} holds out every rollout and leaves nothing to fit; name fewer of "
            f"{listed(log.names)}, or give a fraction like 0.25."
        )
    return Split(train, tuple(rollout for rollout in log.rollouts if rollout.name in names))


def _fraction(log: Log, text: str) -> Split:
    try:
        fraction = float(text)
    except ValueError:
        fraction = np.nan
    if not 0 < fraction < 1:
        amount = "nothing" if fraction <= 0 else "everything" if fraction >= 1 else "no fraction"
        raise DsoError(
            f"{log.label}: --hold-out {text} names {amount}: it is not the name of a rollout, and a fraction must be "
            f"between 0 and 1. Its rollouts: {listed(log.names)}."
        )
    count = len(log.rollouts)
    if count == 1:
        return _cut(log, fraction)
    held = min(max(round(fraction * count), 1), count - 1)
    return Split(log.rollouts[:-held], log.rollouts[-held:])


def _cut(log: Log, fraction: float) -> Split:
    rollout = log.rollouts[0]
    end = rollout.time[-1] - fraction * (rollout.time[-1] - rollout.time[0])
    at = int(np.searchsorted(rollout.time, end))
    if at < 2 or len(rollout.time) - at < 2:
        raise DsoError(
            f"{log.label}: --hold-out {fraction:g} of the only rollout {rollout.name!r} leaves fewer than 2 samples "
            f"on one side ({at} and {len(rollout.time) - at}); choose a fraction nearer to 0.5, or record more."
        )
    return Split((_part(rollout, slice(None, at), "head"),), (_part(rollout, slice(at, None), "tail"),))


def _part(rollout: Rollout, piece: slice, label: str) -> Rollout:
    arrays = {kind: getattr(rollout, kind) for kind in ("time", "ctrl", "sensordata", "qpos", "qvel")}
    cut = {kind: values[piece] for kind, values in arrays.items() if values is not None}
    return replace(rollout, name=f"{rollout.name}[{label}]", **cut)


def trained(log: Log, choice: str | None) -> list[str] | None:
    """Names of the rollouts of `log` that `hold_out` leaves to fit.

    None where it cuts the only rollout in two, and where it refuses, which is said when the split is made.
    """
    try:
        names = [rollout.name for rollout in hold_out(log, choice).train]
    except DsoError:
        return None
    return names if set(names) <= set(log.names) else None
