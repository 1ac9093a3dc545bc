"""Whether an estimator can be trusted: do its errors shrink, and are they as large as it claims?"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dso_robotics.core.likelihood import likelihood
from dso_robotics.robot import estimator_start
from dso_robotics.robot.error_growth import ErrorGrowth, error_growth
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.studies.estimate_score import Fit
from dso_robotics.studies.estimate_search import Found, Search

# Squared errors this many times the predicted variance are no longer what the estimator claims.
_MOST = 3.0
# Below this share the noises of the sensors were learned larger than whole runs show.
_LEAST_SHARE = 0.7
# Least eigenvalue of the correlation of the state's errors, so that a direction without errors divides by no zero.
_LEAST = 1e-8
_WORDS = {"train": "fitted", "hold_out": "held-out"}
_CURE = "Give longer windows (`window`), more runs, more `iterations`, or another `corrector`"


@dataclasses.dataclass(frozen=True)
class Settled:
    """The point that is handed out.

    growth: growth of errors there, by part ("train", "hold_out").
    refused: what the search ended at had growing errors, so another point was taken.
    stable: whether errors shrink at this point.
    """

    found: Found
    growth: dict[str, ErrorGrowth]
    refused: bool
    stable: bool


def settle(asked: Search, found: Found, whole: Mapping[str, FilterWindows]) -> Settled:
    """The end of the search if its errors shrink over the runs `whole`; else the best point of the search where they do.

    If there is none, the start, and then other Kalman gains with the numbers that the search found for the physics.
    """

    def measured(z: np.ndarray) -> dict[str, ErrorGrowth]:
        return {name: error_growth(asked.vector, asked.scales, part, z) for name, part in whole.items()}

    growth = measured(found.z)
    if all(g.stable for g in growth.values()):
        return Settled(found, growth, refused=False, stable=True)
    for z, where in _others(asked, found):
        other = measured(z)
        if all(g.stable for g in other.values()):
            message = f"{found.message}; errors grow there, so {where} is kept"
            return Settled(asked.moved(found, z, message), other, refused=True, stable=True)
    refused = dataclasses.replace(found, converged=False)
    return Settled(refused, growth, refused=True, stable=False)


def _others(asked: Search, found: Found) -> Iterator[tuple[np.ndarray, str]]:
    """Other points, the best first, with words for each."""
    points, costs = found.history["z"], found.history["cost"]
    if len(points) == len(costs):
        for i in np.argsort(costs):
            yield points[i], f"iteration {int(found.history['iteration'][i])}"
    yield asked.vector.initial, "the start"
    vector, scales = asked.vector, asked.scales
    for gain in reversed(estimator_start.start_gains(asked.given, vector.physics)):
        white = gain / scales.change[:, None] * scales.innovation
        weights = vector.corrector.initial(white, asked.study.seed)
        yield np.concatenate([weights, found.z[len(weights) :]]), "a Kalman gain"


def consistency(
    fits: Mapping[str, Fit], sigma: np.ndarray, spread: np.ndarray, degrees: np.ndarray | None, factor: np.ndarray
) -> dict[str, dict[str, Any]]:
    """By part, squared errors over predicted variances, per number: about 1 where the estimator knows its errors.

    sigma: noise scales (ny,), which the coverage factors `factor` (ny,) have widened; spread: see `Learned`.
    degrees: of Student's t (ny,), for which outliers count as in the likelihood; None for normal noise.

    `nis` is that of the innovations, `worst` the largest of one channel, `nees` that of the state, None where no state was
    recorded; it is measured by the covariance that the fitted runs gave.
    """
    table = {}
    for part, fit in fits.items():
        white = fit.innovation * factor / (sigma * np.exp(fit.features @ spread.T))
        squares = likelihood(degrees).weight(white) * white**2
        table[part] = shares(squares) | {"nees": _nees(fit, fits["train"].covariance)}
    return table


def shares(squares: np.ndarray) -> dict[str, Any]:
    """Means of squared errors over predicted variances (B, U, ny), NaN where there is none: all, and the worst channel."""
    seen = np.isfinite(squares)
    channels = range(squares.shape[-1])
    each = np.array([np.mean(squares[..., c][seen[..., c]]) if seen[..., c].any() else np.nan for c in channels])
    known = np.isfinite(each)
    return {
        "nis": float(np.mean(squares[seen])) if seen.any() else math.nan,
        "worst": float(each[known].max()) if known.any() else math.nan,
        "worst_channel": int(np.nanargmax(each)) if known.any() else None,
    }


def _nees(fit: Fit, covariance: np.ndarray | None) -> float | None:
    """Squared error of the state over its covariance (2 nv, 2 nv), divided by 2 nv; None where it is not known."""
    rows = fit.state_error[np.isfinite(fit.state_error).all(-1)]
    if covariance is None or not len(rows):
        return None
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    white = (rows / size) @ vectors / np.sqrt(np.maximum(values, _LEAST))
    return float(np.mean(white**2))


def stability_table(settled: Settled, whole: Mapping[str, FilterWindows]) -> dict[str, Any]:
    """By part: growth rate of errors [1/s] in the run where they shrink slowest, and the seconds to a tenth (or tenfold)."""
    table = {}
    for part, growth in settled.growth.items():
        i, given = growth.slowest, whole[part]
        rate = float(growth.rates[i])
        table[part] = {
            "rate": rate,
            "seconds_for_factor_10": math.log(10) / abs(rate) if rate else math.inf,
            "run": given.rollouts[int(given.rollout[i])].name,
            "stable": growth.stable,
        }
    return table


def distrust(settled: Settled, table: Mapping[str, Mapping[str, Any]], names: tuple[str, ...]) -> list[str]:
    """Warnings on why the estimator is not to be trusted; empty if nothing speaks against it.

    table: see `consistency`. Held-out runs are judged, and fitted ones where none was held out.
    """
    texts = []
    if settled.refused and settled.stable:
        texts.append(
            "Errors of the estimator grow at the end of the search, so an earlier estimator is kept, whose errors shrink. "
            f"{_CURE} and run the study again."
        )
    elif settled.refused:
        texts.append(
            "Errors of every estimator that was tried grow, so none is handed out: `Estimator.load` finds none in this result. "
            f"{_CURE}, and see that the sensors show every motion that does not settle by itself."
        )
    part = "hold_out" if "hold_out" in table else "train"
    found, said = table[part], []
    if found["worst"] > _MOST:
        said.append(f"innovations of {names[found['worst_channel']]} by a factor {found['worst']:.3g}")
    if found["nees"] is not None and found["nees"] > _MOST:
        said.append(f"errors of the state by a factor {found['nees']:.3g}")
    if said:
        texts.append(
            f"Squared errors on the {_WORDS[part]} runs exceed what the estimator claims, where {_MOST:g} is the most: "
            f"{' and '.join(said)}. Do not trust its uncertainty. {_CURE}, or free the physics that is wrong (`free`)."
        )
    return texts


def short_windows(
    stability: Mapping[str, Any], consistency: Mapping[str, Any], window: float, warm_up: float
) -> list[str]:
    """A warning where errors of the windows' starts were learned as noise of the sensors; else nothing.

    stability, consistency: rows of the fitted runs, see `stability_table` and `consistency`, which are of whole runs.
    window: length of the windows of the training [s]. warm_up: the share of each that does not count.
    """
    need, left_out = stability["seconds_for_factor_10"], window * warm_up
    if not consistency["nis"] < _LEAST_SHARE or not left_out < need < math.inf:
        return []
    return [
        f"Noises were learned too large: squared errors over the whole fitted runs are {consistency['nis']:.2g} of what the "
        f"estimator claims. An error of a window's start takes {need:.2g} s to shrink to a tenth, and of each window of "
        f"{window:g} s only the first {left_out:.2g} s do not count. Give longer windows: window = {_longer(need, warm_up)}."
    ]


def _longer(need: float, warm_up: float) -> str:
    """Length of a window [s], of which `warm_up`, and a fifth at least, is the time `need`; two digits, rounded up."""
    length = need / max(warm_up, 0.2)
    digit = 10.0 ** (math.floor(math.log10(length)) - 1)
    return f"{math.ceil(length / digit) * digit:.2g}"
