"""What a user asks of `dso identify`, from options, a TOML file or Python, checked before anything runs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dso_robotics.costs.continuity import LEARNED, LEAST_JUMP
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.robot.controller import Controller
from dso_robotics.studies.declaration import ENGINES, FREE, HOLD_OUT, LOGS, MODEL
from dso_robotics.studies.network_settings import NetworkSettings
from dso_robotics.studies.samplers import SAMPLERS
from dso_robotics.table import File, Study, key

CHOICES = ("window", "friction")
# The window that is as long as its rollout.
FULL = "full"


@dataclasses.dataclass(frozen=True)
class IdentifyStudy(Study):
    """One identification: a model, its logs, what is free, what is held out."""

    command: ClassVar[str] = "identify"

    model: Any = key("MJCF or URDF file; in Python also an MjSpec, an MjModel or a Robot", **MODEL)
    logs: tuple[Any, ...] = key("log files; in Python also Log objects", (), **LOGS)
    free: tuple[Declaration, ...] = key("what to identify", (), **FREE)
    actuator: tuple[str, ...] = key(
        "SERVO or SERVO=ACTUATOR: the actuators, with wildcards, that are servos of the library, whose published armature, "
        "friction and damping are freed with start values and priors", (), example=["xl330=hip*"],
    )  # fmt: skip
    hold_out: str | None = key("recordings to predict but not to fit, or how many of them (0 to 1)", None, **HOLD_OUT)
    engine: str = key("simulator and derivatives; auto says why", "auto", choices=ENGINES)
    window: float = key(
        "length of the pieces that are fitted open loop; full: each recording in one piece; 0: every sample is compared with "
        "its own recorded state, to calibrate sensors",
        0.5, unit="s", within="[0, inf]", kind=float | Literal["full"],
    )  # fmt: skip
    fit: str = key(
        "what is compared: the motion of simulated windows, or the torques of inverse dynamics, without a simulation", "motion",
        choices=("motion", "torque"),
    )  # fmt: skip
    score_window: float | None = key(
        "length of the pieces whose errors are reported; none: the same",
        None, unit="s", within="(0, inf]", kind=float | Literal["full"] | None, example=0.5,
    )  # fmt: skip
    seed: int = key("of the drawn starts and of a network's first weights", 0, within="[0, 9e18]")
    starts: int = key("short searches from drawn starts that compete before one goes on", 1, within="[1, 10000]")
    choose: str | None = key(
        "window, friction or both with a comma: chosen by cross-validation over the fitted runs",
        None, example="window,friction",
    )  # fmt: skip
    warm_start: bool = key("a start found by regression on inverse dynamics competes too", False)
    robust: bool = key("errors have heavy tails: outliers lose their pull", False)
    noise: Mapping[str, float] = key(
        "noise scales that are known, by channel; the others are estimated",
        {}, unit="the channel's", within="(0, inf)", example={"elbow_pos": 0.001},
    )  # fmt: skip
    residual: File | None = key(
        "FILE.py:FUNCTION of a dict of free numbers by path, which returns numbers over their deviation",
        None, example="scale.py:weighed",
    )  # fmt: skip
    network: NetworkSettings | None = key("a torque to learn beside the parameters", None, example="[network]")
    continuity: float | Literal["learned"] | None = key(
        "how far a window's end may be from the next one's start, in deviations of what a window alone tells about its start",
        None, within=f"[{LEAST_JUMP:g}, inf)", example=1.0,
        words=f"a number from {LEAST_JUMP:g}, or {LEARNED}; for no jump at all the window is {FULL}",
    )  # fmt: skip
    controller: Mapping[str, Controller] = key("controllers of actuators whose control was not recorded", {})
    posterior: bool = key("also draw samples of the numbers, given the logs", False)
    sampler: str = key(
        "how they are drawn. laplace: importance sampling, for few numbers; nuts: Hamiltonian Monte Carlo on MJX; auto: by the "
        "engine", "auto", choices=SAMPLERS,
    )  # fmt: skip
    draws: int = key("how many samples", 500, within="[100, 100000]")

    def check(self) -> None:
        """Logs, and windows that can be continuous."""
        for name in ("window", "score_window"):
            if getattr(self, name) == FULL:
                object.__setattr__(self, name, math.inf)
        if not self.logs:
            raise DsoError("no log was given, so there is nothing to identify from; name one or more log files (.h5).")
        wrong = [
            part for part in (self.choose or "").split(",") if self.choose is not None and part.strip() not in CHOICES
        ]
        if wrong:
            raise DsoError(f"`choose` = {self.choose!r}: write {' or '.join(CHOICES)}, or both with a comma.")
        if self.choose and (self.fit == "torque" or not self.window or self.network):
            raise DsoError("`choose`: needs a fit of motion over windows, without a [network]; leave one of them out.")
        if self.continuity is not None and self.window in (0, math.inf):
            shown = FULL if self.window else 0
            raise DsoError(
                f"`continuity`: with `window` {shown} no window follows another; give a length, such as 0.5."
            )

        for name in ("network", "continuity", "residual") if self.fit == "torque" else ():
            if getattr(self, name) is not None:
                raise DsoError(
                    f"`fit`: torques are fitted without a simulation, which `{name}` needs; leave one of them out."
                )
        apart = {
            "continuity": self.continuity is not None,
            "network": self.network is not None,
            "fit": self.fit == "torque",
        }
        for name in (name for name, given in apart.items() if given and self.posterior):
            raise DsoError(
                f"`posterior`: it needs a fit of motion, without a network, over windows that are simulated apart, and "
                f"`{name}` changes that; leave one of them out."
            )
        if self.fit == "torque" and not self.window:
            raise DsoError("`fit`: with `window` 0 no motion is compared; leave out one of the two.")

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file."""
        return {k: FULL if v == math.inf else v for k, v in super().as_dict().items()}
