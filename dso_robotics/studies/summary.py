"""The results of an identification as the text and numbers of summary.json (contract 1)."""

from typing import Any

import numpy as np

from dso_robotics.core.covariance import BLOCKS_PER_COORDINATE, ENDLESS, Z95, Uncertainty, describe
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.continuity import Continuity
from dso_robotics.data.match import Channels
from dso_robotics.parameters.family import FAMILIES
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.studies.evaluate import Evaluation

# What summary.json of every command has, each of the same form.
COMMON = (
    "command", "version", "engine", "engine_reason", "method", "seed", "seconds", "status", "converged", "message",
    "evaluations", "parameters", "cost", "fit", "doubts", "warnings",
)  # fmt: skip
METHOD = {"name": "gauss_newton", "reason": "the cost is a likelihood with a prior: least squares of few numbers"}
# Random draws for the interval of a number that is not itself a coordinate. Its ends are then accurate to about one percent.
_DRAWS = 20_000
# The data count as uninformative if the posterior standard deviation is above this fraction of the prior's.
_NEWS = 0.7
_MOSTLY = 0.9
# Two numbers with a stronger correlation than this are reported: their sum or difference is known far better than either.
_STRONG = 0.98


def parameters(vector: ParameterVector, solution: Solution, spread: Uncertainty) -> dict[str, Any]:
    """The table of contract 1: each physical number with its start value and its 95% interval.

    The interval of a plain number is its value plus and minus 1.96 standard deviations, clipped to the bounds; with few windows
    it is wider, by Student's distribution. At a bound
    it holds 95% of the normal distribution truncated at that bound. The intervals of a full inertia are the quantiles of
    bodies drawn in log-Cholesky coordinates. Every such draw is a possible body, without negative mass.
    `determined` is False if the interval is as wide as the number's prior or its bounds, or wider than the number itself if
    that cannot be negative.
    """
    blocks, table = vector.split(solution.z), {}
    known, which = vector.priors
    prior = np.full(vector.size, np.inf)
    prior[which] = known.std * np.where(known.log, known.mean, 1.0)
    for p, here in vector.places():
        z = blocks[p.path]
        value, initial = p.report(z), p.report(p.initial)
        wider = (spread.quantile / Z95) ** 2
        covariance, active = spread.covariance[here, here] * wider, solution.active[here]
        if p.factor is None:
            low, high, determined = _plain_interval(
                p, z, spread.centre[here], np.sqrt(np.diag(covariance)), prior[here], active
            )
        else:
            low, high, determined = _drawn_interval(p, z, covariance, prior[here], spread.data[here, here])
            active = np.full(len(p.reported), bool(active.any()))
        for i, (label, unit) in enumerate(p.reported.items()):
            table[label] = {
                "value": float(value[i]),
                "initial": float(initial[i]),
                "unit": unit,
                "low95": float(low[i]),
                "high95": float(high[i]),
                "at_bound": bool(active[i]),
                "determined": bool(determined[i]),
            }
    return table


def interval_group(vector: ParameterVector, solution: Solution, spread: Uncertainty) -> dict[str, Any]:
    """What the run file keeps of the intervals, beside the covariance: enough to draw from their normal within the bounds.

    centre, estimate, low, high, scale (n,); active (n,); quantile; factors: the nominal body of each full inertia, (4, 4).
    """
    return {
        "centre": spread.centre,
        "estimate": solution.z,
        "low": vector.low,
        "high": vector.high,
        "scale": vector.scale,
        "active": solution.active.astype(int),
        "quantile": float(spread.quantile),
        "method": spread.method,
        "factors": {p.path: p.factor for p in vector.parameters if p.factor is not None},
    }


Interval = tuple[np.ndarray, np.ndarray, np.ndarray]


def _plain_interval(
    p: Parameter, z: np.ndarray, centre: np.ndarray, deviation: np.ndarray, prior: np.ndarray, active: np.ndarray
) -> Interval:
    """Both ends of the intervals (k,), and whether the data determine the numbers (k,)."""
    size = np.maximum(p.scale, np.abs(z))
    half = np.where(deviation > ENDLESS * size, np.inf, Z95 * deviation)
    for i in np.flatnonzero(active):
        half[i] = _beyond_bound(-abs(centre[i] - z[i]), deviation[i])
    low, high = np.maximum(z - half, np.minimum(p.low, z)), np.minimum(z + half, np.maximum(p.high, z))
    determined = (deviation <= size) & (deviation < _NEWS * prior)
    # At a bound the number is known to be small. Zero is as good a value as any of a number of either sign.
    wide = (p.low >= 0) & ~active & (high - low > np.abs(z))
    return low, high, determined & ~wide


