"""The robot system of a study: mechanism, sensors, estimator and policy, each from its table."""

import dataclasses
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import Declaration, has_noise, noise_named
from dso_robotics.parameters.signals import nominal
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.design import compose
from dso_robotics.physics.model import Robot, without_delays
from dso_robotics.robot.context import Context, Draw, one_of
from dso_robotics.robot.delay_steps import delay_steps
from dso_robotics.robot.estimator_design import design_filter
from dso_robotics.robot.mechanism import Mechanism, is_of_sensors
from dso_robotics.robot.observation import sensor_observation, state_observation
from dso_robotics.robot.policy import LinearPolicy, NetworkPolicy, Policy, TimedPolicy
from dso_robotics.robot.recurrent import RecurrentPolicy
from dso_robotics.robot.sensing import Sensing, make_sensing
from dso_robotics.robot.squash import Squash
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_build import multiple, robot_system, seen_besides
from dso_robotics.studies.action import make_squash
from dso_robotics.studies.drawn_result import DrawnResult, drawn_of
from dso_robotics.studies.motors import motor_maps
from dso_robotics.studies.train_engine import Engine
from dso_robotics.studies.train_start import start_position
from dso_robotics.studies.train_study import TrainStudy


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """The system, its mechanism, and the entries of theta (n,) that are not free although their block is.

    notes: sentences for the summary.
    """

    chain: RobotSystem
    mechanism: Mechanism
    held: np.ndarray
    notes: tuple[str, ...] = ()


def make_system(study: TrainStudy, robot: Robot, scene_cost: Any, engine: Engine = "mjx") -> Made:
    """The system of a study, which starts from rest.

    Raises:
      DsoError: the study names what the robot does not have, or parts that do not go together.
    """
    noisy = [declared for declared in study.free if noise_named(declared.path)]
    result = drawn_of(study, robot) if study.result is not None else None
    mechanism, context = _mechanism(
        study, robot, result, [declared for declared in study.free if declared not in noisy]
    )
    sensing, free = _sensing(study, mechanism, noisy)
    given = study.policy
    sees = given.observe if isinstance(given.observe, str) else "readings" if sensing is not None else "state"
    if isinstance(given.observe, tuple):
        try:
            observation = sensor_observation(robot, list(given.observe))
        except DsoError as error:
            raise DsoError(
                f'{study.source}: [policy] observe: {error} Besides sensors it may be "state", "readings" or "estimate".'
            ) from error
    else:
        observation = state_observation(robot, leave_out=list(given.leave_out))
    size = sensing.size if sees == "readings" and sensing is not None else observation.size
    estimator = None
    if study.estimator is not None and sensing is not None:
        table = study.estimator
        qpos = start_position(study, robot)
        more = {"corrector": table.corrector, "units": table.units, "noise": given.noise, "seed": study.seed}
        more |= {"engine": engine}
        try:
            estimator = design_filter(mechanism, sensing, qpos=qpos, **more)
        except DsoError as error:
            raise DsoError(f"{study.source}: [estimator] {error}") from error
    actions, delay, late = make_actions(study, robot)
    if late is not None:
        context = dataclasses.replace(context, delay=late)
    chain = robot_system(
        mechanism,
        _policy(study, size + seen_besides(mechanism, context, given.see_design), robot.mj.nu),
        observation,
        scene_cost=scene_cost,
        seconds=study.control_step,
        delay=delay,
        noise=given.noise,
        noise_free=given.learn_noise,
        context=context,
        see_design=given.see_design,
        sensing=sensing,
        estimator=estimator,
        sees=sees,  # type: ignore[arg-type]
        believes=study.estimator.model if study.estimator is not None else "world",
        engine=engine,
        actions=actions,
        rng=np.random.default_rng(study.seed),
    )
    held = np.zeros(chain.layout.size, bool)
    if sensing is not None and sensing.noise_free:
        held[chain.layout.where("sensor noise")] = ~free
    return Made(chain, mechanism, held, () if result is None else result.notes)


def make_actions(study: TrainStudy, robot: Robot) -> tuple[Squash, float, Draw | None]:
    """From actions to controls; the longest delay [s]; and how a delay is drawn in control steps, if it is.

    Raises:
      DsoError: [action] names what the robot does not have, or no delay of whole control steps is in the range.
    """
    timestep, given = float(robot.mj.opt.timestep), study.policy.delay
    step = timestep if study.control_step is None else study.control_step
    period = multiple(step, timestep, "control step", "the model's time step") * timestep
    try:
        actions = make_squash(
            study.action, robot, start_position(study, robot), period=period, keyframe=study.start.keyframe
        )
    except DsoError as error:
        raise DsoError(f"{study.source}: {error}") from error
    if not isinstance(given, tuple):
        return actions, given, None
    steps = delay_steps(given, period)
    if not steps:
        raise DsoError(
            f"{study.source}: [policy] delay: no whole number of control steps of {period:g} s is between {given[0]:g} and "
            f"{given[1]:g} s; widen the range."
        )
    if study.estimator is not None:
        raise DsoError(
            f"{study.source}: [policy] delay: an [estimator] must know which control acts, and a drawn delay it does not know; "
            "give one number."
        )
    return actions, steps[-1] * period, one_of("delay", tuple(map(float, steps)))


