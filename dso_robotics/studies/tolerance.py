"""Whether a policy tolerates what an identification leaves open: its cost where each number lies at the ends of its interval.

A number is moved to quantiles of its draws; the other numbers that are drawn with it follow to where they are then expected.
"""

from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.play import Episode, Player
from dso_robotics.studies.train_build import Task

QUANTILES = (0.025, 0.25, 0.75, 0.975)
# A policy does not tolerate an interval in which it loses this share of what the training gained at its middle.
_LOST = 0.25
# Numbers that are looked at, those with the widest intervals first, and draws that are played.
_MOST, _DRAWS = 8, 8


def tolerance(
    task: Task, player: Player, theta: np.ndarray, scaling: Scaling, before: float, model: Any
) -> tuple[dict[str, Any], list[str]]:
    """The costs of episodes over the draws of [randomise] from, and warnings that name the numbers known too poorly.

    before: the cost of an episode before the training.
    model: of theta and a context, the model as C MuJoCo compiles it.
    """
    context = task.chain.context
    cloud = context.cloud
    assert cloud is not None
    first, low, high = len(context.tasks), cloud.rows.min(0), cloud.rows.max(0)
    rest = context.rest

    def cost(row: np.ndarray) -> float:
        """The cost of an episode with these numbers; infinite if it is lost."""
        at = rest.copy()
        at[first + np.array(cloud.places)] = row
        try:
            episode: Episode = player.play(theta, scaling, steps=task.steps, model=model(theta, at), context=at)
        except DsoError:
            return float("inf")
        # An episode that the simulation lost, or that ended early, costs its mean step for the rest.
        return float("inf") if episode.ended else episode.cost * task.steps / max(len(episode.terms), 1)

    middle = np.median(cloud.rows, axis=0)
    at_middle = cost(middle)
    names = [context.physics[place].name for place in cloud.places]
    covariance = np.atleast_2d(np.cov(cloud.rows.T))
    spread = np.sqrt(np.diag(covariance))
    wide = spread / np.maximum(np.abs(middle), 1e-300)
    chosen = np.argsort(-wide)[:_MOST]
    table, warnings = {}, []
    for i in chosen:
        if not spread[i] > 0:
            continue
        slope = covariance[:, i] / covariance[i, i]
        ends = np.quantile(cloud.rows[:, i], QUANTILES)
        costs = [cost(np.clip(middle + slope * (end - middle[i]), low, high)) for end in ends]
        table[names[i]] = {"quantiles": dict(zip(map(str, QUANTILES), map(float, ends), strict=True)), "cost": costs}
        worst = int(np.argmax(costs))
        if costs[worst] - at_middle > _LOST * max(before - at_middle, 1e-3 * abs(at_middle)):
            where = "upper" if worst >= len(QUANTILES) // 2 else "lower"
            warnings.append(
                f"The interval of {names[i]} ({ends[0]:.4g} to {ends[-1]:.4g}) is wider than the policy tolerates: towards its "
                f"{where} end, at {ends[worst]:.4g}, an episode costs {costs[worst]:.4g} against {at_middle:.4g} in the middle "
                f"({before:.4g} before the training). Record motions that show {names[i]} and identify again, or train longer "
                "on it."
            )
    rng = np.random.default_rng(task.study.seed)
    rows = cloud.rows[rng.permutation(len(cloud.rows))[:_DRAWS]]
    played = [cost(row) for row in rows]
    finite = [c for c in played if np.isfinite(c)]
    return {
        "middle": at_middle,
        "draws": played,
        "mean": float(np.mean(finite)) if finite else float("inf"),
        "worst": max(played),
        "numbers": table,
    }, warnings