def _beyond_bound(centre: float, deviation: float) -> float:
    """The 95% quantile of a normal variable with mean `centre` below 0, truncated to values above a bound at 0."""
    from scipy.special import log_ndtr, ndtri_exp  # slow: a quarter of the start-up time, rarely needed

    x = max(centre / deviation, -35.0) if deviation > 0 else 0.0
    # Computed in logarithms: at the end of the range the probability of being above the bound is 1e-268.
    return float(deviation * (x - ndtri_exp(np.log(0.05) + log_ndtr(x))))


def _drawn_interval(
    p: Parameter, z: np.ndarray, covariance: np.ndarray, prior: np.ndarray, data: np.ndarray
) -> Interval:
    """Like `_plain_interval`, for numbers that are not themselves coordinates. They are determined if the data alone give a
    smaller deviation than the prior alone."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    normal = np.random.default_rng(0).normal(size=(_DRAWS // 2, len(z)))
    change = np.concatenate([normal, -normal]) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    value, drawn = p.report(z), p.report(np.clip(z + change, p.low, p.high))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    h = 1e-6 * p.scale
    jacobian = np.stack([(p.report(z + d) - p.report(z - d)) / (2 * d.sum()) for d in np.diag(h)], -1)
    # A deviation of ten priors counts as undetermined. An infinite one would also affect numbers that barely depend on it.
    spreads, axes = np.linalg.eigh((data + data.T) / 2)
    reached = (jacobian @ axes) ** 2
    known = reached @ np.clip(spreads, 0.0, 100 * prior.max() ** 2)
    guessed = np.einsum("ik,k,ik->i", jacobian, prior**2, jacobian)
    return np.minimum(low, value), np.maximum(high, value), np.sqrt(known) < _NEWS * np.sqrt(guessed)


def unseen(vector: ParameterVector, table: dict[str, Any], spread: Uncertainty) -> dict[str, str]:
    """What the data do not determine, as text with advice: directions of plain numbers, and numbers of full inertias."""
    inertial = np.zeros((len(vector.parameters), vector.size), bool)
    for i, (p, here) in enumerate(vector.places()):
        inertial[i, here] = p.factor is not None
    # A body has many unseen directions, in coordinates that nobody measures. Its physical numbers are named instead.
    own = ((spread.unseen**2) @ inertial.T.astype(float)).max(1, initial=0.0) > _MOSTLY
    found = {}
    for direction in spread.unseen[~own]:
        (text,) = describe(direction[None], vector.coordinate_names)
        if text in vector.coordinate_names:
            found[text] = (
                "its value is where the search happened to end and its interval that of its bounds or prior. Fix it, give "
                "a prior, or record motions that excite it."
            )
        else:
            found[text] = (
                "only what is perpendicular to it. Fix one of these, give a prior, or record motions that excite them "
                "differently."
            )
    bodies = []
    for p in vector.parameters:
        left = [label[len(p.path) + 1 : -1] for label in p.reported if not table[label]["determined"]]
        if p.factor is not None and left:
            bodies.append(f"{', '.join(left)} of {p.path}")
    if bodies:
        found["; ".join(bodies)] = (
            "at most combinations of them, which are listed by name. Alone their values and intervals rest on the weak prior, "
            "a factor e about the model's body; what no motion shows stays at the model's value. Free body/*/mass or "
            "body/*/ipos alone, or record motions about other axes."
        )
    return found


def fit(channels: Channels, evaluation: Evaluation) -> dict[str, Any]:
    """Prediction errors by channel: `rmse` is the mean over windows, `pooled_rmse` is the RMSE over all samples."""
    return {
        name: {
            "rmse": float(evaluation.rmse[c]),
            "unit": channels.sensor_units[c],
            "nrmse_percent": float(evaluation.nrmse_percent[c]),
            "pooled_rmse": float(evaluation.pooled[c]),
        }
        for c, name in enumerate(channels.sensor_names)
        if np.isfinite(evaluation.rmse[c])  # not measured in these rollouts
    }


def controllers(vector: ParameterVector, z: np.ndarray) -> dict[str, dict[str, float]]:
    """Every number of every controller at z (n,), free or fixed, by actuator and signal."""
    found: dict[str, dict[str, float]] = {}
    values, gains = vector.signals(z)["controller_gain"], vector.gains
    for actuator, signal, value in zip(gains.actuators, gains.signals, values, strict=True):
        found.setdefault(actuator, {})[signal] = float(value)
    return found


def continuity(jumps: Continuity, vector: ParameterVector) -> dict[str, Any]:
    """The number of windows tied to the next one, and the scale of the jumps by state component, over all recordings."""
    model, parts = vector.mj, []
    for kind in ("position", "velocity"):
        for j in range(model.njnt):
            count = {0: 6, 1: 3}.get(int(model.jnt_type[j]), 1)
            name = model.joint(j).name or f"number {j}"
            parts += [f"{kind} of {name}" + (f"[{i}]" if count > 1 else "") for i in range(count)]
    parts += [f"activation[{i}]" for i in range(model.na)]
    assert jumps.scale is not None
    middle = np.exp(np.log(jumps.scale).mean(0))
    return {
        "setting": jumps.setting,
        "tied": int(jumps.tied.sum()),
        "scale": {name: float(s) for name, s in zip(parts, middle, strict=True)},
    }


def _is_none(name: str, value: float) -> bool:
    """Whether a number that cannot be negative, such as friction, is at zero."""
    kind, _, rest = name.partition("+")[0].partition("/")
    label = f"{kind}/{rest.rpartition('/')[2].partition('[')[0]}"
    return label in FAMILIES and FAMILIES[label].low == 0 and abs(value) <= 1e-300


def warnings(
    vector: ParameterVector,
    solution: Solution,
    spread: Uncertainty,
    evaluations: dict[str, Evaluation],
    left_open: dict[str, str],
    *,
    simulated: bool = True,
) -> list[str]:
    """Warnings that a user should read before using the result, each with a remedy.

    simulated: whether the pieces that were fitted are windows, whose length the user chose.
    """
    found, names = [], vector.coordinate_names
    if not solution.converged:
        found.append(
            f"The search did not converge: {solution.message}. Values and intervals are those of where it stopped."
        )
    held = [names[i] for i in np.flatnonzero(solution.active)]
    none = [name for name in held if _is_none(name, solution.z[names.index(name)])]
    if none:
        found.append(
            f"At a bound: {', '.join(none)}. Zero is the least there can be of it, and the data ask for less: leave it out, or "
            "look for an effect that the model lacks."
        )
    if len(held) > len(none):
        found.append(
            f"At a bound: {', '.join(n for n in held if n not in none)}. The bound, not the data, sets the value; widen it or "
            "fix the number."
        )
    found += [f"The data do not determine {text}: {advice}" for text, advice in left_open.items()]
    if spread.method == "likelihood":
        pieces = "windows" if simulated else "pieces of the recordings"
        cure = "Give a shorter --window or more data." if simulated else "Record more, or free less."
        found.append(
            f"Only {spread.blocks} {pieces} for {int((~solution.active).sum())} free numbers, and the jackknife needs "
            f"{BLOCKS_PER_COORDINATE} for each: intervals come from the noise scales alone, as if the model were exact and "
            f"noise white, and are probably too narrow. {cure}"
        )
    # Coordinates of a full inertia have no meaning of their own; its combinations are listed by name.
    plain = np.concatenate([np.full(p.size, p.factor is None) for p in vector.parameters])
    strong = np.argwhere(np.triu(np.abs(spread.correlation) * np.outer(plain, plain), 1) > _STRONG)
    for i, j in strong[:5]:
        found.append(
            f"{names[i]} and {names[j]} are correlated {spread.correlation[i, j]:+.3f}: hard to tell apart in this log."
        )
    for part, e in evaluations.items():
        if e.diverged:
            found.append(
                f"{e.diverged} of {e.windows} {part} windows diverged and count as a prediction that stands still."
            )
        if e.left_out:
            found.append(
                f"{e.left_out} of {e.left_out + e.windows} {part} windows begin where a joint was not measured, so their start "
                "state is unknown; they are left out of the prediction error."
            )
        if e.start == "estimated":
            found.append(
                f"The log does not show the whole state, so {part} windows start at states estimated from themselves."
            )
    if "hold_out" not in evaluations:
        found.append("No run was held out, so nothing here tells how the model does on motions it was not fitted to.")
    lost = [p.path for p in vector.parameters if any(s.field in ("sensor_bias", "sensor_scale") for s in p.slots)]
    if lost:
        found.append(
            f"MJCF has no place for the bias and scale of a sensor, so model.xml does not carry {', '.join(lost)}."
        )
    if vector.local:
        found.append(
            "Of numbers that every fitted recording has for itself, model.xml and held-out recordings have the mean; of "
            "numbers that only some have, the model's."
        )
    return found
