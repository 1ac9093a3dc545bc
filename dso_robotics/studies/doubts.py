"""What speaks against the result of an identification although its search converged: each a sentence with a cure."""

from collections.abc import Mapping, Sequence

import numpy as np

from dso_robotics.core.covariance import Uncertainty
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.studies.evaluate import Evaluation, evaluate
from dso_robotics.studies.extrapolation import extrapolated
from dso_robotics.studies.misfit import misfit, no_better, unexplained
from dso_robotics.studies.race import cheap
from dso_robotics.studies.roughness import rough
from dso_robotics.studies.summary import fit

# A value has moved if it differs from its start by this many standard deviations.
_MOVED = 4.0


def doubts(
    problem: WindowedIdentification,
    solution: Solution,
    spread: Uncertainty,
    evaluations: Mapping[str, Evaluation],
    scored: Mapping[str, Windows],
    parts: Mapping[str, Sequence[Rollout]],
    channels: Channels,
    *,
    robust: bool = False,
) -> tuple[dict[str, float], list[str], list[str]]:
    """The residual of each channel over its own noise, what puts the result in doubt, and what else a reader should know.

    problem: of the windows that were fitted by motion.
    evaluations, scored: errors of "train" and "hold_out", and the windows they were computed on; parts: their recordings.
    """
    z, x, vector = solution.z, solution.x, problem.vector
    ratios, text, severe = misfit(problem, z, x)
    found, aside = unexplained(problem, z, x), []
    for sentence, grave in ((text, severe), rough(problem, solution)):
        if sentence:
            (found if grave else aside).append(sentence)
    if not vector.local:
        found += _beside_the_start(vector, z, spread, problem, evaluations, scored, channels, robust)
        aside += extrapolated(vector, z, parts, channels, evaluations)
    return ratios, found, aside


def _beside_the_start(
    vector: ParameterVector,
    z: np.ndarray,
    spread: Uncertainty,
    problem: WindowedIdentification,
    evaluations: Mapping[str, Evaluation],
    scored: Mapping[str, Windows],
    channels: Channels,
    robust: bool,
) -> list[str]:
    away = np.abs(z - vector.initial)
    moved = bool((away > np.maximum(_MOVED * spread.std, 1e-9 * vector.scale)).any())
    for part, evaluation in reversed(list(evaluations.items())):
        # Where start states are estimated, to score a model takes a search.
        if part == "train" and not moved:
            continue
        if not (evaluation.start == "measured" or cheap(vector, scored[part])):
            continue
        other = evaluate(vector, vector.initial, scored[part], sigma=problem.pooled_sigma(), robust=robust)
        told = no_better(fit(channels, evaluation), fit(channels, other), moved, part)
        if told:
            return told
    return []
