"""What a user asks of `dso estimate`: a TOML file, checked before anything runs."""

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.physics.model import nearest
from dso_robotics.robot.corrector import CORRECTORS

_EXAMPLES = {
    "model": 'model = "arm.xml"',
    "logs": 'logs = ["arm.h5"]',
    "hold_out": 'hold_out = "03,05"',
    "sensors": 'sensors = ["shoulder_pos", "imu"]',
    "corrector": 'corrector = "gain"',
    "units": "units = 8",
    "free": 'free = ["joint/*/damping", "sensor/imu/bias"]',
    "window": "window = 1.0",
    "warm_up": "warm_up = 0.2",
    "validation": "validation = 0.2",
    "ahead": "ahead = 5",
    "robust": 'robust = 4.0, or robust = "auto"',
    "supervised": "supervised = 1.0",
    "covariance": "covariance = true",
    "timestep": "timestep = 0.001",
    "engine": 'engine = "auto"',
    "iterations": "iterations = 30",
    "learning_rate": "learning_rate = 0.01",
    "seed": "seed = 0",
}
ENGINES = ("auto", "mujoco", "mjx")


@dataclasses.dataclass(frozen=True)
class EstimateStudy:
    """One estimator: a model, logs, a corrector, and what is learned beside it.

    sensors: names of sensors or channels (None: all of the model's); free: physics and sensors; window [s]: length
    of the pieces of a log that are filtered; warm_up: the share of each that does not count; validation: the share of pieces
    that are not trained on, and of which the search keeps the estimator that predicts them best (0: keep where it ended);
    ahead: how many samples in a row the corrector must predict without seeing them (1: each is seen after it is predicted);
    robust: degrees of freedom of Student's t (None: normal noise, "auto": estimated); supervised: weight of the recorded
    state, where there is one; covariance: the noise may depend on the state; timestep [s]: the model's, changed; iterations:
    of the search.
    """

    model: str
    logs: tuple[str, ...]
    hold_out: str | None = None
    sensors: tuple[str, ...] | None = None
    corrector: str = "gain"
    units: int = 8
    free: tuple[Declaration, ...] = ()
    window: float = 1.0
    warm_up: float = 0.2
    validation: float = 0.0
    ahead: int = 1
    robust: float | str | None = None
    supervised: float = 0.0
    covariance: bool = False
    timestep: float | None = None
    engine: str = "auto"
    iterations: int = 30
    learning_rate: float = 0.01
    seed: int = 0

    def __post_init__(self):
        checks = (
            (bool(self.logs), "logs", "no log was given, so there is nothing to learn from"),
            (self.corrector in CORRECTORS, "corrector", f"there is {', '.join(CORRECTORS)}, no {self.corrector!r}"),
            (1 <= self.units <= 1000, "units", f"{self.units} is not a whole number from 1 to 1000"),
            (_positive(self.window), "window", f"{self.window!r} is no positive number of seconds"),
            (0 <= self.warm_up < 0.9, "warm_up", f"{self.warm_up!r} is not a share of the window from 0 to 0.9"),
            (
                0 <= self.validation <= 0.5,
                "validation",
                f"{self.validation!r} is not a share of the windows from 0 to 0.5",
            ),
            (1 <= self.ahead <= 1000, "ahead", f"{self.ahead} is not a whole number from 1 to 1000"),
            (
                self.robust in (None, "auto") or (not isinstance(self.robust, str) and _positive(self.robust)),
                "robust",
                f"{self.robust!r} is no positive number",
            ),
            (_positive(self.supervised) or self.supervised == 0, "supervised", f"{self.supervised!r} is negative"),
            (self.timestep is None or _positive(self.timestep), "timestep", f"{self.timestep!r} is no time step"),
            (self.engine in ENGINES, "engine", f"there is {', '.join(ENGINES)}, no {self.engine!r}"),
            (1 <= self.iterations <= 10**6, "iterations", f"{self.iterations} is not from 1 to a million"),
            (_positive(self.learning_rate), "learning_rate", f"{self.learning_rate!r} is no positive number"),
            (0 <= self.seed < 2**63, "seed", f"{self.seed} is not from 0 to 2^63 - 1"),
        )
        for good, key, text in checks:
            if not good:
                raise DsoError(f"{key}: {text}; write {_EXAMPLES[key]}.")

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file."""
        return {"command": "estimate", **dataclasses.asdict(self)}


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def read_estimate_study(path: str | Path) -> EstimateStudy:
    """The study in a TOML file, with model and log paths made relative to its folder.

    Raises:
      DsoError: the file is missing, is not TOML, or has a key or a value that `dso estimate` does not know.
    """
    path = Path(path)
    if not path.is_file():
        raise DsoError(f"{path}: there is no such study file; give a TOML file with keys {', '.join(_EXAMPLES)}.")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DsoError(f"{path}: not a TOML file ({str(error)[:200]}); mend the line named.") from error
    for key in content:
        if key not in _EXAMPLES:
            raise DsoError(f"{path}: unknown key '{key}'; a study has {nearest(key, _EXAMPLES, len(_EXAMPLES))}.")
    for key in ("model", "logs"):
        if key not in content:
            raise DsoError(f"{path}: '{key}' is missing; write {_EXAMPLES[key]}.")
    keys = {key: _value(key, value, path) for key, value in content.items()}
    keys["model"] = str(path.parent / keys["model"])
    keys["logs"] = tuple(str(path.parent / log) for log in keys["logs"])
    try:
        keys["free"] = tuple(parse(text) for text in keys.get("free", ()))
        return EstimateStudy(**keys)
    except DsoError as error:
        raise DsoError(f"{path}: {error}") from error


def _value(key: str, value: Any, path: Path) -> Any:
    """A value of the study file in the type the study has."""
    kind: Any = {f.name: f.type for f in dataclasses.fields(EstimateStudy)}[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float or kind == float | None:
        if number and abs(value) < 1e100:
            return float(value)
    elif key == "robust":
        if value == "auto" or (number and abs(value) < 1e100):
            return value if value == "auto" else float(value)
    elif kind is int:
        if number and isinstance(value, int):
            return value
    elif key == "hold_out":
        parts = value if isinstance(value, list) else [value]
        if parts and all(isinstance(p, str | int | float) and not isinstance(p, bool) for p in parts):
            return ",".join(map(str, parts))
    elif key in ("logs", "sensors", "free"):
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    shown = repr(value)
    raise DsoError(f"{path}: '{key}' is {shown[:60]}{'...' if len(shown) > 60 else ''}; write {_EXAMPLES[key]}.")
