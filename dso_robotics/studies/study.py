"""What a user asks of `dso identify`, from flags or a TOML file, checked before anything runs."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dso_robotics.costs.continuity import LEARNED, LEAST_JUMP
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.physics.model import nearest
from dso_robotics.studies.controller_settings import read_controllers
from dso_robotics.studies.network_settings import NetworkSettings

ENGINES = ("auto", "mujoco", "mjx")
# The window that is as long as its rollout.
FULL = "full"
_TYPES = {
    "model": str,
    "logs": list,
    "free": list,
    "hold_out": str,
    "engine": str,
    "window": float,
    "score_window": float,
    "seed": int,
    "starts": int,
    "warm_start": bool,
    "robust": bool,
    "continuity": (float, str),
    "noise": dict,
    "residual": str,
    "network": dict,
    "controller": dict,
}
# Beyond this a number is a slip, and squares of it overflow.
_HUGE = 1e100
_FREE_KEYS = ("path", "init", "low", "high", "prior", "log_prior")


@dataclasses.dataclass(frozen=True)
class IdentifyStudy:
    """One identification: a model, its logs, what is free, what is held out.

    window: length [s] of the pieces that are fitted open loop; infinity ("full") takes each rollout in one piece, 0 compares
    every sample with its own recorded state (`studies.calibration`). score_window: that of the pieces whose prediction errors
    are reported (None: the same). robust: errors are taken to have heavy tails, so outliers lose their pull. noise: noise
    scales that are known, by channel, in the channel's unit; the others are estimated. residual: FILE.py:FUNCTION, see
    `studies.residual`. network: keys of `NetworkSettings`, to learn what the parameters leave over.
    continuity: how far the end of a window may be from the start of the next, see `costs.continuity.Continuity`; None: freely.
    controller: keys of `robot.controller.Controller` by actuator, for controls that were not recorded.
    starts: how many short searches compete before one goes on, the first from the values declared, the others from values
    drawn with `seed`; nothing else of the search is random. warm_start: a regression on inverse dynamics competes too.
    """

    model: str
    logs: tuple[str, ...]
    free: tuple[Declaration, ...]
    hold_out: str | None = None
    engine: str = "auto"
    window: float = 0.5
    score_window: float | None = None
    seed: int = 0
    starts: int = 1
    warm_start: bool = False
    robust: bool = False
    noise: Mapping[str, float] = dataclasses.field(default_factory=dict)
    residual: str | None = None
    network: Mapping[str, Any] | None = None
    continuity: float | str | None = None
    controller: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ("window", "score_window"):
            if getattr(self, name) == FULL:
                object.__setattr__(self, name, math.inf)
        if not self.logs:
            raise DsoError("no log was given, so there is nothing to identify from; name one or more log files (.h5).")
        if self.engine not in ENGINES:
            raise DsoError(f"--engine {self.engine}: there is no such engine; choose one of {', '.join(ENGINES)}.")
        if not self.window >= 0:
            raise DsoError(
                f"--window {self.window:g}: a window lasts a positive number of seconds, such as 0.5; or {FULL}, the whole of "
                "each rollout; or 0, each sample by itself."
            )
        for name in (self.model, *self.logs):
            if not isinstance(name, str) or not name or "\0" in name:
                raise DsoError(f"{name!r}: no file can have this name; give the path of a model or a log.")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise DsoError(f"--seed {self.seed}: a seed is a whole number from 0 to 2^63 - 1.")
        if not (isinstance(self.starts, int) and 1 <= self.starts <= 10_000):
            raise DsoError(f"--starts {self.starts}: give how many starts to try, a whole number from 1 to 10,000.")
        for declared in self.free:
            _check_numbers(declared)
        if self.score_window is not None and not self.score_window > 0:
            raise DsoError(
                f"--score-window {self.score_window:g}: a window lasts a positive number of seconds, such as 0.5; or {FULL}."
            )

        self._check_continuity()
        for channel, sigma in self.noise.items():
            if not (_is_number(sigma) and 0 < sigma < _HUGE):
                raise DsoError(
                    f"noise of '{channel}' is {sigma!r}; give a positive standard deviation in the channel's unit."
                )

        if self.network is not None:
            NetworkSettings.read(self.network)
        read_controllers(self.controller)

    def _check_continuity(self) -> None:
        given = self.continuity
        if given is None or given == LEARNED:
            return
        if not (_is_number(given) and LEAST_JUMP <= float(given) < _HUGE):
            raise DsoError(
                f"--continuity {given}: give a positive number, in standard deviations of what a window alone tells about its "
                f"start and not below {LEAST_JUMP:g}, or {LEARNED}. Without any jump a rollout is one window: --window {FULL}."
            )
        if self.window in (0, math.inf):
            shown = FULL if self.window else 0
            raise DsoError(
                f"--continuity: with --window {shown} no window follows another; give a length, such as 0.5."
            )

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file."""
        keys = dataclasses.asdict(self)
        return {"command": "identify", **{k: FULL if v == math.inf else v for k, v in keys.items()}}


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise DsoError(f"{path}: not a TOML file ({str(error)[:200]}); mend the line named.") from error
    except RecursionError:
        raise DsoError(f"{path}: not a study file: its brackets nest too deep; write {_example('free')}.") from None
    for key, value in content.items():
        if key not in _TYPES:
            raise DsoError(f"{path}: unknown key '{key}'; a study has {nearest(key, _TYPES, len(_TYPES))}.")
        content[key] = _value(key, value, path)
    if "model" in content:
        content["model"] = str(path.parent / content["model"])
    if "logs" in content:
        content["logs"] = [str(path.parent / log) for log in content["logs"]]
    if "residual" in content:
        content["residual"] = str(path.parent / content["residual"])
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
    where = f"{path}: free parameter {entry['path']}"
    if not isinstance(entry["path"], str):
        raise DsoError(f"{where}: a path is a text, such as 'joint/elbow/damping'.")
    for key in ("init", "low", "high"):
        if key in entry and not _is_number(entry[key]):
            raise DsoError(f"{where}: {key} is {entry[key]!r}, which is no number; write {key} = 0.1.")
    if "prior" in entry and "log_prior" in entry:
        raise DsoError(f"{where}: give prior or log_prior, not both.")
    prior = entry.get("prior", entry.get("log_prior"))
    if prior is not None and not (isinstance(prior, list) and len(prior) == 2 and all(map(_is_number, prior))):
        raise DsoError(
            f"{where}: prior {prior!r} is not [mean, standard deviation]; a log_prior is [median, standard deviation of the "
            "logarithm]."
        )
    numbers = {key: float(entry[key]) for key in ("init", "low", "high") if key in entry}
    declared = Declaration(
        entry["path"],
        **numbers,
        prior=None if prior is None else (float(prior[0]), float(prior[1])),
        log_prior="log_prior" in entry,
    )
    try:
        _check_numbers(declared)
    except DsoError as error:
        raise DsoError(f"{path}: {error}") from error
    return declared


