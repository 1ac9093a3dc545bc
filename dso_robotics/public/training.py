"""Train a policy, or design a mechanism with it: a study file or keyword arguments in, a result that shows itself out."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.errors import DsoError
from dso_robotics.public.computing import computing
from dso_robotics.public.inputs import Inputs, sitting
from dso_robotics.public.place import Place
from dso_robotics.public.progress import following
from dso_robotics.public.result import Result
from dso_robotics.public.sheet import block, html_table
from dso_robotics.report.quantity import number, unit
from dso_robotics.report.table import cost_rows, judge_line, method_line, steps_line, training_table
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.studies.run import stored_study
from dso_robotics.studies.train_study import TrainStudy

if TYPE_CHECKING:
    import mujoco

    from dso_robotics.physics.model import Robot
    from dso_robotics.progress.report import Progress
    from dso_robotics.studies.train import Trained

Table = Mapping[str, Any]


class Training(Result):
    """The result of `train` or `design`.

    run: all details, for further use: theta, history, episodes on C MuJoCo.
    """

    def __init__(self, place: Place, found: "Trained", names: Mapping[str, str]):
        super().__init__(place, found.summary, names)
        self.run = found

    @functools.cached_property
    def policy(self) -> Policy:
        """The trained policy, which runs on NumPy. It keeps state between steps, so `reset` it before each episode."""
        return Policy.load(self.folder)

    def _draw(self, video: bool) -> None:
        from dso_robotics.report.train import write_report

        write_report(self.run, self.folder, video=video)

    def __str__(self) -> str:
        return "\n".join(training_table(self.summary | {"warnings": self.warnings}))

    def _repr_html_(self) -> str:
        s, parts = self.summary, []
        if self.parameters:
            rows = [("number", "start", "value", "unit", "")]
            for name, p in self.parameters.items():
                held = "at bound" if p["at_bound"] else ""
                rows.append((name, number(p["initial"]), number(p["value"]), unit(p["unit"]), held))
            parts.append(html_table(rows, "<>><<"))
        parts.append(html_table(cost_rows(s), "<>><"))
        took = "; ".join(line for line in (method_line(s), steps_line(s), judge_line(s)) if line)
        title = "Design" if s["command"] == "design" else "Training"
        return block(title, f"{s['message']}; {took}", parts, self.warnings, good=self.converged)


def train(
    study: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    *,
    model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    cost: Mapping[str, Table] | None = None,
    policy: Table | None = None,
    action: Table | None = None,
    sensors: Table | None = None,
    estimator: Table | None = None,
    flow: Mapping[str, Sequence[str]] | None = None,
    judge: Table | None = None,
    plan: Table | None = None,
    start: Table | None = None,
    explore: Table | None = None,
    pushes: Table | None = None,
    terminate: Mapping[str, Table] | None = None,
    curriculum: Mapping[str, Table] | None = None,
    training: Table | None = None,
    design: Mapping[str, Table] | None = None,
    motor: Mapping[str, Table] | None = None,
    rounding: Table | None = None,
    task: Mapping[str, Table] | None = None,
    randomise: Table | None = None,
    init: "str | os.PathLike[str] | None" = None,
    engine: str | None = None,
    free: str | Sequence[Any] | None = None,
    control_step: float | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    report: bool | None = None,
    video: bool = True,
    progress: "bool | Callable[[Progress], None]" = False,
    precision: str = "float64",
) -> Training:
    """Train a policy by gradients through the simulator.

    study: a study file (TOML), or the model itself if keyword arguments give the rest. The keywords are the keys and tables
      of a study file (docs/policies.md). They override the file, table by table and key by key:

    train("cart.xml", cost={"place": {"kind": "square", "quantity": "joint/x/position"}}, policy={"kind": "linear"})

    A cost's `log` may be a `Log`.

    out, resume, force, report, video, progress: as in `identify`.
    precision: JAX precision for this call, "float64" or "float32". The caller's own setting is kept.

    Raises:
      DsoError: something is wrong with the study; or every simulation of the training diverges.
    """
    tables = {
        "cost": cost,
        "policy": policy,
        "action": action,
        "sensors": sensors,
        "estimator": estimator,
        "flow": flow,
        "judge": judge,
        "plan": plan,
        "start": start,
        "explore": explore,
        "pushes": pushes,
        "terminate": terminate,
        "curriculum": curriculum,
        "training": training,
        "design": design,
        "motor": motor,
        "rounding": rounding,
        "task": task,
        "randomise": randomise,
    }
    numbers = {
        "control_step": control_step,
        "seconds": seconds,
        "seed": seed,
        "free": free,
        "engine": engine,
        "init": init,
    }
    options = {"resume": resume, "force": force, "report": report, "video": video, "precision": precision}
    return _train("train", study, model, tables, numbers, out, progress, **options)


def design(study: Any = None, **arguments: Any) -> Training:
    """Design a mechanism together with its policy: `train` for a study with design numbers, `design={"NAME": {...}}`.

    It has the same arguments as `train`.

    Raises:
      DsoError: the study has no design numbers, or `train` raises the error.
    """
    known = (set(_TABLES) | set(_NUMBERS) | set(_OPTIONS)) | {"model", "out", "progress"}
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise TypeError(f"design() got an unexpected keyword argument '{unknown[0]}'")
    tables = {name: arguments.get(name) for name in _TABLES}
    numbers = {name: arguments.get(name) for name in _NUMBERS}
    options = {name: arguments.get(name, default) for name, default in _OPTIONS.items()}
    progress = arguments.get("progress", False)
    return _train("design", study, arguments.get("model"), tables, numbers, arguments.get("out"), progress, **options)


_TABLES = (
    "cost",
    "policy",
    "action",
    "sensors",
    "estimator",
    "flow",
    "judge",
    "plan",
    "start",
    "explore",
    "pushes",
    "terminate",
    "curriculum",
    "training",
    "design",
    "motor",
    "rounding",
    "task",
    "randomise",
)
_NUMBERS = ("control_step", "seconds", "seed", "free", "engine", "init")
_OPTIONS = {"resume": False, "force": False, "report": None, "video": True, "precision": "float64"}


def _train(
    command: str,
    study: Any,
    model: Any,
    tables: Mapping[str, Any],
    numbers: Mapping[str, Any],
    out: Any,
    progress: Any,
    *,
    resume: bool,
    force: bool,
    report: bool | None,
    video: bool,
    precision: str,
) -> Training:
    with sitting(out) as (place, inputs), computing(precision, jax=True), following(progress):
        from dso_robotics.studies.design import design as run_design
        from dso_robotics.studies.train import train as run_train

        asked = _study(study, model, tables, numbers, inputs, out if resume else None, command)
        draw = None
        if report or (report is None and out is not None):
            from dso_robotics.report.train import write_report

            draw = functools.partial(write_report, video=video)
        run = run_design if command == "design" else run_train
        found = run(asked, place.folder, resume=resume, force=force, report=draw)
    return Training(place, found, inputs.names)


def _study(
    study: Any,
    model: Any,
    tables: Mapping[str, Any],
    numbers: Mapping[str, Any],
    inputs: Inputs,
    resumed: Any,
    command: str,
) -> TrainStudy:
    """The study from the file and the given values, from the given values alone, or from the run to resume."""
    path = study if isinstance(study, str | os.PathLike) and Path(study).suffix == ".toml" else None
    if study is not None and path is None:
        if model is not None:
            raise DsoError("two models were given; give a study file or a model first, and the model once.")
        model = study
    begun = None
    if path is not None:
        begun = TrainStudy.read(Path(path))
    elif resumed is not None and model is None:
        begun = stored_study(resumed, command, TrainStudy, {})
    given: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if model is not None:
        given["model"] = inputs.model(model)
    before = {} if begun is None else begun.as_dict()
    for name, table in tables.items():
        if table is not None:
            given[name] = _table(name, table, before.get(name) or {}, inputs)
    if begun is not None:
        return begun.changed(given)
    if "model" not in given:
        raise DsoError("no study was given; give a study file (TOML), or a model and cost={...} at least.")
    return TrainStudy.read(**given)


def _table(name: str, table: Any, before: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise DsoError(f"{name}: {table!r} is no table; give a dict with the keys of [{name}] in a study file.")
    merged = {**before, **{key: dict(entry) if isinstance(entry, Mapping) else entry for key, entry in table.items()}}
    if name == "cost":
        for entry in merged.values():
            if isinstance(entry, dict) and "log" in entry:
                entry["log"] = inputs.log(entry["log"])
    elif name in ("judge", "plan") and merged.get("model") is not None:
        merged["model"] = inputs.model(merged["model"])
    return merged
