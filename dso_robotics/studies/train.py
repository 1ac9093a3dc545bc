"""Train everything that a study frees, in one vector: study -> chain and costs -> method -> result on C MuJoCo."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.core.descent import Best, Last, Moment, Result, Status
from dso_robotics.core.devices import on_the_processor
from dso_robotics.core.method.learner import Record
from dso_robotics.errors import DsoError
from dso_robotics.physics.loop import OpenLoopError
from dso_robotics.progress.phase import phase, tell
from dso_robotics.progress.report import Progress
from dso_robotics.robot.episode_starts import GROUP
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Episode, Player
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.checkpoint import rows
from dso_robotics.studies.checkpoint_file import clear_checkpoints, write_checkpoint
from dso_robotics.studies.curriculum import Curriculum
from dso_robotics.studies.drawn_starts import drawn_starts
from dso_robotics.studies.flow import ROLLOUTS
from dso_robotics.studies.folder import PLAN, RUN, write_model
from dso_robotics.studies.motor_check import beyond_limits, motors_at
from dso_robotics.studies.rounding import choices, round_choices, rounding_doubts
from dso_robotics.studies.run import EVERY, Session, session
from dso_robotics.studies.search import search
from dso_robotics.studies.tolerance import tolerance
from dso_robotics.studies.train_build import Task, build
from dso_robotics.studies.train_method import curvature
from dso_robotics.studies.train_race import LOOK, Runner, first_states, first_thetas, run_race
from dso_robotics.studies.train_settled import settled
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.train_summary import broken_by, ranked, supervised_costs
from dso_robotics.studies.train_summary import summary as summary_of
from dso_robotics.studies.trained_robot import (
    believed,
    compiled,
    learned_filter,
    mechanism_numbers,
    mjcf_at,
    motion,
    on_the_real_robot,
    planned_with,
)
from dso_robotics.studies.warm_start import init_file, named, warm_start

_LOOKS, _EPISODES = 20, 3


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The results of a training. Episodes are simulated on C MuJoCo. `summary` is the content of summary.json."""

    task: Task
    theta: np.ndarray
    scaling: Scaling
    before: Episode
    episodes: tuple[Episode, ...]
    history: dict[str, np.ndarray]
    summary: dict[str, Any]


