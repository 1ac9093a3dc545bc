"""Feet that stand on the ground: which reading tells so, and the readings of zero velocity that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A sensor of this name and the foot's is the velocity of the foot, in the world's axes.
PREFIX = "contact."


@dataclass(frozen=True)
class FootContact:
    """A foot whose velocity is zero while it stands.

    name: as the study calls it. reading: the channel that tells whether it stands: it does while that is above `above`; None
      for what stands always.
    noise: where the search of the standard deviation of its velocity [m/s] begins.
    gate: share of right readings of zero velocity that are let in; the others are a foot that slips. It is 1 for what stands
      always.
    """

    name: str
    reading: str | None
    above: float
    noise: float
    gate: float

    @property
    def sensor(self) -> str:
        """Name of the sensor of the foot's velocity."""
        return PREFIX + self.name

    def zeros(self, values: np.ndarray) -> np.ndarray:
        """Readings of zero velocity: 0 where the foot stands, NaN where it does not or nothing was measured."""
        if self.reading is None:
            return np.zeros(len(values))
        return np.where(np.nan_to_num(values, nan=-np.inf) > self.above, 0.0, np.nan)


def of_channels(names: Sequence[str], feet: Sequence[FootContact]) -> list[FootContact | None]:
    """For each channel of an estimator, the foot whose velocity it is; None for a reading of a sensor."""
    known = {foot.sensor: foot for foot in feet}
    return [known.get(name.split("[")[0]) for name in names]


@dataclass(frozen=True, eq=False)
class ContactReadings:
    """How the channels of an estimator with feet follow from what its user measures.

    names: what is measured, (nr,): the sensors that the estimator reads, and what tells that feet stand.
    source: for each channel of the estimator, its place in `names`, (ny,).
    above: (ny,), the value of its source above which the foot stands, minus infinity if it always does; NaN for a channel that
      is a reading itself.
    share: (ny,), share of right readings of zero velocity that are let in; NaN likewise.
    """

    names: tuple[str, ...]
    source: np.ndarray
    above: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], feet: Sequence[FootContact]) -> "ContactReadings":
        """The readings of an estimator with channels `names` (ny,) and `feet`."""
        mine = of_channels(names, feet)
        plain = [name for name, foot in zip(names, mine, strict=True) if foot is None]
        told = [foot.reading for foot in mine if foot is not None and foot.reading is not None]
        measured = list(dict.fromkeys([*plain, *told]))
        source = [
            0
            if foot is not None and foot.reading is None
            else measured.index(name if foot is None else str(foot.reading))
            for name, foot in zip(names, mine, strict=True)
        ]
        numbers = [
            (np.nan, np.nan) if foot is None else (-np.inf, 1.0) if foot.reading is None else (foot.above, foot.gate)
            for foot in mine
        ]
        return cls(tuple(measured), np.array(source, int), *np.array(numbers).reshape(-1, 2).T)

    @classmethod
    def given(cls, names: Sequence[str], feet: Sequence[FootContact]) -> "ContactReadings":
        """Those of an estimator that is given the readings of zero velocity themselves."""
        of = cls.of(names, feet)
        return cls(tuple(names), np.arange(len(names)), np.full(len(names), np.nan), of.share)

    @property
    def foot(self) -> np.ndarray:
        """Which channels are the velocity of a foot, (ny,)."""
        return ~np.isnan(self.share)

    def completed(self, measured: np.ndarray) -> np.ndarray:
        """The readings of all channels (ny,) of what was measured (nr,): 0 for the velocity of a foot that stands, else NaN."""
        values = measured[self.source]
        stands = (values > self.above) | (self.above == -np.inf)
        return np.where(np.isnan(self.above), values, np.where(stands, 0.0, np.nan))

    def as_dict(self) -> dict[str, Any]:
        """Arrays and strings by name, as the run file stores them."""
        return {"names": list(self.names), "source": self.source, "above": self.above, "share": self.share}

    @staticmethod
    def from_dict(stored: Any) -> "ContactReadings":
        """The inverse of `as_dict`."""
        arrays = {name: np.asarray(stored[name], float) for name in ("above", "share")}
        return ContactReadings(names=tuple(stored["names"]), source=np.asarray(stored["source"], int), **arrays)

    def check(self, ny: int) -> None:
        """Raise ValueError for shapes or numbers that no training writes."""
        if any(values.shape != (ny,) for values in (self.source, self.above, self.share)):
            raise ValueError(f"the readings of feet are not those of {ny} channels")
        if len(self.source) and not (self.source.min() >= 0 and self.source.max() < len(self.names)):
            raise ValueError("a channel of a foot has no reading")
        share = self.share[self.foot]
        if (np.isnan(self.above) == self.foot).any() or not ((share > 0) & (share <= 1)).all():
            raise ValueError("the gate of a foot is no share, or nothing tells that it stands")
