"""Regression on inverse dynamics: as a start of a search, as a fit of its own, and as the yardstick of any fit.

For logs that measure every joint and the controls. The force is nearly linear in masses, friction, stiffness and gears
(Atkeson, An and Hollerbach, 1986). Full inertias are sought in log-Cholesky coordinates, so they stay physically consistent.
Nothing is simulated, so poor start values do no harm.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.costs.torque import TorqueIdentification
from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import Windows, cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot import start
from dso_robotics.robot.controller import Drives
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.torque_balance import TorqueBalance, sampled
from dso_robotics.studies.misfit import own_noise

# Samples in the regression: at least so many, and so many for each free number. And in the yardstick.
_SAMPLES, _EACH, _JUDGED = 600, 12, 250
# Pieces whose scores tell how much the data scatter [s].
_BLOCK = 0.1
_ROUGH = Settings(iterations=40, noise_tolerance=0.05)
# A fit whose forces are this much worse than those of least squares is told of, if they are also that much worse than those of
# a motion of the fitted model itself.
_WORSE, _OWN = 1.1, 1.25
# A simulation that moves this many times as much as the robot says nothing of its forces.
_RUNS_AWAY = 1.5


def regress(vector: ParameterVector, windows: Windows, drives: Drives | None = None) -> np.ndarray:
    """Coordinates (n,) that explain the recorded accelerations best, within the bounds and with the priors.

    `drives` are the signals of controllers. The equation is linear in their gains.

    Raises:
      DsoError: a joint has no position sensor, or the robot has ball or free joints, activations or equality constraints.
    """
    return minimum(TorqueIdentification(_balance(vector, windows, drives, "--warm-start")), vector, _ROUGH).z


def fit(
    vector: ParameterVector, windows: Windows, drives: Drives | None, x: np.ndarray, motion: WindowedIdentification
) -> tuple[Solution, WindowedIdentification]:
    """The minimum by forces. `motion` gets the noise scales of its windows there, which start at the states `x`.

    Raises:
      DsoError: as for `regress`.
    """
    if vector.local:
        raise DsoError(
            "--fit torque: a number that differs between recordings cannot be fitted by forces; leave out log/."
        )
    balance = _balance(vector, windows, drives, "--fit torque")
    seconds = sum(rollout.time[-1] - rollout.time[0] for rollout in windows.rollouts)
    blocks = int(np.clip(seconds / _BLOCK, 1, len(balance.moments)))
    solution = minimum(TorqueIdentification(balance, blocks), vector)
    motion.reweight(solution.z, x)
    return dataclasses.replace(solution, x=x), motion


def minimum(problem: TorqueIdentification, vector: ParameterVector, settings: Settings | None = None) -> Solution:
    """The minimum within the bounds, from the start values."""
    none = np.zeros((problem.blocks, 0))
    box: Any = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    return solve(problem, vector.initial, none, settings=settings, **box)


def _balance(vector: ParameterVector, windows: Windows, drives: Drives | None, option: str) -> TorqueBalance:
    model = vector.mj
    if not _is_tree_of_scalars(model):
        raise DsoError(
            f"{option}: regression on inverse dynamics needs a robot of hinges and slides, without activations and equality "
            "constraints; leave it out."
        )
    most = max(_SAMPLES, _EACH * vector.size)
    moments, blind = sampled(windows.rollouts, windows.channels, vector, drives, most=most)
    if blind:
        raise DsoError(
            f"{option}: rollout {blind!r} does not show the controls and the position of every joint, which a regression on "
            "inverse dynamics needs; leave it out."
        )
    if len(moments) < min(10 * vector.size, most):
        raise DsoError(f"{option}: the recordings are too short to differentiate their positions twice; leave it out.")
    return TorqueBalance(vector, moments, _share(model, drives))


def _is_tree_of_scalars(model: mujoco.MjModel) -> bool:
    return model.nq == model.nv and not model.na and not model.neq


def _share(model: mujoco.MjModel, drives: Drives | None) -> np.ndarray:
    return np.zeros((0, model.nu)) if drives is None else drives.share


def judged(
    problem: WindowedIdentification,
    solution: Solution,
    parts: Mapping[str, Sequence[Rollout]],
    channels: Channels,
    drives: Drives | None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """`torque_errors` at the solution of a fit by motion, beside those of its own predictions."""
    error = problem.error(solution.z, solution.x)
    error = np.where(np.isfinite(problem.windows.measured), error, np.nan)
    noise = np.fmin(problem.pooled_sigma(), own_noise(error))
    return torque_errors(problem.vector, solution.z, parts, channels, drives, noise)


def torque_errors(
    vector: ParameterVector,
    z: np.ndarray,
    parts: Mapping[str, Sequence[Rollout]],
    channels: Channels,
    drives: Drives | None,
    noise: np.ndarray | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Root mean square error of each joint's force in "train" and "hold_out", and that of plain least squares.

    noise: standard deviations (C,) of the sensors. With them the table has as "own" the error that a motion of the model at z
      itself has, seen in the same way. A stiff servo turns noise of positions, and what is lost by smoothing them, into force;
      least squares lowers such an error by wrong numbers.

    Least squares fits the free numbers to the forces of "train" alone, without bounds, priors and physical consistency: the
    field's yardstick. It is None where the force is not linear in the numbers. The table is empty where the recordings do
    not show controls and all joints, and where contacts or delays take part in the forces.
    """
    model, found = vector.mj, {}
    late = max(vector.longest(f"{kind}_delay") for kind in ("actuator", "sensor"))
    if vector.local or late or not model.nu or not _is_tree_of_scalars(model):
        return {}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for part, rollouts in parts.items():
        moments, blind = sampled(rollouts, channels, vector, drives, most=_JUDGED)
        if blind or len(moments) < 2 * vector.size or _touches(vector, moments):
            return {}
        found[part] = TorqueBalance(vector, moments, _share(model, drives))
    best = None
    for part, balance in found.items():
        errors, applied, own = balance(z), balance.applied(z), None
        if noise is not None and drives is None:
            own = _of_its_own(balance, z, parts[part], channels, noise)
        least = None
        if balance.affine:
            force, matrix = balance.around(z)
            if best is None:
                scale = np.maximum(force.std(0), 1e-12)
                rows = (matrix / scale[:, None]).reshape(-1, matrix.shape[-1])
                best = np.linalg.lstsq(rows, -(force / scale).ravel(), rcond=1e-8)[0]
            least = _rms(force + matrix @ best, balance.known)
        table[part] = {
            model.joint(int(model.dof_jntid[dof])).name or f"joint {int(model.dof_jntid[dof])}": {
                "rmse": float(_rms(errors, balance.known)[dof]),
                "least_squares": None if least is None else float(least[dof]),
                "own": None if own is None else float(own[dof]),
                "spread": float(applied[:, dof].std()),
                "unit": "N" if model.jnt_type[model.dof_jntid[dof]] == int(mujoco.mjtJoint.mjJNT_SLIDE) else "N*m",
            }
            for dof in range(model.nv)
        }
    return table


