"""What a user asks of `dso identify`, from flags or a TOML file, checked before anything runs."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.physics.model import nearest

ENGINES = ("auto", "mujoco", "mjx")
_TYPES = {
    "model": str,
    "logs": list,
    "free": list,
    "hold_out": str,
    "engine": str,
    "window": float,
    "score_window": float,
    "seed": int,
}
_FREE_KEYS = ("path", "init", "low", "high", "prior")


@dataclasses.dataclass(frozen=True)
class IdentifyStudy:
    """One identification: a model, its logs, what is free, what is held out.

    window: length [s] of the pieces that are fitted open loop; score_window: that of the pieces whose prediction errors are
    reported (None: the same). seed: recorded with the result; the search itself draws
    no random numbers.
    """

    model: str
    logs: tuple[str, ...]
    free: tuple[Declaration, ...]
    hold_out: str | None = None
    engine: str = "auto"
    window: float = 0.5
    score_window: float | None = None
    seed: int = 0

    def __post_init__(self):
        if not self.logs:
            raise DsoError("no log was given, so there is nothing to identify from; name one or more log files (.h5).")
        if self.engine not in ENGINES:
            raise DsoError(f"--engine {self.engine}: there is no such engine; choose one of {', '.join(ENGINES)}.")
        if not (math.isfinite(self.window) and self.window > 0):
            raise DsoError(f"--window {self.window:g}: a window lasts a positive number of seconds, such as 0.5.")
        if self.score_window is not None and not (math.isfinite(self.score_window) and self.score_window > 0):
            raise DsoError(
                f"--score-window {self.score_window:g}: a window lasts a positive number of seconds, such as 0.5."
            )

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file."""
        return {"command": "identify", **dataclasses.asdict(self)}


def read_study(path: str | Path) -> dict[str, Any]:
    """Keys of an identification study file, with model and log paths made relative to its folder.

    Raises:
      DsoError: the file is missing, is not TOML, or has a key or a value that `dso identify` does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise DsoError(f"{path}: there is no such study file; give a TOML file with keys {', '.join(_TYPES)}.")
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DsoError(f"{path}: not a TOML file ({error}); mend the line named.") from error
    for key, value in content.items():
        if key not in _TYPES:
            raise DsoError(f"{path}: unknown key '{key}'; a study has {nearest(key, _TYPES, len(_TYPES))}.")
        expected = (int, float) if _TYPES[key] is float else _TYPES[key]
        if not isinstance(value, expected) or isinstance(value, bool):
            if key == "hold_out" and isinstance(value, float | list):
                continue
            raise DsoError(f"{path}: '{key}' is {value!r}, which is no {_TYPES[key].__name__}; write {_example(key)}.")
    if "model" in content:
        content["model"] = str(path.parent / content["model"])
    if "logs" in content:
        content["logs"] = [str(path.parent / log) for log in content["logs"]]
    if isinstance(content.get("hold_out"), list):
        content["hold_out"] = ",".join(map(str, content["hold_out"]))
    elif "hold_out" in content:
        content["hold_out"] = str(content["hold_out"])
    if "free" in content:
        content["free"] = [_declaration(entry, path) for entry in content["free"]]
    return content


def _declaration(entry: Any, path: Path) -> Declaration:
    if isinstance(entry, str):
        return parse(entry)
    if not isinstance(entry, Mapping) or "path" not in entry:
        raise DsoError(
            f"{path}: a free parameter is a text like 'joint/elbow/damping=0.1' or a table with a path; got {entry!r}."
        )
    for key in entry:
        if key not in _FREE_KEYS:
            raise DsoError(
                f"{path}: free parameter {entry['path']}: unknown key '{key}'; it has {nearest(key, _FREE_KEYS, 5)}."
            )
    prior = entry.get("prior")
    if prior is not None and not (len(prior) == 2 and all(isinstance(v, int | float) for v in prior) and prior[1] > 0):
        raise DsoError(f"{path}: free parameter {entry['path']}: prior {prior!r} is not [mean, standard deviation].")
    low, high = entry.get("low"), entry.get("high")
    if low is not None and high is not None and not low < high:
        raise DsoError(f"{path}: free parameter {entry['path']}: low {low:g} is not below high {high:g}.")
    return Declaration(str(entry["path"]), entry.get("init"), low, high, tuple(prior) if prior else None)


def _example(key: str) -> str:
    return {
        "model": 'model = "arm.xml"',
        "logs": 'logs = ["arm.h5"]',
        "free": 'free = ["joint/*/damping"]',
        "hold_out": 'hold_out = "03,05"',
        "engine": 'engine = "auto"',
        "window": "window = 0.5",
        "score_window": "score_window = 0.5",
        "seed": "seed = 0",
    }[key]
