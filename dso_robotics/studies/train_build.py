"""Build the chain, costs and start states of a study. All errors in the study are found here, before compilation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.core.method import TRAINING
from dso_robotics.costs.composite import Composite, composite
from dso_robotics.costs.kind import MotionCost, Scope, SupervisedCost
from dso_robotics.costs.quantity import find_id
from dso_robotics.costs.supervised import Supervised
from dso_robotics.costs.task import Term, When
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.design import compose
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.robot.chain import RobotChain, Spread, robot_chain, seen_besides
from dso_robotics.robot.context import Context, Draw, Varied
from dso_robotics.robot.lift import Lift, lift
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import sensor_observation, state_observation
from dso_robotics.robot.policy import LinearPolicy, NetworkPolicy, Policy, TimedPolicy
from dso_robotics.robot.recurrent import RecurrentPolicy
from dso_robotics.studies.train_bounds import refuse_overlap
from dso_robotics.studies.train_study import Training, TrainStudy


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A prepared study: chain, wide start states, supervised costs by name with their weights, settings of the method.

    keep: which theta the training returns: the "best" one in the episode evaluations, or the "last".
    """

    study: TrainStudy
    robot: Robot
    chain: RobotChain
    scene_cost: Composite
    explore: Callable[..., Any]
    supervised: dict[str, Supervised]
    windows: Training
    steps: int
    keep: str


def build(study: TrainStudy) -> Task:
    """Prepare a study.

    Raises:
      DsoError: the study names an object that is not in the model, a file that does not exist, or numbers that do not fit.
    """
    robot = load(study.model)
    mechanism, context = _mechanism(study, robot)
    timed = {name: cost for name, cost in study.cost.items() if isinstance(cost, MotionCost)}
    apart = {name: cost for name, cost in study.cost.items() if isinstance(cost, SupervisedCost)}
    if not timed:
        raise DsoError(
            f"{study.source}: training needs at least one cost of the motion; {', '.join(apart)} need(s) no rollout."
        )
    scene_cost = composite({name: (cost.weight, _term(study, name, cost, robot)) for name, cost in timed.items()})
    given = study.policy
    if given.observe is not None:
        observation = sensor_observation(robot, list(given.observe))
    else:
        observation = state_observation(robot, leave_out=list(given.leave_out))
    see = given.see_design
    chain = robot_chain(
        mechanism,
        _policy(study, observation.size + seen_besides(mechanism, context, see), robot.mj.nu),
        observation,
        scene_cost=scene_cost,
        seconds=study.control_step,
        delay=given.delay,
        noise=given.noise,
        noise_free=given.learn_noise,
        context=context,
        see_design=see,
        rng=np.random.default_rng(study.seed),
    )
    start, explore = _starts(study, chain, robot)
    posture = np.asarray(start.state.body.qpos)
    if context.size:
        start, explore = Varied(start, context), Varied(explore, context)
    chain = dataclasses.replace(chain, start=start, lift=_lift(study, robot))
    rate, windows = study.training.design_rate, study.training
    if rate is not None and mechanism.size:
        windows = dataclasses.replace(windows, rates=(("mechanism", rate),))
    try:
        method = TRAINING[windows.method]
        method.entries(windows.method, chain, jnp.asarray(chain.layout.initial))
    except DsoError as error:
        raise DsoError(f"{study.source}: [training] {error}") from error
    if windows.soften > 1.0 and not method.supervises:
        raise DsoError(
            f"{study.source}: [training] soften changes contacts that are differentiated through, and method = "
            f"'{windows.method}' plays them as they are; leave it out."
        )
    if apart and not method.supervises:
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' follows costs of the motion alone, and "
            f"cost.{next(iter(apart))} is of a log or of the numbers; take 'pathwise' or 'mixed'."
        )
    duration = chain.substeps * float(chain.mj.opt.timestep)
    steps = max(round(study.seconds / duration), 1)
    windows = dataclasses.replace(windows, episode=steps)
    supervised = {name: _supervised(study, name, cost, chain) for name, cost in apart.items()}
    if mechanism.size:
        # What cannot be written back, or stands in its own way, is better known before the search.
        to_mjcf(robot, mechanism.fields(mechanism.initial))
        try:
            refuse_overlap(mechanism, posture, lifted=chain.lift is not None)
        except DsoError as error:
            raise DsoError(f"{study.source}: {error}") from error
    # An episode does not show what a cost without a rollout is for: an early look at wrong parameters may well be cheaper.
    keep = windows.keep or ("last" if supervised else "best")
    return Task(study, robot, chain, scene_cost, explore, supervised, windows, steps, keep)


