"""The physical part of theta: bounded parameters of model and sensors, and design parameters, as blocks and model fields."""

import dataclasses
import functools
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.theta import Block, Theta
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.c_model import CModel, OnEngine
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.design.compose import Design
from dso_robotics.physics.model import Robot

Array = Any  # a NumPy or a JAX array
# Step of differences by a number, as a part of its typical size.
DIFFERENCE = 1e-6
# Signals that a chain does not have: its policy has a delay of its own, and no controller of a log drives it.
_UNUSED = ("actuator_delay", "controller_gain")
_SENSORS = ("sensor_bias", "sensor_scale", "sensor_delay")


@dataclasses.dataclass(frozen=True, eq=False)
class Mechanism(Theta):
    """The parameters `vector` of one robot and its sensors, the parameters of its block "design", or both.

    Their values are z (size,): physical parameters, then sensor parameters, then design parameters.

    The last `drawn` parameters of `vector` are not in theta and not in z. The episode's context gives them. Without a
    context, they have the model's own values.

    Raises:
      DsoError: a parameter of sensors comes before one of the physics, a parameter is of a signal that no chain has, or two
        parts set one number.
    """

    blocks: tuple[Block, ...] = dataclasses.field(init=False)
    robot: Robot
    vector: ParameterVector | None = None
    design: Design | None = None
    drawn: int = 0

    def __post_init__(self):
        own = [p for p, here in self.vector.places() if here.stop <= self._own] if self.vector is not None else []
        object.__setattr__(self, "blocks", (*own, *([] if self.design is None else [_block(self.design)])))
        super().__post_init__()
        unused = [p.name for p in self._parameters if any(slot.field in _UNUSED for slot in p.slots)]
        if unused:
            raise DsoError(
                f"{self.robot.source}: {', '.join(unused)} cannot be free here: no log is played, so nothing would depend on "
                "it. Free masses, damping, gears and the like; late actions are `delay` of the policy."
            )
        drawn = [is_of_sensors(p) for p in self._parameters[len(own) :]]
        kinds = [is_of_sensors(p) for p in own]
        if kinds != sorted(kinds) or drawn != sorted(drawn):
            raise DsoError(f"{self.robot.source}: declare parameters of sensors after those of the physics.")
        if self.vector is None or self.design is None:
            return
        both = set(self.vector.fields(self.vector.initial)) & set(self.design(self.design.initial))
        if both:
            raise DsoError(
                f"{self.robot.source}: parameters and design numbers both set the model's {', '.join(sorted(both))}; free one "
                "of them, or add a design map for what the parameter does."
            )

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        return () if self.vector is None else self.vector.parameters

    @functools.cached_property
    def groups(self) -> dict[str, Theta]:
        """The blocks of theta by name, in the order of z: "physics", "sensor", "design". Empty ones are left out."""
        own = [block for block in self.blocks if isinstance(block, Parameter)]
        parts = {
            "physics": [p for p in own if not is_of_sensors(p)],
            "sensor": [p for p in own if is_of_sensors(p)],
            "design": [block for block in self.blocks if not isinstance(block, Parameter)],
        }
        return {name: Theta(tuple(part)) for name, part in parts.items() if part}

    @functools.cached_property
    def believed(self) -> Theta:
        """The physical parameters that an estimator may have its own values of: those of theta, then the drawn ones."""
        return Theta(tuple(p for p in self._parameters if not is_of_sensors(p)))

    def parameters_believed(self, z: Array, own: Array | None) -> Array:
        """`parameters` with the physical ones from `own` (those of `believed`) or, without it, from the model file."""
        if self.vector is None:
            return self.parameters(z)
        if own is None:
            own = np.concatenate([np.zeros(0), *(p.nominal for p in self.believed.blocks if isinstance(p, Parameter))])
        xp, sensors = z.__array_namespace__(), 0 if "sensor" not in self.groups else self.groups["sensor"].size
        free = self._own - sensors
        drawn, last = own[free:], self.vector.initial[self._own + len(own) - free :]
        return xp.concatenate([own[:free], z[free : self._own], drawn, xp.asarray(last)])

    @property
    def difference(self) -> np.ndarray:
        """Step (size,) of differences by each number of z."""
        return DIFFERENCE * np.asarray(self.scale)

    @property
    def simulates(self) -> np.ndarray:
        """(size,) False for numbers of sensors, which change nothing that is simulated."""
        parts = [np.full(group.size, name != "sensor") for name, group in self.groups.items()]
        return np.concatenate([np.zeros(0, bool), *parts])

    @property
    def mj(self) -> mujoco.MjModel:
        """The model whose fields are replaced."""
        return self.robot.mj if self.vector is None else self.vector.mj

    @property
    def friction_dofs(self) -> list[int]:
        """Degrees of freedom whose friction loss is a free parameter and may therefore start at zero."""
        return self.vector.freed("dof_frictionloss") if self.vector is not None else []

    @property
    def _own(self) -> int:
        """Number of parameters of `vector` that are in z."""
        return self.vector.size - self.drawn if self.vector is not None else 0

    def normalised(self, z: Array) -> Array:
        """z (size,) scaled by its ranges to [-1, 1]. Without two bounds: distance from the initial value in typical sizes."""
        both = np.isfinite(self.low) & np.isfinite(self.high)
        middle = np.where(both, (self.low + self.high) / 2, self.initial)
        return (z - middle) / np.where(both & (self.high > self.low), (self.high - self.low) / 2, self.scale)

    def parameters(self, z: Array, drawn: Array | None = None) -> Array:
        """All parameters of `vector`: those of z (size,), then the `drawn` ones or, without them, the model's own."""
        if not self.drawn or self.vector is None:
            return z[: self._own]
        xp = z.__array_namespace__()
        last = self.vector.initial[self._own :] if drawn is None else drawn
        return xp.concatenate([z[: self._own], xp.asarray(last)])

    def fields(self, z: Array, drawn: Array | None = None) -> dict[str, Array]:
        """Model fields at z (size,), in the format of `ParameterVector.fields` and `Design`."""
        return self.fields_at(self.parameters(z, drawn), z)

    def fields_at(self, parameters: Array, z: Array) -> dict[str, Array]:
        """Model fields with all `parameters` of `vector` given, and the design of z: a mechanism is built as designed."""
        return (self.vector.fields(parameters) if self.vector is not None else {}) | self.design_fields(z)

    def design_fields(self, z: Array) -> dict[str, Array]:
        """Model fields that the design parameters of z set."""
        return self.design(z[self._own :]) if self.design is not None else {}

    def snapped(self, z: np.ndarray) -> np.ndarray:
        """z (size,) NumPy, with values of the design's choices as they were given, not with the rounding of a search."""
        if self.design is None:
            return z
        return np.concatenate([z[: self._own], self.design.snapped(z[self._own :])])

    def model(self, base: OnEngine, z: Array, drawn: Array | None = None) -> tuple[OnEngine, Array | None]:
        """`base` with the fields at z, and the products of inertia if full inertias change. `base` is `mj` on the device."""
        return self.model_at(base, self.parameters(z, drawn), z)

    def model_at(self, base: OnEngine, parameters: Array, z: Array) -> tuple[OnEngine, Array | None]:
        """`model` with all `parameters` of `vector` given."""
        fields = self.fields_at(parameters, z)
        return (base.replaced(fields), None) if isinstance(base, CModel) else with_fields(base, self.mj, fields)


def is_of_sensors(parameter: Parameter) -> bool:
    """Whether a parameter is the bias, scale or delay of a sensor."""
    return any(slot.field in _SENSORS for slot in parameter.slots)


def _block(design: Design) -> Block:
    """The parameters of a design as a block of theta. If a parameter starts at zero, its scale is its range, or one."""
    start, span = np.abs(design.initial), design.high - design.low
    scale = np.where(start > 0, start, np.where(np.isfinite(span), span, 1.0))
    return Block(
        "design", design.initial, True, design.low, design.high, scale, entries=design.names, units=design.units
    )
