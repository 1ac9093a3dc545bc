"""What a user asks of `dso train` and `dso design`, from a TOML file or Python, checked before anything compiles."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from dso_robotics.core.method.settings import Settings
from dso_robotics.costs.kind import Cost
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.robot.context import Draw, one_of
from dso_robotics.studies.action import ActionTable
from dso_robotics.studies.curriculum import CurriculumTable
from dso_robotics.studies.declaration import ENGINES, FREE, MODEL
from dso_robotics.studies.design_table import DesignTable, MotorTable, RoundingTable
from dso_robotics.studies.plan_table import PlanTable
from dso_robotics.studies.push import PushesTable
from dso_robotics.studies.sensing_tables import EstimatorTable, SensorsTable, sensors_table
from dso_robotics.table import File, Key, Range, Study, Table, key, settle

# What a floating base has -> its places among the six numbers of a free joint, of its position or of its velocity.
BASE = {
    "position": (0, 1),
    "height": (2,),
    "heading": (5,),
    "tilt": (3, 4),
    "velocity": (0, 1, 2),
    "spin": (3, 4, 5),
}
# The key of [randomise] that names a result of `dso identify`.
FROM = "from"
_RANGES = {"hinge": [0.0, 6.28]}


@dataclasses.dataclass(frozen=True)
class PolicyTable(Table):
    """The policy, and what it sees and does."""

    kind: str = key("brain is a recurrent network", "network", choices=("linear", "network", "brain", "gated"))
    hidden: tuple[int, ...] = key("widths of the layers of a network", (32, 32), within="[1, 100000]")
    units: int = key("units of brain and gated", 16, within="[1, 100000]")
    observe: Literal["state", "readings", "estimate"] | tuple[str, ...] = key(
        "state: unlimited hinges as sine and cosine; readings: of [sensors], with noise; estimate: the estimator's state; or "
        "names of sensors, without noise unless [sensors] is there",
        "state", example=["gyro"],
    )  # fmt: skip
    leave_out: tuple[str, ...] = key(
        "joints whose position the policy does not see; of a free joint, NAME/x, NAME/y and NAME/z are one coordinate each",
        (), example=["x"],
    )  # fmt: skip
    time_features: int = key("waves of the time that the policy sees", 0, within="[0, 1000]")
    period: float | None = key(
        "of a cycle that they repeat; none: the episode", None, unit="s", within="(0, inf)", example=0.5
    )
    noise: float = key("standard deviation, as a part of half the actuator's range", 0.3, within="(0, inf)")
    learn_noise: bool = key("the noise is a number to find too", False)
    delay: float | Range = key(
        "time until an action is in force; a range: every episode draws a whole number of control steps within, which the "
        "policy does not see",
        0.0, unit="s", within="[0, inf)", example=0.02,
    )  # fmt: skip
    see_design: bool = key(
        "the policy sees the mechanism's numbers and what is randomised, as parts of their ranges", False
    )


@dataclasses.dataclass(frozen=True)
class JudgeTable(Table):
    """A robot that training does not see, on which the result is judged: the real one, or one with other numbers."""

    model: Any = key("MJCF or URDF file; none: the study's", None, **MODEL)
    values: Mapping[str, float] = key(
        "parameters of the robot and its sensors by path; other sensors have no bias, and the noise of [sensors]", {},
        example={"body/pole/mass": 0.13, "sensor/encoder/bias": 0.02},
    )  # fmt: skip
    episodes: int = key("episodes, each with other noise", 3, within="[1, 1000]")


@dataclasses.dataclass(frozen=True)
class BaseTable(Table):
    """Where a floating base starts; what is not given is as in the keyframe, in qpos or in the model."""

    position: tuple[float, float] | None = key("x and y", None, unit="m", example=[0.0, 0.0])
    height: float | None = key(
        "z of the free joint; with `lift`, of the lowest geom above the floor, where none means 0", None, unit="m",
        example=0.3,
    )  # fmt: skip
    heading: float | None = key("turn about the vertical", None, unit="rad", example=1.57)
    tilt: tuple[float, float] | None = key(
        "roll and pitch, as a rotation vector, before the turn", None, unit="rad", example=[0.1, 0.0]
    )
    velocity: tuple[float, float, float] | None = key("linear, in the world", None, unit="m/s", example=[0.5, 0.0, 0.0])
    spin: tuple[float, float, float] | None = key("angular, in the body", None, unit="rad/s", example=[0.0, 0.0, 1.0])
    spread: Mapping[str, float] = key(
        "standard deviations by any of these names, of each of their numbers", {}, within="[0, inf)",
        example={"tilt": 0.2, "heading": 3.0},
    )  # fmt: skip

    def check(self) -> None:
        """Names of spreads."""
        _base_names(self.spread, "spread")


@dataclasses.dataclass(frozen=True)
class Start(Table):
    """Where episodes start."""

    keyframe: str | None = key("name of a keyframe of the model, whose qpos and qvel count", None, example="home")
    qpos: tuple[float, ...] = key("all of qpos; none: that of the keyframe, or of the model", (), example=[0.0, 0.1])
    position: Mapping[str, float] = key("of joints", {}, unit="rad, m", example={"hinge": 3.14159})
    velocity: Mapping[str, float] = key("of joints", {}, unit="rad/s, m/s", example={"hinge": 0.0})
    base: Mapping[str, BaseTable] = key(
        "of free joints: position (x, y), height, heading, tilt (roll, pitch), velocity, spin, and a spread of each by name",
        {},
        example={"root": {"height": 0.3, "tilt": [0.1, 0.0]}},
    )
    spread: float = key(
        "standard deviation about them, of all hinges, slides and balls, and of all velocities", 0.0, within="[0, inf)"
    )
    lift: str | None = key(
        "a slide joint that points up, or a free joint: its height counts from where the lowest geom touches the floor",
        None, example="z",
    )  # fmt: skip

    def check(self) -> None:
        """One whole posture at most."""
        if self.keyframe is not None and self.qpos:
            raise DsoError("`keyframe` and `qpos` both give the whole posture; keep one of them.")


@dataclasses.dataclass(frozen=True)
class Explore(Table):
    """Where windows may start besides, uniformly."""

    position: Mapping[str, Range] = key("of joints", {}, unit="rad, m", example=_RANGES)
    velocity: Mapping[str, Range] = key("of joints", {}, unit="rad/s, m/s", example=_RANGES)
    base: Mapping[str, Mapping[str, Range]] = key(
        "of free joints: position, height, heading, tilt, velocity, spin, one range for all numbers of each", {},
        example={"root": {"heading": [-3.14, 3.14], "tilt": [-0.5, 0.5]}},
    )  # fmt: skip
    smallest: float = key(
        "every start takes a share of the ranges, log-uniformly from this to 1, about their middle: so there are as many near "
        "the middle, at each scale, as far from it; 1: always the whole ranges",
        1.0, within="(0, 1]", example=0.03,
    )  # fmt: skip

    def check(self) -> None:
        """Names of ranges."""
        if self.smallest != 1.0 and not (self.position or self.velocity or self.base):
            raise DsoError(
                "`smallest` is a share of ranges, and there are none; give `position`, `velocity` or `base`."
            )
        for name, ranges in self.base.items():
            _base_names(ranges, f"base.{name}")


def _base_names(given: Mapping[str, Any], where: str) -> None:
    for name in given:
        if name not in BASE:
            raise DsoError(f"`{where}`: a base has no '{name}'; it has {', '.join(BASE)}.")


@dataclasses.dataclass(frozen=True)
class Training(Settings, Table):
    """The method: windows of a few control steps in many environments, closed by a critic."""

    keep: Literal["best", "last"] | None = key(
        "the policy that is kept: the best of the looks at an episode, or the last; none: the last with costs that need no "
        "rollout, else the best",
        None, example="best",
    )  # fmt: skip
    design_rate: float | None = key(
        "step size of the mechanism; none: as theta's", None, within="(0, inf)", example=0.01
    )
    checkpoints: int = key("policies that are kept on the way, as files in DIR/checkpoints", 0, within="[0, 10000]")
    starts: int = key(
        "trainings that race from other weights and, of a design, from other numbers within its bounds: the better half goes "
        "on, at 1/2 of the iterations for the last two, 1/4 for four, and so on",
        1, within="[1, 64]",
    )  # fmt: skip
    method: str = "auto"
    notes: ClassVar[Mapping[str, Key]] = {
        "method": Key(
            doc="auto: chosen, with the reason in the summary; how a window is differentiated: pathwise, score, mixed, "
            "adaptive_horizon (the longest whose variance stays under a bound); a step in action space: pco, ppo, natural, "
            "chain_iteration, newton; an actor-critic with a replay: sac, td3, ddpg, nfqca, fitted_q, amortised_q; with a "
            "[plan]: model_design, model_design_score; without costs of the motion: gauss_newton, likelihood_adam; or one of "
            "your own"
        ),
        "environments": Key(doc="how many play at once; a multiple of 4"),
        "horizon": Key(doc="control steps of a window; of adaptive_horizon: the longest"),
        "iterations": Key(doc="how many windows each environment plays"),
        "gamma": Key(doc="discount of a control step"),
        "lam": Key(doc="lambda of the critic's targets"),
        "learning_rate": Key(doc="step size of theta"),
        "final_rate": Key(doc="what is left of it at the end, as a factor; it falls linearly"),
        "clip": Key(doc="largest norm of the gradient of a block"),
        "critic": Key(
            doc="what it is fitted to: value, or gradient: the derivative of the cost to come by the state (pathwise, "
            "adaptive_horizon)",
            choices=("value", "gradient"),
        ),
        "critic_hidden": Key(doc="units of the critic's layers"),
        "critic_rate": Key(doc="step size of the critic"),
        "critic_updates": Key(doc="its updates an iteration"),
        "critic_batch": Key(doc="states an update; also moves an update of ppo"),
        "target": Key(doc="share of the new critic that the slow one, which makes the targets, takes on"),
        "noise_end": Key(doc="the actions' noise at the end, as a factor; reached geometrically"),
        "soften": Key(doc="factor of how long contacts push at first; it falls to 1"),
        "horizons": Key(
            doc="steps after which the derivative through the chain is closed with the critic, at first and when contacts are "
            "as the model says, at 70% of the iterations; geometric in between; none: the whole window (pathwise, mixed)",
            example=[4, 32],
        ),
        "restart": Key(doc="share of windows that start anew"),
        "explore": Key(doc="share of these that start from [explore]"),
        "abandon": Key(doc="a window whose mean cost a step is above this starts anew; by default none", example=3.0),
        "updates": Key(
            doc="of a batch's surrogate (pco, ppo, chain_iteration), or of the conjugate gradients (natural)"
        ),
        "divergence": Key(doc="mean KL divergence that an iteration in action space may move the policy by"),
        "trust_region": Key(
            doc="half of the windows, played again with the new policy, judge the step of the other half (natural, newton): "
            "it is accepted, and the next ones shrink or grow, by the actual over the predicted reduction of the cost; costs "
            "twice the control steps"
        ),
        "variance": Key(doc="of the gradient at most, as a share of its squared norm (adaptive_horizon)"),
        "replay": Key(doc="transitions that an actor-critic keeps, at least those of an iteration"),
        "warmup": Key(doc="control steps before their first update"),
        "ratio": Key(doc="their updates of critic and policy per control step"),
        "polyak": Key(doc="share of the new networks that the slow ones take on in an update (sac, td3, ddpg)"),
        "basepoints": Key(
            doc="transitions an iteration at which a solver finds the greedy action (fitted_q, amortised_q)"
        ),
        "solver_steps": Key(doc="steps of that solver from each of its four starts"),
        "window": Key(doc="iterations for which the policy is fitted to a solved action (amortised_q)"),
        "temperature": Key(
            doc="weight of the entropy (sac), in units of the cost; none: found, so that the entropy is minus one per actuator",
            example=0.1,
        ),
    }

    def __post_init__(self) -> None:
        settle(self)
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class TerminateTable(Table):
    """An episode ends in the first state in which the quantity is outside its bounds."""

    quantity: str = key("what is looked at, as in costs", example="body/trunk/height")
    cost: float = key(
        "of that state, besides the other costs: more than the rest of an episode may cost, or ending early pays",
        within="[0, inf)", example=100.0,
    )  # fmt: skip
    low: float | None = key("it ends below", None, example=0.15)
    high: float | None = key("it ends above", None, example=1.0)

    def check(self) -> None:
        """A bound, and room between two."""
        if self.low is None and self.high is None:
            raise DsoError("give `low`, `high` or both: without a bound no episode ends.")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise DsoError(
                f"`low` = {self.low:g} is not below `high` = {self.high:g}, so every episode would end at once."
            )


@dataclasses.dataclass(frozen=True)
class TaskTable(Table):
    """A number that every episode draws anew and the policy sees: one of `values`, or from `low` to `high`."""

    values: tuple[float, ...] = key("what is drawn from", (), example=[0.0, 1.0])
    low: float | None = key("lower end of a range", None, example=0.0)
    high: float | None = key("upper end", None, example=1.0)
    every: float | None = key(
        "mean time after which it is drawn anew within an episode of the training, at ends of windows; none: never", None,
        unit="s", within="(0, inf)", example=2.0,
    )  # fmt: skip

    def check(self) -> None:
        """Values or a range."""
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) != (0 if self.values else 2) or sorted(ends) != ends:
            raise DsoError("a task is values = [0.0, 1.0], one of which is drawn, or a range low = 0.0, high = 1.0.")

    def draw(self, name: str) -> Draw:
        """How it is drawn."""
        return one_of(name, self.values) if self.values else Draw(name, self.low or 0.0, self.high or 0.0)


@dataclasses.dataclass(frozen=True)
class TrainStudy(Study):
    """One training: a policy, and what of the mechanism is to be found with it, against a sum of costs.

    source: what messages call the study.
    """

    model: Any = key("MJCF or URDF file; in Python also an MjSpec, an MjModel or a Robot", **MODEL)
    cost: Mapping[str, Cost] = key("what is minimised, a sum of costs", {})
    init: File | None = key(
        "folder of a result, or one of its checkpoints, to start from: policy, scaling, critic if the costs are the same, and "
        "numbers of the robot by name",
        None, example="first",
    )  # fmt: skip
    seed: int = key("of weights and of all that is drawn", 0, within="[0, 9e18]")
    control_step: float | None = key(
        "time between actions, a multiple of the model's time step; none: that step", None, unit="s", within="(0, inf)",
        example=0.02,
    )  # fmt: skip
    seconds: float = key("length of an episode", 10.0, unit="s", within="(0, inf)")
    engine: str = key(
        "what simulates the windows. mujoco: C MuJoCo, with any model, and nothing of the physics to compile; mjx: JAX, for a "
        "GPU, and for long trainings with an estimator; auto: chosen, with the reason in the summary",
        "auto", choices=ENGINES,
    )  # fmt: skip
    free: tuple[Declaration, ...] = key("physical parameters to find too", (), **FREE)
    policy: PolicyTable = key("the policy", PolicyTable())
    action: ActionTable = key("what its actions do", ActionTable())
    sensors: SensorsTable | None = key("the readings; none: no noise, no bias", None, read=sensors_table)
    estimator: EstimatorTable | None = key("the estimator; none: the policy sees what is there", None)
    flow: Mapping[str, tuple[str, ...]] = key(
        "which costs move a block of theta, where it shall not be the usual ones: names of costs of logs, and rollouts for all "
        "costs of the motion", {}, example={"physics": ["rollouts", "recorded"]},
    )  # fmt: skip
    judge: JudgeTable | None = key("a robot that training does not see, on which the result is judged", None)
    plan: PlanTable | None = key(
        "a model that the policy is planned with; none: the policy has weights of its own", None
    )
    start: Start = key("where episodes start", Start())
    explore: Explore = key("where windows may start besides", Explore())
    training: Training = key("the method and its settings", Training())
    curriculum: Mapping[str, CurriculumTable] = key("numbers that move while a policy is trained", {})
    pushes: PushesTable | None = key("changes of velocity that the policy is to recover from", None)
    terminate: Mapping[str, TerminateTable] = key("where episodes end early", {})
    design: Mapping[str, DesignTable] = key("numbers of the mechanism to design", {})
    motor: Mapping[str, MotorTable] = key("motors of actuators, fixed or to be chosen", {})
    rounding: RoundingTable = key("how numbers with a few values only are rounded", RoundingTable())
    task: Mapping[str, TaskTable] = key("numbers that every episode draws anew and the policy sees", {})
    randomise: Mapping[str, Range | File] = key(
        "physical numbers that every episode draws anew and the policy does not see; from: the folder of a result of dso "
        "identify, whose numbers are drawn together from its posterior or, without one, from its intervals", {},
        example={"joint/*/damping": [0.05, 0.3]},
    )  # fmt: skip
    source: str = "study"

    def check(self) -> None:
        """Something to minimise, and tasks that there are."""
        if not self.cost:
            raise DsoError("the study has no cost, so there is nothing to minimise; add a [cost.NAME] table.")
        if "rollouts" in self.cost:
            raise DsoError("[cost.rollouts]: this name means all costs of the motion in [flow]; give the cost another.")
        for path, given in self.randomise.items():
            if (path == FROM) != isinstance(given, str):
                raise DsoError(
                    f"[randomise] {path} = {list(given) if isinstance(given, tuple) else given!r}: write a range, such as "
                    '"joint/*/damping" = [0.05, 0.3], or from = "result", the folder of a result of dso identify.'
                )
        for name, cost in self.cost.items():
            self.conditions(name, getattr(cost, "when", {}))
        if self.estimator is not None and self.sensors is None:
            raise DsoError(
                "an [estimator] corrects its predictions with readings, and there is no [sensors] table; add one, such as "
                '[sensors] with noise = { "*" = 0.01 }.'
            )
        if self.policy.observe == "estimate" and self.estimator is None:
            raise DsoError('[policy] observe = "estimate", but there is no [estimator]; add one, or observe the state.')
        if self.policy.observe == "readings" and self.sensors is None:
            raise DsoError('[policy] observe = "readings", but there is no [sensors] table; add one.')

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges of [randomise] by path."""
        return {path: (given[0], given[1]) for path, given in self.randomise.items() if not isinstance(given, str)}

    @property
    def result(self) -> str | None:
        """The folder of the result that [randomise] draws from."""
        given = self.randomise.get(FROM)
        return given if isinstance(given, str) else None

    def conditions(self, cost: str, when: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
        """Which task numbers, by index, must have which values for a cost to count.

        Raises:
          DsoError: there is no such task, or it has no such value.
        """
        names = list(self.task)
        for name, value in when.items():
            if name not in names:
                raise DsoError(
                    f"[cost.{cost}] when: there is no [task.{name}]; the study has {', '.join(names) or 'none'}."
                )
            values = self.task[name].values
            if value not in values:
                has = ", ".join(f"{v:g}" for v in values) or "a range"
                raise DsoError(f"[cost.{cost}] when: {name} = {value!r} is no value of [task.{name}], which has {has}.")
        return tuple((names.index(name), value) for name, value in when.items())
