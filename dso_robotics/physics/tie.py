"""One equality constraint of a closed loop: how far it is open, and how joints open it. With NumPy or JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics import posture
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.posture import Array, Pose, unit

CONNECT, WELD, JOINT = (int(getattr(mujoco.mjtEq, f"mjEQ_{name}")) for name in ("CONNECT", "WELD", "JOINT"))


@dataclasses.dataclass(frozen=True)
class Tie:
    """A connect, weld or joint equality: its id, kind, its two bodies (or joints; -1 for none), and its sites, if it has."""

    index: int
    kind: int
    one: int
    two: int
    sites: tuple[int, int] | None = None

    def coupled(
        self, model: mujoco.MjModel, fields: Mapping[str, Array], qpos: Array, dofs: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """The row of a joint equality, and its slopes (..., 1, dofs)."""
        xp = qpos.__array_namespace__()
        power = fields["eq_data"][..., self.index, :5]
        away = []
        for joint in (self.one, self.two):
            at = int(model.jnt_qposadr[joint])
            away.append(qpos[..., at] - fields["qpos0"][..., at] if joint >= 0 else 0.0 * qpos[..., 0])
        one, two = away
        value = sum(power[..., k] * two**k for k in range(5))
        rise: Array = sum(k * power[..., k] * two ** (k - 1) for k in range(1, 5))
        first, second = (int(model.jnt_dofadr[j]) if j >= 0 else -1 for j in (self.one, self.two))
        slope = np.array([dof == first for dof in dofs]) - rise[..., None] * np.array([dof == second for dof in dofs])
        return (one - value)[..., None], xp.asarray(slope)[..., None, :]

    def joined(
        self,
        model: mujoco.MjModel,
        fields: Mapping[str, Array],
        found: posture.Postures,
        dofs: tuple[int, ...],
        axes: Any,
    ) -> tuple[Array, Array]:
        """The rows of a connect or weld, and their slopes (..., rows, dofs).

        axes: directions and centres (..., dofs, 3) of `dofs`, and which (dofs,) turn; None for no slopes.
        """
        one, two = (self._frame(k, fields, found.pose) for k in (0, 1))
        xp = one.place.__array_namespace__()
        rows = [one.place - two.place]
        if self.kind == WELD:
            apart = xp.swapaxes(one.turn, -1, -2) @ two.turn
            rows.append(xp.stack([(apart[..., j, i] - apart[..., i, j]) / 2 for i, j in ((1, 2), (2, 0), (0, 1))], -1))
        away = xp.concatenate(rows, -1) if len(rows) > 1 else rows[0]
        if axes is None:
            return away, away
        axis, centre, turns = axes
        paths = [path(model, body) for body in (self.one, self.two)]
        sign = np.array([float(dof in paths[0]) - float(dof in paths[1]) for dof in dofs])
        near = (sign > 0)[:, None]
        point = xp.where(near, one.place[..., None, :], two.place[..., None, :])
        linear = xp.where(turns[:, None] > 0, xp.cross(axis, point - centre), axis) * sign[:, None]
        slopes = [xp.swapaxes(linear, -1, -2)]
        if self.kind == WELD:
            slopes.append(-xp.swapaxes(axis @ one.turn * (turns * sign)[:, None], -1, -2))
        return away, xp.concatenate(slopes, -2) if len(slopes) > 1 else slopes[0]

    def _frame(self, which: int, fields: Mapping[str, Array], poses: Mapping[int, Pose]) -> Pose:
        """Where a constraint is fixed to its first or second body."""
        own = poses[(self.one, self.two)[which]]
        welds = self.kind == WELD
        if self.sites is not None:
            site = self.sites[which]
            place = own.point(fields["site_pos"][..., site, :])
            return Pose(place, own.turn @ rotation(unit(fields["site_quat"][..., site, :])) if welds else own.turn)
        data = fields["eq_data"][..., self.index, :]
        first = (which == 0) != welds
        place = own.point(data[..., 0:3] if first else data[..., 3:6])
        return Pose(place, own.turn @ rotation(unit(data[..., 6:10])) if welds and which == 0 else own.turn)


def path(model: mujoco.MjModel, body: int) -> set[int]:
    """Degrees of freedom that move `body`."""
    return {int(model.body_dofadr[b]) + k for b in posture.ancestors(model, body) for k in range(model.body_dofnum[b])}
