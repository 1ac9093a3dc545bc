"""From a study to a chain, its costs and its start states; everything that can be wrong is found here, before compilation."""

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics.costs.cloning import cloning
from dso_robotics.costs.composite import Composite, composite
from dso_robotics.costs.prior import prior
from dso_robotics.costs.quantity import find_id, quantity
from dso_robotics.costs.task import Distance, Factor, Function, Lack, Product, Square, Term
from dso_robotics.costs.tracking import tracking
from dso_robotics.data.log import read_log
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
from dso_robotics.robot.brain import BrainPolicy
from dso_robotics.robot.chain import RobotChain, Spread, robot_chain
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import sensor_observation, state_observation
from dso_robotics.robot.policy import LinearPolicy, NetworkPolicy, Policy, TimedPolicy
from dso_robotics.studies.short_horizon import Windows
from dso_robotics.studies.train_study import TrainStudy

_MAPS: dict[str, Any] = {
    "length": LimbLength,
    "radius": LimbRadius,
    "gear": Gear,
    "stiffness": SpringStiffness,
    "springref": SpringReference,
    "scale": UniformScale,
}
_SUPERVISED = ("cloning", "prior")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A study made ready: chain, wide start states, supervised costs by name with their weights, settings of the method."""

    study: TrainStudy
    robot: Robot
    chain: RobotChain
    price: Composite
    explore: Spread
    supervised: dict[str, tuple[float, Callable[..., Any]]]
    windows: Windows
    steps: int


def build(study: TrainStudy) -> Task:
    """Make a study ready.

    Raises:
      DsoError: the study names a thing that the model, or a file that the disk, does not have, or numbers that do not fit.
    """
    robot = load(study.model)
    mechanism = _mechanism(study, robot)
    timed = {name: table for name, table in study.cost.items() if table["kind"] not in _SUPERVISED}
    if not timed:
        raise DsoError(
            f"{study.source}: training needs at least one cost of the motion; 'cloning' and 'prior' are none."
        )
    price = composite({name: (float(t.get("weight", 1.0)), _term(study, name, t, robot)) for name, t in timed.items()})
    given = study.policy
    if "observe" in given:
        observation = sensor_observation(robot, list(given["observe"]))
    else:
        observation = state_observation(robot, leave_out=list(given.get("leave_out", ())))
    chain = robot_chain(
        mechanism,
        _policy(study, observation.size, robot.mj.nu),
        observation,
        price=price,
        seconds=study.control_step,
        delay=float(given.get("delay", 0.0)),
        noise=float(given.get("noise", 0.3)),
        noise_free=bool(given.get("learn_noise", False)),
        rng=np.random.default_rng(study.seed),
    )
    start, explore = _starts(study, chain, robot)
    chain = eqx.tree_at(lambda c: c.start, chain, start)
    settings = dict(study.training)
    rate = settings.pop("design_rate", None)
    rates = (("mechanism", float(rate)),) if rate is not None and mechanism.size else ()
    windows = Windows(**settings, rates=rates)
    duration = chain.substeps * float(chain.mj.opt.timestep)
    steps = max(round(study.seconds / duration), 1)
    windows = dataclasses.replace(windows, episode=steps)
    supervised = {
        name: (float(t.get("weight", 1.0)), _supervised(study, name, t, chain))
        for name, t in study.cost.items()
        if t["kind"] in _SUPERVISED
    }
    if mechanism.size:
        to_mjcf(
            robot, mechanism.fields(mechanism.initial)
        )  # what cannot be written back is better known before the search
    return Task(study, robot, chain, price, explore, supervised, windows, steps)


def _mechanism(study: TrainStudy, robot: Robot) -> Mechanism:
    declared = [entry if isinstance(entry, Declaration) else parse(str(entry)) for entry in study.free]
    vector = pack(declared, robot) if declared else None
    maps = []
    for name, table in study.design.items():
        bounds = (float(table["low"]), float(table["high"])) if "low" in table else None
        try:
            maps.append(_MAPS[table["kind"]](robot, str(table["of"]), bounds=bounds))
        except DsoError as error:
            raise DsoError(f"{study.source}: [design.{name}]: {error}") from error
    return Mechanism(robot, vector, compose(maps, robot) if maps else None)


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
        policy = BrainPolicy(width, outputs, int(given.get("units", 16)), kind == "gated")
    return TimedPolicy(policy, float(period or study.seconds), count, period is not None) if count else policy


def _starts(study: TrainStudy, chain: RobotChain, robot: Robot) -> tuple[Spread, Spread]:
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
        qpos[address("start.position", name)[0]] = _float(study, f"start.position.{name}", value)
    for name, value in dict(study.start.get("velocity", {})).items():
        qvel[address("start.velocity", name)[1]] = _float(study, f"start.velocity.{name}", value)
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
            low, high = (_float(study, where, v) for v in pair)
            if not low <= high:
                raise DsoError(f"{study.source}: {where}: the lower end {low:g} lies above the upper one {high:g}.")
            at = address(f"explore.{section}", name)[which]
            centre[at], reach[at] = (low + high) / 2, (high - low) / 2
    rest = chain.rest(jnp.asarray(middle), jnp.asarray(speed))
    return start, Spread(rest, jnp.asarray(half), jnp.asarray(spin), uniform=True)


def _float(study: TrainStudy, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DsoError(f"{study.source}: {where} = {value!r} is no number.")
    return float(value)


def _term(study: TrainStudy, name: str, table: Mapping[str, Any], robot: Robot) -> Term:
    where = f"{study.source}: [cost.{name}]"
    try:
        return _make(table, robot, where)
    except DsoError as error:
        text = str(error)
        raise DsoError(text if text.startswith(where) else f"{where}: {text}") from error
    except (TypeError, ValueError) as error:
        raise DsoError(f"{where}: a value has the wrong type ({error}); numbers are written without quotes.") from error


def _make(table: Mapping[str, Any], robot: Robot, where: str) -> Term:
    kind, scale = table["kind"], float(table.get("scale", 1.0))
    if not scale > 0:
        raise DsoError(f"scale = {scale:g}; it must be positive.")
    if kind == "product":
        return Product(tuple(_factor(entry, robot) for entry in table["factors"]))
    if kind in ("square", "velocity"):
        return Square(quantity(table["quantity"], robot), float(table.get("target", 0.0)), scale)
    if kind == "lack":
        return Lack(quantity(table["quantity"], robot), float(table["target"]), scale)
    if kind == "upright":
        return Lack(quantity(f"body/{table['body']}/upright", robot), 1.0, 2.0)
    if kind == "distance":
        axes, target = str(table.get("axes", "xyz")), [float(v) for v in table["target"]]
        if len(axes) != len(target):
            raise DsoError(f"target {target} has {len(target)} numbers for the axes '{axes}'; give one for each.")
        point = tuple(quantity(f"{table['point']}/{axis}", robot) for axis in axes)
        return Distance(point, tuple(target), float(table.get("smooth", 0.05)), scale)
    if kind in ("control", "smoothness"):
        return Square(quantity("control" if kind == "control" else "action_change", robot))
    if kind == "contact":
        return Square(quantity(f"sensor/{table['sensor']}", robot), float(table.get("target", 0.0)), scale)
    if kind in ("energy", "limits"):
        return _Every(tuple(Square(q, 0.0, scale) for q in _all(robot, "power" if kind == "energy" else "limit")))
    if kind == "tracking":
        log = read_log(table["log"])
        names = list(log.names)
        wanted = str(table.get("rollout", names[0]))
        if wanted not in names:
            raise DsoError(f"{table['log']}: there is no rollout '{wanted}'; it has {', '.join(names[:8])}.")
        return tracking(log[wanted], robot, scale=scale, source=str(table["log"]))
    return Function(_python(Path(table["file"]), str(table.get("function", "cost"))))


class _Every(Term):
    """The sum of terms that are one to the user."""

    parts: tuple[Term, ...]

    def __call__(self, scene: Any) -> Any:
        return sum((part(scene) for part in self.parts), jnp.zeros(()))


def _all(robot: Robot, field: str) -> list[Any]:
    found = []
    for name in robot.names("joint"):
        try:
            found.append(quantity(f"joint/{name}/{field}", robot))
        except DsoError:
            continue
    if not found:
        raise DsoError(f"{robot.source}: no joint has a {field}; remove this cost.")
    return found


def _factor(entry: Any, robot: Robot) -> Factor:
    keys = ("quantity", "low", "high", "margin", "at_margin", "sigmoid", "floor")
    if not isinstance(entry, Mapping) or "quantity" not in entry or any(key not in keys for key in entry):
        raise DsoError(f"a factor is a table with a quantity and any of {', '.join(keys[1:])}; got {entry!r}.")
    numbers: dict[str, Any] = {
        key: value if key == "sigmoid" else float(value) for key, value in entry.items() if key != "quantity"
    }
    if "low" in numbers and "high" not in numbers:
        numbers["high"] = numbers["low"]
    return Factor(quantity(entry["quantity"], robot), **numbers)


def _python(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise DsoError(f"{path}: there is no such Python file.")
    spec = importlib.util.spec_from_file_location(f"dso_cost_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DsoError(f"{path}: importing it failed: {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, name, None)):
        raise DsoError(f"{path}: it has no function '{name}'; define `def {name}(scene)` that gives one number.")
    return getattr(module, name)


def _supervised(study: TrainStudy, name: str, table: Mapping[str, Any], chain: RobotChain) -> Callable[..., Any]:
    where = f"{study.source}: [cost.{name}]"
    if table["kind"] == "cloning":
        log = read_log(table["log"])
        return cloning([log[rollout] for rollout in log.names], chain, source=str(table["log"]))
    try:
        declared = {str(k): (float(v[0]), float(v[1])) for k, v in dict(table["numbers"]).items()}
    except (TypeError, ValueError, IndexError) as error:
        raise DsoError(f'{where}: write numbers = {{"body/leg/length" = [MEAN, STANDARD_DEVIATION]}}.') from error
    try:
        return prior(chain, declared)
    except DsoError as error:
        raise DsoError(f"{where}: {error}") from error
