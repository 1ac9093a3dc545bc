"""Train everything that a study frees, in one vector: study -> chain and costs -> method -> result on C MuJoCo."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from dso_robotics import __version__
from dso_robotics.core.descent import Best, Last, Moment, Result, Status
from dso_robotics.core.method.short_horizon import Record
from dso_robotics.data.bundle import write_bundled
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.loop import OpenLoopError
from dso_robotics.progress.phase import phase, tell
from dso_robotics.progress.report import Progress
from dso_robotics.robot.episode_starts import GROUP
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Episode, Player
from dso_robotics.robot.schedule import training_method
from dso_robotics.studies.checkpoint import rows
from dso_robotics.studies.drawn_starts import drawn_starts
from dso_robotics.studies.flow import ROLLOUTS
from dso_robotics.studies.folder import RUN
from dso_robotics.studies.run import EVERY, Session, search, session
from dso_robotics.studies.tolerance import tolerance
from dso_robotics.studies.train_build import Task, build
from dso_robotics.studies.train_method import curvature
from dso_robotics.studies.train_settled import settled
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.train_table import parameter_table
from dso_robotics.studies.trained_robot import learned_filter

_LOOKS, _EPISODES = 20, 3
_SHOWN = 60.0


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
    report: Callable[[Trained, Path], object] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Run `study` and write model.xml, run.h5, the output of `report`, and summary.json to `out`.

    run.h5 is written before the first iteration and several times a minute. With `resume` an interrupted run in `out`
    continues from there and ends with the same numbers as an uninterrupted run.

    Raises:
      DsoError: something is wrong with the study (raised before anything is compiled); or every simulation of the
        training diverges.
    """
    with session(out, resume=resume, force=force, progress=progress) as here:
        here.compare(_files(study))
        tell("reading")
        return _train(build(study), here, command, report)


