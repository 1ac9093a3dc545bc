"""Distances between pairs of geoms along a motion, by C MuJoCo, and which pairs have to stay apart."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import matches
from dso_robotics.physics.geom_pair import may_touch

# A contact that is less deep than this is resting or rounding [m].
_TOUCH = 1e-4


@dataclass(frozen=True, eq=False)
class Pair:
    """Two geoms that have to be at least `margin` [m] apart.

    name: as messages call them. asked: whether the user named them.
    """

    first: int
    second: int
    margin: float
    name: str
    asked: bool


def pairs(model: mujoco.MjModel, asked: Mapping[str, float], touching: Sequence[str], margin: float) -> list[Pair]:
    """The pairs that have to stay apart: all that MuJoCo tests for contacts, and those `asked` for.

    asked: distances [m] by GEOM:GEOM, with wildcards. touching: GEOM:GEOM that may touch, with wildcards.
    margin: of all others [m].

    Raises:
      DsoError: a name is of no geom.
    """
    names = [model.geom(i).name or f"geom {i}" for i in range(model.ngeom)]
    free = {two for text in touching for two in _named(text, names, "--touch")}
    found = {}
    contacts = not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT
    tested = (
        [two for two in itertools.combinations(range(model.ngeom), 2) if may_touch(model, *two)] if contacts else []
    )
    explicit = {tuple(sorted((int(a), int(b)))) for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True)}
    for a, b in {*tested, *(explicit if contacts else ())} - free:
        found[a, b] = Pair(a, b, margin, f"{names[a]}:{names[b]}", asked=False)
    for text, least in asked.items():
        for a, b in _named(text, names, "--distance"):
            found[a, b] = Pair(a, b, least, f"{names[a]}:{names[b]}", asked=True)
    return [found[key] for key in sorted(found)]


def _named(text: str, names: Sequence[str], option: str) -> list[tuple[int, int]]:
    one, colon, other = text.partition(":")
    if not colon:
        raise DsoError(f"{option} {text}: write two geoms, GEOM:GEOM; both may contain * and ?.")
    sides = []
    for pattern in (one, other):
        side = [i for i, name in enumerate(names) if matches(name, pattern)]
        if not side:
            raise DsoError(f"{option} {text}: the model has no geom '{pattern}'; it has {nearest(pattern, names, 8)}.")
        sides.append(side)
    return sorted({(min(a, b), max(a, b)) for a in sides[0] for b in sides[1] if a != b})


def distance(model: mujoco.MjModel, data: mujoco.MjData, pair: Pair) -> float:
    """Distance [m] of a pair in the position of `data`, negative inside each other; at least what is beyond 1 m is 1 m."""
    a, b = pair.first, pair.second
    reach = pair.margin + 1.0
    radii = model.geom_rbound[[a, b]]
    if (radii > 0).all():  # a plane has none
        apart = float(np.linalg.norm(data.geom_xpos[a] - data.geom_xpos[b]) - radii.sum())
        if apart > pair.margin + 0.05:
            return min(apart, reach)
    return float(mujoco.mj_geomDistance(model, data, a, b, reach, None))


def shortfall(model: mujoco.MjModel, data: mujoco.MjData, pair: Pair) -> float:
    """By how much a pair is too near [m], 0 if it is not. Without a margin, a touch that is not deep does not count."""
    least = pair.margin if pair.margin > 0 else -_TOUCH
    return max(least - distance(model, data, pair), 0.0)


def refuse_touching(model: mujoco.MjModel, qpos: np.ndarray, apart: Sequence[Pair], source: str) -> None:
    """Refuse a position at rest in which a pair is too near.

    Raises:
      DsoError: a pair is nearer than its margin.
    """
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    near = [(shortfall(model, data, pair), pair) for pair in apart]
    wrong = [pair for excess, pair in near if excess > 0]
    if not wrong:
        return
    first, many = wrong[0], f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    away = distance(model, data, first)
    state = f"{away:.3g} m apart" if away > 0 else f"{-away:.3g} m inside each other" if away < 0 else "in touch"
    raise DsoError(
        f"{source}: at rest, before anything moves, the geoms {first.name}{many} are {state}, and "
        f"{first.margin:g} m is the least allowed. Start elsewhere with --keyframe NAME, allow the pair with --touch "
        f"{first.name}, or correct the model."
    )
