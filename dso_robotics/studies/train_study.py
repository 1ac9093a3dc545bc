"""What a user asks of `dso train` and `dso design`: the TOML file read and checked key by key, before anything compiles."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import nearest

_POLICIES = ("linear", "network", "brain", "gated")
KEEPS = ("best", "last")
_SECTIONS: dict[str, dict[str, Any]] = {
    "": {"model": str, "seed": int, "control_step": float, "seconds": float, "free": list},
    "policy": {
        "kind": str,
        "hidden": list,
        "units": int,
        "observe": list,
        "leave_out": list,
        "time_features": int,
        "period": float,
        "noise": float,
        "learn_noise": bool,
        "delay": float,
        "see_design": bool,
    },
    "start": {"position": dict, "velocity": dict, "spread": float, "lift": str},
    "explore": {"position": dict, "velocity": dict},
    "training": {
        "method": str,
        "environments": int,
        "horizon": int,
        "iterations": int,
        "gamma": float,
        "lam": float,
        "learning_rate": float,
        "final_rate": float,
        "design_rate": float,
        "clip": float,
        "critic_hidden": int,
        "critic_rate": float,
        "critic_updates": int,
        "critic_batch": int,
        "target": float,
        "noise_end": float,
        "soften": float,
        "restart": float,
        "explore": float,
        "abandon": float,
        "keep": str,
        "updates": int,
        "divergence": float,
    },
    "cost": {},
    "design": {},
    "task": {},
    "randomise": {},
}
# What each kind of cost takes besides kind and weight; True where it must be given.
COSTS: dict[str, dict[str, bool]] = {
    "product": {"factors": True},
    "square": {"quantity": True, "target": False, "scale": False},
    "lack": {"quantity": True, "target": True, "scale": False},
    "distance": {"point": True, "axes": False, "target": True, "smooth": False, "scale": False},
    "upright": {"body": True},
    "velocity": {"quantity": True, "target": True, "scale": False},
    "control": {},
    "divergence": {},
    "smoothness": {},
    "energy": {"scale": False},
    "limits": {},
    "contact": {"sensor": True, "target": False, "scale": False},
    "tracking": {"log": True, "rollout": False, "scale": False},
    "cloning": {"log": True, "fade": False},
    "identification": {"log": True, "window": False, "fade": False},
    "prior": {"numbers": True, "fade": False},
    "python": {"file": True, "function": False},
}
DESIGNS = ("length", "radius", "gear", "stiffness", "springref", "scale")


@dataclasses.dataclass(frozen=True)
class TrainStudy:
    """One training: the model, and tables as in the file; `cost` and `design` map names to tables.

    Checked at construction as far as no model is needed for it.
    """

    model: str
    cost: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    control_step: float | None = None
    seconds: float = 10.0
    free: tuple[Any, ...] = ()
    policy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    explore: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    design: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    task: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    randomise: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = "study"

    def __post_init__(self) -> None:
        for section in ("policy", "start", "explore", "training"):
            _check_table(getattr(self, section), _SECTIONS[section], f"{self.source}: [{section}]")
        kind = self.policy.get("kind", "network")
        if kind not in _POLICIES:
            raise DsoError(f"{self.source}: [policy] kind = '{kind}' is not one of {', '.join(_POLICIES)}.")
        keep = self.training.get("keep", "best")
        if keep not in KEEPS:
            raise DsoError(f"{self.source}: [training] keep = '{keep}' is not one of {', '.join(KEEPS)}.")
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise DsoError(f"{self.source}: seconds = {self.seconds:g}; an episode lasts a positive time.")
        if not self.cost:
            raise DsoError(
                f"{self.source}: the study has no cost, so there is nothing to minimise; add a [cost.NAME] table."
            )
        for name, table in self.cost.items():
            self._check_cost(name, table)
        for name, table in self.design.items():
            self._check_design(name, table)
        for name, table in self.task.items():
            _check_task(table, f"{self.source}: [task.{name}]")
        for path, pair in self.randomise.items():
            if not _numbers(pair) or len(pair) != 2 or not pair[0] <= pair[1]:
                raise DsoError(f'{self.source}: [randomise] {path} = {pair!r}; write "{path}" = [LOW, HIGH].')

    def _check_cost(self, name: str, table: Any) -> None:
        where = f"{self.source}: [cost.{name}]"
        if not isinstance(table, Mapping) or "kind" not in table:
            raise DsoError(
                f'{where}: a cost is a table with a kind, such as kind = "control"; kinds: {", ".join(COSTS)}.'
            )
        kind = table["kind"]
        if kind == "reward" or "reward" in table:
            raise DsoError(
                f'{where}: this is a reward, but costs are minimised. A reward between 0 and 1 is the cost kind = "product" of '
                'its factors; for "the more the better" write kind = "lack" with the target that would be enough.'
            )
        if kind not in COSTS:
            raise DsoError(f"{where}: there is no cost '{kind}'; did you mean {nearest(str(kind), COSTS, 4)}?")
        more = () if "fade" in COSTS[kind] else ("when",)
        for key in table:
            if key not in ("kind", "weight", *more, *COSTS[kind]):
                keys = ", ".join(("weight", *more, *COSTS[kind]))
                raise DsoError(f"{where}: a '{kind}' cost has no '{key}'; it takes {keys}.")
        for key, needed in COSTS[kind].items():
            if needed and key not in table:
                raise DsoError(f"{where}: a '{kind}' cost needs '{key}'.")
        weight = table.get("weight", 1.0)
        if not _number(weight):
            raise DsoError(f"{where}: weight = {weight!r} is no number; write weight = 1.0.")
        if weight < 0:
            raise DsoError(
                f"{where}: weight = {weight:g}. A negative weight makes a reward of a cost, and costs are minimised; write "
                'what is missing instead, with kind = "lack" or "product" and a positive weight.'
            )

    def _check_design(self, name: str, table: Any) -> None:
        where = f"{self.source}: [design.{name}]"
        if not isinstance(table, Mapping) or table.get("kind") not in DESIGNS:
            raise DsoError(f"{where}: a design number is a table with kind = one of {', '.join(DESIGNS)}.")
        for key in table:
            if key not in ("kind", "of", "low", "high"):
                raise DsoError(f"{where}: unknown key '{key}'; it takes kind, of, low, high.")
        if "of" not in table:
            raise DsoError(f'{where}: of what? Write of = "NAME" of a body, joint or actuator.')
        if ("low" in table) != ("high" in table) or not all(_number(table[k]) for k in ("low", "high") if k in table):
            raise DsoError(f"{where}: give low and high together, as numbers, or neither.")

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file."""
        return dataclasses.asdict(self)