def _sensing(study: TrainStudy, mechanism: Mechanism, noisy: list[Declaration]) -> tuple[Sensing | None, np.ndarray]:
    """The sensors, and which of the channels (ny,) have a noise to be found."""
    if study.sensors is None:
        of_sensors = [p.name for p in mechanism.groups["sensor"].blocks] if "sensor" in mechanism.groups else []
        named = [declared.path for declared in noisy] + of_sensors
        if named:
            raise DsoError(
                f"{study.source}: {named[0]} is free, but the study has no [sensors] table, so nothing reads that sensor; add "
                'one, such as [sensors] with noise = { "*" = 0.01 }.'
            )
        return None, np.zeros(0, bool)
    table, timestep = study.sensors, float(mechanism.mj.opt.timestep)
    step = timestep if study.control_step is None else study.control_step
    interval = multiple(step, timestep, "control step", "the model's time step") * timestep
    channels = table.channels
    if channels is None and isinstance(study.policy.observe, tuple) and study.estimator is None:
        channels = study.policy.observe
    try:
        made = make_sensing(mechanism, table.noise, interval=interval, channels=channels, noise_free=bool(noisy))
    except DsoError as error:
        raise DsoError(f"{study.source}: [sensors] {error}") from error
    if isinstance(study.policy.observe, tuple) and set(
        sensor_observation(mechanism.robot, list(study.policy.observe)).names
    ) != set(made.names):
        raise DsoError(
            f'{study.source}: [policy] observe names other sensors than [sensors] channels; write observe = "readings" to '
            "observe those of [sensors]."
        )
    free, sigma = np.zeros(made.size, bool), made.sigma.copy()
    for declared in noisy:
        named = noise_named(declared.path)
        mine = [c for c, part in enumerate(made.parts) if named and has_noise(named, *part)]
        if not mine:
            raise DsoError(
                f"{study.source}: {declared.path}: no channel that is read has that name; those are "
                f"{nearest(declared.path, made.noise_block(free=True).names, 8)}."
            )
        if (declared.low, declared.high, declared.prior) != (None, None, None) or declared.init == 0.0:
            raise DsoError(
                f"{study.source}: {declared.path}: a noise in a training has a positive start and neither bounds nor a prior; "
                f"write {declared.path}=0.01."
            )
        free[mine] = True
        if declared.init is not None:
            sigma[mine] = abs(declared.init)
    return dataclasses.replace(made, sigma=sigma), free


def _mechanism(
    study: TrainStudy, robot: Robot, result: DrawnResult | None, free: list[Declaration]
) -> tuple[Mechanism, Context]:
    """The mechanism and what is drawn for every episode, tasks and physical numbers."""
    drawn = [Declaration(path, low=low, high=high) for path, (low, high) in study.ranges.items()]
    drawn += [] if result is None else result.declarations()
    _refuse_free_and_drawn(study, robot, free, drawn)
    own = pack(free, robot).size if free else 0
    declared = [d for part in (free, drawn) for d in sorted(part, key=lambda one: _of_sensors(one, robot))]
    vector = pack(declared, robot) if declared else None
    if vector is not None and result is not None:
        vector = result.placed_in(vector)
    if vector is None and study.sensors is not None:
        delays = {"sensor_delay": nominal(robot.mj, "sensor_delay")}
        vector = ParameterVector((), without_delays(robot).mj, delays)
    maps = []
    for name, table in study.design.items():
        try:
            maps.append(table.map(robot))
        except DsoError as error:
            raise DsoError(f"{study.source}: [design.{name}]: {error}") from error
    maps += [choice for choice in motor_maps(study, robot).values() if choice.size]
    draws, start, cloud = (), (), None
    if vector is not None:
        rows = list(zip(vector.coordinate_names, vector.low, vector.high, strict=True))[own:]
        draws, start = tuple(Draw(*row) for row in rows), tuple(map(float, vector.initial[own:]))
        if result is not None:
            draws, cloud = result.cloud(draws)
    tasks = tuple(table.draw(f"task/{name}") for name, table in study.task.items())
    mechanism = Mechanism(robot, vector, compose(maps, robot) if maps else None, len(draws))
    return mechanism, Context(tasks, draws, start, cloud=cloud)


def _of_sensors(declared: Declaration, robot: Robot) -> bool:
    return all(is_of_sensors(p) for p in pack([declared], robot).parameters)


def _refuse_free_and_drawn(study: TrainStudy, robot: Robot, free: list[Declaration], drawn: list[Declaration]) -> None:
    """Raise DsoError if one number of the world is free and drawn at once."""
    if not free or not drawn:
        return
    both = {p.name for p in pack(free, robot).parameters} & {p.name for p in pack(drawn, robot).parameters}
    if both:
        raise DsoError(
            f"{study.source}: {', '.join(sorted(both))} is in `free` and in `randomise`: the world's value cannot be found and "
            "drawn at once. Take it from one of them; to draw the world and let the estimator find a value of its own, keep it "
            'in `randomise` and write [estimator] model = "own".'
        )


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
