"""Closed loops: the posture in which the equality constraints of a model hold, as a function of its fields.

A loop is closed by moving as many joints as it leaves no choice about; the others keep their positions. The solution is found
by Newton steps along a homotopy that shuts the gap bit by bit, which stays on the assembly branch of the posture it begins
with. One last step with a constant Jacobian gives it its derivative (the implicit function theorem).

Functions work with NumPy and JAX and broadcast over leading axes. `physics.closure` is for states of identification, on C.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics import posture
from dso_robotics.physics.inertia import turned
from dso_robotics.physics.posture import Array, unit
from dso_robotics.physics.tie import CONNECT, JOINT, WELD, Tie, path

FIELDS = (*posture.FIELDS, "eq_data", "site_pos", "site_quat")
# A loop is closed if no row is further away than this [m, rad].
CLOSED = 1e-7
_SITE = int(mujoco.mjtObj.mjOBJ_SITE)
_KINDS = (CONNECT, WELD, JOINT)
# Parts in which the gap is shut, steps for each, and steps at the end; largest step [m, rad]; when to stop.
_PARTS, _STEPS, _LAST, _LONGEST, _DONE = 10, 2, 20, 0.3, 1e-14
_WAY, _SETTLE = 24, 6  # parts of the way to another position of the joints that do not give way, and steps at its end
_RIDGE = 1e-13  # of the largest diagonal entry
_DEPENDENT = 1e-6  # of a column's length: less is no direction of its own


class OpenLoopError(DsoError):
    """No posture closes a loop."""


@dataclasses.dataclass(frozen=True, eq=False)
class Loops:
    """The active connects, welds and joint couplings of a model that its joints can open.

    ties: those constraints.
    dofs: degrees of freedom that move in them.
    """

    model: mujoco.MjModel
    ties: tuple[Tie, ...]
    dofs: tuple[int, ...]

    @property
    def names(self) -> str:
        """The constraints, for messages."""
        return ", ".join(f"'{self.model.equality(t.index).name or t.index}'" for t in self.ties)

    def residual(self, fields: Mapping[str, Array], qpos: Array) -> Array:
        """How far the loops are open (..., rows) [m, rad] at `qpos` (..., nq). `fields` has all of `FIELDS`."""
        return self._rows(fields, qpos, ())[0]

    def gap(self, fields: Mapping[str, Array], qpos: Array) -> Array:
        """The largest of |residual| (...)."""
        return abs(self.residual(fields, qpos)).max(-1)

    def _rows(self, fields: Mapping[str, Array], qpos: Array, dofs: tuple[int, ...]) -> tuple[Array, Any]:
        """The residual, and its Jacobian (..., rows, dofs); None without `dofs`."""
        fields, qpos = _together(fields, qpos)
        xp = qpos.__array_namespace__()
        bodies = [body for tie in self.ties if tie.kind != JOINT for body in (tie.one, tie.two)]
        found = posture.postures(self.model, fields, qpos, bodies)
        axes = None
        if dofs and bodies:
            world = found.pose[0].place
            axis = [found.axis.get(dof, world) for dof in dofs]
            centre = [found.centre.get(dof) for dof in dofs]
            turns = np.array([point is not None for point in centre], float)
            centre = [world if point is None else point for point in centre]
            axes = (*(xp.stack(xp.broadcast_arrays(*part), -2) for part in (axis, centre)), turns)
        parts = [tie.joined(self.model, fields, found, dofs, axes) for tie in self.ties if tie.kind != JOINT]
        parts += [tie.coupled(self.model, fields, qpos, dofs) for tie in self.ties if tie.kind == JOINT]
        away = xp.concatenate(_alike([rows for rows, _ in parts], 1), -1)
        slope = xp.concatenate(_alike([slopes for _, slopes in parts], 2), -2) if dofs else None
        return away, slope

    def giving(
        self, fields: Mapping[str, np.ndarray], qpos: np.ndarray, groups: tuple[Collection[int], ...]
    ) -> tuple[int, ...]:
        """The degrees of freedom that close the loops, as few as it takes, from the first of `groups` that have them."""
        slope = np.asarray(self._rows(fields, qpos, self.dofs)[1])
        chosen: list[int] = []
        left = slope.copy()
        for group in groups:
            while True:
                open_ones = [k for k, dof in enumerate(self.dofs) if dof in group and dof not in chosen]
                length = [float(np.linalg.norm(left[:, k])) for k in open_ones]
                if not length or max(length) <= _DEPENDENT * max(float(np.abs(slope).max()), 1e-12):
                    break
                k = open_ones[int(np.argmax(length))]
                chosen.append(self.dofs[k])
                way = left[:, k] / np.linalg.norm(left[:, k])
                left = left - np.outer(way, way @ left)
        return tuple(sorted(chosen))

    def moved(self, qpos: Array, dofs: tuple[int, ...], change: Array) -> Array:
        """`qpos` (..., nq) with `dofs` moved by `change` (..., dofs)."""
        model, xp = self.model, qpos.__array_namespace__()
        straight, turned_ones = np.zeros((len(dofs), model.nq)), set()
        for k, dof in enumerate(dofs):
            joint = int(model.dof_jntid[dof])
            within = dof - int(model.jnt_dofadr[joint])
            kind, q = int(model.jnt_type[joint]), int(model.jnt_qposadr[joint])
            if kind == posture.BALL or (kind == posture.FREE and within > 2):
                turned_ones.add(joint)
            else:
                straight[k, q + within] = 1.0
        out = qpos + change @ xp.asarray(straight)
        for joint in sorted(turned_ones):
            free = int(model.jnt_type[joint]) == posture.FREE
            q, v = int(model.jnt_qposadr[joint]) + 3 * free, int(model.jnt_dofadr[joint]) + 3 * free
            own = np.array([[float(dof == v + i) for i in range(3)] for dof in dofs])
            quat = turned(unit(out[..., q : q + 4]), change @ xp.asarray(own))
            out = xp.concatenate([out[..., :q], quat, out[..., q + 4 :]], -1)
        return out

    def closed(self, fields: Mapping[str, Array], qpos: Array, dofs: tuple[int, ...]) -> tuple[Array, Array]:
        """`qpos` (..., nq) with `dofs` moved until the loops are closed, and whether (...) they are.

        Differentiable by `fields` and by the other positions.
        """
        if not dofs:
            return qpos, self.gap(fields, qpos) <= CLOSED
        still, start = _still(fields, qpos)
        return self._finished(fields, qpos, self._solved(still, start, dofs), dofs)

    def along(
        self, fields: Mapping[str, Array], start: Array, qpos: Array, dofs: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """As `closed`, on the branch of the posture `start` (nq,), closed first.

        The other joints go from where they are in `start` to where they are in `qpos`, bit by bit. Where the loops cannot be
        closed in `qpos`, but in `start`, the result is `start`.
        """
        if not dofs:
            return self.closed(fields, qpos, dofs)
        still, first, last = _still(fields, start, qpos)
        xp = qpos.__array_namespace__()
        own = np.isin(np.arange(self.model.nq), self.places(dofs))
        scalar = np.isin(np.arange(self.model.nq), self._scalars())
        middle = self._solved(still, first, dofs)

        def step(i: Any, carry: Any) -> Any:
            at, before, whole = carry
            share = xp.minimum((i // _STEPS + 1) / _WAY, 1.0)
            here = xp.where(own, at, xp.where(scalar, first + share * (last - first), last))
            away, slope = self._rows(still, here, dofs)
            size = abs(away).max(-1)
            # A second step that does not help is on the way through postures that do not close, to another branch.
            whole = whole & ((i % _STEPS == 0) | (size <= xp.maximum(0.5 * before, CLOSED)))
            return self._stepped(here, (away, slope), dofs), size, whole

        lead = np.broadcast_shapes(middle.shape, last.shape)
        carry: Any = (
            xp.broadcast_to(middle, lead),
            xp.asarray(np.zeros(lead[:-1])),
            xp.asarray(np.ones(lead[:-1], bool)),
        )
        way = _WAY * _STEPS + _SETTLE
        if xp is np:
            for i in range(way):
                carry = step(i, carry)
        else:
            import jax

            carry = jax.lax.fori_loop(0, way, step, carry)
        found, _, whole = carry
        reached = abs(self.residual(still, xp.where(own, found, last))).max(-1) <= CLOSED
        reached = (reached & whole)[..., None]
        given = xp.where(reached, qpos, xp.where(scalar, start, qpos))
        return self._finished(fields, given, xp.where(reached, found, middle), dofs)

    def _finished(
        self, fields: Mapping[str, Array], qpos: Array, found: Array, dofs: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """One more step from the closed posture `found`, whose derivative is that of the implicit function."""
        xp = qpos.__array_namespace__()
        here = xp.where(np.isin(np.arange(self.model.nq), self.places(dofs)), found, qpos)
        away, slope = self._rows(fields, here, dofs)
        still = _still(slope)[0]
        change = -(_inverse(still) @ away[..., None])[..., 0]
        return self.moved(here, dofs, change), abs(away).max(-1) <= CLOSED

    def rate(self, fields: Mapping[str, Array], qpos: Array, qvel: Array, dofs: tuple[int, ...]) -> Array:
        """`qvel` (..., nv) with that of `dofs` such that the loops stay closed."""
        if not dofs:
            return qvel
        xp = qpos.__array_namespace__()
        _, slope = self._rows(fields, qpos, self.dofs)
        others = np.array([k for k, dof in enumerate(self.dofs) if dof not in dofs], int)
        own = np.array([self.dofs.index(dof) for dof in dofs], int)
        pushed = slope[..., :, others] @ qvel[..., np.array(self.dofs, int)[others]][..., None]
        change = -(_inverse(slope[..., :, own]) @ pushed)[..., 0]
        keep = np.ones(self.model.nv)
        keep[list(dofs)] = 0.0
        return qvel * keep + change @ xp.asarray(np.eye(self.model.nv)[list(dofs)])

    def places(self, dofs: tuple[int, ...]) -> list[int]:
        """Entries of qpos that `dofs` move."""
        model, found = self.model, []
        for dof in dofs:
            joint = int(model.dof_jntid[dof])
            kind, q, v = (int(getattr(model, f"jnt_{name}")[joint]) for name in ("type", "qposadr", "dofadr"))
            within = dof - v
            if kind == posture.FREE and within < 3:
                found.append(q + within)
            elif kind in (posture.FREE, posture.BALL):
                first = q + (3 if kind == posture.FREE else 0)
                found += range(first, first + 4)
            else:
                found.append(q)
        return found

    def _scalars(self) -> list[int]:
        """Entries of qpos of hinges and slides."""
        model = self.model
        return [
            int(model.jnt_qposadr[j])
            for j in range(model.njnt)
            if int(model.jnt_type[j]) in (posture.HINGE, posture.SLIDE)
        ]

    def _solved(self, fields: Mapping[str, Array], qpos: Array, dofs: tuple[int, ...]) -> Array:
        """The closed posture, without a derivative."""
        xp = qpos.__array_namespace__()
        start = self.residual(fields, qpos)
        last = _PARTS * _STEPS + _LAST

        def step(i: Any, at: Array) -> tuple[Array, Array]:
            away, slope = self._rows(fields, at, dofs)
            left = xp.maximum(1.0 - (i // _STEPS + 1) / _PARTS, 0.0)
            return self._stepped(at, (away - left * start, slope), dofs), abs(away).max()

        at = xp.broadcast_to(qpos, (*np.broadcast_shapes(start.shape[:-1], qpos.shape[:-1]), qpos.shape[-1]))
        if xp is np:
            for i in range(last):
                following, away = step(i, at)
                if away <= _DONE:
                    break
                at = following
            return at
        import jax

        def once(carry: Any) -> Any:
            return (carry[0] + 1, *step(carry[0], carry[1]))

        first = (0, at, abs(start).max())
        return jax.lax.while_loop(lambda carry: (carry[0] < last) & (carry[2] > _DONE), once, first)[1]

    def _stepped(self, at: Array, rows: tuple[Array, Array], dofs: tuple[int, ...]) -> Array:
        """`at` after a Newton step of limited length."""
        away, slope = rows
        change = -(_inverse(slope) @ away[..., None])[..., 0]
        xp = change.__array_namespace__()
        long = xp.sqrt((change**2).sum(-1))[..., None]
        return self.moved(at, dofs, change * xp.minimum(1.0, _LONGEST / xp.maximum(long, 1e-12)))


def _inverse(slope: Any) -> Array:
    """The pseudo-inverse (..., n, rows) of `slope` (..., rows, n), whose columns are independent.

    By elimination without pivots, for a small positive definite matrix: JAX compiles this many times faster than LAPACK's
    solvers.
    """
    xp = slope.__array_namespace__()
    other = xp.swapaxes(slope, -1, -2)
    square = other @ slope
    eye = np.eye(square.shape[-1])
    size = (square * eye).sum((-2, -1))[..., None, None]
    rows = xp.concatenate([square + xp.asarray(eye) * (_RIDGE * size + 1e-300), other], -1)
    for k, one in enumerate(eye):
        row = rows[..., k : k + 1, :] / rows[..., k : k + 1, k : k + 1]
        rows = rows - (rows[..., :, k : k + 1] - one[:, None]) * row
    return rows[..., len(eye) :]


def _together(fields: Mapping[str, Array], qpos: Array) -> tuple[dict[str, Array], Array]:
    """`fields` and `qpos`, all of them JAX arrays if one is: a field that no design moves may still be NumPy's."""
    given = (*fields.values(), qpos)
    xp = next((value.__array_namespace__() for value in given if not isinstance(value, np.ndarray)), np)
    return {name: xp.asarray(value) for name, value in fields.items()}, xp.asarray(qpos)


