"""Numbers that planned runs do not show, and why: nothing reacts to them, they act like others, or their effect is too weak."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dso_robotics.core.covariance import Z95
from dso_robotics.costs.information import UNKNOWN, covariance
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.vector import ParameterVector

# Information, in sizes, below which no channel reacts to a number in any motion: a standard deviation of a thousand sizes.
_NOTHING = 1e-6
# A number is visible if the standard deviation after the plan is below this share of its size, and of what is known before.
_VISIBLE, _NEWS = 1.0, 0.9
# A number acts like others if its interval alone would be this much narrower.
_ALONE = 3.0
# Least correlation with a number that it is said to act like.
_ALIKE = 0.4


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of the table: its value, half-widths of its 95% interval before and after (infinite if unknown), and why it is
    not visible, or an empty text."""

    value: float
    before: float
    after: float
    unit: str
    hidden: str


def refuse_invisible(
    vector: ParameterVector,
    information: np.ndarray,
    free: tuple[Declaration, ...],
    masked: Mapping[str, str],
    source: str,
) -> None:
    """Refuse numbers that no motion shows, if they were named without a wildcard, or if there are no others.

    information: (g, g), summed over many random motions, of the shared coordinates over their sizes, without priors.

    Raises:
      DsoError: such a number.
    """
    seen = np.diag(information) > _NOTHING
    names = [n for n, owner in zip(vector.coordinate_names, vector.owner, strict=True) if not owner]
    if not seen.any():
        raise DsoError(
            f"{source}: no channel reacts to {', '.join(names[:6])} in any motion tried, so no plan can tell about them; "
            "give the robot sensors of what moves, larger limits, or free other numbers."
        )
    exact = {d.path for d in free if "*" not in d.path and "?" not in d.path}
    at = 0
    for p in vector.parameters:
        if p.rollout:
            continue
        if p.path in exact and not seen[at : at + p.size].any():
            why = masked.get(p.path, "no channel reacts to it in any of the random motions tried")
            raise DsoError(
                f"{p.path}: no excitation shows this number: {why}. Leave it out, record a sensor that shows it, or change "
                "what keeps it from acting (limits, contacts, friction that outweighs it)."
            )
        at += p.size


def table(
    vector: ParameterVector,
    z: np.ndarray,
    size: np.ndarray,
    before: np.ndarray,
    told: np.ndarray,
    plan: np.ndarray,
    after: np.ndarray,
    masked: Mapping[str, str],
) -> dict[str, Row]:
    """The table of all numbers that runs share.

    before: (g, g) information before, over sizes; told: (g,), whether anything was known. plan: (g, g) information of the
    planned runs. after: (g, g) covariance after.
    """
    rows: dict[str, Row] = {}
    prior = covariance(before)
    alone = 1 / np.maximum(np.diag(before + plan), UNKNOWN**-2)
    names = [n for n, owner in zip(vector.coordinate_names, vector.owner, strict=True) if not owner]
    blocks, at = vector.split(z), 0
    for p in vector.parameters:
        if p.rollout:
            continue
        here = slice(at, at + p.size)
        at += p.size
        value, unit = p.report(blocks[p.path]), list(p.reported.values())
        scale = size[here]
        if p.factor is None:
            slope = np.eye(1)
        else:
            steps = np.diag(1e-6 * p.scale)
            own = blocks[p.path]
            slope = np.stack([(p.report(own + d) - p.report(own - d)) / (2 * d.sum()) for d in steps], -1)
        slope = slope * scale
        old, new = (
            np.sqrt(np.maximum(np.einsum("ik,kl,il->i", slope, c[here, here], slope), 0.0)) for c in (prior, after)
        )
        shows = np.abs(slope) @ np.sqrt(np.maximum(np.diag(plan)[here], 0.0))
        for i, label in enumerate(p.reported):
            known = bool(told[here].all())
            hidden = masked.get(p.path, "")
            if p.factor is None:
                visible = new[i] < _VISIBLE * scale[0] and (
                    not known or new[i] < _NEWS * old[i] or old[i] < 0.1 * scale[0]
                )
            else:
                visible = new[i] < _NEWS * old[i]
            why = hidden or _why(p.factor is not None, here, names, plan, after, alone, shows[i] > 0)
            rows[label] = Row(
                float(value[i]),
                float(Z95 * old[i]) if known else np.inf,
                float(Z95 * new[i]) if new[i] < UNKNOWN * 0.9 * max(scale[0], 1e-300) else np.inf,
                unit[i],
                "" if visible else why,
            )
    return rows


def _why(
    inertial: bool, here: slice, names: list[str], plan: np.ndarray, after: np.ndarray, alone: np.ndarray, shows: bool
) -> str:
    """Why the coordinates `here` stay wide."""
    mine = np.diag(plan)[here]
    if not shows or mine.max() <= _NOTHING:
        return "no channel reacts to it in these motions"
    if inertial:
        return (
            "only its combinations with other numbers of inertia act on these motions; `dso identify` will name those that are "
            "determined"
        )
    wide = float(np.sqrt(after[here, here][0, 0]))
    lone = float(np.sqrt(alone[here][0]))
    if wide > _ALONE * lone:
        alike = np.abs(after[here.start]) / np.sqrt(np.maximum(np.diag(after) * after[here.start, here.start], 1e-300))
        alike[here.start] = 0.0
        partners = [names[int(i)] for i in np.argsort(-alike)[:2] if alike[i] > _ALIKE]
        return f"these motions do not tell it from {' and '.join(partners)}; fix one of them, or give a prior"
    return (
        f"its effect is small beside the noise: with {max(wide, 1.0) ** 2 * 4:.0f} times the runs its deviation would be half "
        "the number; allow more motion, or record with less noise"
    )
