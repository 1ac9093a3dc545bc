"""Priors: -log p of physical parameters, design numbers or weights, normal around a value; supervised: they need no rollout."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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


class WeightPrior(eqx.Module):
    """Half the squared distance of entries of theta to their `mean`, in units of `std`; constants left out."""

    which: Int[Array, " m"]
    mean: Float[Array, " m"]
    std: float = eqx.field(static=True)

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The sum over the weights."""
        return 0.5 * jnp.sum(self.residual(chain, theta) ** 2)

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Distances from the means in units of the standard deviation."""
        return (theta[self.which] - self.mean) / self.std


def weight_prior(chain: RobotSystem, blocks: Sequence[str], *, std: float, about_start: bool) -> WeightPrior:
    """The cost of all weights of `blocks`, "policy" or "corrector". Noise scales of innovations are no weights.

    Raises:
      DsoError: one of the blocks is not free.
    """
    entries = []
    for name in blocks:
        if name not in {block.name for block in chain.layout.free}:
            raise DsoError(f"theta has no free {name}, so it has no weights; leave it out of `of`.")
        here = chain.layout.where(name)
        size = (
            chain.filter.corrector.size if name == "corrector" and chain.filter is not None else here.stop - here.start
        )
        entries.append(np.arange(here.start, here.start + size))
    which = np.concatenate(entries)
    start = np.asarray(chain.layout.initial)[which]
    return WeightPrior(jnp.asarray(which), jnp.asarray(start if about_start else 0.0 * start), float(std))
