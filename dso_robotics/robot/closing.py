"""Starts of robots with closed loops: the posture and velocity in which the equality constraints hold."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics import loop
from dso_robotics.physics.loop import Loops, OpenLoopError
from dso_robotics.physics.model import Robot

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True, eq=False)
class Closing:
    """Closes the loops of a start by moving the degrees of freedom `dofs`; the others stay where they were drawn.

    centre: (nq,) the position about which starts are drawn.
    rests: all starts are at rest.
    """

    loops: Loops
    dofs: tuple[int, ...]
    centre: np.ndarray
    rests: bool = False

    def __call__(self, model: Any, qpos: Array, qvel: Array) -> tuple[Array, Array]:
        """Position (nq,) and velocity (nv,) with closed loops, for an MJX `model` or a mapping of the fields `loop.FIELDS`.

        A start whose loops cannot be closed becomes the one at the centre; NaN if that cannot be closed either.
        """
        fields = model if isinstance(model, Mapping) else {name: getattr(model, name) for name in loop.FIELDS}
        xp = qpos.__array_namespace__()
        found, shut = self.loops.along(fields, xp.asarray(self.centre), qpos, self.dofs)
        found = xp.where(shut[..., None], found, np.nan)
        return found, qvel if self.rests else self.loops.rate(fields, found, qvel, self.dofs)

    def near(self, fields: Mapping[str, np.ndarray], qpos: np.ndarray) -> np.ndarray:
        """Positions (..., nq) with closed loops, each the nearest that the search finds; NaN where it finds none."""
        found, shut = self.loops.closed(fields, qpos, self.dofs)
        return np.where(shut[..., None], found, np.nan)

    def check(self, fields: Mapping[str, np.ndarray]) -> None:
        """Raise OpenLoopError if the loops cannot be closed at the centre."""
        qpos, shut = self.loops.closed(fields, self.centre, self.dofs)
        if not shut:
            gap = float(self.loops.gap(fields, qpos))
            raise OpenLoopError(
                f"no posture at the start closes the loop of {self.loops.names}: {1e3 * gap:.3g} mm (or mrad) stay open. Start "
                "nearer to where it closes, or give the position of fewer of its joints: the others follow."
            )


def closing(
    robot: Robot, model: mujoco.MjModel, centre: np.ndarray, held: Collection[str], *, rests: bool = False
) -> Closing | None:
    """What closes the loops of `robot`; None if it has none.

    Passive joints give way first, driven ones after them, those called `held` never.

    Raises:
      OpenLoopError: the loops cannot be closed at `centre` (nq,).
    """
    found = loop.loops(model)
    if found is None:
        return None
    kept = {v for v in range(model.nv) if robot.names("joint")[int(model.dof_jntid[v])] in held}
    rest, pushed = set(range(model.nv)) - kept, loop.driven(model, centre)
    fields = loop.model_fields(model)
    made = Closing(found, found.giving(fields, centre, (rest - pushed, rest & pushed)), np.array(centre), rests)
    made.check(fields)
    return made
