"""Build the chain, costs and start states of a study. All errors in the study are found here, before compilation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from dso_robotics.core.method import TRAINING
from dso_robotics.costs.composite import Composite, composite
from dso_robotics.costs.kind import Scope
from dso_robotics.costs.kinds.weights import WeightsCost
from dso_robotics.costs.supervised import Supervised
from dso_robotics.costs.task import Term, When
from dso_robotics.costs.termination import Outside, Termination
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.robot.between import Between
from dso_robotics.robot.context import Varied
from dso_robotics.robot.lift import Lift, lift
from dso_robotics.robot.placement import Placement
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_build import on_c
from dso_robotics.robot.watch import Wishes
from dso_robotics.studies.action import driven
from dso_robotics.studies.balance import balanced
from dso_robotics.studies.curriculum import check_curricula
from dso_robotics.studies.flow import ROLLOUTS, Flow, make_flow
from dso_robotics.studies.motors import equipped, motor_maps
from dso_robotics.studies.plan import method_of_plan, notes_of_plan, with_plan
from dso_robotics.studies.real_robot import RealRobot, real_robot
from dso_robotics.studies.train_bounds import refuse_open_loops, refuse_overlap
from dso_robotics.studies.train_engine import EngineChoice, choose_engine, instead_of_c, of_loops
from dso_robotics.studies.train_method import Choice, choose, without_slope
from dso_robotics.studies.train_refuse import refuse_senseless
from dso_robotics.studies.train_start import start_between, start_closing, start_states
from dso_robotics.studies.train_study import Training, TrainStudy
from dso_robotics.studies.train_system import make_system
from dso_robotics.studies.train_tendons import refuse_tendons
from dso_robotics.studies.train_trace import CostFault, trace_costs


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A prepared study: chain, wide start states, supervised costs by name with their weights, settings of the method.

    keep: which theta the training returns: the "best" one in the episode evaluations, or the "last".
    flow: which costs move which blocks.
    choice: the method, and why.
    engine: the engine, and why.
    notes: sentences for the summary.
    real: the robot on which the result is judged, if it is not the chain's.
    between: what happens between two windows.
    """

    study: TrainStudy
    robot: Robot
    chain: RobotSystem
    scene_cost: Composite
    explore: Callable[..., Any]
    supervised: dict[str, Supervised]
    windows: Training
    steps: int
    keep: str
    flow: Flow
    choice: Choice
    engine: EngineChoice
    notes: tuple[str, ...] = ()
    real: RealRobot | None = None
    between: Between | None = None

    @property
    def rolls(self) -> bool:
        """Whether there are costs of the motion."""
        return bool(self.scene_cost.names)


def build(study: TrainStudy) -> Task:
    """Prepare a study.

    Raises:
      DsoError: the study names an object that is not in the model, a file that does not exist, or numbers that do not fit.
    """
    robot = load_driven(study)
    try:
        return _built(study, robot)
    except CostFault as fault:
        if study.engine != "auto":
            raise
        # A cost in Python may read what only MJX has. A fault of its own is told on MJX too.
        return _built(study, robot, EngineChoice("mjx", f"cost.{fault.name} reads what only MJX has"))


