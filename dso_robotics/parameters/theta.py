"""Theta: named blocks of numbers as one flat vector, and back.

The vector is in one of two charts. In the "box" chart its entries are the numbers themselves, within their bounds. Least
squares uses this chart, because an active bound is then met exactly. In the "open" chart its entries are the coordinates of
`parameters.box`. There every real number is allowed, so any gradient method works. A block without bounds is the same in
both charts.

Blocks in use: "policy", "physics", "sensor", "design", "action noise" and "sensor noise" (logarithms of standard deviations),
"corrector", "model" (an estimator's own physical parameters), "plan" (those of a model that a policy is planned with). The name
of a parameter's block is its path, also for sensors and controllers. Every function accepts NumPy and JAX arrays, with any
leading batch axes, unless its docstring says NumPy.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters import box

Array = Any  # a NumPy or a JAX array
Chart = Literal["box", "open"]
_DEFAULTS = {"low": -np.inf, "high": np.inf, "scale": 1.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """Normal prior on k numbers, or on their logarithms where `log` is True.

    mean: (k,), in the numbers' units; the median for a log-normal prior.
    std: (k,), without unit for a log-normal prior; infinite where there is no prior.
    log: (k,), whether the prior is log-normal.
    """

    mean: np.ndarray
    std: np.ndarray
    log: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A named part of theta: k numbers.

    initial: start values, an array of the block's shape.
    free: False for a block that keeps its start values and is not in the vector.
    low, high: bounds, of the same shape; infinite where there is none. None for a block without any bounds.
    scale: typical sizes, of the same shape: the unit of finite-difference steps and trust regions. None means ones.
    entries: name of each number, in the order of the flat array; () means NAME[i].
    units: unit of each number, in the same order; () means "1".
    """

    name: str
    initial: np.ndarray
    free: bool = True
    low: Array = None
    high: Array = None
    scale: Array = None
    prior: Prior | None = None
    entries: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of entries k."""
        return int(np.size(self.initial))

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every entry (k,)."""
        return self.entries or tuple(f"{self.name}[{i}]" for i in range(self.size))

    @property
    def bounded(self) -> bool:
        """Whether the block has bounds, so that its two charts differ."""
        return self.low is not None or self.high is not None

    def flat(self, name: Literal["initial", "low", "high", "scale"]) -> np.ndarray:
        """One of the arrays, flat (k,), with the default values in place of None."""
        value = getattr(self, name)
        return np.asarray(_DEFAULTS[name] + np.zeros(self.size) if value is None else value, float).ravel()

    def start(self, chart: Chart) -> np.ndarray:
        """The start values in the given chart, an array of the block's shape."""
        start = self.flat("initial")
        if chart == "open" and self.bounded:
            start = box.unconstrain(start, self.flat("low"), self.flat("high"), self.flat("scale"))
        return start.reshape(np.shape(self.initial))

    def numbers(self, part: Array, chart: Chart) -> Array:
        """The numbers (..., *shape), from a result of `Theta.split` in the given chart."""
        if chart == "box" or not self.bounded:
            return part
        return box.constrain(
            part, *(self.flat(name).reshape(np.shape(self.initial)) for name in ("low", "high", "scale"))
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Theta:
    """One vector (n,) of the free blocks in `blocks`, in order.

    Raises:
      DsoError: two blocks have the same name, or a start value is not finite.
    """

    blocks: tuple[Block, ...]
    chart: Chart = dataclasses.field(default="box", kw_only=True)

    def __post_init__(self):
        names = [block.name for block in self.blocks]
        for block in self.blocks:
            if len(set(names)) < len(names) and names.count(block.name) > 1:
                raise DsoError(f"theta: two blocks are called '{block.name}'; give one of them another name.")
            if not np.all(np.isfinite(block.initial)):
                raise DsoError(f"theta: the start value of block '{block.name}' is not finite.")

    @property
    def free(self) -> tuple[Block, ...]:
        """The blocks in the vector, in order."""
        return tuple(block for block in self.blocks if block.free)

    @property
    def size(self) -> int:
        """Length n of the vector."""
        return sum(block.size for block in self.free)

    def places(self) -> Iterator[tuple[Any, slice]]:
        """Every block with its slice of the vector; a frozen block has no entries."""
        start = 0
        for block in self.blocks:
            yield block, slice(start, start + block.size * block.free)
            start += block.size * block.free

    def _stack(self, name: Literal["initial", "low", "high", "scale"]) -> np.ndarray:
        return np.concatenate([np.zeros(0), *(block.flat(name) for block in self.free)])

    @property
    def initial(self) -> np.ndarray:
        """Start values (n,) in the vector's chart."""
        return np.concatenate([np.zeros(0), *(block.start(self.chart).ravel() for block in self.free)])

    @property
    def low(self) -> np.ndarray:
        """Lower bounds of the numbers (n,)."""
        return self._stack("low")

    @property
    def high(self) -> np.ndarray:
        """Upper bounds of the numbers (n,)."""
        return self._stack("high")

    @property
    def scale(self) -> np.ndarray:
        """Typical sizes of the numbers (n,)."""
        return self._stack("scale")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every entry (n,)."""
        return tuple(name for block in self.free for name in block.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of every number (n,)."""
        return tuple(unit for block in self.free for unit in block.units or ("1",) * block.size)

    def split(self, theta: Array) -> dict[str, Array]:
        """Every block by name, (..., *shape), in the vector's chart. A frozen block has its start values (*shape)."""
        xp, found = theta.__array_namespace__(), {}
        for block, here in self.places():
            if block.free:
                found[block.name] = theta[..., here].reshape((*theta.shape[:-1], *np.shape(block.initial)))
            else:
                found[block.name] = xp.asarray(block.start(self.chart))
        return found

    def join(self, parts: Mapping[str, Array]) -> Array:
        """The vector (..., n) from blocks (..., *shape) in its chart. Omitted blocks get their start values.

        Raises:
          DsoError: no free block has a given name.
        """
        for name in parts:
            self.where(name)
        starts = {block.name: block.start(self.chart) for block in self.free}
        lead = np.broadcast_shapes(*(np.shape(a)[: np.ndim(a) - starts[name].ndim] for name, a in parts.items()))
        xp = next((a.__array_namespace__() for a in parts.values() if not isinstance(a, np.ndarray)), np)
        full = (xp.broadcast_to(parts.get(name, a), (*lead, *a.shape)) for name, a in starts.items())
        flat = (a.reshape((*lead, block.size)) for a, block in zip(full, self.free, strict=True))
        return xp.concatenate([xp.zeros((*lead, 0)), *flat], -1)

    def values(self, theta: Array) -> dict[str, Array]:
        """The numbers of every block by name, in either chart."""
        parts = self.split(theta)
        return {block.name: block.numbers(parts[block.name], self.chart) for block in self.blocks}

    def constrain(self, theta: Array) -> Array:
        """The numbers (..., n) of open coordinates (..., n): logistic for two bounds, softplus for one."""
        return box.constrain(theta, self.low, self.high, self._unit)

    def unconstrain(self, z: np.ndarray) -> np.ndarray:
        """Open coordinates (n,) of numbers (n,), NumPy. A number at its bound is moved inside by a thousandth of its scale."""
        return box.unconstrain(z, self.low, self.high, self._unit)

    @property
    def _unit(self) -> np.ndarray:
        """Unit (n,) of the open chart: typical sizes, and 1 for blocks that are the same in both charts."""
        units = [b.flat("scale") if b.bounded else np.ones(b.size) for b in self.free]
        return np.concatenate([np.zeros(0), *units])

    @property
    def priors(self) -> tuple[Prior, np.ndarray]:
        """One prior for all entries that have a prior, and the indices (m,) of these entries."""
        parts, which = [Prior(np.zeros(0), np.zeros(0), np.zeros(0, bool))], [np.zeros(0, int)]
        for block, here in self.places():
            if block.prior is not None and block.free:
                rows = np.flatnonzero(np.isfinite(block.prior.std))
                parts.append(Prior(*(getattr(block.prior, f.name)[rows] for f in dataclasses.fields(Prior))))
                which.append(here.start + rows)
        joined = (np.concatenate([getattr(prior, f.name) for prior in parts]) for f in dataclasses.fields(Prior))
        return Prior(*joined), np.concatenate(which)

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`prior_residual` (m,) and `prior_slope` (m, n) at numbers z (n,), NumPy."""
        return self.prior_residual(z), self.prior_slope(z)

    def prior_residual(self, z: Array) -> Array:
        """(z - mean)/std of every number that has a prior, (..., m). Half the sum of squares is -log p(theta) + const.

        z holds numbers: for a vector in the open chart, `constrain(theta)`.
        """
        prior, which = self.priors
        xp = z.__array_namespace__()
        at, mean = z[..., which], xp.asarray(prior.mean)
        positive = xp.maximum(xp.where(prior.log, at / np.where(prior.log, prior.mean, 1.0), 1.0), 1e-300)
        return xp.where(prior.log, xp.log(positive), at - mean) / prior.std

    def prior_slope(self, z: np.ndarray) -> np.ndarray:
        """Derivative (m, n) of `prior_residual`, NumPy."""
        prior, which = self.priors
        slope = np.zeros((len(which), self.size))
        slope[np.arange(len(which)), which] = 1 / (prior.std * np.where(prior.log, np.maximum(z[which], 1e-300), 1.0))
        return slope

    def where(self, name: str) -> slice:
        """The slice of the vector for a free block."""
        for block, here in self.places():
            if block.name == name and block.free:
                return here
        known = ", ".join(f"'{block.name}'" for block in self.free)
        raise DsoError(f"theta has no free block '{name}'; its free blocks are {known or 'none'}.")

    def spread(self, values: Mapping[str, float], default: float) -> np.ndarray:
        """One number for each entry (n,), the same within a block; used for step sizes, for example."""
        for name in values:
            self.where(name)
        return np.concatenate([np.zeros(0), *(np.full(b.size, values.get(b.name, default)) for b in self.free)])

    def describe(self, entry: int) -> str:
        """Name of one entry, for messages."""
        if not 0 <= entry < self.size:
            raise DsoError(f"theta has {self.size} entries; there is no such entry.")
        return self.names[entry]

    def frozen(self, names: Sequence[str], theta: np.ndarray) -> "Theta":
        """The same blocks with start values from `theta`, NumPy. The blocks in `names` are frozen."""
        values = self.values(np.asarray(theta, float))
        blocks = (
            dataclasses.replace(b, initial=values[b.name], free=b.free and b.name not in names) for b in self.blocks
        )
        return Theta(tuple(blocks), chart=self.chart)

    def block(self, name: str, *, free: bool = True) -> Block:
        """The whole vector as one block of a larger vector, with its bounds, scales and priors."""
        prior, which = self.priors
        mean, std, log = np.zeros(self.size), np.full(self.size, np.inf), np.zeros(self.size, bool)
        mean[which], std[which], log[which] = prior.mean, prior.std, prior.log
        start = self._stack("initial")
        return Block(name, start, free, self.low, self.high, self.scale, Prior(mean, std, log), self.names, self.units)
