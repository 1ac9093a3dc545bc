"""Keys that several studies have: the model, logs, what is held out, and what is free."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import mujoco

from dso_robotics.data.log import Log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.physics.model import Robot
from dso_robotics.table import File, Table, entries, key, make


@dataclasses.dataclass(frozen=True)
class Free(Table):
    """A free parameter as a table: { path = "body/upper/mass", init = 0.5, low = 0.1, high = 2.0, prior = [0.56, 0.05] }."""

    path: str = key("KIND/NAME/FIELD, with wildcards", example="joint/elbow/damping")
    init: float | None = key("where a search begins; none: the model's value", None, example=0.1)
    low: float | None = key("lower bound; none: that of the kind of parameter", None, example=0.0, within="[-inf, inf]")
    high: float | None = key("upper bound", None, example=2.0, within="[-inf, inf]")
    prior: tuple[float, float] | None = key("mean and standard deviation", None, example=[0.5, 0.05])
    log_prior: tuple[float, float] | None = key(
        "median, and standard deviation of the logarithm", None, example=[0.5, 0.3]
    )

    def check(self) -> None:
        """Numbers that fit each other."""
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise DsoError(f"low {self.low:g} is not below high {self.high:g}.")
        if self.prior and self.log_prior:
            raise DsoError("give prior or log_prior, not both.")
        given = self.prior or self.log_prior
        if given and not given[1] > 0:
            raise DsoError(f"prior {list(given)}: the standard deviation is not positive; leave it out to say nothing.")


def declarations(given: Any) -> tuple[Declaration, ...]:
    """What is free, from one or several texts, tables or declarations.

    Raises:
      DsoError: one cannot be read, or has numbers that no start value, bound or prior can be.
    """
    return tuple(map(_declaration, entries(given)))


def _declaration(entry: Any) -> Declaration:
    if isinstance(entry, str):
        entry = parse(entry)
    if isinstance(entry, Declaration):
        entry = dataclasses.asdict(entry)
    if not isinstance(entry, Mapping) or "path" not in entry:
        raise DsoError(f"{entry!r} is no text such as 'joint/elbow/damping=0.1@0:2', and no table with a path.")
    given = {name: value for name, value in entry.items() if value is not None}
    if isinstance(given.get("log_prior"), bool) and given.pop("log_prior") and "prior" in given:
        given["log_prior"] = given.pop("prior")  # as `Declaration` has it
    table = make(Free, given, f"{given['path']}: ")
    prior = table.prior or table.log_prior
    return Declaration(table.path, table.init, table.low, table.high, prior, log_prior=table.log_prior is not None)


def rollouts(given: Any) -> str:
    """Names of recordings, or a share of them, as one text.

    Raises:
      TypeError: it is neither.
    """
    parts = entries(given)
    if not parts or not all(isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts):
        raise TypeError
    return ",".join(map(str, parts))


ENGINES = ("auto", "mujoco", "mjx")
# What the same keys of several studies have in common.
MODEL: dict[str, Any] = {"example": "arm.xml", "kind": File | mujoco.MjSpec | mujoco.MjModel | Robot}
LOGS: dict[str, Any] = {"example": ["arm.h5"], "kind": tuple[File | Log, ...]}
FREE: dict[str, Any] = {
    "example": ["joint/*/damping=0.1@0:2"],
    "read": declarations,
    "words": "a list of parameter paths, PATH=INIT@LOW:HIGH, or tables with a path",
}
HOLD_OUT: dict[str, Any] = {
    "example": "03,05",
    "read": rollouts,
    "words": "names of recordings, or a share of them",
}