def read_train_study(path: str | Path) -> TrainStudy:
    """A study from its TOML file; file names in it are relative to its folder.

    Raises:
      DsoError: the file is missing, is not TOML, or has a key or value that the study does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise DsoError(f"{path}: there is no such study file.")
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DsoError(f"{path}: not a TOML file ({str(error)[:200]}); mend the line named.") from error
    known = [*_SECTIONS[""], *(s for s in _SECTIONS if s)]
    for key in content:
        if key not in known:
            raise DsoError(f"{path}: unknown key '{key}'; a study has {nearest(key, known, len(known))}.")
    if "model" not in content:
        raise DsoError(f'{path}: the study names no model; write model = "robot.xml".')
    _check_table({k: v for k, v in content.items() if k in _SECTIONS[""]}, _SECTIONS[""], str(path))
    for section in _SECTIONS:
        if section and not isinstance(content.get(section, {}), dict):
            raise DsoError(f"{path}: '{section}' is a table; write [{section}] on a line of its own.")
    content["model"] = str(path.parent / content["model"])
    for table in content.get("cost", {}).values():
        for key in ("log", "file"):
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = str(path.parent / table[key])
    content["free"] = tuple(content.get("free", ()))
    return TrainStudy(**content, source=str(path))


def _check_task(table: Any, where: str) -> None:
    keys = set(table) if isinstance(table, Mapping) else set()
    if keys == {"values"} and _numbers(table["values"]) and len(table["values"]):
        return
    if keys != {"low", "high"} or not _numbers([table["low"], table["high"]]) or not table["low"] <= table["high"]:
        raise DsoError(
            f"{where}: a task is values = [0.0, 1.0], one of which is drawn, or a range low = 0.0, high = 1.0."
        )


def _check_table(table: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise DsoError(f"{where}: unknown key '{key}'; it takes {nearest(key, kinds, len(kinds))}.")
        kind = kinds[key]
        right = _number(value) if kind is float else isinstance(value, kind) and not (kind is int and value is True)
        if kind is list:
            right = isinstance(value, list | tuple)
        if not right or (kind is float and not math.isfinite(value)):
            raise DsoError(f"{where}: {key} = {value!r} is not what belongs there; expected {_WORDS[kind]}.")


_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
    bool: "true or false",
}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(_number(v) and math.isfinite(v) for v in values)
