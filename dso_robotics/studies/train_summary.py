"""The summary of a training: what summary.json says."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from dso_robotics import __version__
from dso_robotics.core.compiling import quick_jit
from dso_robotics.core.descent import Result, Status
from dso_robotics.physics.model import actuator_labels
from dso_robotics.robot.constraints import TOLERANCE, Constrained
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Episode
from dso_robotics.studies.motor_check import motor_doubts, motors_at
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.train_table import parameter_table

# Cost of what breaks a limit; beyond any cost of an episode.
_BROKEN = 1e12
# Share of control steps at an end of the range above which a training says so.
_SATURATED = 0.5


def summary(
    task: Task,
    theta: np.ndarray,
    scaling: Scaling,
    *,
    iteration: int,
    at: tuple[float, float, float],
    played: list[Episode],
    finer: list[Episode],
    command: str,
    compile_seconds: float,
    method: Any,
    result: Result,
    rest: str,
    supervised: dict[str, float],
) -> dict[str, Any]:
    """The content of summary.json.

    iteration: that of the policy that is kept.
    at: the cost before, after, and after at a quarter of the time step.
    rest: what speaks against it that the training came to rest, see `train_settled.settled`.
    supervised: the weighted supervised costs, see `supervised_costs`.
    """
    settings, (at_first, reached, fine) = task.windows, at
    costs, done = np.array([e.cost for e in played]), len(result.history)
    per = np.mean([e.terms.sum(0) for e in played], axis=0)
    warnings, doubts = list(task.notes), []
    if any(e.ended for e in played + finer):
        doubts.append("C MuJoCo lost an evaluated episode before its end; do not trust this policy.")
    broken = result.status in (Status.DIVERGED, Status.FAILED)
    if broken:
        doubts.insert(
            0,
            f"The training broke off: {result.message}. The result is that of iteration {iteration}, the "
            f"{'best of those looked at' if result.best is not None else 'last whose step was taken'}.",
        )
    context = task.chain.context
    kept = f", the policy after {iteration} of them kept" if iteration < done else ""
    if rest and not broken:
        kept_limits = ", not counting those that break a constraint" if task.scene_cost.constrained else ""
        doubts.append(f"The training had not come to rest (by the looks at episodes{kept_limits}): {rest}.")
    gain = at_first - reached
    if task.rolls and gain > 0 and at_first - fine < 0.95 * gain:
        doubts.append(
            f"At a quarter of the time step only {100 * (at_first - fine) / gain:.0f}% of the improvement is left: part of it "
            "exploits the simulation's step."
        )
    actions, told = _actions(task, played)
    warnings += told
    limits = constraints(task, played, scaling)
    motors = motors_at(task, theta, played)
    unable = motor_doubts(motors)
    doubts += unable
    met = all(row["met"] for row in limits.values()) and not unable
    doubts += [
        f"The constraint cost.{name} is not met: its mean is {row['mean']:.4g}, {row['violation']:.3g} above its limit. Give "
        "more iterations or a larger weight, or see whether both can be had."
        for name, row in limits.items()
        if not row["met"]
    ]
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
        and met
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
            "supervised": supervised,
            "weights": _weights(task),
        },
        "episodes": {
            "steps": task.steps,
            "cost": costs.tolist(),
            "return": [float(task.steps - c) for c in costs],
            "terminated": [e.terminated for e in played],
            "context": {
                draw.name: np.repeat(column, len(played) // len(column)).tolist()
                for draw, column in zip(context.draws, context.trials().T, strict=True)
            },
        },
        "constraints": limits,
        "motors": motors,
        "action": actions,
        "fit": {"train": {}, "hold_out": {}},
        "doubts": doubts,
        "warnings": [*doubts, *warnings],
    }


def broken_by(task: Task, played: list[Episode], scaling: Scaling) -> float:
    """By how much episodes break the hard constraints together; 0 if they meet all. Arguments as in `constraints`."""
    return sum(row["violation"] for row in constraints(task, played, scaling).values() if not row["met"])


def ranked(cost: float, broken: float) -> float:
    """The cost by which candidates are compared: what breaks limits is worse than anything that meets them."""
    return cost if not broken else _BROKEN * (1.0 + broken)


def constraints(task: Task, played: list[Episode], scaling: Scaling) -> dict[str, Any]:
    """The hard constraints in episodes, by name: limit, mean a step, violation, whether it is met, and multiplier.

    scaling: what a training learned besides theta; the multipliers are in it.
    """
    cost, found = task.scene_cost, {}
    weights = np.asarray(scaling.weights) if isinstance(scaling, Constrained) else np.zeros(len(cost.constrained))
    for c, i in enumerate(cost.constrained):
        means = [float(np.mean(e.measured[:, c])) for e in played if e.measured is not None and len(e.measured)]
        mean, limit = float(np.mean(means)) if means else float("nan"), float(cost.limits[i] or 0.0)
        found[cost.names[i]] = {
            "limit": limit,
            "mean": mean,
            "violation": max(mean - limit, 0.0),
            "met": mean <= limit + TOLERANCE,
            "multiplier": float(weights[c]),
        }
    return found


def _actions(task: Task, played: list[Episode]) -> tuple[dict[str, Any], list[str]]:
    """What an action of zero does, and in what share of the episodes each actuator is at an end of its range."""
    squash, names = task.chain.squash, actuator_labels(task.robot.mj)
    share = np.mean([episode.saturated(squash) for episode in played], axis=0)
    found = {
        "home": dict(zip(names, np.asarray(squash(squash.rest)).tolist(), strict=True)),
        "saturated": dict(zip(names, share.tolist(), strict=True)),
    }
    worst = int(np.argmax(share))
    if share[worst] <= _SATURATED or squash.after:
        return found, []
    return found, [
        f"{names[worst]} is at an end of its range in {100 * share[worst]:.0f}% of the control steps. There the policy has "
        'hardly a derivative, and its noise hardly an effect; try [action] noise = "after" and a cost of kind = "saturation".'
    ]


def _weights(task: Task) -> dict[str, float]:
    """The weight of every cost."""
    timed = dict(zip(task.scene_cost.names, task.scene_cost.weights, strict=True))
    return timed | {name: cost.weight for name, cost in task.supervised.items()}


def supervised_costs(task: Task) -> Callable[[Any, Scaling], dict[str, float]]:
    """theta (n,) and scaling -> the weighted supervised costs by name. They are compiled once."""

    @quick_jit
    def costs(theta: Any, scaling: Scaling) -> dict[str, Any]:
        scaled = eqx.tree_at(lambda chain: chain.scaling, task.chain, scaling)
        return {name: cost(scaled, theta) for name, cost in task.supervised.items()}

    return lambda theta, scaling: {name: float(cost) for name, cost in costs(jnp.asarray(theta), scaling).items()}
