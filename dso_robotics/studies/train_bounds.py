"""Check designs within their bounds in the start posture, before compilation.

Open loops, and overlap of parts or with the floor, are refused.
"""

import itertools
from collections.abc import Iterator

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics import loop
from dso_robotics.physics.design.compose import Design
from dso_robotics.physics.export import to_mjcf
from dso_robotics.robot.closing import Closing
from dso_robotics.robot.mechanism import Mechanism

_DEPTH = 1e-3  # [m] deeper than with the model's own numbers; contacts are soft, so starts may rest in one
_CORNERS, _INSIDE = 6, 64  # every corner of the box of so many numbers is checked, and so many points within
_HALVINGS = 20


def refuse_open_loops(mechanism: Mechanism, closing: Closing | None) -> None:
    """Refuse bounds within which the loops cannot be closed, in the reference posture or at the start.

    Checked are the corners of the box of bounds (of many numbers: some of them) and random points within.

    Raises:
      DsoError: somewhere no posture closes them; it says how far the bounds may be.
    """
    design = mechanism.design
    if design is None or closing is None or not any(map(_opens, design.maps)):
        return
    low, high = _box(design)
    for i in range(design.size):
        for bound, side in ((low[i], "lower"), (high[i], "upper")):
            far = design.initial.copy()
            far[i] = bound
            if _closes(mechanism, closing, far[None])[0]:
                continue
            near, away = float(design.initial[i]), float(bound)
            for _ in range(_HALVINGS):
                middle = far.copy()
                middle[i] = (near + away) / 2
                closed = _closes(mechanism, closing, middle[None])[0]
                near, away = (middle[i], away) if closed else (near, middle[i])
            raise DsoError(
                f"with {design.names[i]} at its {side} bound, {bound:g} {design.units[i]}, no posture at the start closes the "
                f"loop of {closing.loops.names}; it closes up to {near:.4g} {design.units[i]}. Narrow the bounds, or start "
                "elsewhere."
            )
    points = box_points(design)
    closed = _closes(mechanism, closing, points)
    if not closed.all():
        worst = points[np.flatnonzero(~closed)[0]]
        raise DsoError(
            f"the bounds of the design allow {listed(design, worst)}, with which no posture at the start closes the loop of "
            f"{closing.loops.names} ({100 * np.mean(~closed):.0f}% of the points looked at); narrow the bounds, or start "
            "elsewhere."
        )


def _box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """The bounds (size,) of the design's numbers; where there is none, the model's own value."""
    low, high = (np.where(np.isfinite(b), b, design.initial) for b in (design.low, design.high))
    return low, high


def box_points(design: Design) -> np.ndarray:
    """Numbers (N, size) within the bounds to look at: corners of the box, all or some, and random points."""
    low, high = _box(design)
    rng = np.random.default_rng(0)
    points = rng.uniform(low, high, (_INSIDE, design.size))
    if design.size <= _CORNERS:
        return np.concatenate([np.array(list(itertools.product(*zip(low, high, strict=True)))), points])
    return np.concatenate(
        [low[None], high[None], np.where(rng.random((_INSIDE, design.size)) < 0.5, low, high), points]
    )


def listed(design: Design, numbers: np.ndarray) -> str:
    """The numbers (size,) of a design with their names, for messages."""
    return ", ".join(
        f"{name} = {value:.4g} {unit}" for name, value, unit in zip(design.names, numbers, design.units, strict=True)
    )


def _opens(design_map: object) -> bool:
    return bool(getattr(design_map, "reshaped", ())) or any(hasattr(design_map, part) for part in ("joint", "site"))


def _closes(mechanism: Mechanism, closing: Closing, numbers: np.ndarray) -> np.ndarray:
    """Whether each row of the design's numbers (N, size) has a closed reference posture and a closed start."""
    design, nominal = mechanism.design, loop.model_fields(mechanism.mj)
    assert design is not None
    fields = design.applied(numbers)
    shut = np.ones(len(numbers), bool)
    if design.reference is not None:
        shut = design.reference.posture(numbers, fields)[2]
        if shut.any():
            fields = design.reference(numbers[shut], design.applied(numbers[shut]), str)
    if not shut.any():
        return shut
    here = nominal | {name: value for name, value in fields.items() if name in nominal}
    _, closed = closing.loops.closed(here, closing.centre, closing.dofs)
    shut[shut] = np.broadcast_to(closed, (int(shut.sum()),))
    return shut


def refuse_overlap(mechanism: Mechanism, qpos: np.ndarray, *, lifted: bool, closing: Closing | None = None) -> None:
    """Check each design number alone at both bounds, and all together at their lower and at their upper bounds.

    qpos: (nq,) the start posture; loops are closed by `closing`.
    lifted: start states are placed on the floor, so their height is not checked.

    Raises:
      DsoError: two geoms that may touch overlap more deeply than with the model's own numbers.
    """
    if mechanism.design is None:
        return
    rest = _depths(mechanism, mechanism.initial, qpos, lifted, closing)
    for numbers, told in _ends(mechanism):
        for (one, two), depth in _depths(mechanism, numbers, qpos, lifted, closing).items():
            if depth < max(rest.get((one, two), 0.0), 0.0) + _DEPTH:
                continue
            model = mechanism.mj
            names = [f"'{model.geom(g).name or g}' of '{model.body(model.geom_bodyid[g]).name}'" for g in (one, two)]
            raise DsoError(
                f"with {told} the geoms {names[0]} and {names[1]} are {1e3 * depth:.3g} mm deep in each other in the start "
                "posture; narrow the bounds, or start in a posture where they are clear (for a floor, [start] lift)."
            )


def _ends(mechanism: Mechanism) -> Iterator[tuple[np.ndarray, str]]:
    """Numbers z (size,) to check, and their descriptions."""
    count = mechanism.design.size if mechanism.design is not None else 0
    for bound, side in ((mechanism.low, "lower"), (mechanism.high, "upper")):
        where = [i for i in range(mechanism.size - count, mechanism.size) if np.isfinite(bound[i])]
        for rows in (*([i] for i in where), where) if where else ():
            numbers = mechanism.initial.copy()
            numbers[rows] = bound[rows]
            told = f"{mechanism.names[rows[0]]} at its {side} bound, {bound[rows[0]]:g} {mechanism.units[rows[0]]},"
            yield numbers, told if len(rows) == 1 else f"all design numbers at their {side} bounds"


def _depths(
    mechanism: Mechanism, numbers: np.ndarray, qpos: np.ndarray, lifted: bool, closing: Closing | None
) -> dict[tuple[int, int], float]:
    """Overlap depth [m] of geoms, by pair, on the exported model."""
    model = mujoco.MjModel.from_xml_string(to_mjcf(mechanism.robot, mechanism.fields(numbers)))
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    if closing is not None:
        data.qpos[:] = closing.loops.closed(loop.model_fields(model), qpos, closing.dofs)[0]
    mujoco.mj_fwdPosition(model, data)
    found = {}
    for contact in data.contact:
        pair = (int(contact.geom1), int(contact.geom2))
        fixed = any(model.body_weldid[model.geom_bodyid[g]] == 0 for g in pair)
        if not (lifted and fixed):
            found[pair] = max(-float(contact.dist), found.get(pair, 0.0))
    return found
