"""Scores of an estimator: innovations over whole runs, coverage of its uncertainty, and errors of the state."""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from scipy.optimize import minimize

from dso_robotics.core.covariance import Z95
from dso_robotics.core.likelihood import Likelihood, likelihood
from dso_robotics.data.match import Channels
from dso_robotics.robot.corrector import EstimatorTheta, Scales
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.filter_data import FilterWindows

# Prior on the spread: a change of the scale by more than a factor exp(this) over the range of a feature is unlikely.
_PRIOR = 1.0


@dataclass(frozen=True, eq=False)
class Fit:
    """A filter run over whole rollouts.

    innovation: (B, U, ny) measurement minus prediction; NaN where missing or in the warm-up.
    predicted: (B, U, ny) predictions.
    features: (B, U, nf) features of the prediction.
    states: (B, U, nx) estimates.
    state_error: (B, U, 2 nv) estimate minus truth; NaN where unknown.
    covariance: covariance of the state errors.
    deviation: (B, U, 2 nv) that the estimator gives for its errors; None if it gives one number for all moments.
    """

    innovation: np.ndarray
    predicted: np.ndarray
    features: np.ndarray
    states: np.ndarray
    state_error: np.ndarray
    covariance: np.ndarray | None
    diverged: int
    deviation: np.ndarray | None = None


def judge(vector: EstimatorTheta, scales: Scales, given: FilterWindows, z: np.ndarray, warm_up: int) -> Fit:
    """Filter every rollout of `given` from its start to its end."""
    run = CFilter(vector, scales, given).run(z, given.start)
    space = Space(vector.physics.mj)
    counted = (np.arange(run.predicted.shape[1]) >= min(warm_up, run.predicted.shape[1] // 2))[None, :, None]
    good = np.asarray(np.isfinite(run.predicted).all((1, 2)))
    innovation = np.where(counted & good[:, None, None], given.measured[:, 1:] - run.predicted, np.nan)
    before = np.concatenate([given.start[:, None], run.states[:, :-1]], axis=1)
    # Features of the state before the update: those of the prediction differ by one interval only.
    features = space.features(np.nan_to_num(before), scales.centre, scales.state)
    off = state_error(vector.physics.mj, given, run.states, counted & good[:, None, None])
    rows = off[np.isfinite(off).all(-1)]
    covariance = rows.T @ rows / len(rows) if len(rows) else None
    return Fit(innovation, run.predicted, features, run.states, off, covariance, int((~good).sum()))


def state_error(model: mujoco.MjModel, given: FilterWindows, states: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Estimate minus truth (B, U, 2 nv) of `states` (B, U, nx), NaN where it is unknown or not `counted` (B, U, 1)."""
    space, truth = Space(model), given.truth[:, 1:]
    known = np.isfinite(truth).all(-1, keepdims=True) & counted
    full = np.concatenate([np.where(known, truth, states[..., : truth.shape[-1]]), states[..., truth.shape[-1] :]], -1)
    return np.where(known, space.difference(full, states)[..., : 2 * space.nv], np.nan)


def learn_spread(fit: Fit, sigma: np.ndarray, degrees: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Noise scale (ny,) and its change with the features (ny, nf): log scale = log sigma + spread @ features, by likelihood."""
    ny, nf = fit.innovation.shape[-1], fit.features.shape[-1]
    scale, spread = sigma.copy(), np.zeros((ny, nf))
    for c in range(ny):
        rows = np.isfinite(fit.innovation[..., c])
        if rows.sum() < 10 * (nf + 1):
            continue
        error, inputs = fit.innovation[..., c][rows], fit.features[rows]
        inputs = np.column_stack([np.ones(len(inputs)), inputs])
        noise = likelihood(None if degrees is None else float(degrees[c]))

        def cost(
            w: np.ndarray,
            error: np.ndarray = error,
            inputs: np.ndarray = inputs,
            c: int = c,
            noise: Likelihood = noise,
        ) -> Any:
            log_scale = np.log(sigma[c]) + inputs @ w
            white = error * np.exp(-log_scale)
            slope = noise.weight(white) * white**2
            prior = w[1:] / _PRIOR**2
            gradient = (inputs * (1 - slope)[:, None]).sum(0) + np.concatenate([[0.0], prior])
            return float(np.sum(noise.cost(white) + log_scale) + 0.5 * np.sum(w[1:] ** 2) / _PRIOR**2), gradient

        found = minimize(cost, np.zeros(nf + 1), jac=True, method="L-BFGS-B", bounds=[(-6, 6)] * (nf + 1))
        scale[c], spread[c] = sigma[c] * np.exp(found.x[0]), found.x[1:]
    return scale, spread


def table(channels: Channels, fit: Fit, std: np.ndarray) -> dict[str, Any]:
    """By channel: error of the one-step prediction, and the fraction of errors that the predicted scale (B, U, ny) covers."""
    found = {}
    for c, name in enumerate(channels.sensor_names):
        seen = np.isfinite(fit.innovation[..., c])
        error, scale = fit.innovation[..., c][seen], std[..., c][seen]
        rmse = float(np.sqrt(np.mean(error**2))) if seen.any() else float("nan")
        found[name] = {
            "rmse": rmse,
            "unit": channels.sensor_units[c],
            "covered_percent": float(100 * np.mean(np.abs(error) <= Z95 * scale)) if seen.any() else float("nan"),
            "normalised_square": float(np.mean((error / scale) ** 2)) if seen.any() else float("nan"),
        }
    return found


def state_table(fit: Fit) -> dict[str, Any] | None:
    """Root-mean-square error of the state in its tangent space, or None if the log does not hold the state."""
    known = np.isfinite(fit.state_error).all(-1)
    if not known.any():
        return None
    return {
        "rmse": [float(e) for e in np.sqrt(np.mean(fit.state_error[known] ** 2, axis=0))],
        "samples": int(known.sum()),
    }


def traces(model: mujoco.MjModel, fit: Fit, given: FilterWindows, std: np.ndarray) -> dict[str, Any]:
    """The data for figures and films, by rollout. std: predicted deviations of the readings, (B, U, ny).

    States and the true ones, NaN where they are unknown, are in the tangent space at qpos0.
    """
    found, space = {}, Space(model)
    states = space.from_pose(model.qpos0, fit.states)[..., : 2 * space.nv]
    recorded = np.concatenate([given.truth[:, 1:], fit.states[..., given.truth.shape[-1] :]], axis=-1)
    known = np.isfinite(given.truth[:, 1:]).all(-1, keepdims=True)
    truth = space.from_pose(model.qpos0, np.where(known, recorded, fit.states))[..., : 2 * space.nv]
    truth = np.where(known, truth, np.nan)
    for b, i in enumerate(given.rollout):
        rollout = given.rollouts[int(i)]
        first = int(given.first[b])
        n = min(len(rollout.time) - 1 - first, fit.predicted.shape[1])
        found[rollout.name] = {
            "time": rollout.time[first + 1 : first + n + 1],
            "measured": given.measured[b, 1 : n + 1],
            "predicted": fit.predicted[b, :n],
            "std": std[b, :n],
            "state": states[b, :n],
            "truth": truth[b, :n],
            "state_error": fit.state_error[b, :n],
        }
        if fit.deviation is not None:
            found[rollout.name]["state_std"] = fit.deviation[b, :n]
    return found