def _alike(parts: list[Array], tail: int) -> list[Array]:
    """`parts` with the same leading axes, before the last `tail`."""
    if len(parts) == 1:
        return parts
    xp = parts[0].__array_namespace__()
    lead = np.broadcast_shapes(*(part.shape[: part.ndim - tail] for part in parts))
    return [xp.broadcast_to(part, (*lead, *part.shape[part.ndim - tail :])) for part in parts]


def _still(*values: Any) -> tuple[Any, ...]:
    """Arrays, or mappings of them, without derivatives."""
    values = tuple({name: v[name] for name in FIELDS} if isinstance(v, Mapping) else v for v in values)
    if isinstance(values[-1], np.ndarray):
        return values
    import jax

    return jax.lax.stop_gradient(values)


def model_fields(model: Any) -> dict[str, Any]:
    """`FIELDS` of an `MjModel`."""
    return {name: np.asarray(getattr(model, name), float) for name in FIELDS}


def loops(model: mujoco.MjModel) -> Loops | None:
    """The loops of `model`; None if it has none.

    Constraints of mocap bodies, which pull at the robot, are no loops, nor are those that no joint can open.
    """
    ties, dofs = [], set()
    for i in np.flatnonzero(model.eq_active0):
        kind = int(model.eq_type[i])
        if kind not in _KINDS:
            continue
        one, two = int(model.eq_obj1id[i]), int(model.eq_obj2id[i])
        if kind == JOINT:
            ties.append(Tie(int(i), kind, one, two))
            dofs |= {int(model.jnt_dofadr[j]) for j in (one, two) if j >= 0}
            continue
        sites = None
        if int(model.eq_objtype[i]) == _SITE:
            sites = one, two
            one, two = int(model.site_bodyid[one]), int(model.site_bodyid[two])
        if any(model.body_mocapid[model.body_rootid[body]] >= 0 for body in (one, two)):
            continue
        tie = Tie(int(i), kind, one, two, sites)
        mine = path(model, one) ^ path(model, two)
        if mine:
            ties.append(tie)
            dofs |= mine
    return Loops(model, tuple(ties), tuple(sorted(dofs))) if ties else None


def driven(model: mujoco.MjModel, qpos: np.ndarray) -> set[int]:
    """Degrees of freedom that an actuator pushes at `qpos` (nq,)."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_fwdPosition(model, data)
    moment = np.zeros((model.nu, model.nv))
    mujoco.mju_sparse2dense(moment, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind)
    return {int(v) for v in np.flatnonzero(np.abs(moment).max(0, initial=0.0) > 1e-9)}
