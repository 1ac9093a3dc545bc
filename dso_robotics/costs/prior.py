"""Prior: -log p of physical parameters and design numbers, normal around a value; supervised, so it needs no rollout."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem


class Prior(eqx.Module):
    """Half the squared distance of numbers of the mechanism to their `mean`, in units of `std`; constants left out."""

    which: tuple[int, ...] = eqx.field(static=True)
    mean: tuple[float, ...] = eqx.field(static=True)
    std: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The sum over the numbers that have a prior."""
        return 0.5 * jnp.sum(self.residual(chain, theta) ** 2)

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Distances from the means in units of the standard deviations."""
        z = chain.numbers(theta)[np.array(self.which, int)]
        return (z - np.array(self.mean)) / np.array(self.std)


def prior(chain: RobotSystem, declared: dict[str, tuple[float, float]]) -> Prior:
    """The cost of `declared`: number -> (mean, standard deviation).

    Raises:
      DsoError: a number is not free, or its standard deviation is not positive.
    """
    names = chain.mechanism.names if chain.mechanism is not None else ()
    for name, (_, std) in declared.items():
        if name not in names:
            raise DsoError(f"prior {name}: not a free number of the mechanism; those are {', '.join(names) or 'none'}.")
        if not std > 0:
            raise DsoError(f"prior {name}: the standard deviation must be positive, got {std:g}.")
    means, stds = zip(*declared.values(), strict=True) if declared else ((), ())
    return Prior(tuple(names.index(name) for name in declared), tuple(means), tuple(stds))
