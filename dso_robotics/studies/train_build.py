"""From a study to a chain, its costs and its start states; everything that can be wrong is found here, before compilation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.short_horizon import Settings as Windows
from dso_robotics.costs.composite import Composite, composite
from dso_robotics.costs.quantity import find_id
from dso_robotics.costs.supervised import Supervised
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.design import (
    Gear,
    LimbLength,
    LimbRadius,
    SpringReference,
    SpringStiffness,
    UniformScale,
    compose,
)
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.robot.chain import RobotChain, Spread, robot_chain, seen_besides
from dso_robotics.robot.context import Context, Draw, Varied, one_of
from dso_robotics.robot.lift import Lift, lift
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import sensor_observation, state_observation
from dso_robotics.robot.policy import LinearPolicy, NetworkPolicy, Policy, TimedPolicy
from dso_robotics.robot.recurrent import RecurrentPolicy
from dso_robotics.studies.train_bounds import refuse_overlap
from dso_robotics.studies.train_costs import number, supervised_cost, term
from dso_robotics.studies.train_study import TrainStudy

_MAPS: dict[str, Any] = {
    "length": LimbLength,
    "radius": LimbRadius,
    "gear": Gear,
    "stiffness": SpringStiffness,
    "springref": SpringReference,
    "scale": UniformScale,
}
_SUPERVISED = ("cloning", "identification", "prior")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A study made ready: chain, wide start states, supervised costs by name with their weights, settings of the method.

    keep: which theta the training ends with: the "best" that a look at an episode saw, or the "last".
    """

    study: TrainStudy
    robot: Robot
    chain: RobotChain
    price: Composite
    explore: Callable[..., Any]
    supervised: dict[str, Supervised]
    windows: Windows
    steps: int
    keep: str


def build(study: TrainStudy) -> Task:
    """Make a study ready.

    Raises:
      DsoError: the study names a thing that the model, or a file that the disk, does not have, or numbers that do not fit.
    """
    robot = load(study.model)
    mechanism, context = _mechanism(study, robot)
    timed = {name: table for name, table in study.cost.items() if table["kind"] not in _SUPERVISED}
    if not timed:
        raise DsoError(
            f"{study.source}: training needs at least one cost of the motion; {', '.join(_SUPERVISED)} are none."
        )
    price = composite({name: (float(t.get("weight", 1.0)), term(study, name, t, robot)) for name, t in timed.items()})
    given = study.policy
    if "observe" in given:
        observation = sensor_observation(robot, list(given["observe"]))
    else:
        observation = state_observation(robot, leave_out=list(given.get("leave_out", ())))
    see = bool(given.get("see_design", False))
    chain = robot_chain(
        mechanism,
        _policy(study, observation.size + seen_besides(mechanism, context, see), robot.mj.nu),
        observation,
        price=price,
        seconds=study.control_step,
        delay=float(given.get("delay", 0.0)),
        noise=float(given.get("noise", 0.3)),
        noise_free=bool(given.get("learn_noise", False)),
        context=context,
        see_design=see,
        rng=np.random.default_rng(study.seed),
    )
    start, explore = _starts(study, chain, robot)
    posture = np.asarray(start.state.body.qpos)
    if context.size:
        start, explore = Varied(start, context), Varied(explore, context)
    chain = dataclasses.replace(chain, start=start, lift=_lift(study, robot))
    settings = dict(study.training)
    rate, keep = settings.pop("design_rate", None), settings.pop("keep", None)
    rates = (("mechanism", float(rate)),) if rate is not None and mechanism.size else ()
    windows = Windows(**settings, rates=rates)
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
    apart = [name for name, table in study.cost.items() if table["kind"] in _SUPERVISED]
    if apart and not method.supervises:
        raise DsoError(
            f"{study.source}: [training] method = '{windows.method}' follows costs of the motion alone, and cost.{apart[0]} is "
            "of a log or of the numbers; take 'pathwise' or 'mixed'."
        )
    duration = chain.substeps * float(chain.mj.opt.timestep)
    steps = max(round(study.seconds / duration), 1)
    windows = dataclasses.replace(windows, episode=steps)
    supervised = {
        name: supervised_cost(study, name, t, chain) for name, t in study.cost.items() if t["kind"] in _SUPERVISED
    }
    if mechanism.size:
        # What cannot be written back, or stands in its own way, is better known before the search.
        to_mjcf(robot, mechanism.fields(mechanism.initial))
        try:
            refuse_overlap(mechanism, posture, lifted=chain.lift is not None)
        except DsoError as error:
            raise DsoError(f"{study.source}: {error}") from error
    # An episode does not show what a cost without a rollout is for: an early look at wrong parameters may well be cheaper.
    keep = keep or ("last" if supervised else "best")
    return Task(study, robot, chain, price, explore, supervised, windows, steps, keep)


