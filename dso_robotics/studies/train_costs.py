"""The costs of a training study: from [cost.NAME] tables to terms of the motion and to supervised costs."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dso_robotics.costs.cloning import cloning
from dso_robotics.costs.motion_likelihood import identification
from dso_robotics.costs.prior import prior
from dso_robotics.costs.quantity import Quantity, quantity
from dso_robotics.costs.supervised import Supervised
from dso_robotics.costs.task import Distance, Divergence, Factor, Function, Lack, Product, Square, Term, When
from dso_robotics.costs.tracking import tracking
from dso_robotics.data.log import read_log
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import Robot
from dso_robotics.robot.chain import RobotChain
from dso_robotics.studies.train_study import TrainStudy


def number(study: TrainStudy, where: str, value: Any) -> float:
    """A finite number of the study, or the error that says where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise DsoError(f"{study.source}: {where} = {value!r} is no number.")
    return float(value)


def term(study: TrainStudy, name: str, table: Mapping[str, Any], robot: Robot) -> Term:
    """The cost of the motion that [cost.NAME] asks for, where it counts."""
    where = f"{study.source}: [cost.{name}]"
    try:
        made = _make(table, functools.partial(quantity, robot=robot, tasks=tuple(study.task)), robot)
        return When(made, _conditions(study, table["when"])) if "when" in table else made
    except DsoError as error:
        text = str(error)
        raise DsoError(text if text.startswith(where) else f"{where}: {text}") from error
    except (TypeError, ValueError) as error:
        raise DsoError(f"{where}: a value has the wrong type ({error}); numbers are written without quotes.") from error


def _make(table: Mapping[str, Any], look: Callable[[str], Quantity], robot: Robot) -> Term:
    kind, scale = table["kind"], float(table.get("scale", 1.0))
    if not scale > 0:
        raise DsoError(f"scale = {scale:g}; it must be positive.")
    if kind == "product":
        return Product(tuple(_factor(entry, look) for entry in table["factors"]))
    if kind in ("square", "velocity"):
        return Square(look(table["quantity"]), _target(table.get("target", 0.0), look), scale)
    if kind == "lack":
        return Lack(look(table["quantity"]), _target(table["target"], look), scale)
    if kind == "upright":
        return Lack(look(f"body/{table['body']}/upright"), 1.0, 2.0)
    if kind == "distance":
        axes, target = str(table.get("axes", "xyz")), [_target(v, look) for v in table["target"]]
        if len(axes) != len(target):
            raise DsoError(
                f"target {table['target']} has {len(target)} numbers for the axes '{axes}'; give one for each."
            )
        point = tuple(look(f"{table['point']}/{axis}") for axis in axes)
        return Distance(point, tuple(target), float(table.get("smooth", 0.05)), scale)
    if kind in ("control", "smoothness"):
        return Square(look("control" if kind == "control" else "action_change"))
    if kind == "divergence":
        return Divergence()
    if kind == "contact":
        return Square(look(f"sensor/{table['sensor']}"), float(table.get("target", 0.0)), scale)
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


def _target(value: Any, look: Callable[[str], Quantity]) -> float | Quantity:
    """A number, or the quantity that gives it, such as "task/goal"."""
    return look(value) if isinstance(value, str) else float(value)


def _conditions(study: TrainStudy, when: Any) -> tuple[tuple[int, float], ...]:
    """Which task numbers must have which values."""
    if not isinstance(when, Mapping) or not when:
        raise DsoError("when is a table of tasks and their values, such as when = { side = 1.0 }.")
    names = list(study.task)
    for name, value in when.items():
        if name not in names:
            raise DsoError(f"when: there is no [task.{name}]; the study has {', '.join(names) or 'none'}.")
        values = study.task[name].get("values", ())
        if value not in values:
            has = ", ".join(f"{v:g}" for v in values) or "a range"
            raise DsoError(f"when: {name} = {value!r} is no value of [task.{name}], which has {has}.")
    return tuple((names.index(name), float(value)) for name, value in when.items())


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


def _factor(entry: Any, look: Callable[[str], Quantity]) -> Factor:
    keys = ("quantity", "low", "high", "margin", "at_margin", "sigmoid", "floor")
    if not isinstance(entry, Mapping) or "quantity" not in entry or any(key not in keys for key in entry):
        raise DsoError(f"a factor is a table with a quantity and any of {', '.join(keys[1:])}; got {entry!r}.")
    numbers: dict[str, Any] = {
        key: value if key == "sigmoid" else float(value) for key, value in entry.items() if key != "quantity"
    }
    if "low" in numbers and "high" not in numbers:
        numbers["high"] = numbers["low"]
    return Factor(look(entry["quantity"]), **numbers)


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


def supervised_cost(study: TrainStudy, name: str, table: Mapping[str, Any], chain: RobotChain) -> Supervised:
    """The cost without a rollout that [cost.NAME] asks for."""
    cost, fade = _without_rollout(study, name, table, chain), table.get("fade")
    try:
        return Supervised(float(table.get("weight", 1.0)), cost, None if fade is None else float(fade))
    except (DsoError, TypeError, ValueError) as error:
        raise DsoError(f"{study.source}: [cost.{name}]: {error}") from error


def _without_rollout(study: TrainStudy, name: str, table: Mapping[str, Any], chain: RobotChain) -> Callable[..., Any]:
    where = f"{study.source}: [cost.{name}]"
    if table["kind"] == "identification":
        window = number(study, f"[cost.{name}] window", table.get("window", 0.5))
        return identification(read_log(table["log"]), chain, window=window)
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
