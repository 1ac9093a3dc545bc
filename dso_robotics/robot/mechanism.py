"""The physical part of theta: parameters of the model and design numbers, bounded, as one block and as model fields."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters import box
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics import inertia
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.constants import set_constants
from dso_robotics.physics.design.compose import Design
from dso_robotics.physics.model import Robot

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True, eq=False)
class Mechanism:
    """Physical parameters `vector` and design `design` of one robot, either or both; numbers z (size,), parameters first.

    Theta holds unconstrained coordinates of z: logistic between two bounds, softplus beside one. The last `drawn` parameters
    are not of theta and not in z: an episode's context gives them, and without one they are the model's own.
    """

    robot: Robot
    vector: ParameterVector | None = None
    design: Design | None = None
    drawn: int = 0

    def __post_init__(self):
        unused = sorted(self.vector.signals(self.vector.initial)) if self.vector is not None else []
        if unused:
            raise DsoError(
                f"{self.robot.source}: {', '.join(unused)} of a recording cannot be free here: no log is played, so nothing "
                "would depend on it. Free masses, damping, gears and the like."
            )
        if self.vector is None or self.design is None:
            return
        both = set(self.vector.fields(self.vector.initial)) & set(self.design(self.design.initial))
        if both:
            raise DsoError(
                f"{self.robot.source}: parameters and design numbers both set the model's {', '.join(sorted(both))}; free one "
                "of them, or add a design map for what the parameter does."
            )

    @property
    def mj(self) -> mujoco.MjModel:
        """The model that fields replace parts of."""
        return self.robot.mj if self.vector is None else self.vector.mj

    @property
    def friction_dofs(self) -> list[int]:
        """Degrees of freedom whose friction loss is free, and so may start at zero."""
        parameters = self.vector.parameters if self.vector is not None else ()
        return sorted({i for p in parameters for s in p.slots if s.field == "dof_frictionloss" for i in s.at})

    @property
    def _own(self) -> int:
        """How many parameters z holds."""
        return self.vector.size - self.drawn if self.vector is not None else 0

    def _stack(self, name: str) -> np.ndarray:
        parts = [np.asarray(getattr(part, name), float) for part in (self.vector, self.design) if part is not None]
        if self.vector is not None:
            parts[0] = parts[0][: self._own]
        return np.concatenate([np.zeros(0), *parts])

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every number."""
        vector = self.vector.coordinate_names if self.vector is not None else ()
        return (*vector[: self._own], *(self.design.names if self.design is not None else ()))

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every number; 1 for the coordinates of a full inertia."""
        units: list[str] = []
        for p in self.vector.parameters if self.vector is not None else ():
            units += ["1"] * p.size if p.factor is not None else list(p.units)
        return (*units[: self._own], *(self.design.units if self.design is not None else ()))

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self.names)

    @property
    def initial(self) -> np.ndarray:
        """z of the start (size,)."""
        return self._stack("initial")

    @property
    def low(self) -> np.ndarray:
        """Lower bounds (size,)."""
        return self._stack("low")

    @property
    def high(self) -> np.ndarray:
        """Upper bounds (size,)."""
        return self._stack("high")

    @property
    def scale(self) -> np.ndarray:
        """Typical sizes (size,)."""
        vector = self.vector.scale[: self._own] if self.vector is not None else np.zeros(0)
        if self.design is None:
            return vector
        own = np.abs(self.design.initial)
        span = self.design.high - self.design.low
        return np.concatenate([vector, np.where(own > 0, own, np.where(np.isfinite(span), span, 1.0))])

    def constrain(self, theta: Array) -> Array:
        """z (size,) of unconstrained coordinates (size,)."""
        return box.constrain(theta, self.low, self.high, self.scale)

    def unconstrain(self, z: np.ndarray) -> np.ndarray:
        """Unconstrained coordinates (size,) of z (size,)."""
        return box.unconstrain(z, self.low, self.high, self.scale)

    def normalised(self, z: Array) -> Array:
        """z (size,) as a part of its ranges, -1 to 1; without two bounds, its distance from the start in typical sizes."""
        both = np.isfinite(self.low) & np.isfinite(self.high)
        middle = np.where(both, (self.low + self.high) / 2, self.initial)
        return (z - middle) / np.where(both & (self.high > self.low), (self.high - self.low) / 2, self.scale)

    def parameters(self, z: Array, drawn: Array | None = None) -> Array:
        """All numbers of `vector`: those of z (size,), then the `drawn` ones, or the model's own."""
        if not self.drawn or self.vector is None:
            return z[: self._own]
        xp = z.__array_namespace__()
        last = self.vector.initial[self._own :] if drawn is None else drawn
        return xp.concatenate([z[: self._own], xp.asarray(last)])

    def fields(self, z: Array, drawn: Array | None = None) -> dict[str, Array]:
        """Model fields at z (size,), as `ParameterVector.fields` and `Design` give them."""
        found = self.vector.fields(self.parameters(z, drawn)) if self.vector is not None else {}
        return found | (self.design(z[self._own :]) if self.design is not None else {})

    def model(self, base: mjx.Model, z: Array, drawn: Array | None = None) -> tuple[mjx.Model, Array | None]:
        """`base`, put on the device from `mj`, at z; and the products of inertia where full inertias change."""
        fields = self.fields(z, drawn)
        full = fields.pop("body_inertia_full", None)
        products = None
        if full is not None:
            fields["body_inertia"], products = inertia.diagonal_and_products(self.mj, full)
        model = base.replace(**{name: jnp.asarray(value) for name, value in fields.items()})
        if any(name in mujoco.MjModel._setconst_inputs for name in fields):
            model = set_constants(model, products=products)
        return model, products
