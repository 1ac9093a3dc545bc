"""Train a policy, and a mechanism with it: study -> chain and costs -> short windows -> result on C MuJoCo."""

import dataclasses
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
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.robot.observation import Scaling
from dso_robotics.studies import folder as folders
from dso_robotics.studies.action_space import ActionSpace
from dso_robotics.studies.short_horizon import Learner, ShortHorizon
from dso_robotics.studies.train_build import Task, build
from dso_robotics.studies.train_checkpoint import Kept, TrainCheckpoint
from dso_robotics.studies.train_play import Episode, Player
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.window_loss import IN_ACTION_SPACE

# An entry within this part of its range from a bound is reported to lie at it.
_AT_BOUND = 0.01
_LOOKS, _EPISODES = 20, 3
_SHOWN = 60.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """One line of news: iteration, environment steps so far, mean cost a step in training, cost of an episode on C, seconds."""

    iteration: int
    steps: int
    training_cost: float
    episode_cost: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a training found; episodes are on C MuJoCo, `summary` is what summary.json holds."""

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
    progress: Callable[[Progress], None] = lambda news: None,
) -> Trained:
    """Run `study` and write model.xml, run.h5, whatever `report` makes, and summary.json to `out`.

    run.h5 is written before the first iteration and several times a minute; with `resume` an interrupted run in `out` goes on
    from there and ends with the numbers it would have had.

    Raises:
      DsoError: anything wrong with the study, before anything is compiled; or a training in which nothing but blow-ups is left.
    """
    began = time.perf_counter()
    task = build(study)
    with folders.claim(out, resume=resume, force=force) as folder:
        kept = TrainCheckpoint(folder, task, resume=resume)
        began -= kept.seconds
        result = _train(task, folder, kept, command, began, progress)
        if report is not None:
            report(result, folder)
        result.summary["seconds"]["total"] = time.perf_counter() - began
        folders.write_summary(folder, result.summary)
    return result


def _train(
    task: Task,
    folder: Path,
    kept: TrainCheckpoint,
    command: str,
    began: float,
    progress: Callable[[Progress], None],
) -> Trained:
    study, chain, settings = task.study, task.chain, task.windows
    kind = ActionSpace if settings.method in IN_ACTION_SPACE else ShortHorizon
    method = kind(chain, settings, explore=task.explore, supervised=task.supervised)
    player = Player(chain)
    first = method.begin(jax.random.key(study.seed), jnp.asarray(chain.layout.initial))
    learner = kept.begin(first)
    started = time.perf_counter()
    step = method.compile(learner)
    compile_seconds = time.perf_counter() - started

    trials = chain.context.trials()

    def play(learner: Learner, rounds: int = 1, **more: Any) -> list[Episode]:
        theta, found = np.asarray(learner.theta), []
        for context in trials:
            model = compiled(task, theta, context)
            for seed in range(rounds):
                found.append(
                    player.play(
                        theta, learner.scaling, steps=task.steps, seed=seed, model=model, context=context, **more
                    )
                )
        return found

    before = play(first)
    every = max(settings.iterations // _LOOKS, 1)
    kept.save(learner)
    for i in range(int(learner.iteration), settings.iterations):
        learner, news = step(learner)
        jax.block_until_ready(learner.theta)
        if (i + 1) % every == 0 or i + 1 == settings.iterations:
            if float(news.blown) == 1.0 or not bool(news.accepted):
                raise DsoError(
                    f"{study.source}: after {i + 1} iterations every window blows up or has no finite gradient. Shorten the "
                    "windows (horizon), lower the learning rate, or start where the robot is not driven apart."
                )
            looked = play(learner)
            told = Progress(
                i + 1,
                (i + 1) * settings.environments * settings.horizon,
                float(news.cost),
                _mean_cost(looked),
                time.perf_counter() - began,
            )
            more = (float(news.gradient_norm), float(news.blown), *np.asarray(news.terms).tolist())
            kept.rows.append((*dataclasses.astuple(told), *more))
            if task.keep == "best":
                kept.best = _better(kept.best, learner, looked)
            progress(told)
        if kept.due() or i + 1 == settings.iterations:
            kept.save(learner)
    ending = learner
    if kept.best is not None:
        ending = eqx.tree_at(lambda one: (one.theta, one.scaling), learner, (kept.best.theta, kept.best.scaling))
    rounds = -(-_EPISODES // len(trials))
    played, finer = play(ending, rounds), play(ending, rounds, finer=4)
    theta = np.asarray(ending.theta)
    folders.write_text(folder / folders.MODEL, _mjcf(task, theta))
    kept.save(
        learner,
        finished={"command": command, "motions": {"untrained": _motion(before[0]), "trained": _motion(played[0])}},
    )
    iteration = settings.iterations if kept.best is None else kept.best.iteration
    summary = _summary(task, ending, iteration, before, played, finer, command, compile_seconds)
    return Trained(task, theta, ending.scaling, before[0], tuple(played), kept.history(), summary)


def _better(best: Kept | None, learner: Learner, looked: list[Episode]) -> Kept | None:
    """The cheaper of the best so far and the learner that these episodes show; one that C MuJoCo lost is no candidate."""
    cost = _mean_cost(looked)
    if any(episode.ended for episode in looked) or not np.isfinite(cost) or (best is not None and best.cost < cost):
        return best
    return Kept(int(learner.iteration), cost, np.asarray(learner.theta), learner.scaling)


def _numbers(task: Task, theta: Any) -> np.ndarray:
    mechanism = task.chain.mechanism
    assert mechanism is not None
    return np.asarray(mechanism.constrain(np.asarray(task.chain.layout.split(np.asarray(theta))["mechanism"])))


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
    """The model at theta, in a context if one is given, as C MuJoCo compiles it from the exported MJCF."""
    if task.chain.mechanism is None:
        return task.chain.mj
    return mujoco.MjModel.from_xml_string(_mjcf(task, theta, context))


def _motion(episode: Episode) -> dict[str, np.ndarray]:
    """Poses of an episode as `dso view` shows them, no more than 60 a second, in single precision."""
    interval = float(np.median(np.diff(episode.time))) if len(episode.time) > 1 else 1.0
    shown = slice(None, None, max(1, int(1 / (_SHOWN * interval) + 1e-6)))
    return {"time": episode.time[shown], "qpos": episode.qpos[shown].astype(np.float32)}


def _summary(
    task: Task,
    learner: Learner,
    iteration: int,
    before: list[Episode],
    played: list[Episode],
    finer: list[Episode],
    command: str,
    compile_seconds: float,
) -> dict[str, Any]:
    settings = task.windows
    costs, fine = np.array([e.cost for e in played]), np.array([e.cost for e in finer])
    per = np.mean([e.terms.sum(0) for e in played], axis=0)
    scaled = eqx.tree_at(lambda chain: chain.scaling, task.chain, learner.scaling)
    warnings, in_action_space = [], settings.method in IN_ACTION_SPACE
    if any(e.ended for e in played + finer):
        warnings.append("C MuJoCo lost an evaluated episode before its end; do not trust this policy.")
    at_first, context = _mean_cost(before), task.chain.context
    kept = f", the policy after {iteration} of them kept" if iteration < settings.iterations else ""
    gain = at_first - costs.mean()
    if gain > 0 and at_first - fine.mean() < 0.95 * gain:
        warnings.append(
            f"At a quarter of the time step only {100 * (at_first - fine.mean()) / gain:.0f}% of the improvement is left: "
            "part of it exploits the simulation's step."
        )
    return {
        "command": command,
        "version": __version__,
        "engine": "mujoco" if in_action_space else "mjx",
        "engine_reason": "steps in action space need no derivative of the physics, and C MuJoCo has nothing to compile"
        if in_action_space
        else "a policy has too many parameters for finite differences; reverse mode through MJX has one price",
        "seed": task.study.seed,
        "seconds": {"total": 0.0, "compile": compile_seconds},
        "converged": bool(costs.mean() < at_first),
        "message": f"{settings.iterations} iterations{kept}; cost of an episode on C MuJoCo {at_first:.4g} before, "
        f"{costs.mean():.4g} after",
        "evaluations": settings.iterations,
        "kept": {"rule": task.keep, "iteration": iteration},
        "simulated_steps": settings.steps * task.chain.substeps,
        "environment_steps": settings.steps,
        "parameters": _parameters(task, learner),
        "cost": {
            "total": float(costs.mean()),
            "before": at_first,
            "quarter_timestep": float(fine.mean()),
            "terms": {name: float(v) for name, v in zip(task.price.names, per, strict=True)},
            "supervised": {name: float(cost(scaled, learner.theta)) for name, cost in task.supervised.items()},
        },
        "episodes": {
            "steps": task.steps,
            "cost": costs.tolist(),
            "return": [float(task.steps - c) for c in costs],
            "context": {
                draw.name: np.repeat(column, len(played) // len(column)).tolist()
                for draw, column in zip((*context.tasks, *context.physics), context.trials().T, strict=True)
            },
        },
        "fit": {"train": {}, "hold_out": {}},
        "warnings": warnings,
    }


def _parameters(task: Task, learner: Learner) -> dict[str, Any]:
    mechanism = task.chain.mechanism
    if mechanism is None:
        return {}
    z, span = _numbers(task, learner.theta), mechanism.high - mechanism.low
    near = np.minimum(z - mechanism.low, mechanism.high - z) < _AT_BOUND * np.where(
        np.isfinite(span), span, mechanism.scale
    )
    return {
        name: {
            "value": float(z[i]),
            "initial": float(mechanism.initial[i]),
            "unit": mechanism.units[i],
            "low95": None,
            "high95": None,
            "at_bound": bool(near[i]),
        }
        for i, name in enumerate(mechanism.names)
    }