def _mechanism(study: TrainStudy, robot: Robot) -> tuple[Mechanism, Context]:
    """The mechanism and what is drawn for every episode, tasks and physical numbers."""
    declared = [entry if isinstance(entry, Declaration) else parse(str(entry)) for entry in study.free]
    own = pack(declared, robot).size if declared else 0
    for path, (low, high) in study.randomise.items():
        declared += [parse(f"{path}@{low}:{high}")]
    vector = pack(declared, robot) if declared else None
    maps = []
    for name, table in study.design.items():
        bounds = (float(table["low"]), float(table["high"])) if "low" in table else None
        try:
            maps.append(_MAPS[table["kind"]](robot, str(table["of"]), bounds=bounds))
        except DsoError as error:
            raise DsoError(f"{study.source}: [design.{name}]: {error}") from error
    drawn, nominal = (), ()
    if vector is not None:
        rows = list(zip(vector.coordinate_names, vector.low, vector.high, strict=True))[own:]
        drawn, nominal = tuple(Draw(*row) for row in rows), tuple(map(float, vector.initial[own:]))
    tasks = []
    for name, table in study.task.items():
        if "values" in table:
            tasks.append(one_of(f"task/{name}", tuple(map(float, table["values"]))))
        else:
            tasks.append(Draw(f"task/{name}", float(table["low"]), float(table["high"])))
    mechanism = Mechanism(robot, vector, compose(maps, robot) if maps else None, len(drawn))
    return mechanism, Context(tuple(tasks), drawn, nominal)


def _policy(study: TrainStudy, inputs: int, outputs: int) -> Policy:
    given = study.policy
    kind, count = given.get("kind", "network"), int(given.get("time_features", 0))
    period = given.get("period")
    width = inputs + (TimedPolicy.width(count, period is not None) if count else 0)
    if kind == "linear":
        policy: Policy = LinearPolicy(width, outputs)
    elif kind == "network":
        policy = NetworkPolicy(width, outputs, tuple(int(h) for h in given.get("hidden", (32, 32))))
    else:
        policy = RecurrentPolicy(width, outputs, int(given.get("units", 16)), kind == "gated")
    return TimedPolicy(policy, float(period or study.seconds), count, period is not None) if count else policy


def _lift(study: TrainStudy, robot: Robot) -> Lift | None:
    if "lift" not in study.start:
        return None
    try:
        return lift(robot, study.start["lift"])
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
    for name, value in dict(study.start.get("position", {})).items():
        qpos[address("start.position", name)[0]] = number(study, f"start.position.{name}", value)
    for name, value in dict(study.start.get("velocity", {})).items():
        qvel[address("start.velocity", name)[1]] = number(study, f"start.velocity.{name}", value)
    width = float(study.start.get("spread", 0.0))
    moving = np.zeros(mj.nq)
    for joint, _ in enumerate(names):
        if int(mj.jnt_type[joint]) in hinge_or_slide:
            moving[int(mj.jnt_qposadr[joint])] = width
    start = Spread(chain.rest(jnp.asarray(qpos), jnp.asarray(qvel)), jnp.asarray(moving), jnp.full(mj.nv, width))
    if not study.explore:
        return start, start
    middle, half, speed, spin = qpos.copy(), moving.copy(), qvel.copy(), np.full(mj.nv, width)
    for section, centre, reach, which in (("position", middle, half, 0), ("velocity", speed, spin, 1)):
        for name, pair in dict(study.explore.get(section, {})).items():
            where = f"explore.{section}.{name}"
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise DsoError(f"{study.source}: {where} = {pair!r}; write [LOW, HIGH].")
            low, high = (number(study, where, v) for v in pair)
            if not low <= high:
                raise DsoError(f"{study.source}: {where}: the lower end {low:g} lies above the upper one {high:g}.")
            at = address(f"explore.{section}", name)[which]
            centre[at], reach[at] = (low + high) / 2, (high - low) / 2
    rest = chain.rest(jnp.asarray(middle), jnp.asarray(speed))
    return start, Spread(rest, jnp.asarray(half), jnp.asarray(spin), uniform=True)