def _train(task: Task, here: Session, command: str, report: Callable[[Trained, Path], object] | None) -> Trained:
    study, chain, settings = task.study, task.chain, task.windows
    file = here.begin({"command": command, **study.as_dict()}, task.robot, _files(study), every=EVERY)
    more = {"moved": task.flow.masks.get(ROLLOUTS), "curvature": curvature(task.choice, task.supervised)}
    method = training_method(chain, settings, explore=task.explore, supervised=task.supervised, **more)
    player, trials = Player(chain), chain.context.trials()
    with phase("first states"):
        first = method.init(jax.random.key(study.seed), jnp.asarray(chain.layout.initial))
    opened: list[str] = []
    looks: list[tuple[float, ...]] = rows(file.tree.get("spent", {}), "looks", 3, file.path)

    def play(theta: Any, scaling: Scaling, rounds: int = 1, **more: Any) -> list[Episode]:
        theta, found = np.asarray(theta), []
        for context in trials:
            model = compiled(task, theta, context)
            for seed in range(rounds):
                options = {"steps": task.steps, "seed": seed, "model": model, "context": context}
                found.append(player.play(theta, scaling, **options, **more))
        return found

    def cost_of(theta: Any, scaling: Scaling, episodes: list[Episode]) -> float:
        """What is reported: the cost of episodes or, without costs of the motion, the supervised costs."""
        return _mean_cost(episodes) if task.rolls else sum(_supervised(task, theta, scaling).values())

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
        try:
            with phase("episodes, on C MuJoCo"):
                looked = before if not (at and task.rolls) else play(state.theta, state.memory)
                reached = cost_of(state.theta, state.memory, looked) if at else at_first
        except DsoError as error:
            # Numbers of which MuJoCo's compiler makes no model: no candidate, and no reason to lose the others.
            looked, reached = [], math.inf
            if isinstance(error, OpenLoopError):
                opened.append(f"The training stopped at iteration {at}: {error}")
        if at:
            looks.append((at, reached, file.seconds))
        return math.inf if task.rolls and any(episode.ended for episode in looked) else reached

    def watch(moment: Moment) -> bool:
        at, record = moment.iteration, moment.record
        numbers = {"gradient_norm": record.gradient_norm, "value_error": record.value_error, "blown": record.blown}
        numbers |= {
            f"term {name}": float(term) for name, term in zip(task.scene_cost.names, record.terms, strict=False)
        }
        more = {"steps": at * settings.environments * settings.horizon if task.rolls else 0, "values": numbers}
        episode_cost = looks[-1][1] if looks else at_first
        tell("training", at, record.cost, total=settings.iterations, episode_cost=episode_cost, **more)
        return bool(opened)

    every = max(settings.iterations // _LOOKS, 1)
    keep = Best(judge, every=every, take=_kept) if task.keep == "best" else Last(judge, every=every)
    result = search(
        file,
        method,
        first,
        Record,
        iterations=settings.iterations,
        keep=keep,
        watch=watch,
        survive=True,
        spent=lambda moment: {"looks": np.array(looks, float).reshape(-1, 3)},
        blocks=lambda state: _blocks(task, _kept(state) if keep.best is None else keep.best.kept),
    )
    broken = result.status in (Status.DIVERGED, Status.FAILED)
    if broken and not any(record.accepted for record in result.history):
        raise DsoError(f"{study.source}: {result.message}.")
    iteration = len(result.history) if result.best is None else result.best.iteration
    ending = _kept(result.state) if result.best is None else result.best.kept
    theta, scaling = np.asarray(ending["theta"]), ending["scaling"]
    tell("evaluating")
    rounds = -(-_EPISODES // len(trials))
    played, finer = play(theta, scaling, rounds), play(theta, scaling, rounds, finer=4)
    real = _on_the_real_robot(task, player, theta, scaling, first)
    history = _history(task, result, looks)
    # Compared are the same episodes before and after.
    begun = cost_of(first.theta, first.memory, play(first.theta, first.memory, rounds)) if task.rolls else at_first
    costs = begun, cost_of(theta, scaling, played), cost_of(theta, scaling, finer)
    rest = settled(history["iteration"], history["episode_cost"], at_first, len(result.history)) if task.rolls else ""
    summary = _summary(
        task, theta, scaling, iteration, costs, played, finer, command, compile_seconds, method, result, rest
    )
    summary |= {} if real is None else {"judge": real}
    if chain.context.cloud is not None and task.rolls:
        model = functools.partial(compiled, task)
        summary["tolerance"], told = tolerance(task, player, theta, scaling, at_first, model)
        summary["warnings"] += told
    summary["warnings"] = [*opened, *summary["warnings"]]
    summary["cost"]["first_look"] = at_first
    found = Trained(task, theta, scaling, before[0], tuple(played), history, summary)
    groups = {"history": history, "motions": {"untrained": _motion(before[0]), "trained": _motion(played[0])}}
    groups[GROUP] = drawn_starts(player, theta, seconds=study.seconds).as_dict()
    if chain.filter is not None:
        groups["estimator"] = learned_filter(chain, theta).as_dict() | _believed(task, theta, here.folder)
    draw = None if report is None else lambda folder: report(found, folder)
    here.finish(summary, _mjcf(task, theta), draw, groups)
    return found


def _kept(state: Any) -> dict[str, Any]:
    """The final values of a training."""
    return {"theta": state.theta, "scaling": state.memory}


def _blocks(task: Task, kept: dict[str, Any]) -> dict[str, Any]:
    """Theta by block, and the observation scaling, as stored in the run file."""
    scaling = {"mean": np.asarray(kept["scaling"].mean), "spread": np.asarray(kept["scaling"].spread)}
    split = task.chain.layout.split(np.asarray(kept["theta"]))
    return {"theta": {name: np.asarray(value) for name, value in split.items()}, "scaling": scaling}


def _history(task: Task, result: Result, looks: list[tuple[float, ...]]) -> dict[str, np.ndarray]:
    """One row for each evaluation of episodes, with the training values at that point."""
    per = task.windows.environments * task.windows.horizon
    table = np.array(looks, float).reshape(-1, 3)
    at = table[:, 0].astype(int)
    found = [result.history[i - 1] for i in at]
    terms = np.array([record.terms for record in found]).reshape(len(at), -1) if task.rolls else np.zeros((len(at), 0))
    return {
        "iteration": at,
        "steps": at * per,
        "training_cost": np.array([record.cost for record in found]),
        "episode_cost": table[:, 1],
        "seconds": table[:, 2],
        "gradient_norm": np.array([record.gradient_norm for record in found]),
        "blown": np.array([record.blown for record in found]),
    } | {f"term {name}": terms[:, k] for k, name in enumerate(task.scene_cost.names)}


def _supervised(task: Task, theta: Any, scaling: Scaling) -> dict[str, float]:
    """The weighted supervised costs by name."""
    scaled = eqx.tree_at(lambda chain: chain.scaling, task.chain, scaling)
    return {name: float(cost(scaled, jnp.asarray(theta))) for name, cost in task.supervised.items()}


def _on_the_real_robot(
    task: Task, player: Player, theta: np.ndarray, scaling: Scaling, first: Any
) -> dict[str, Any] | None:
    """Costs of episodes on the robot of [judge], before and after the training; None without [judge]."""
    if task.real is None or task.study.judge is None:
        return None
    costs: dict[str, list[float]] = {}
    for name, at, scale in (("before", first.theta, first.memory), ("after", theta, scaling)):
        mechanism = task.chain.mechanism
        design = {} if mechanism is None else mechanism.design_fields(_numbers(task, at))
        more = {"steps": task.steps, "model": task.real.model(design), "sensors": task.real.sensors}
        seeds = range(1000, 1000 + task.study.judge.episodes)
        episodes = [player.play(np.asarray(at), scale, seed=seed, **more) for seed in seeds]
        # An episode that the simulation ended early costs its mean step for the rest.
        costs[name] = [e.cost * task.steps / max(len(e.terms), 1) for e in episodes]
    return {
        "cost": costs["after"],
        "before": costs["before"],
        "return": [float(task.steps - cost) for cost in costs["after"]],
    }


def _believed(task: Task, theta: np.ndarray, folder: Path) -> dict[str, str]:
    """The MJCF of the model that the estimator predicts with, if it is not model.xml; its meshes are put into `folder`."""
    mechanism = task.chain.mechanism
    if task.chain.believes == "world" or mechanism is None:
        return {}
    fields = mechanism.fields_at(task.chain.believed_parameters(jnp.asarray(theta)), _numbers(task, theta))
    text = to_mjcf(task.robot, {name: np.asarray(value) for name, value in fields.items()})
    return {"mjcf": write_bundled(folder, text)}


def _numbers(task: Task, theta: Any) -> np.ndarray:
    return np.asarray(task.chain.numbers(jnp.asarray(theta)))


def _mean_cost(episodes: list[Episode]) -> float:
    return float(np.mean([episode.cost for episode in episodes]))


def _mjcf(task: Task, theta: Any, context: Any = None) -> str:
    mechanism = task.chain.mechanism
    if task.robot.spec is None:
        raise DsoError(f"{task.study.source}: a compiled MjModel has no MJCF to write; load the XML file.")
    drawn = None if context is None else task.chain.context.physical(np.asarray(context))
    fields = {} if mechanism is None else mechanism.fields(_numbers(task, theta), drawn)
    return to_mjcf(task.robot, {name: np.asarray(value) for name, value in fields.items()})


def compiled(task: Task, theta: Any, context: Any = None) -> mujoco.MjModel:
    """The model at theta (and in `context`, if given), as C MuJoCo compiles it from the exported MJCF."""
    if task.chain.mechanism is None:
        return task.chain.mj
    return mujoco.MjModel.from_xml_string(_mjcf(task, theta, context))


def _motion(episode: Episode) -> dict[str, np.ndarray]:
    """Poses of an episode for `dso view`: at most 60 per second, in single precision."""
    interval = float(np.median(np.diff(episode.time))) if len(episode.time) > 1 else 1.0
    shown = slice(None, None, max(1, int(1 / (_SHOWN * interval) + 1e-6)))
    return {"time": episode.time[shown], "qpos": episode.qpos[shown].astype(np.float32)}


def _summary(
    task: Task,
    theta: np.ndarray,
    scaling: Scaling,
    iteration: int,
    at: tuple[float, float, float],
    played: list[Episode],
    finer: list[Episode],
    command: str,
    compile_seconds: float,
    method: Any,
    result: Result,
    rest: str,
) -> dict[str, Any]:
    settings, (at_first, reached, fine) = task.windows, at
    costs, done = np.array([e.cost for e in played]), len(result.history)
    per = np.mean([e.terms.sum(0) for e in played], axis=0)
    warnings = list(task.notes)
    if any(e.ended for e in played + finer):
        warnings.append("C MuJoCo lost an evaluated episode before its end; do not trust this policy.")
    broken = result.status in (Status.DIVERGED, Status.FAILED)
    if broken:
        warnings.insert(
            0,
            f"The training broke off: {result.message}. The result is that of iteration {iteration}, the "
            f"{'best of those looked at' if result.best is not None else 'last whose step was taken'}.",
        )
    context = task.chain.context
    kept = f", the policy after {iteration} of them kept" if iteration < done else ""
    if rest and not broken:
        warnings.append(f"The training had not come to rest: {rest}.")
    gain = at_first - reached
    if task.rolls and gain > 0 and at_first - fine < 0.95 * gain:
        warnings.append(
            f"At a quarter of the time step only {100 * (at_first - fine) / gain:.0f}% of the improvement is left: part of it "
            "exploits the simulation's step."
        )
    what = "cost of an episode on C MuJoCo" if task.rolls else "cost"
    steps = settings.steps if task.rolls else 0
    return {
        "command": command,
        "version": __version__,
        "engine": method.engine,
        "engine_reason": task.engine.reason if method.engine == task.engine.name else method.reason,
        "seed": task.study.seed,
        "seconds": {"total": 0.0, "compile": compile_seconds},
        "method": {"name": settings.method, "reason": task.choice.reason},
        "flow": {block: list(sources) for block, sources in task.flow.moved.items()},
        "status": str(result.status),
        "converged": not broken
        and (bool(reached < at_first and not rest) if task.rolls else result.status is Status.CONVERGED),
        "message": f"{result.message}{kept}; {what} {at_first:.4g} before, {reached:.4g} after",
        "evaluations": done,
        "kept": {"rule": task.keep, "iteration": iteration},
        "simulated_steps": steps * task.chain.substeps,
        "environment_steps": steps,
        "parameters": parameter_table(task, theta),
        "cost": {
            "total": reached,
            "before": at_first,
            "quarter_timestep": fine,
            "terms": {name: float(v) for name, v in zip(task.scene_cost.names, per, strict=True)},
            "supervised": _supervised(task, theta, scaling),
            "weights": _weights(task),
        },
        "episodes": {
            "steps": task.steps,
            "cost": costs.tolist(),
            "return": [float(task.steps - c) for c in costs],
            "terminated": [e.terminated for e in played],
            "context": {
                draw.name: np.repeat(column, len(played) // len(column)).tolist()
                for draw, column in zip((*context.tasks, *context.physics), context.trials().T, strict=True)
            },
        },
        "fit": {"train": {}, "hold_out": {}},
        "warnings": warnings,
    }


def _weights(task: Task) -> dict[str, float]:
    """The weight of every cost."""
    timed = dict(zip(task.scene_cost.names, task.scene_cost.weights, strict=True))
    return timed | {name: cost.weight for name, cost in task.supervised.items()}


def _files(study: TrainStudy) -> dict[str, str]:
    """Every file that the costs read, by its place in the study."""
    files = ((name, getattr(cost, key, None)) for name, cost in study.cost.items() for key in ("log", "file"))
    found = {f"file of [cost.{name}]": str(file) for name, file in files if file is not None}
    if study.result is not None and (Path(study.result) / RUN).is_file():
        found["result of [randomise]"] = str(Path(study.result) / RUN)
    return found
