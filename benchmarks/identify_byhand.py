"""No tool: one problem of `identify.py`, fitted by hand with scipy.optimize.least_squares and C MuJoCo.

This is what an engineer writes in an afternoon: set the model's fields, call mj_setConst, simulate all pieces,
subtract, divide by each channel's spread. The solver is a trust-region method scaled by the Jacobian; intervals are
from J'J. Late sensors are interpolated. With outliers a second fit has a robust loss, scaled by the first one's median
residual.

Run: python identify_byhand.py FOLDER OUT FIRST LAST SETTINGS.json
"""

import json
import pathlib
import sys
import time

import mujoco
import numpy as np
from mujoco import rollout
from scipy.optimize import least_squares

FIELDS = {
    "damping": "dof_damping", "frictionloss": "dof_frictionloss", "armature": "dof_armature", "stiffness": "jnt_stiffness",
    "mass": "body_mass", "ipos": "body_ipos", "gear": "actuator_gear", "friction": "geom_friction",
}  # fmt: skip


class Fit:
    """The residual of one log."""

    def __init__(self, folder: pathlib.Path, draw: int, free: list[dict], delay: bool):
        self.model = mujoco.MjModel.from_xml_path(str(folder / "model.xml"))
        self.data = [mujoco.MjData(self.model) for _ in range(2)]
        pieces = np.load(folder / f"draw{draw}.npz")
        count = sum(key.startswith("time") for key in pieces)
        longest = max(len(pieces[f"time{k}"]) for k in range(count))
        self.time, self.measured, ctrl, starts = [], [], [], []
        for k in range(count):
            c = pieces[f"ctrl{k}"]
            ctrl.append(np.concatenate([c, np.repeat(c[-1:], longest - len(c), 0)]))
            self.time.append(pieces[f"time{k}"])
            self.measured.append(pieces[f"sensor{k}"])
            starts.append(np.r_[0.0, pieces[f"qpos{k}"], pieces[f"qvel{k}"]])
        self.ctrl, self.starts = np.array(ctrl), np.array(starts)
        self.grid = np.arange(longest) * self.model.opt.timestep
        self.uniform = all(len(t) == longest and np.allclose(t, self.grid) for t in self.time)
        self.spread = np.concatenate(self.measured).std(0)
        self.spread[self.spread == 0] = 1.0
        self.free, self.delay = free, delay
        x0, low, high = [], [], []
        for f in free:
            if f["path"].endswith("/inertia"):
                body = log_cholesky(self.model, f["path"].split("/")[1])
                x0 += list(body)
                low += list(body - 2.0)
                high += list(body + 2.0)
            else:
                x0.append(f["init"])
                low.append(f["low"])
                high.append(f["high"])
        if delay:
            x0, low, high = [*x0, 0.0], [*low, 0.0], [*high, 0.05]
        self.x0, self.bounds = np.array(x0), (np.array(low), np.array(high))

    def apply(self, x: np.ndarray) -> None:
        """Write x into the model."""
        at, model = 0, self.model
        for f in self.free:
            kind, name, field = f["path"].split("/")
            if field == "inertia":
                set_inertia(model, name, x[at : at + 10])
                at += 10
                continue
            field, _, index = field.rstrip("]").partition("[")
            values = getattr(model, FIELDS[field])
            i = getattr(model, kind)(name).id
            if FIELDS[field].startswith("dof"):
                i = model.jnt_dofadr[i]
            if values.ndim > 1:
                values[i, int(index or 0)] = x[at]
            else:
                values[i] = x[at]
            at += 1
        mujoco.mj_setConst(model, self.data[0])

    def residual(self, x: np.ndarray) -> np.ndarray:
        """Predicted minus measured, in units of each channel's spread."""
        self.apply(x)
        _, sensors = rollout.rollout(self.model, self.data, self.starts, self.ctrl)
        parts = []
        for k, (t, y) in enumerate(zip(self.time, self.measured, strict=True)):
            if self.uniform and not self.delay:
                predicted = sensors[k]
            else:
                late = x[-1] if self.delay else 0.0
                predicted = np.stack([np.interp(t - late, self.grid, column) for column in sensors[k].T], 1)
            parts.append(((predicted - y) / self.spread).ravel())
        r = np.concatenate(parts)
        return np.where(np.isfinite(r), r, 1e3)