def train(
    study: TrainStudy,
    out: str | Path,
    *,
    command: str = "train",
    resume: bool = False,
    force: bool = False,
    longer: bool = False,
    report: Callable[[Trained, Path], object] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Run `study` and write model.xml, run.h5, the output of `report`, and summary.json to `out`.

    run.h5 is written before the first iteration and several times a minute. With `resume` an interrupted run in `out`
    continues from there and ends with the same numbers as an uninterrupted run. With `longer` too, the study may have more
    iterations than that run, which may have finished.

    Raises:
      DsoError: something is wrong with the study (raised before anything is compiled); or every simulation of the
        training diverges.
    """
    with session(out, resume=resume, force=force, longer=longer, progress=progress) as here:
        here.compare(_files(study))
        tell("reading")
        task = build(study)
        with on_the_processor() if task.engine.name == "mujoco" else contextlib.nullcontext():
            return _train(task, here, command, report)


def _train(task: Task, here: Session, command: str, report: Callable[[Trained, Path], object] | None) -> Trained:
    study, chain, settings = task.study, task.chain, task.windows
    file = here.begin({"command": command, **study.as_dict()}, task.robot, _files(study), every=EVERY)
    warm = None if study.init is None else warm_start(study, chain)
    if warm is not None:
        task = dataclasses.replace(task, chain=warm.scaled(chain), notes=(*task.notes, *warm.notes))
        chain = task.chain
    whole: Any = method_of(task)
    method: Any = whole
    if study.curriculum:
        method = Curriculum(study, settings.iterations, lambda stage: method_of(build(stage)), whole)
    player, trials = Player(chain), chain.context.trials()
    theta = np.asarray(chain.layout.initial) if warm is None else warm.theta
    thetas = first_thetas(chain, theta, study.training.starts, study.seed, anew=warm is None)
    with phase("first states"):
        firsts = first_states(method, thetas, study.seed, None if warm is None else warm.scaling)
    if warm is not None:
        firsts, told = [list(part) for part in zip(*(warm.critic(one, here.folder) for one in firsts), strict=True)]
        task = dataclasses.replace(task, notes=(*task.notes, *(told[:1] if told[0] and warm.tree is not None else ())))
    first = firsts[0]
    opened: list[str] = []
    looks: list[tuple[float, ...]] = []
    running = [0, settings.iterations]  # which training of a race runs, and up to which iteration

    def play(theta: Any, scaling: Scaling, rounds: int = 1, **more: Any) -> list[Episode]:
        theta, found = np.asarray(theta), []
        for context in trials:
            model = compiled(task, theta, context)
            for seed in range(rounds):
                options = {"steps": task.steps, "seed": seed, "model": model, "context": context}
                found.append(player.play(theta, scaling, **options, **more))
        return found

    priced = supervised_costs(task)

    def cost_of(theta: Any, scaling: Scaling, episodes: list[Episode]) -> float:
        """What is reported: the cost of episodes or, without costs of the motion, the supervised costs."""
        return _mean_cost(episodes) if task.rolls else sum(priced(theta, scaling).values())

    with phase("episodes before, on C MuJoCo"):
        before = play(first.theta, first.memory)
        at_first = cost_of(first.theta, first.memory, before)
    started = time.perf_counter()
    with phase("step of the training"):
        method.compile(first)
    compile_seconds = time.perf_counter() - started

    def judge(state: Any) -> float:
        """The mean cost of episodes; infinite if one diverges on C MuJoCo."""
        at = int(state.iteration)
        same = at == 0 and running[0] == 0
        try:
            with phase("episodes, on C MuJoCo"):
                looked = before if same or not task.rolls else play(state.theta, state.memory)
                reached = at_first if same else cost_of(state.theta, state.memory, looked)
        except DsoError as error:
            # Numbers of which MuJoCo's compiler makes no model: no candidate, and no reason to lose the others.
            looked, reached = [], math.inf
            if isinstance(error, OpenLoopError):
                opened.append(f"The training stopped at iteration {at}: {error}")
        broken = broken_by(task, looked, state.memory)
        if at:
            looks.append((at, reached, file.seconds, broken))
        if task.rolls and any(episode.ended for episode in looked):
            return math.inf
        return ranked(reached, broken)

    def scored(theta: Any, scaling: Any) -> tuple[float, float]:
        """The cost of a rounded theta and by how much it breaks limits, of motors too; infinite if no model is made of it."""
        try:
            looked = play(theta, scaling) if task.rolls else []
            reached = math.inf if any(episode.ended for episode in looked) else cost_of(theta, scaling, looked)
            over = beyond_limits(motors_at(task, theta, looked))
        except DsoError:
            return math.inf, math.inf
        return reached, over + broken_by(task, looked, scaling)

    def watch(moment: Moment) -> bool:
        at, record = moment.iteration, moment.record
        numbers = {"gradient_norm": record.gradient_norm, "value_error": record.value_error, "blown": record.blown}
        numbers |= {
            f"term {name}": float(term) for name, term in zip(task.scene_cost.names, record.terms, strict=False)
        }
        more = {"steps": at * settings.played if task.rolls else 0, "values": numbers}
        episode_cost = looks[-1][1] if looks else at_first
        tell("training", at, record.cost, total=settings.iterations, episode_cost=episode_cost, **more)
        if marks and at % marks == 0 and running[1] == settings.iterations:
            cost = math.nan if moment.judged is None else moment.judged
            kept = _kept(moment.state)
            told = {"command": command, **study.as_dict()}
            write_checkpoint(here.folder, at, _blocks(task, kept), told, mjcf_at(task, np.asarray(kept["theta"])), cost)
        return bool(opened)

    every = max(settings.iterations // _LOOKS, 1)
    marks = max(settings.iterations // study.training.checkpoints, 1) if study.training.checkpoints else 0

    def leg(runner: Runner, index: int, until: int, stage: int) -> tuple[Result, Runner]:
        """Go on with one training, up to an iteration."""
        running[:] = index, until
        begun = bool(file.tree) and file.count("stage") == stage
        looks[:] = rows(file.tree.get("spent", {}), "looks", LOOK, file.path) if begun else runner.looks
        keep = Best(judge, every=every, take=_kept) if task.keep == "best" else Last(judge, every=every)
        keep.best = runner.best
        found = search(
            file,
            method,
            runner.state,
            Record,
            iterations=until,
            stage=stage,
            keep=keep,
            watch=watch,
            survive=True,
            spent=lambda moment: {"looks": np.array(looks, float).reshape(-1, LOOK)},
            blocks=lambda state: _blocks(task, _kept(state) if keep.best is None else keep.best.kept),
            past=runner.history,
        )
        cost = looks[-1][1] if looks else math.inf
        cost = cost if found.best is None else found.best.cost
        return found, Runner(found.state, found.history, found.best, tuple(looks), cost)

    if not file.tree:
        clear_checkpoints(here.folder)
    result, race = run_race(file, firsts, settings.iterations, leg)
    broken = result.status in (Status.DIVERGED, Status.FAILED)
    if broken and not any(record.accepted for record in result.history):
        raise DsoError(f"{study.source}: {result.message}.")
    iteration = len(result.history) if result.best is None else result.best.iteration
    ending = _kept(result.state) if result.best is None else result.best.kept
    theta, scaling = np.asarray(ending["theta"]), ending["scaling"]
    rounded = None
    if choices(task):
        file.write()
        rounded = round_choices(task, theta, scaling, result.state, scored, whole, method_of, file)
        theta, scaling = rounded.theta, rounded.scaling
        file.keep(**_blocks(task, {"theta": theta, "scaling": scaling}))
    tell("evaluating")
    rounds = -(-_EPISODES // len(trials))
    played, finer = play(theta, scaling, rounds), play(theta, scaling, rounds, finer=4)
    real = on_the_real_robot(task, player, theta, scaling, first)
    history = _history(task, result, looks)
    # Compared are the same episodes before and after.
    begun = cost_of(first.theta, first.memory, play(first.theta, first.memory, rounds)) if task.rolls else at_first
    costs = begun, cost_of(theta, scaling, played), cost_of(theta, scaling, finer)
    kept_costs = np.where(history["violation"] > 0, np.nan, history["episode_cost"])
    rest = settled(history["iteration"], kept_costs, at_first, len(result.history)) if task.rolls else ""
    summary = summary_of(
        task,
        theta,
        scaling,
        iteration=iteration,
        at=costs,
        played=played,
        finer=finer,
        command=command,
        compile_seconds=compile_seconds,
        method=method,
        result=result,
        rest=rest,
        supervised=priced(theta, scaling),
    )
    summary |= {} if real is None else {"judge": real}
    if rounded is not None:
        summary["rounding"] = rounded.told
        told = rounding_doubts(summary)
        summary["doubts"] += told
        summary["warnings"] += told
    if len(firsts) > 1:
        summary["race"] = race
        summary["environment_steps"] = race["iterations"] * settings.played * task.rolls
        summary["simulated_steps"] = summary["environment_steps"] * chain.substeps
    if chain.context.cloud is not None and task.rolls:
        model = functools.partial(compiled, task)
        summary["tolerance"], told = tolerance(task, player, theta, scaling, at_first, model)
        summary["warnings"] += told
    summary["doubts"] = [*opened, *summary["doubts"]]
    summary["warnings"] = [*opened, *summary["warnings"]]
    summary["cost"]["first_look"] = at_first
    found = Trained(task, theta, scaling, before[0], tuple(played), history, summary)
    groups = {"history": history, "motions": {"untrained": motion(before[0]), "trained": motion(played[0])}}
    groups[GROUP] = drawn_starts(player, theta, seconds=study.seconds).as_dict()
    if chain.filter is not None:
        groups["estimator"] = learned_filter(chain, theta).as_dict() | believed(task, theta, here.folder)
    if (plan := planned_with(task, theta)) is not None:
        groups["plan"] = plan[1]
        write_model(here.folder, plan[0], PLAN)
    draw = None if report is None else lambda folder: report(found, folder)
    here.finish(summary, mjcf_at(task, theta), draw, groups)
    return found


def method_of(task: Task, like: Any = None) -> Any:
    """The training method of a prepared study.

    like: a method for the same chain, which has found out what the critic needs to see.
    """
    more: dict[str, Any] = {
        "moved": task.flow.masks.get(ROLLOUTS),
        "curvature": curvature(task.choice, task.supervised),
    }
    more |= {"explore": task.explore, "supervised": task.supervised, "happens": task.between}
    more["depends"] = None if like is None else like.course.depends
    return training_method(task.chain, task.windows, **more)


def _kept(state: Any) -> dict[str, Any]:
    """The final values of a training."""
    return {"theta": state.theta, "scaling": state.memory}


def _blocks(task: Task, kept: dict[str, Any]) -> dict[str, Any]:
    """Theta by block, and the observation scaling, as stored in the run file."""
    scaling = {"mean": np.asarray(kept["scaling"].mean), "spread": np.asarray(kept["scaling"].spread)}
    split = task.chain.layout.split(np.asarray(kept["theta"]))
    blocks = {name: np.asarray(value) for name, value in split.items()}
    found = {"theta": blocks, "scaling": scaling, "action": task.chain.squash.as_dict(), "named": named(task.chain)}
    mechanism = task.chain.mechanism
    if mechanism is None or not mechanism.size:
        return found
    numbers = mechanism_numbers(task, kept["theta"])
    return found | {"numbers": dict(zip(mechanism.names, map(float, numbers), strict=True))}


def _history(task: Task, result: Result, looks: list[tuple[float, ...]]) -> dict[str, np.ndarray]:
    """One row for each evaluation of episodes, with the training values at that point."""
    per = task.windows.played
    table = np.array(looks, float).reshape(-1, LOOK)
    at = table[:, 0].astype(int)
    found = [result.history[i - 1] for i in at]
    terms = np.array([record.terms for record in found]).reshape(len(at), -1) if task.rolls else np.zeros((len(at), 0))
    return {
        "iteration": at,
        "steps": at * per,
        "training_cost": np.array([record.cost for record in found]),
        "episode_cost": table[:, 1],
        "seconds": table[:, 2],
        "violation": table[:, 3],
        "gradient_norm": np.array([record.gradient_norm for record in found]),
        "blown": np.array([record.blown for record in found]),
    } | {f"term {name}": terms[:, k] for k, name in enumerate(task.scene_cost.names)}


def _mean_cost(episodes: list[Episode]) -> float:
    return float(np.mean([episode.cost for episode in episodes]))


def _files(study: TrainStudy) -> dict[str, str]:
    """Every file that the costs read, by its place in the study."""
    files = ((name, getattr(cost, key, None)) for name, cost in study.cost.items() for key in ("log", "file"))
    found = {f"file of [cost.{name}]": str(file) for name, file in files if file is not None}
    found |= {f"catalogue of [motor.{name}]": table.catalogue for name, table in study.motor.items()}
    if study.plan is not None and isinstance(study.plan.model, str):
        found["model of [plan]"] = study.plan.model
    if study.result is not None and (Path(study.result) / RUN).is_file():
        found["result of [randomise]"] = str(Path(study.result) / RUN)
    return found if study.init is None else found | {"result of init": str(init_file(study.init))}
