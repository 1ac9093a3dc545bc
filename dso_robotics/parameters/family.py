"""A `Family` of parameters: one field of one kind of object, with unit, bounds and where its numbers are in the model."""

import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics import export
from dso_robotics.registry import Registry

INF = float("inf")
# The component of a path without an index that is one number for the whole field.
WHOLE = -1


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one number is stored: `factor` times the number is written to model.`field` at each flat index in `at`."""

    field: str
    at: tuple[int, ...]
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Family:
    """One field of one kind of object.

    unit: (model, object id, component) -> unit of one number.
    width: how many numbers the MJCF attribute has. If more than one, each has its own path `field[i]`.
    places: (model, object id, component) -> slots, in MuJoCo's model or in `signals.NOMINAL`. A model field may be one of
      its options, such as "opt.gravity". The factor of the first slot is not zero.
    low, high: physical bounds, used when the user gives none. A function has (model, object id, component).
    reach: an upper bound instead of an infinite `high`, for quantities whose largest value costs memory or time. A user
      may give a larger one.
    scale: (model, object id) -> typical size, used as the step unit if the value itself is zero.
    refuse: (model, object id) -> why that object cannot have this field, or an empty string.
    whole: (model, object id) -> why the path without an index is no number, or an empty string. None: that path frees each
      number. With a function it is one number, component `WHOLE`, which `places` writes to all.
    listed: (model, object id) -> components that a path without an index frees. None: all.
    mjcf: (field of MjModel, attribute of MJCF) if the slots are in a field that `physics.export` does not write. An
      object's row of the field is then the attribute. None otherwise.
    """

    kind: str
    field: str
    unit: Callable[[mujoco.MjModel, int, int], str]
    places: Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]
    text: str
    width: int | Callable[[mujoco.MjModel, int], int] = 1
    low: float | Callable[[mujoco.MjModel, int, int], float] = 0.0
    high: float | Callable[[mujoco.MjModel, int, int], float] = INF
    reach: float = INF
    scale: Callable[[mujoco.MjModel, int], float] = lambda model, i: 1.0
    refuse: Callable[[mujoco.MjModel, int], str] = lambda model, i: ""
    whole: Callable[[mujoco.MjModel, int], str] | None = None
    listed: Callable[[mujoco.MjModel, int], tuple[int, ...]] | None = None
    mjcf: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        """KIND/FIELD, as shown in messages."""
        return f"{self.kind}/{self.field}"

    def count(self, model: mujoco.MjModel, index: int) -> int:
        """How many numbers object `index` has of this family."""
        return self.width(model, index) if callable(self.width) else self.width

    def components(self, model: mujoco.MjModel, index: int) -> tuple[int, ...]:
        """The numbers of object `index` that `field[*]` frees."""
        return tuple(range(self.count(model, index))) if self.listed is None else self.listed(model, index)

    def bounds(self, model: mujoco.MjModel, index: int, component: int) -> tuple[float, float]:
        """The physical bounds of one number."""
        low, high = (b(model, index, component) if callable(b) else b for b in (self.low, self.high))
        return low, high


FAMILIES: Registry[Family] = Registry("parameter")


def register(family: Family) -> Family:
    """Register a family under its label KIND/FIELD.

    Raises:
      DsoError: another family has the label.
    """
    FAMILIES.register(family.label)(family)
    if family.mjcf is not None:
        field, attribute = family.mjcf
        export.ATTRIBUTES.setdefault(field, (family.kind, attribute))
    return family


def units(*names: str) -> Callable[[mujoco.MjModel, int, int], str]:
    """One unit for each component. The last unit also applies to all later components."""
    return lambda model, i, k: names[min(k, len(names) - 1)]


def row(field: str, width: int = 1, *, column: int = 0) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    """Component k is the number in `column` + k of the object's row, `width` numbers long, of `field`."""
    return lambda model, i, k: (Slot(field, (i * width + column + k,)),)


def interval(field: str) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    """A range (low, high) in `field`: component 0 is low, 1 is high, and `WHOLE` is high with low = -high."""

    def places(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
        if k == WHOLE:
            return (Slot(field, (2 * i + 1,)), Slot(field, (2 * i,), -1.0))
        return (Slot(field, (2 * i + k,)),)

    return places


def needs(holds: Callable[[mujoco.MjModel, int], Any], reason: str) -> Callable[[mujoco.MjModel, int], str]:
    """A function that returns the reason if the condition does not hold for an object."""
    return lambda model, i: "" if holds(model, i) else reason


def ranged(
    kind: str,
    field: str,
    source: str,
    unit: Callable[[mujoco.MjModel, int, int], str],
    text: str,
    *,
    refuse: Callable[[mujoco.MjModel, int], str],
    mjcf: tuple[str, str] | None = None,
) -> Family:
    """A range (low, high) in the model field `source`. If low = -high, the path without an index is one number, high."""

    def ends(model: mujoco.MjModel, i: int) -> np.ndarray:
        return getattr(model, source)[i]

    def whole(model: mujoco.MjModel, i: int) -> str:
        low, high = ends(model, i)
        if low == -high:
            return ""
        return (
            f"its {field} is {low:g} to {high:g}, and without an index both ends are one number, low = -high; free "
            f"{field}[0], {field}[1], or {field}[*] for both"
        )

    def low(model: mujoco.MjModel, i: int, k: int) -> float:
        if k == WHOLE:
            return 0.0
        return -INF if k == 0 else min(max(float(ends(model, i)[0]), 0.0), float(ends(model, i)[1]))

    def high(model: mujoco.MjModel, i: int, k: int) -> float:
        return INF if k != 0 else max(min(float(ends(model, i)[1]), 0.0), float(ends(model, i)[0]))

    return Family(
        kind,
        field,
        unit,
        interval(source),
        text,
        width=2,
        low=low,
        high=high,
        scale=lambda model, i: float(np.abs(ends(model, i)).max()) or 1.0,
        refuse=refuse,
        whole=whole,
        mjcf=mjcf,
    )
