"""Kinds of cost that a study can ask for: a dataclass each, whose fields are the keys of [cost.NAME]."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from dso_robotics.costs.motor_quantity import motor_quantity
from dso_robotics.costs.quantity import Quantity, quantity
from dso_robotics.costs.task import Term
from dso_robotics.errors import DsoError
from dso_robotics.physics.design.motor import MotorChoice
from dso_robotics.physics.model import Robot
from dso_robotics.registry import Registry
from dso_robotics.robot.system import RobotSystem
from dso_robotics.table import Table, key

_REWARD = (
    'this is a reward, but costs are minimised. A reward between 0 and 1 is the cost kind = "product" of its factors; for '
    '"the more the better" write kind = "hinge" with the target that would be enough.'
)
# Every kind by its name; a new one is a file in `costs.kinds`, or anywhere, that registers its dataclass.
COSTS: Registry[type["Cost"]] = Registry("cost", "dso_robotics.costs.kinds")


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a cost of the motion may refer to: the robot, the names of what is drawn for an episode, and an estimator.

    estimates: whether the system has an estimator.
    motors: those of [motor.NAME] by name.
    """

    robot: Robot
    tasks: tuple[str, ...] = ()
    estimates: bool = False
    motors: Mapping[str, MotorChoice] = dataclasses.field(default_factory=dict)

    def quantity(self, name: str) -> Quantity:
        """The quantity called `name`, see `costs.quantity` and `costs.motor_quantity`."""
        if name.startswith("motor/"):
            return motor_quantity(name, self.motors)
        return quantity(name, self.robot, self.tasks)

    def target(self, value: float | str) -> float | Quantity:
        """A number, or the quantity that gives it, such as "task/goal"."""
        return self.quantity(value) if isinstance(value, str) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost(Table, abc.ABC):
    """A [cost.NAME] table."""

    kinds = COSTS
    refused: ClassVar[Mapping[str, str]] = {
        "reward": _REWARD,
        "lack": 'kind = "lack" has its usual name now, the hinge loss; write kind = "hinge" with the same keys.',
    }
    weight: float | Literal["balance"] = key(
        "factor of the cost, not negative; balance: at the start its gradient is as long as that of the costs with a number, "
        "over the blocks that both move",
        1.0,
    )
    # Blocks of theta that the cost moves, unless [flow] says otherwise.
    moves: ClassVar[tuple[str, ...]] = ()

    @property
    def supervised(self) -> bool:
        """Whether the cost needs no rollout of the chain."""
        return isinstance(self, SupervisedCost)

    def check(self) -> None:
        """Refuse rewards."""
        if self.weight != "balance" and self.weight < 0:
            raise DsoError(
                f"weight = {self.weight:g}. A negative weight makes a reward of a cost, and costs are minimised; write what is "
                'missing instead, with kind = "hinge" or "product" and a positive weight.'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionCost(Cost):
    """A cost of the motion: one number for each step of the chain.

    It does not move the world: physics, sensors and their noise. Minimising it over them would lighten the robot.
    """

    moves: ClassVar[tuple[str, ...]] = ("policy", "action noise", "design", "corrector", "model", "plan")
    # Whether the cost is of the action alone, whatever comes of it.
    of_action: ClassVar[bool] = False

    when: Mapping[str, float] = key(
        "the cost counts only in episodes in which these tasks have these values", {}, example={"side": 1.0}
    )

    limit: float | None = key(
        "hard constraint: the mean of the cost a step, without weight, is to be at most this; its weight is found, beginning "
        "with `weight`",
        None, within="[0, inf)", example=0.0,
    )  # fmt: skip

    def check(self) -> None:
        """A constraint needs a first penalty."""
        super().check()
        if self.limit is not None and (self.weight == "balance" or not self.weight > 0):
            raise DsoError(
                f"`limit` makes a hard constraint of the cost, whose weight is found: `weight` = {self.weight!r} is to be its "
                "first penalty, a positive number such as 1.0."
            )

    @abc.abstractmethod
    def term(self, scope: Scope) -> Term:
        """The cost of a step. Raises DsoError for what the robot does not have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedCost(Cost):
    """A cost that needs no rollout of the chain, of a log or of the numbers themselves."""

    moves: ClassVar[tuple[str, ...]] = ("physics", "sensor", "sensor noise", "corrector", "model")

    fade: float | None = key(
        "share of the iterations over which the weight falls to zero; none: it stays",
        None,
        within="(0, 1]",
        example=0.5,
    )

    @abc.abstractmethod
    def cost(self, chain: RobotSystem) -> Callable[..., Any]:
        """A function of the chain and theta. Raises DsoError for what the chain or a file does not have."""

    def sized(self, cost: Any) -> float:
        """What the weight of `cost`, a result of `cost()`, is multiplied by."""
        return 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedCost(SupervisedCost):
    """A negative log-likelihood [nats] of the numbers of a log. What `cost` returns has their number as `count`."""

    per: Literal["number", "log"] = key(
        "number: the mean over all recorded numbers that count; log: the sum over the log, which is commensurate with a prior "
        "and with the sums of other logs",
        "number",
    )

    def check(self) -> None:
        """A sum has a weight of its own."""
        super().check()
        if self.per == "log" and self.weight == "balance":
            raise DsoError('weight = "balance" finds the scale itself, so `per` has no effect; leave one of them out.')

    def sized(self, cost: Any) -> float:
        """See `SupervisedCost`."""
        return float(np.sum(cost.count)) if self.per == "log" else 1.0