def _built(study: TrainStudy, robot: Robot, engine: EngineChoice | None = None) -> Task:
    """`build` on an engine; None: the one that the study names or that suits it."""
    asked = method_of_plan(study)
    refuse_senseless(study, robot)
    check_curricula(study, lambda stage: refuse_senseless(stage, robot))
    timed = {name: cost for name, cost in study.cost.items() if not cost.supervised}
    apart = {name: cost for name, cost in study.cost.items() if cost.supervised}
    weights = {name: 1.0 if cost.weight == "balance" else cost.weight for name, cost in study.cost.items()}
    scope = Scope(robot, tuple(study.task), study.estimator is not None, motor_maps(study, robot))
    ends = {f"terminate/{name}": (table.cost, _outside(study, name, scope)) for name, table in study.terminate.items()}
    terms = {name: (weights[name], _term(study, name, cost, scope)) for name, cost in timed.items()}
    limits = {name: cost.limit for name, cost in timed.items() if cost.limit is not None}
    scene_cost = composite(terms | ends, limits)
    engine = choose_engine(study, robot) if engine is None else engine
    made = make_system(study, robot, scene_cost, engine.name)
    chain, mechanism = with_plan(study, made.chain, robot), made.mechanism
    if engine.name == "mujoco" and of_loops(mechanism):
        lacking = "a closed loop whose bodies or joints are free or drawn"
        return _built(study, robot, instead_of_c(study, lacking))
    start, explore = start_states(study, chain, robot)
    posture = np.asarray(start.state.body.qpos)
    if chain.context.size:
        start, explore = Varied(start, chain.context), Varied(explore, chain.context)
    placement = Placement(start_closing(study, robot, chain.mj), _lift(study, robot))
    termination = Termination(tuple(part for _, part in ends.values())) if ends else None
    chain = dataclasses.replace(chain, start=start, placement=placement, termination=termination)
    on_mjx = engine.name == "mjx"
    steps_only = trace_costs(study, chain if on_mjx else dataclasses.replace(chain, watch=Wishes(chain.mj)), scene_cost)
    if not on_mjx:
        chain, explore = on_c(chain, robot, explore)
    flow = make_flow(study, chain.layout, np.pad(made.held, (0, chain.layout.size - len(made.held))))
    windows = study.training
    if windows.design_rate is not None:
        rates = [(name, windows.design_rate) for name in mechanism.groups if name in flow.moved]
        windows = dataclasses.replace(windows, rates=tuple(rates))
    steps = max(round(study.seconds / chain.control_step), 1)
    windows = dataclasses.replace(windows, episode=steps)
    supervised = {
        name: _supervised(study, name, cost, chain, weights[name], flow.masks[name]) for name, cost in apart.items()
    }
    choice = choose(asked, chain, supervised, flow, rolls=bool(timed), source=study.source)
    choice, told = without_slope(
        asked,
        choice,
        steps_only,
        [name for name, cost in timed.items() if not cost.of_action],
        flow,
        lambda name: _check_method(study, windows, name, chain, flow, list(apart)),
    )
    _check_method(study, windows, choice.name, chain, flow, list(apart))
    windows = dataclasses.replace(windows, method=choice.name)
    if mechanism.size:
        # What cannot be written back, or stands in its own way, is better known before the search.
        try:
            to_mjcf(robot, mechanism.fields(mechanism.initial))
            refuse_open_loops(mechanism, placement.closing)
            refuse_overlap(mechanism, posture, lifted=placement.lift is not None, closing=placement.closing)
            refuse_tendons(mechanism, posture, placement.closing)
        except DsoError as error:
            raise DsoError(f"{study.source}: {error}") from error
    real = None if study.judge is None else real_robot(study, chain)
    words = tuple(name for name, cost in study.cost.items() if cost.weight == "balance")
    notes = [*flow.notes, *made.notes, *told, *notes_of_plan(chain)]
    if words:
        more = {"horizon": windows.horizon, "gamma": windows.gamma, "source": study.source}
        found, told = balanced(chain, scene_cost, supervised, flow, words, **more)
        notes += told
        weights |= found
        supervised = {name: dataclasses.replace(cost, weight=weights[name]) for name, cost in supervised.items()}
        scene_cost = dataclasses.replace(scene_cost, weights=tuple(weights[name] for name in scene_cost.names))
        chain = dataclasses.replace(chain, scene_cost=scene_cost)
    # An episode does not show what a cost without a rollout is for: an early look at wrong parameters may well be cheaper.
    # A prior of a policy's weights is no such cost.
    other = [name for name in apart if not isinstance(study.cost[name], WeightsCost)]
    keep = windows.keep or ("last" if other else "best")
    return Task(
        study=study,
        robot=robot,
        chain=chain,
        scene_cost=scene_cost,
        explore=explore,
        supervised=supervised,
        windows=windows,
        steps=steps,
        keep=keep,
        flow=flow,
        choice=choice,
        engine=engine,
        notes=tuple(notes),
        real=real,
        between=start_between(study, chain, robot),
    )


def load_driven(study: TrainStudy, model: Any = None) -> Robot:
    """The robot of a study, or `model` in its place, with position drives and with the motors of tables that the study has."""
    robot = load(study.model if model is None else model)
    try:
        robot = driven(study.action, robot)
    except DsoError as error:
        raise DsoError(f"{study.source}: {error}") from error
    return equipped(study, robot)


