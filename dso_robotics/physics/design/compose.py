"""Several design maps as one function from their numbers to model fields, with inertia computed from geometry."""

import copy
import dataclasses
from collections.abc import Iterable, Iterator

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.choice import Choice
from dso_robotics.physics.design.load import loaded
from dso_robotics.physics.design.map import Array, DesignMap, Fields, read
from dso_robotics.physics.design.reference import Reference, reference
from dso_robotics.physics.design.tendon import Rest, rest
from dso_robotics.physics.geometry import Geometry, geometry
from dso_robotics.physics.model import Robot

_ROUNDING = 1e-6  # also in single precision
# Fields that MuJoCo assumes fixed in a body that it compiled as simple.
_SIMPLE = {"ipos": "centre of mass", "inertia": "principal axes", "jnt_pos": "joint", "jnt_axis": "joint axis"}


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """Maps applied in order; made by `compose`.

    geometry: the geoms of the bodies that some map reshapes, or None.
    rest: automatic rest lengths of tendons.
    reference: what keeps loops closed in the reference posture; None if the design opens none.
    """

    robot: Robot = dataclasses.field(repr=False)
    maps: tuple[DesignMap, ...]
    geometry: Geometry | None = dataclasses.field(repr=False)
    rest: Rest = dataclasses.field(repr=False)
    reference: Reference | None = dataclasses.field(repr=False, default=None)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every design number, in order."""
        return tuple(name for m in self.maps for name in m.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every design number."""
        return tuple(unit for m in self.maps for unit in m.units)

    @property
    def size(self) -> int:
        """Number of design numbers."""
        return len(self.names)

    @property
    def initial(self) -> np.ndarray:
        """(size,) the numbers at which the design is the unchanged model."""
        return np.concatenate([m.initial for m in self.maps])

    @property
    def low(self) -> np.ndarray:
        """(size,) lower bounds."""
        return np.concatenate([m.low for m in self.maps])

    @property
    def high(self) -> np.ndarray:
        """(size,) upper bounds."""
        return np.concatenate([m.high for m in self.maps])

    def __call__(self, numbers: Array) -> Fields:
        """MuJoCo model fields at `numbers` (..., size): whole arrays (..., *shape) of the fields that a map changes.

        If a map reshapes bodies, the fields include body_mass [kg], body_ipos [m] and "body_inertia_full"
        (..., nbody, 3, 3) [kg m^2]. The last is the inertia about the centre of mass in body axes, NaN for bodies that keep
        their inertia.

        With loops that the design would open, the reference posture follows (see `reference`): body_pos, body_quat and qpos0
        change too. With JAX, qpos0 is NaN where no posture closes them.

        Raises:
          DsoError: `numbers` has the wrong length, or no posture closes a loop (with NumPy).
        """
        if numbers.shape[-1:] != (self.size,):
            raise DsoError(
                f"the design takes {self.size} numbers ({', '.join(self.names)}), not an array of shape {numbers.shape}."
            )
        fields = self.applied(numbers)
        if self.reference is not None:
            fields = self.reference(numbers, fields, lambda row: self._told(numbers, row))
        fields = fields | self.rest(numbers, fields) | self._inertials(numbers, fields)
        parts = [load for m, own in self._split(numbers) for load in m.loads(own, fields)]
        return loaded(self.robot, fields, parts, numbers) if parts else fields

    def applied(self, numbers: Array) -> Fields:
        """What the maps alone do: the fields before loops are closed."""
        fields: Fields = {}
        for m, own in self._split(numbers):
            fields = m.apply(own, fields)
        return fields

    def _split(self, numbers: Array) -> Iterator[tuple[DesignMap, Array]]:
        """Every map with its numbers (..., its size)."""
        start = 0
        for m in self.maps:
            yield m, numbers[..., start : start + m.size]
            start += m.size

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The numbers that can have a few values only."""
        return tuple(choice for m in self.maps if (choice := m.choice) is not None)

    def snapped(self, numbers: np.ndarray) -> np.ndarray:
        """`numbers` (size,) NumPy, with values of choices, where they are those but for rounding, as they were given."""
        found = np.array(numbers, float)
        for choice in self.choices:
            at = [self.names.index(name) for name in choice.names]
            for option in choice.options:
                if np.allclose(found[at], option, rtol=_ROUNDING, atol=_ROUNDING):
                    found[at] = option
        return found

    def _told(self, numbers: np.ndarray, row: int) -> str:
        """The numbers of a row that are not the initial ones, for messages."""
        values = numbers.reshape(-1, self.size)[row]
        changed = [
            f"{name} = {value:.4g} {unit}"
            for name, value, unit, old in zip(self.names, values, self.units, self.initial, strict=True)
            if value != old
        ]
        return f"with {', '.join(changed)}" if changed else "in the unchanged model"

    def _inertials(self, like: Array, fields: Fields) -> Fields:
        """Mass, centre of mass and inertia of all bodies, (..., nbody, *tail) each."""
        if self.geometry is None:
            return {}
        xp = like.__array_namespace__()
        nbody, rows = self.robot.mj.nbody, self.geometry.bodies
        size, place, quat = (read(self.robot, fields, f"geom_{name}", like) for name in ("size", "pos", "quat"))
        given = np.isin(np.arange(nbody), rows)
        # Row of each body among the reshaped ones. A gather is cheaper to differentiate than a scatter.
        source = np.searchsorted(rows, np.arange(nbody)).clip(max=len(rows) - 1)
        kept = (self.robot.mj.body_mass, self.robot.mj.body_ipos, np.full((nbody, 3, 3), np.nan))
        out = {}
        for name, new, old in zip(
            ("body_mass", "body_ipos", "body_inertia_full"),
            self.geometry.inertials(size, place, quat),
            kept,
            strict=True,
        ):
            tail = old.ndim - 1
            where = given.reshape((nbody, *(1,) * tail))
            out[name] = xp.where(where, new[(..., source, *(slice(None),) * tail)], xp.asarray(old))
        return out


def compose(maps: Iterable[DesignMap], robot: Robot) -> Design:
    """One design from `maps`, applied in the order given: a later map may scale what an earlier one set (a joint position).

    Raises:
      DsoError: there are no maps, one belongs to another robot, two set the same number, or one changes what MuJoCo assumes
        fixed in a body that it compiled as simple.
    """
    maps = tuple(maps)
    if not maps:
        raise DsoError(
            "a design without maps has nothing to change; give at least one, such as LimbLength(robot, NAME)."
        )
    names = [name for m in maps for name in m.names]
    for name in names:
        if names.count(name) > 1:
            raise DsoError(f"{name}: two maps of the design set this number; keep one of them.")
    for m in maps:
        if m.robot is not robot:
            raise DsoError(
                f"{m.names[0]}: this map was made for another robot ({m.robot.source}) than the design ({robot.source}); "
                "make it with the same loaded robot."
            )
    bodies = {body for m in maps for body in m.reshaped}
    shapes = geometry(robot, bodies) if bodies else None
    given = {tendon for m in maps for tendon in m.rests}
    plain = Design(robot, maps, shapes if shapes and len(shapes.bodies) else None, rest(robot, given))
    others = [plain.initial + move * np.maximum(np.abs(plain.initial), 0.1) for move in _directions(plain.size)]
    closes = reference(robot, lambda: map(plain.applied, others), plain.applied(plain.initial))
    design = dataclasses.replace(plain, reference=closes)
    _refuse_simple(design)
    _refuse_muscles(design)
    return design


def _directions(size: int) -> list[np.ndarray]:
    """Small moves (size,) in arbitrary directions, so that no symmetry hides a change."""
    return [0.01 * np.sin(1.0 + k + np.arange(size)) for k in range(3)]


def _refuse_simple(design: Design) -> None:
    """Refuse a design that moves a body compiled as simple: C MuJoCo computes it by shortcuts, which would be wrong."""
    model = design.robot.mj
    numbers = design.initial + _directions(design.size)[0] * np.maximum(np.abs(design.initial), 0.1)
    fields = design(numbers)
    ipos = fields.get("body_ipos", model.body_ipos)
    full = np.nan_to_num(fields.get("body_inertia_full", np.zeros((model.nbody, 3, 3))))
    products = np.abs(full * (1 - np.eye(3))).max((-2, -1))
    away = np.linalg.norm(ipos, axis=-1)
    for body in np.flatnonzero(model.body_simple):
        own = model.jnt_bodyid == body
        broken = {
            "ipos": away[body] > 1e-9,
            "inertia": products[body] > 1e-9 * np.abs(full[body]).max(),
            **{
                name: not np.array_equal(fields.get(name, getattr(model, name))[own], getattr(model, name)[own])
                for name in ("jnt_pos", "jnt_axis")
            },
        }
        for what in (_SIMPLE[key] for key, value in broken.items() if value):
            raise DsoError(
                f"{design.robot.source}: the design moves the {what} of body '{model.body(body).name}', which MuJoCo compiled "
                'as simple. MuJoCo computes such a body by shortcuts, which would then be wrong; write simple="false" in this '
                "<body>."
            )


def _refuse_muscles(design: Design) -> None:
    """Refuse a design that changes the length of a muscle whose `lengthrange` MuJoCo's compiler finds by simulation."""
    robot = design.robot
    automatic = [a.id for a in ([] if robot.spec is None else robot.spec.actuators) if not np.any(a.lengthrange)]
    automatic = [i for i in automatic if np.any(robot.mj.actuator_lengthrange[i])]
    if not automatic:
        return
    moved = design.initial + _directions(design.size)[0] * np.maximum(np.abs(design.initial), 0.1)
    before, after = (_lengths(robot, design(numbers)) for numbers in (design.initial, moved))
    for i in automatic:
        if not np.allclose(before[:, i], after[:, i], rtol=1e-9, atol=1e-12):
            raise DsoError(
                f"{robot.source}: the design changes the length of muscle '{robot.mj.actuator(i).name or i}', whose "
                'lengthrange MuJoCo\'s compiler finds by simulation, so it has no derivative; write lengthrange="LOW HIGH" in '
                "this actuator."
            )


def _lengths(robot: Robot, fields: Fields) -> np.ndarray:
    """Lengths of the actuators (5, nu) in some postures: a tendon may touch a pulley in a few only."""
    model = copy.copy(robot.mj)
    for name, value in fields.items():
        if name != "body_inertia_full":
            getattr(model, name)[...] = value
    found = []
    for step in (0.0, 0.3, -0.3, 1.0, -1.0):
        data = mujoco.MjData(model)
        mujoco.mj_integratePos(model, data.qpos, np.sin(1.0 + np.arange(model.nv)), step)
        mujoco.mj_fwdPosition(model, data)
        found.append(np.array(data.actuator_length))
    return np.array(found)
