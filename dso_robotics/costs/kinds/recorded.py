"""Costs of recordings: follow them, do what was done in them, or be the robot that made them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from dso_robotics.costs.cloning import cloning
from dso_robotics.costs.kind import COSTS, MotionCost, Scope, SupervisedCost
from dso_robotics.costs.motion_likelihood import identification
from dso_robotics.costs.task import Term
from dso_robotics.costs.tracking import tracking
from dso_robotics.data.log import read_log
from dso_robotics.robot.chain import RobotChain
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
class CloningCost(SupervisedCost):
    """-log-likelihood of recorded actions under the policy."""

    log: File = key(_LOG, example="shown.h5")

    def cost(self, chain: RobotChain) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return cloning(list(read_log(self.log).rollouts), chain, source=self.log)


@COSTS.register("identification")
@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentificationCost(SupervisedCost):
    """-log-likelihood of recorded sensors under the `free` parameters."""

    log: File = key(_LOG, example="robot.h5")
    window: float = key("length of the pieces that are predicted", 0.5, unit="s", within="[0, inf)")

    def cost(self, chain: RobotChain) -> Callable[..., Any]:
        """See `SupervisedCost`."""
        return identification(read_log(self.log), chain, window=self.window)
