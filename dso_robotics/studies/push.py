"""Pushes: sudden changes of velocity in a training, so that the policy learns to recover from them."""

import dataclasses
from collections.abc import Mapping

from dso_robotics.errors import DsoError
from dso_robotics.table import Table, key

_BASE = ("velocity", "spin")


@dataclasses.dataclass(frozen=True)
class PushesTable(Table):
    """Sudden changes of velocity, at ends of windows. Episodes that are looked at and reported have none."""

    every: float = key("mean time between two pushes", 3.0, unit="s", within="(0, inf)")
    velocity: Mapping[str, float] = key(
        "largest change by joint, in both directions", {}, unit="rad/s, m/s", within="(0, inf)", example={"x": 0.5}
    )
    base: Mapping[str, Mapping[str, float]] = key(
        "of free joints: velocity, spin, each of their three numbers", {}, within="(0, inf)",
        example={"root": {"velocity": 0.5}},
    )  # fmt: skip

    def check(self) -> None:
        """Something to push."""
        if not (self.velocity or self.base):
            raise DsoError(
                "nothing is pushed; give `velocity` of joints, or `base`, such as { root = { velocity = 0.5 } }."
            )
        for name, sizes in self.base.items():
            for given in sizes:
                if given not in _BASE:
                    raise DsoError(f"`base.{name}`: a push has no '{given}'; it has {', '.join(_BASE)}.")
