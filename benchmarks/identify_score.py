"""Error of a fitted model against the truth, computed in the same way for every tool of `identify.py`."""

import json
import pathlib
import re

import identify_problems as problems
import mujoco
import numpy as np
from mujoco import rollout

from dso_robotics.data.log import read_log
from dso_robotics.data.match import sensor_channels

_MECHANICS = ("body_mass", "body_ipos", "body_inertia", "body_iquat", "dof_damping", "dof_frictionloss", "dof_armature")
_MECHANICS += ("jnt_stiffness", "actuator_gear", "geom_friction")
_WINDOW = 250  # steps of 2 ms of the real arm's score, half of them shared with the next window


def load(path: pathlib.Path) -> mujoco.MjModel:
    """A model from MJCF or from MuJoCo's binary format."""
    return (
        mujoco.MjModel.from_xml_path(str(path)) if path.suffix == ".xml" else mujoco.MjModel.from_binary_path(str(path))
    )


def true_value(model: mujoco.MjModel, path: str) -> float:
    """The value of a plain path in the true model."""
    kind, name, field = path.split("/")
    field, _, index = field.rstrip("]").partition("[")
    i = getattr(model, kind)(name).id
    fields = {"mass": "body_mass", "ipos": "body_ipos", "gear": "actuator_gear", "friction": "geom_friction"}
    array = getattr(model, fields.get(field) or ("jnt_stiffness" if field == "stiffness" else f"dof_{field}"))
    return float(array[i, int(index or 0)] if array.ndim > 1 else array[i])


def torque_errors(truth: mujoco.MjModel, fitted: mujoco.MjModel) -> np.ndarray:
    """Relative error of the torque for a motion, by joint, over random states: the identifiable part of the inertias.

    Only combinations of the inertias of a fixed-base arm are identifiable: the ten numbers of each body may differ from the
    truth although every motion is the same.
    """
    rng, rows = np.random.default_rng(0), []
    a, b = mujoco.MjData(truth), mujoco.MjData(fitted)
    for _ in range(500):
        q, v, acc = rng.uniform(-np.pi, np.pi, truth.nq), 2 * rng.normal(size=truth.nv), 5 * rng.normal(size=truth.nv)
        for model, data in ((truth, a), (fitted, b)):
            data.qpos[:], data.qvel[:], data.qacc[:] = q, v, acc
            mujoco.mj_inverse(model, data)
        rows.append((a.qfrc_inverse.copy(), b.qfrc_inverse - a.qfrc_inverse))
    needed, off = np.array(rows).transpose(1, 0, 2)
    return np.sqrt((off**2).mean(0) / (needed**2).mean(0))


def dynamics(model: mujoco.MjModel, fitted: mujoco.MjModel) -> mujoco.MjModel:
    """`model` with its sensors and the mechanics of `fitted`, so that sensor delays of `fitted` have no effect."""
    for name in _MECHANICS:
        getattr(model, name)[:] = getattr(fitted, name)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def free_running(problem: problems.Problem, fitted: mujoco.MjModel) -> float:
    """Error of an unfitted run, simulated from its true start: mean over channels of RMSE over spread, in percent."""
    fitted = dynamics(problems.truth_model(problem), fitted)
    qpos, qvel, ctrl, clean = problems.hold_out(problem)
    seen = np.array([channel.startswith(problem.scored) for channel in sensor_channels(fitted)])
    off = problems.simulate(fitted, qpos, qvel, ctrl) - clean
    return float(100 * np.mean(np.sqrt((off[:, seen] ** 2).mean(0)) / clean[:, seen].std(0)))


def all_draws(name: str, data: pathlib.Path, out: pathlib.Path) -> dict:
    """Errors and coverage over the draws in `out`/result.json and `out`/draw*.mjb."""
    results = json.loads((out / "result.json").read_text())
    return _score(name, [(r["values"], out / f"draw{r['draw']}.mjb") for r in results], results)


def cli(name: str, data: pathlib.Path, out: pathlib.Path) -> dict:
    """The same for one result folder of `dso identify`."""
    table = json.loads((out / "summary.json").read_text())["parameters"]
    values = {path: [row["value"], row["low95"], row["high95"]] for path, row in table.items()}
    return _score(name, [(values, out / "model.xml")], [{}])


def _score(name: str, fits: list, results: list[dict]) -> dict:
    problem = next(p for p in problems.PROBLEMS if p.name == name)
    truth = problems.truth_model(problem)
    worst, middle, covered, ahead, late, widths = [], [], [], [], [], []
    for values, path in fits:
        fitted = load(path)
        ahead.append(free_running(problem, fitted))
        plain = {k: v for k, v in values.items() if re.match(r"(joint|body|geom|actuator)/", k) and "/inertia" not in k}
        delays = [v[0] for k, v in values.items() if k.endswith("delay")]
        if delays and problem.delay:
            late.append(max(abs(v - problem.delay) for v in delays) * 1e3)
        if any("/inertia" in text for text in problem.free):
            errors = torque_errors(truth, fitted)
        else:
            true = np.array([true_value(truth, k) for k in plain])
            found = np.array(list(plain.values()))
            errors = np.abs(found[:, 0] / true - 1)
            covered.append((found[:, 1] <= true) & (true <= found[:, 2]))
            widths.append((found[:, 2] - found[:, 1]) / true)
        worst.append(float(errors.max()))
        middle.append(float(np.median(errors)))
    row = {
        "draws": len(fits), "error at most": float(np.median(worst)), "error median": float(np.median(middle)),
        "worst draw": float(max(worst)), "hold-out percent": float(np.median(ahead)),
    }  # fmt: skip
    if late:
        row["delay off ms"] = float(np.median(late))
    if len(fits) >= 20:
        row["coverage"] = float(np.mean(covered))
        row["coverage by parameter"] = [float(v) for v in np.mean(covered, 0)]
        row["interval width"] = float(np.median(widths))
    if "seconds" in results[0]:
        row["seconds a fit"] = float(np.median([r["seconds"] for r in results]))
    return row


def real(data: pathlib.Path, path: pathlib.Path) -> dict:
    """Shoulder and elbow [rad] on the unfitted runs: mean of the RMSE over half-overlapping 0.5 s windows."""
    model = load(path)
    dt, scores = model.opt.timestep, []
    for run in read_log(data / "draw0.h5").rollouts:
        if run.name not in problems.REAL_HOLD_OUT:
            continue
        t = run.time - run.time[0]
        grid = np.arange(0, t[-1], dt)
        columns = [run.sensor_names.index(n) for n in ("shoulder_pos", "elbow_pos", "shoulder_vel", "elbow_vel")]
        state = np.stack([np.interp(grid, t, run.sensordata[:, c]) for c in columns], 1)
        held = np.clip(np.searchsorted(t, grid, side="right") - 1, 0, len(t) - 1)
        torque = run.ctrl[held][:, [run.ctrl_names.index(n) for n in ("tau1", "tau2")]]
        for i in range(0, len(state) - _WINDOW, _WINDOW // 2):
            start = np.r_[0.0, state[i]]
            went, _ = rollout.rollout(model, mujoco.MjData(model), start, torque[None, i : i + _WINDOW - 1])
            off = went[0, :, 1:3] - state[i + 1 : i + _WINDOW, :2]
            scores.append(np.sqrt(np.mean(off**2, 0)))
    return {"hold-out rad": [float(v) for v in np.mean(scores, 0)], "windows": len(scores)}


def line(row: dict) -> str:
    """A result in one line for the terminal."""
    shown = {k: v for k, v in row.items() if k != "coverage by parameter"}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