def _rms(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.sqrt((errors**2).sum(0) / np.maximum(known.sum(0), 1))


def _of_its_own(
    balance: TorqueBalance, z: np.ndarray, rollouts: Sequence[Rollout], channels: Channels, noise: np.ndarray
) -> np.ndarray | None:
    """Error of the forces (nv,) at z of a simulation under the recorded controls, with noise (C,).

    None if it runs away, or if a recording is too long, or too short, to be simulated as a whole.
    """
    vector, rng, made = balance.vector, np.random.default_rng(0), []
    for rollout in rollouts:
        try:
            whole = cut([rollout], channels, timestep=float(vector.mj.opt.timestep), seconds=np.inf)
        except DsoError:
            return None
        begin = start.guess(whole, vector.mj, vector.signals(z))
        readings = CPrediction(vector, whole, threads=1).predict(z, begin)[0]
        measured = whole.measured[0]
        if not np.isfinite(readings).all() or np.any(readings.std(0) > _RUNS_AWAY * np.nanstd(measured, axis=0)):
            return None
        readings = readings + np.nan_to_num(noise) * rng.normal(size=readings.shape)
        made.append(
            dataclasses.replace(rollout, sensordata=readings, sensor_names=channels.sensor_names, qpos=None, qvel=None)
        )
    moments, blind = sampled(made, channels, vector, None, most=_JUDGED)
    if blind or not len(moments):
        return None
    other = TorqueBalance(vector, moments, balance.share)
    return _rms(other(z), other.known)


def _touches(vector: ParameterVector, moments: np.ndarray) -> bool:
    model, data = vector.mj, mujoco.MjData(vector.mj)
    for row in moments:
        data.qpos[:] = row[: model.nq]
        mujoco.mj_fwdPosition(model, data)
        if data.ncon:
            return True
    return False


def worse(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """A sentence if forces are clearly worse than those of least squares."""
    part = "hold_out" if table.get("hold_out") else "train"
    told = []
    for joint, row in table.get(part, {}).items():
        least = row["least_squares"]
        if least is None or row["rmse"] <= _OWN * (row.get("own") or 0.0):
            continue
        if row["rmse"] > _WORSE * least and row["rmse"] > 0.05 * row["spread"]:
            told.append(f"{joint} {row['rmse']:.3g} where least squares has {least:.3g} {row['unit']}")
    if not told:
        return []
    runs = "held-out" if part == "hold_out" else "fitted"
    return [
        f"The error of the forces by inverse dynamics on {runs} runs is larger than that of plain least squares: "
        f"{', '.join(told)}. The model lacks something that the simulated motion made up for; `--fit torque` fits the forces."
    ]
