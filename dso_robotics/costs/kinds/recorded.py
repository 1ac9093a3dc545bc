"""Costs of recordings: follow them, do what was done in them, or be the robot and the sensors that made them."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from dso_robotics.costs.behaviour_likelihood import identification_with_cloning
from dso_robotics.costs.cloning import cloning
from dso_robotics.costs.filter_likelihood import estimation
from dso_robotics.costs.kind import COSTS, MotionCost, RecordedCost, Scope
from dso_robotics.costs.motion_likelihood import identification
from dso_robotics.costs.sensor_likelihood import calibration
from dso_robotics.costs.task import Surprise, Term
from dso_robotics.costs.tracking import tracking
from dso_robotics.data.log import read_log
from dso_robotics.errors import DsoError
from dso_robotics.robot.system import RobotSystem
from dso_robotics.table import File, key

_LOG = "log file with the recordings"


@COSTS.register("tracking")
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingCost(MotionCost):
    """Mean squared distance of qpos to that recorded at the same time."""

    log: File = key(_LOG, example="walk.h5")
    rollout: str | None = key("which of its rollouts; without it, the first", None, example="run0")
    scale: float = key("distance that costs 1", 1.0, unit="rad, m", within="(0, inf)")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        log = read_log(self.log)
        return tracking(log[self.rollout or log.names[0]], scope.robot, scale=self.scale, source=self.log)


@COSTS.register("cloning")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CloningCost(RecordedCost):
    """-log-likelihood of recorded actions under the policy."""

    moves: ClassVar[tuple[str, ...]] = ("policy", "action noise")
    log: File = key(_LOG, example="shown.h5")

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return cloning(list(read_log(self.log).rollouts), chain, source=self.log)


@COSTS.register("identification")
@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentificationCost(RecordedCost):
    """-log-likelihood of recorded sensors under the `free` parameters."""

    moves: ClassVar[tuple[str, ...]] = ("physics", "sensor")
    log: File = key(_LOG, example="robot.h5")
    window: float = key("length of the pieces that are predicted", 0.5, unit="s", within="[0, inf)")

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return identification(read_log(self.log), chain, window=self.window)


@COSTS.register("calibration")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationCost(RecordedCost):
    """-log-likelihood of recorded readings at recorded states, under the sensors' bias, scale and noise."""

    moves: ClassVar[tuple[str, ...]] = ("physics", "sensor", "sensor noise")
    log: File = key(_LOG, example="bench.h5")

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return calibration(read_log(self.log), chain)


@COSTS.register("identification_cloning")
@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentificationCloningCost(RecordedCost):
    """-log-likelihood of recorded states when the actions were not recorded: the policy acts in their place."""

    moves: ClassVar[tuple[str, ...]] = ("policy", "physics")
    log: File = key(_LOG, example="watched.h5")
    window: float = key("length of the pieces that are predicted", 0.2, unit="s", within="(0, inf)")

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return identification_with_cloning(read_log(self.log), chain, window=self.window)


@COSTS.register("estimation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimationCost(MotionCost, RecordedCost):
    """-log-likelihood of each reading given the estimator's prediction, on a log or on the chain's own rollouts."""

    log: File | None = key("log file with the recordings; none: the chain's own rollouts", None, example="robot.h5")
    window: float = key("length of the pieces of the log that are filtered", 1.0, unit="s", within="(0, inf)")
    warm_up: float = key("share of each piece that does not count", 0.2, within="[0, 0.9)")

    @property
    def supervised(self) -> bool:
        """Whether the cost is of a log."""
        return self.log is not None

    @property
    def moves(self) -> tuple[str, ...]:  # type: ignore[override]
        """Blocks that the cost moves."""
        return ("physics", "sensor", "corrector", "model") if self.supervised else ("corrector", "model")

    def check(self) -> None:
        """Keys that fit what the cost is of."""
        super().check()
        if self.supervised and self.when:
            raise DsoError("`when` is of episodes, and a cost of a log has none; leave it out.")
        if not self.supervised and self.fade is not None:
            raise DsoError("`fade` is for costs of a log; leave it out, or give `log`.")
        if not self.supervised and self.per != "number":
            raise DsoError("`per` is for costs of a log; leave it out, or give `log`.")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        if not scope.estimates:
            raise DsoError(
                "estimation is the likelihood of an estimator's predictions, and the study has none; add an [estimator] and "
                "[sensors]."
            )
        return Surprise()

    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        assert self.log is not None
        return estimation(read_log(self.log), chain, window=self.window, warm_up=self.warm_up)