def _check_method(
    study: TrainStudy, windows: Training, name: str, chain: RobotSystem, flow: Flow, apart: list[str]
) -> None:
    windows = dataclasses.replace(windows, method=name)
    method = TRAINING[name]
    moved = flow.masks.get(ROLLOUTS)
    try:
        method.entries(windows.method, chain, jnp.asarray(chain.layout.initial), moved)
        if method.rolls:
            method.suits(windows)
    except DsoError as error:
        raise DsoError(f"{study.source}: [training] {error}") from error
    if windows.soften > 1.0 and not (method.supervises and method.rolls):
        raise DsoError(
            f"{study.source}: [training] soften changes contacts that are differentiated through, and method = "
            f"'{windows.method}' plays them as they are; leave it out."
        )
    if windows.critic == "gradient" and not (method.slopes and windows.method not in ("score", "mixed")):
        raise DsoError(
            f"{study.source}: [training] critic = 'gradient' knows no values, and method = '{windows.method}' does not "
            "differentiate every block through the steps; take 'pathwise' or 'adaptive_horizon', or leave it out."
        )
    if windows.horizons and windows.method not in ("pathwise", "mixed"):
        raise DsoError(
            f"{study.source}: [training] horizons changes nothing: method = '{windows.method}' has no derivative through a "
            "given number of steps; take 'pathwise' or 'mixed', or leave it out."
        )
    if windows.trust_region and not method.trusts:
        raise DsoError(
            f"{study.source}: [training] trust_region changes nothing: method = '{windows.method}' does not compare a step "
            "with what it promised; take 'natural' or 'newton', or leave it out."
        )
    if chain.termination is not None and not (method.rolls and method.ends):
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' plays its windows to their end, so [terminate] would have "
            "no effect; take 'pathwise', 'score' or 'mixed'."
        )
    scene_cost: Any = chain.scene_cost
    if scene_cost.constrained and not method.constrains:
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' has no hard constraints, and a cost has a `limit`; take "
            "'pathwise', 'score' or 'mixed'."
        )
    if study.policy.learn_noise and not method.moves_noise:
        raise DsoError(
            f"{study.source}: [policy] learn_noise changes nothing: method = '{windows.method}' explores in its own way. Leave "
            "it out."
        )
    if chain.squash.after and not method.moves_noise:
        raise DsoError(
            f"{study.source}: [action] noise = 'after' changes nothing: method = '{windows.method}' explores in its own way. "
            "Leave it out."
        )
    own = () if method.moves_noise else scene_cost.policy_names
    if own:
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' learns from costs of earlier policies, and cost.{own[0]} "
            "is of the policy itself; leave it out, or take 'pco'."
        )
    if apart and not method.supervises:
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' follows costs of the motion alone, and "
            f"cost.{apart[0]} is of a log or of the numbers; take 'pathwise' or 'mixed'."
        )


def _term(study: TrainStudy, name: str, cost: Any, scope: Scope) -> Term:
    try:
        made = cost.term(scope)
    except DsoError as error:
        raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error
    return When(made, study.conditions(name, cost.when)) if cost.when else made


def _outside(study: TrainStudy, name: str, scope: Scope) -> Outside:
    given = study.terminate[name]
    if given.quantity.startswith("motor/"):
        raise DsoError(
            f"{study.source}: [terminate.{name}]: a quantity of a motor ends no episode; take one of its actuator or joint."
        )
    try:
        looked_at = scope.quantity(given.quantity)
    except DsoError as error:
        raise DsoError(f"{study.source}: [terminate.{name}]: {error}") from error
    low, high = (-np.inf if given.low is None else given.low), (np.inf if given.high is None else given.high)
    return Outside(looked_at, low, high)


def _supervised(
    study: TrainStudy, name: str, cost: Any, chain: RobotSystem, weight: float, moved: np.ndarray
) -> Supervised:
    try:
        made = cost.cost(chain)
        return Supervised(weight * cost.sized(made), made, cost.fade, moved)
    except DsoError as error:
        raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error


def _lift(study: TrainStudy, robot: Robot) -> Lift | None:
    if study.start.lift is None:
        return None
    try:
        return lift(robot, study.start.lift)
    except DsoError as error:
        raise DsoError(f"{study.source}: [start] lift: {error}") from error