def _check_numbers(declared: Declaration) -> None:
    """Raise DsoError for numbers that no start value, bound or prior can be."""
    if declared.init is not None and not abs(declared.init) < _HUGE:
        raise DsoError(
            f"{declared.path}: a start value of {declared.init:g} is no number to simulate with; give another."
        )
    low, high = declared.low, declared.high
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        raise DsoError(f"{declared.path}: a bound is NaN; leave it out, or give a number.")
    if low is not None and high is not None and not low < high:
        raise DsoError(f"{declared.path}: low {low:g} is not below high {high:g}.")
    if declared.prior is not None and len(declared.prior) == 2:
        mean, std = declared.prior
        if not (abs(mean) < _HUGE and 0 < std < _HUGE):
            raise DsoError(
                f"{declared.path}: the prior [{mean:g}, {std:g}] is not [mean, standard deviation] with a finite mean and a "
                "finite, positive standard deviation; leave it out to say nothing."
            )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**1000 if isinstance(value, int) else True


def _value(key: str, value: Any, path: Path) -> Any:
    """A value of the study file in the type that the study has."""
    kind = _TYPES[key]
    if key == "hold_out":
        parts = value if isinstance(value, list) else [value]
        if parts and all(isinstance(part, str) or _is_number(part) for part in parts):
            return ",".join(map(str, parts))
    elif key == "logs":
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return value
    elif key == "continuity":
        if _is_number(value) or isinstance(value, str):
            return value if isinstance(value, str) else float(value)
    elif kind is float:
        if value == FULL and key.endswith("window"):
            return math.inf
        if _is_number(value):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    shown = repr(value)
    raise DsoError(f"{path}: '{key}' is {shown[:60]}{'...' if len(shown) > 60 else ''}; write {_example(key)}.")


def _example(key: str) -> str:
    return {
        "model": 'model = "arm.xml"',
        "logs": 'logs = ["arm.h5"]',
        "free": 'free = ["joint/*/damping"]',
        "hold_out": 'hold_out = "03,05"',
        "engine": 'engine = "auto"',
        "window": 'window = 0.5, or window = "full"',
        "score_window": "score_window = 0.5",
        "seed": "seed = 0",
        "starts": "starts = 10",
        "warm_start": "warm_start = true",
        "robust": "robust = true",
        "continuity": 'continuity = 1.0, or continuity = "learned"',
        "noise": "noise = { elbow_pos = 0.001 }",
        "controller": "[controller.elbow_motor] with gains = { elbow_pos = -5.0 }",
        "network": 'network = { joints = ["*"] }',
        "residual": 'residual = "scale.py:total_mass"',
    }[key]