def _term(study: TrainStudy, name: str, cost: MotionCost, robot: Robot) -> Term:
    try:
        made = cost.term(Scope(robot, tuple(study.task)))
    except DsoError as error:
        raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error
    return When(made, study.conditions(name, cost.when)) if cost.when else made


def _supervised(study: TrainStudy, name: str, cost: SupervisedCost, chain: RobotChain) -> Supervised:
    try:
        return Supervised(cost.weight, cost.cost(chain), cost.fade)
    except DsoError as error:
        raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error


def _mechanism(study: TrainStudy, robot: Robot) -> tuple[Mechanism, Context]:
    """The mechanism and what is drawn for every episode, tasks and physical numbers."""
    declared = list(study.free)
    own = pack(declared, robot).size if declared else 0
    declared += [Declaration(path, low=low, high=high) for path, (low, high) in study.randomise.items()]
    vector = pack(declared, robot) if declared else None
    maps = []
    for name, table in study.design.items():
        try:
            maps.append(table.map(robot))
        except DsoError as error:
            raise DsoError(f"{study.source}: [design.{name}]: {error}") from error
    drawn, nominal = (), ()
    if vector is not None:
        rows = list(zip(vector.coordinate_names, vector.low, vector.high, strict=True))[own:]
        drawn, nominal = tuple(Draw(*row) for row in rows), tuple(map(float, vector.initial[own:]))
    tasks = tuple(table.draw(f"task/{name}") for name, table in study.task.items())
    mechanism = Mechanism(robot, vector, compose(maps, robot) if maps else None, len(drawn))
    return mechanism, Context(tasks, drawn, nominal)


def _policy(study: TrainStudy, inputs: int, outputs: int) -> Policy:
    given = study.policy
    count, cycle = given.time_features, given.period is not None
    width = inputs + (TimedPolicy.width(count, cycle) if count else 0)
    if given.kind == "linear":
        policy: Policy = LinearPolicy(width, outputs)
    elif given.kind == "network":
        policy = NetworkPolicy(width, outputs, given.hidden)
    else:
        policy = RecurrentPolicy(width, outputs, given.units, given.kind == "gated")
    return TimedPolicy(policy, given.period or study.seconds, count, cycle) if count else policy


def _lift(study: TrainStudy, robot: Robot) -> Lift | None:
    if study.start.lift is None:
        return None
    try:
        return lift(robot, study.start.lift)
    except DsoError as error:
        raise DsoError(f"{study.source}: [start] lift: {error}") from error


def _starts(study: TrainStudy, chain: RobotChain, robot: Robot) -> tuple[Any, Any]:
    mj, names = robot.mj, robot.names("joint")
    hinge_or_slide = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))

    def address(section: str, name: str) -> tuple[int, int]:
        where = f"{study.source}: [{section}] {name}"
        joint = find_id("joint", name, where, robot)
        if int(mj.jnt_type[joint]) not in hinge_or_slide:
            raise DsoError(f"{where}: start values are given for hinge and slide joints only.")
        return int(mj.jnt_qposadr[joint]), int(mj.jnt_dofadr[joint])

    qpos, qvel = np.array(mj.qpos0), np.zeros(mj.nv)
    for name, value in study.start.position.items():
        qpos[address("start.position", name)[0]] = value
    for name, value in study.start.velocity.items():
        qvel[address("start.velocity", name)[1]] = value
    width = study.start.spread
    moving = np.zeros(mj.nq)
    for joint, _ in enumerate(names):
        if int(mj.jnt_type[joint]) in hinge_or_slide:
            moving[int(mj.jnt_qposadr[joint])] = width
    start = Spread(chain.rest(jnp.asarray(qpos), jnp.asarray(qvel)), jnp.asarray(moving), jnp.full(mj.nv, width))
    wide = study.explore
    if not (wide.position or wide.velocity):
        return start, start
    middle, half, speed, spin = qpos.copy(), moving.copy(), qvel.copy(), np.full(mj.nv, width)
    for section, ranges, centre, reach, which in (
        ("position", wide.position, middle, half, 0),
        ("velocity", wide.velocity, speed, spin, 1),
    ):
        for name, (low, high) in ranges.items():
            at = address(f"explore.{section}", name)[which]
            centre[at], reach[at] = (low + high) / 2, (high - low) / 2
    rest = chain.rest(jnp.asarray(middle), jnp.asarray(speed))
    return start, Spread(rest, jnp.asarray(half), jnp.asarray(spin), uniform=True)
