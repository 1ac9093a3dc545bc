"""Named blocks of one flat vector theta; a frozen block keeps its values and takes no room in the vector."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError

Array = Any  # a NumPy or a JAX array


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A named part of theta: start values (k,), whether they are optimised, and a name for every entry."""

    name: str
    initial: np.ndarray
    free: bool = True
    entries: tuple[str, ...] = ()

    def describe(self, entry: int) -> str:
        """Name of one entry, for messages."""
        return self.entries[entry] if self.entries else f"{self.name}[{entry}]"


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Where each block lies in theta (n,). Made by `lay_out`."""

    blocks: tuple[Block, ...]

    @property
    def free(self) -> tuple[Block, ...]:
        """Blocks in theta, in order."""
        return tuple(block for block in self.blocks if block.free)

    @property
    def size(self) -> int:
        """Length n of theta."""
        return sum(len(block.initial) for block in self.free)

    @property
    def initial(self) -> np.ndarray:
        """Start value of theta (n,)."""
        return np.concatenate([block.initial for block in self.free]) if self.free else np.zeros(0)

    def split(self, theta: Array) -> dict[str, Array]:
        """Every block by name, (k,) each: slices of theta, or the kept values of a frozen block."""
        found, start = {}, 0
        for block in self.blocks:
            if block.free:
                found[block.name] = theta[..., start : start + len(block.initial)]
                start += len(block.initial)
            else:
                found[block.name] = theta.__array_namespace__().asarray(block.initial)
        return found

    def where(self, name: str) -> slice:
        """The entries of theta that a free block takes."""
        start = 0
        for block in self.free:
            if block.name == name:
                return slice(start, start + len(block.initial))
            start += len(block.initial)
        known = ", ".join(f"'{block.name}'" for block in self.free)
        raise DsoError(f"theta has no free block '{name}'; its free blocks are {known or 'none'}.")

    def spread(self, values: Mapping[str, float], default: float) -> np.ndarray:
        """One number for each entry of theta (n,), the same within a block: step sizes, for example."""
        for name in values:
            self.where(name)
        return np.concatenate(
            [np.full(len(b.initial), values.get(b.name, default)) for b in self.free] or [np.zeros(0)]
        )

    def describe(self, entry: int) -> str:
        """Name of one entry of theta."""
        for block in self.free:
            if entry < len(block.initial):
                return block.describe(entry)
            entry -= len(block.initial)
        raise DsoError(f"theta has {self.size} entries; there is no such entry.")

    def frozen(self, names: Sequence[str], theta: np.ndarray) -> "Layout":
        """The same blocks with the values of theta, those of `names` frozen."""
        values = self.split(np.asarray(theta, float))
        return Layout(
            tuple(
                dataclasses.replace(b, initial=np.asarray(values[b.name]), free=b.free and b.name not in names)
                for b in self.blocks
            )
        )


def lay_out(blocks: Sequence[Block]) -> Layout:
    """Blocks of one vector, in order.

    Raises:
      DsoError: two blocks have one name, or a start value is not finite.
    """
    names = [block.name for block in blocks]
    for block in blocks:
        if names.count(block.name) > 1:
            raise DsoError(f"theta: two blocks are called '{block.name}'; give one of them another name.")
        if not np.all(np.isfinite(block.initial)):
            raise DsoError(f"theta: the start value of block '{block.name}' is not finite.")
    return Layout(tuple(blocks))
