"""One design map: a few numbers, their names, units and bounds, and how they change the fields of a model.

A new map is one class: `__post_init__` looks its object up and calls `_declare`, `apply` writes fields; registered in
`DESIGN_MAPS`, a study can ask for it by name.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.design.choice import Choice, checked_values, room
from dso_robotics.physics.model import KINDS, Robot, nearest
from dso_robotics.registry import Registry

Array = Any  # a NumPy or a JAX array
Fields = dict[str, Array]  # whole model fields (..., *shape), named as in MjModel
Bound = float | Sequence[float]
# The maps that [design.NAME] can ask for, by `kind`; each takes the robot, a name and bounds.
DESIGN_MAPS: Registry[Any] = Registry("design map", "dso_robotics.physics.design")


@dataclasses.dataclass(frozen=True, eq=False)
class Load:
    """A point mass on a body. mass: [kg] (...). place: [m] (..., 3) in the frame of the body."""

    body: int
    mass: Array
    place: Array


@dataclasses.dataclass(frozen=True, eq=False)
class DesignMap(abc.ABC):
    """`size` design numbers of one object of a robot.

    robot: the robot they belong to.
    name: name of the body, joint or actuator.
    bounds: (low, high), a number or (size,) each, in place of the map's default bounds.
    choices: the values that the number may have in the end, of a map of one number; () stands for all within the bounds.
    names: name of each number, (size,).
    units: unit of each number, (size,).
    initial: the model's values, (size,).
    low: lower bounds, (size,).
    high: upper bounds, (size,).
    """

    robot: Robot = dataclasses.field(repr=False)
    name: str
    _: dataclasses.KW_ONLY
    bounds: tuple[Bound, Bound] | None = None
    choices: tuple[float, ...] = ()
    names: tuple[str, ...] = dataclasses.field(init=False)
    units: tuple[str, ...] = dataclasses.field(init=False)
    initial: np.ndarray = dataclasses.field(init=False)
    low: np.ndarray = dataclasses.field(init=False)
    high: np.ndarray = dataclasses.field(init=False)

    @property
    def size(self) -> int:
        """Number of design numbers of the map."""
        return len(self.names)

    @property
    def choice(self) -> Choice | None:
        """What the numbers may be in the end; None for all within the bounds."""
        if not self.choices:
            return None
        labels = tuple(f"{value:g} {self.units[0]}".removesuffix(" 1") for value in self.choices)
        return Choice(self.names, np.array(self.choices)[:, None], labels)

    @property
    def reshaped(self) -> frozenset[int]:
        """Bodies whose geoms change, so that their inertia must be computed again."""
        return frozenset()

    @property
    def rests(self) -> frozenset[int]:
        """Tendons whose rest length the map sets, so that no automatic one takes its place."""
        return frozenset()

    @abc.abstractmethod
    def apply(self, numbers: Array, fields: Mapping[str, Array]) -> Fields:
        """`fields` after this map at `numbers` (..., size). A field not in `fields` is the model's. Inertia does not change."""

    def loads(self, numbers: Array, fields: Mapping[str, Array]) -> tuple[Load, ...]:
        """Point masses that the map adds to bodies at `numbers` (..., size), where `fields` are those of all maps."""
        return ()

    def _declare(
        self,
        names: Sequence[str],
        units: Sequence[str],
        initial: Any,
        default: tuple[Bound, Bound],
        *,
        size: bool = False,
    ) -> None:
        """Set names, units, start and bounds. With `size` the numbers must be positive.

        Raises:
          DsoError: the lower bound is not below the upper one, the model's value is outside the bounds, they allow a size
            of zero or less, or there are choices that the number cannot have.
        """
        start = np.atleast_1d(np.asarray(initial, float))
        try:
            low, high = (np.broadcast_to(np.asarray(b, float), start.shape) for b in self.bounds or default)
        except ValueError as error:
            raise DsoError(f"{names[0]}: the bounds must be one number or {len(start)} numbers each.") from error
        if self.choices:
            if len(names) > 1:
                raise DsoError(f"{names[0]}: these are {len(names)} numbers, and `choices` are of one; leave them out.")
            values = checked_values(names[0], self.choices, float(low[0]), float(high[0]))
            low, high = (np.array([end]) for end in room(values))
            self._set(choices=values)
        for i, name in enumerate(names):
            span = f"{low[i]:g} to {high[i]:g}"
            if size and not low[i] > 0:
                raise DsoError(f"{name}: the bounds {span} allow a size of zero or less; give a lower bound above 0.")
            if not low[i] < high[i]:
                raise DsoError(
                    f"{name}: the lower bound is not below the upper one in {span}; write bounds=(LOW, HIGH)."
                )
            if not low[i] <= start[i] <= high[i]:
                raise DsoError(
                    f"{name}: the model's value {start[i]:g} {units[i]} is outside the bounds {span}; widen them, or edit "
                    "the model to start inside."
                )
        self._set(names=tuple(names), units=tuple(units), initial=start, low=low, high=high)

    def _set(self, **values: Any) -> None:
        """Set attributes while the frozen map is being made."""
        for key, value in values.items():
            object.__setattr__(self, key, value)


def find(robot: Robot, kind: str, name: str) -> int:
    """Id of the object of `kind` ("body", "joint", "actuator") called `name`.

    Raises:
      DsoError: there is no such object, or it is the world.
    """
    index = mujoco.mj_name2id(robot.mj, KINDS[kind], name)
    names = [n for n in robot.names(kind) if n and not (kind == "body" and n == "world")]
    if index < 0:
        known = f"its {kind} names are like {nearest(name, names)}" if names else f"no {kind} of it has a name"
        raise DsoError(f"{robot.source}: there is no {kind} called '{name}'; {known}.")
    if kind == "body" and index == 0:
        raise DsoError(f"{robot.source}: the world cannot be redesigned; choose a body like {nearest(name, names)}.")
    return index


def read(robot: Robot, fields: Mapping[str, Array], name: str, like: Array) -> Array:
    """Whole field `name` (..., *shape), from `fields` or else from the model, as an array of the same kind as `like`."""
    xp = like.__array_namespace__()
    return fields[name] if name in fields else xp.asarray(np.asarray(getattr(robot.mj, name), float))


def write(
    robot: Robot, fields: Mapping[str, Array], name: str, rows: Sequence[int] | np.ndarray, value: Array
) -> Fields:
    """`fields` with `rows` of field `name` set to `value` (..., k, *tail); batch axes of the two broadcast."""
    rows = np.asarray(rows, int)
    if not len(rows):
        return dict(fields)
    tail = np.ndim(getattr(robot.mj, name)) - 1
    whole = read(robot, fields, name, value)
    xp = value.__array_namespace__()
    lead = np.broadcast_shapes(value.shape[: value.ndim - 1 - tail], whole.shape[: whole.ndim - 1 - tail])
    whole = xp.broadcast_to(whole, (*lead, *whole.shape[whole.ndim - 1 - tail :]))
    where = (..., rows, *(slice(None),) * tail)
    if xp is np:
        whole = whole.copy()
        whole[where] = value
        return {**fields, name: whole}
    return {**fields, name: whole.at[where].set(value)}
