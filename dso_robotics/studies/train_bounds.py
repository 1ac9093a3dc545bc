"""Check designs at their bounds in the start posture. Overlap of parts or with the floor is refused before compilation."""

from collections.abc import Iterator

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.robot.mechanism import Mechanism

_DEPTH = 1e-3  # [m] deeper than with the model's own numbers; contacts are soft, so starts may rest in one


def refuse_overlap(mechanism: Mechanism, qpos: np.ndarray, *, lifted: bool) -> None:
    """Check each design number alone at both bounds, and all together at their lower and at their upper bounds.

    qpos: (nq,) the start posture.
    lifted: start states are placed on the floor, so their height is not checked.

    Raises:
      DsoError: two geoms that may touch overlap more deeply than with the model's own numbers.
    """
    if mechanism.design is None:
        return
    rest = _depths(mechanism, mechanism.initial, qpos, lifted)
    for numbers, told in _ends(mechanism):
        for (one, two), depth in _depths(mechanism, numbers, qpos, lifted).items():
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


def _depths(mechanism: Mechanism, numbers: np.ndarray, qpos: np.ndarray, lifted: bool) -> dict[tuple[int, int], float]:
    """Overlap depth [m] of geoms, by pair, on the exported model."""
    model = mujoco.MjModel.from_xml_string(to_mjcf(mechanism.robot, mechanism.fields(numbers)))
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    found = {}
    for contact in data.contact:
        pair = (int(contact.geom1), int(contact.geom2))
        fixed = any(model.body_weldid[model.geom_bodyid[g]] == 0 for g in pair)
        if not (lifted and fixed):
            found[pair] = max(-float(contact.dist), found.get(pair, 0.0))
    return found
