"""A model that C MuJoCo simulates, with some of its fields replaced: what a chain holds in the place of an MJX model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import mujoco
from jaxtyping import Array


class CModel(eqx.Module):
    """Fields of `mj`, named as in `MjModel`, those in `fields` in the place of the model's own.

    The step of C MuJoCo is no JAX function. `robot.play` simulates it, and `robot.replay` differentiates what was simulated.
    """

    mj: mujoco.MjModel = eqx.field(static=True)
    fields: dict[str, Array] = eqx.field(default_factory=dict)

    def replaced(self, fields: Mapping[str, Array]) -> "CModel":
        """The model with more fields replaced."""
        return CModel(self.mj, self.fields | dict(fields))

    def __getattr__(self, name: str) -> Any:
        """A field of the model. Raises AttributeError if a model has none of this name."""
        if name.startswith("__") or name in ("mj", "fields"):
            raise AttributeError(name)
        if name in self.fields:
            return self.fields[name]
        return getattr(self.mj, name)


OnEngine = Any
"""A model as a chain holds it: an MJX model, or a `CModel`, with the same fields."""
