"""What a user asks of `dso excite`, from options, a TOML file or Python, checked before anything runs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dso_robotics.costs.information import AIMS
from dso_robotics.data.waveform import KINDS
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.studies.declaration import FREE, MODEL
from dso_robotics.studies.study import FULL
from dso_robotics.table import File, Range, Study, key

_BY_JOINT = {"example": {"elbow": 2.0}, "within": "(0, inf)"}
_BY_ACTUATOR = {"example": {"motor": 3.0}, "within": "(0, inf)"}


@dataclasses.dataclass(frozen=True)
class ExciteStudy(Study):
    """One plan: a model, what is free, what is known already, and what the robot may do."""

    command: ClassVar[str] = "excite"

    model: Any = key("MJCF or URDF file; in Python also an MjSpec, an MjModel or a Robot", **MODEL)
    result: File | None = key(
        "folder of an earlier `dso identify`: its values, intervals, noise scales and free numbers are where the plan begins",
        None, example="result",
    )  # fmt: skip
    free: tuple[Declaration, ...] = key("what is to be identified; with a result, besides what it freed", (), **FREE)
    actuator: tuple[str, ...] = key(
        "SERVO or SERVO=ACTUATOR: actuators that are servos of the library, with their published numbers as priors", (),
        example=["xl330=hip*"],
    )  # fmt: skip
    interest: tuple[str, ...] = key(
        "the paths whose intervals count, with wildcards; the others are unknown too, but may stay wide", (),
        example=["joint/*/damping"],
    )  # fmt: skip
    noise: Mapping[str, float] = key(
        "noise scale of channels, or of `*`; by default those of the result, or the model's <sensor noise>",
        {}, unit="the channel's", within="(0, inf)", example={"elbow_pos": 0.001},
    )  # fmt: skip
    sensors: tuple[str, ...] = key(
        "sensors or channels that the robot records, with wildcards; by default those of the result, or all", (),
        example=["elbow_pos"],
    )  # fmt: skip
    aim: str = key(
        "what is made small: d (the volume of the joint interval), a (mean square width), e (longest axis), widest (the widest "
        "interval, as a share of its number), halve (the same, with runs added until it is half as wide)", "d", choices=AIMS,
    )  # fmt: skip
    seconds: float = key("length of a run", 10.0, unit="s", within="(0, 3600]")
    runs: int = key("number of runs; each is planned with what those before it tell", 1, within="[1, 100]")
    every: int = key("time steps of the model from one sample of the plan to the next", 1, within="[1, 10000]")
    play: str = key(
        "what the signals are: control (what the actuators are sent), or reference (positions that the robot's own controller "
        "follows; torques by inverse dynamics)", "control", choices=("control", "reference"),
    )  # fmt: skip
    signal: str = key(
        "family of signals: fourier (free amplitudes and phases), multisine (free phases), spline (free knots)", "fourier",
        choices=tuple(KINDS),
    )  # fmt: skip
    top: float = key("highest frequency", 2.0, unit="Hz", within="(0, inf)")
    harmonics: int = key("number of frequencies of each signal", 6, within="[1, 200]")
    fade: float = key("time in which signals begin, and end", 0.5, unit="s", within="[0, inf)")
    still: float = key("time at the end in which controls are those of rest", 0.5, unit="s", within="[0, inf)")
    end: str = key("whether a run has to end at rest", "rest", choices=("rest", "any"))
    keyframe: str | None = key(
        "start at this keyframe of the model, at rest; by default at its qpos0", None, example="home"
    )
    amplitude: Mapping[str, float] = key(
        "how far controls may go from those of rest, by actuator or `*`; by default as far as ctrlrange", {},
        unit="the control's", **_BY_ACTUATOR,
    )  # fmt: skip
    hold: Mapping[str, float] = key(
        "controls that stay at a value, by actuator with wildcards: switches, or motors that are not to be excited", {},
        unit="the control's", example={"powered": 1.0},
    )  # fmt: skip
    position: Mapping[str, Range] = key(
        "least and largest position of joints, with wildcards; ranges of the model hold besides", {}, unit="rad, m",
        example={"elbow": [-1.0, 1.0]},
    )  # fmt: skip
    speed: Mapping[str, float] = key("largest speed of joints, with wildcards", {}, unit="rad/s, m/s", **_BY_JOINT)
    acceleration: Mapping[str, float] = key("largest acceleration of joints", {}, unit="rad/s^2, m/s^2", **_BY_JOINT)
    torque: Mapping[str, float] = key(
        "largest force or torque of actuators, with wildcards", {}, unit="N, N*m", **_BY_ACTUATOR
    )
    rate: Mapping[str, float] = key(
        "largest change of controls in a second", {}, unit="the control's/s", **_BY_ACTUATOR
    )
    power: Mapping[str, float] = key("largest power of actuators", {}, unit="W", **_BY_ACTUATOR)
    distance: Mapping[str, float] = key(
        "least distance of pairs of geoms, GEOM:GEOM with wildcards", {}, unit="m", within="[0, inf)",
        example={"hand:table": 0.02},
    )  # fmt: skip
    margin: float = key("least distance of all other pairs that can collide", 0.0, unit="m", within="[0, inf)")
    touch: tuple[str, ...] = key(
        "pairs of geoms that may touch, GEOM:GEOM with wildcards; those whose contact is free may", (),
        example=["foot:floor"],
    )  # fmt: skip
    window: float | None = key(
        "length of the windows in which the runs will be identified; by default the result's, or 0.5", None, unit="s",
        within="(0, inf]", kind=float | Literal["full"] | None, example=0.5,
    )  # fmt: skip
    robust: bool = key("the runs will be identified with heavy tails", False)
    draws: int = key(
        "values drawn from what is known over which the plan is averaged, and that keep the limits; the first is the estimate",
        3, within="[1, 100]",
    )  # fmt: skip
    trials: int = key("motions tried for each run", 400, within="[20, 1000000]")
    seed: int = key("of the draws and of the search", 0, within="[0, 9e18]")

    def check(self) -> None:
        """Free numbers, and an aim that can be measured."""
        if self.window == FULL:
            object.__setattr__(self, "window", math.inf)
        if not self.free and self.result is None and not self.actuator:
            raise DsoError(
                "nothing is free, so there is nothing to tell about; name at least one parameter with `free` (`dso parameters "
                "MODEL` lists them), or the folder of an earlier `dso identify` as RESULT."
            )
        if self.aim == "halve" and self.result is None:
            raise DsoError(
                "`aim` halve: without an earlier result there is no interval to halve; give the folder of `dso identify` as "
                "RESULT, or aim at widest."
            )

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values."""
        return {k: FULL if v == math.inf else v for k, v in super().as_dict().items()}
