"""What a user asks of `dso estimate`, from a TOML file or Python, checked before anything runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.robot.corrector import CORRECTORS
from dso_robotics.studies.declaration import ENGINES, FREE, HOLD_OUT, LOGS, MODEL
from dso_robotics.studies.estimate_contact import ContactTable
from dso_robotics.table import Study, entries, key


def _channels(given: Any) -> tuple[str, ...] | None:
    """The channels, from a list of names or a [sensors] table as in `dso train`."""
    if isinstance(given, Mapping):
        if "noise" in given:
            raise DsoError("the noises of sensors are learned from the logs; leave noise out of [sensors].")
        if unknown := [name for name in given if name != "channels"]:
            raise DsoError(f"[sensors] has no key {unknown[0]!r} here; it has channels.")
        given = given.get("channels")
    if given is None:
        return None
    names = entries(given)
    if not all(isinstance(name, str) for name in names):
        raise TypeError
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class EstimateStudy(Study):
    """One estimator: a model, logs, a corrector, and what is learned beside it."""

    command: ClassVar[str] = "estimate"

    model: Any = key("MJCF or URDF file; in Python also an MjSpec, an MjModel or a Robot", **MODEL)
    logs: tuple[Any, ...] = key("log files; in Python also Log objects", (), **LOGS)
    hold_out: str | None = key(
        "recordings that nothing is learned from, or how many of them (0 to 1)", None, **HOLD_OUT
    )
    sensors: tuple[str, ...] | None = key(
        "sensors or channels that the estimator has; none: all of the model's", None, example=["shoulder_pos", "imu"],
        read=_channels, words="a list of names, or [sensors] with channels",
    )  # fmt: skip
    corrector: str | None = key(
        "how innovations move the prediction; none: kalman, or gain where the study asks for what a Kalman filter does not do",
        None, choices=CORRECTORS, example="gain",
    )  # fmt: skip
    units: int = key("units of the correctors mlp and recurrent", 8, within="[1, 1000]")
    drift: tuple[str, ...] = key(
        "sensors or channels whose bias drifts; a Kalman filter estimates it as a part of the state",
        (),
        example=["gyro"],
    )
    strapdown: str | None = key(
        "accelerometer whose readings move the base in the place of forces, and are the controls then (kalman)",
        None, example="accelerometer",
    )  # fmt: skip
    contact: Mapping[str, ContactTable] = key("feet whose velocity is zero while they stand (kalman)", {})
    free: tuple[Declaration, ...] = key("physics and sensor numbers to learn", (), **FREE)
    window: float = key("length of the pieces of a log that are filtered", 1.0, unit="s", within="(0, inf)")
    warm_up: float = key("share of each window that does not count", 0.2, within="[0, 0.9)")
    validation: float = key(
        "share of the windows that are not trained on; the estimator that predicts them best is kept (0: the last)",
        0.0, within="[0, 0.5]",
    )  # fmt: skip
    ahead: int = key(
        "samples in a row that are predicted without being seen (1: each is seen after it)", 1, within="[1, 1000]"
    )
    robust: float | Literal["auto"] | None = key(
        "degrees of freedom of Student's t; none: normal noise; auto: estimated",
        None, within="(0, inf)", example="auto",
    )  # fmt: skip
    supervised: float = key("weight of the recorded state, where there is one", 0.0, within="[0, inf)")
    covariance: bool = key("the noise may depend on the state", False)
    gate: float | None = key(
        "share of right readings that the estimator lets in at run time; one that is less likely counts as missing (none: all)",
        None, within="(0, 1)", example=0.999,
    )  # fmt: skip
    smooth: bool = key("also write the most probable motion given all readings, smoothed.h5 (a Kalman filter)", False)
    timestep: float | None = key(
        "time step of the simulation; none: the model's", None, unit="s", within="(0, inf)", example=0.001
    )
    engine: str = key("simulator and derivatives; auto says why", "auto", choices=ENGINES)
    iterations: int = key("of the search, at most", 30, within="[1, 1000000]")
    learning_rate: float = key("step size of Adam", 0.01, within="(0, inf)")
    seed: int = key("of weights and of what is drawn", 0, within="[0, 9e18]")

    def check(self) -> None:
        """Something to learn from."""
        if not self.logs:
            raise DsoError("no log was given, so there is nothing to learn from; name one or more log files (.h5).")