def log_cholesky(model: mujoco.MjModel, name: str) -> np.ndarray:
    """Ten free parameters of a body: the Cholesky factor of its pseudo-inertia, with the logarithm of its diagonal."""
    b = model.body(name).id
    mass, com, axes = model.body_mass[b], model.body_ipos[b], np.zeros(9)
    mujoco.mju_quat2Mat(axes, model.body_iquat[b])
    tensor = axes.reshape(3, 3) @ np.diag(model.body_inertia[b]) @ axes.reshape(3, 3).T
    second = np.trace(tensor) / 2 * np.eye(3) - tensor + mass * np.outer(com, com)
    factor = np.linalg.cholesky(np.block([[np.array([[mass]]), mass * com[None]], [mass * com[:, None], second]]))
    return np.r_[np.log(np.diag(factor)), factor[np.tril_indices(4, -1)]]


def set_inertia(model: mujoco.MjModel, name: str, x: np.ndarray) -> None:
    """The inverse of `log_cholesky`."""
    b, factor = model.body(name).id, np.diag(np.exp(x[:4]))
    factor[np.tril_indices(4, -1)] = x[4:]
    pseudo = factor @ factor.T
    mass = pseudo[0, 0]
    com = pseudo[0, 1:] / mass
    second = pseudo[1:, 1:] - mass * np.outer(com, com)
    moments, axes = np.linalg.eigh(np.trace(second) * np.eye(3) - second)
    axes[:, 0] *= np.sign(np.linalg.det(axes))
    model.body_mass[b], model.body_ipos[b], model.body_inertia[b] = mass, com, moments
    mujoco.mju_mat2Quat(model.body_iquat[b], axes.ravel())


def main(folder: pathlib.Path, out: pathlib.Path, first: int, last: int, settings: dict) -> None:
    """Fit every draw in turn."""
    out.mkdir(parents=True, exist_ok=True)
    free = json.loads((folder / "problem.json").read_text())["free"]
    results = []
    for draw in range(first, last):
        began = time.perf_counter()
        fit = Fit(folder, draw, free, "delay" in settings)
        found = least_squares(fit.residual, fit.x0, bounds=fit.bounds, x_scale="jac")
        if settings.get("robust"):
            scale = 1.4826 * float(np.median(np.abs(found.fun)))
            found = least_squares(
                fit.residual, found.x, bounds=fit.bounds, x_scale="jac", loss="soft_l1", f_scale=scale
            )
        seconds = time.perf_counter() - began
        variance = 2 * found.cost / max(len(found.fun) - len(found.x), 1)
        width = 1.96 * np.sqrt(np.maximum(variance * np.diag(np.linalg.pinv(found.jac.T @ found.jac)), 0))
        fit.apply(found.x)
        mujoco.mj_saveModel(fit.model, str(out / f"draw{draw}.mjb"))
        values, at = {}, 0
        for f in free:
            if f["path"].endswith("/inertia"):
                at += 10
                continue
            values[f["path"]] = [float(found.x[at]), float(found.x[at] - width[at]), float(found.x[at] + width[at])]
            at += 1
        if "delay" in settings:
            values["delay"] = [float(found.x[-1]), float(found.x[-1] - width[-1]), float(found.x[-1] + width[-1])]
        results.append({"draw": draw, "values": values, "seconds": seconds})
    (out / "result.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]), int(sys.argv[3]), int(sys.argv[4]), json.loads(sys.argv[5]))
