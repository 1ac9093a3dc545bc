"""The excitations that benchmarks/excite.py compares with `dso excite`: random signals, condition numbers, figaroh."""

import dataclasses
import json
import subprocess
from pathlib import Path

import mujoco
import numpy as np
from excite_base import BaseNumbers
from excite_problems import PROBLEMS, SECONDS

from dso_robotics.core.descent import descend
from dso_robotics.core.method.evolution import Evolution
from dso_robotics.data.excitation import excite as random_signal
from dso_robotics.physics.model import set_model_field
from dso_robotics.robot.holding import tracking
from dso_robotics.studies.excite import Setting

HERE = Path(__file__).parent
MINUTES = 3.0  # for figaroh's plan of one robot


def random_controls(setting: Setting, kind: str, seed: int) -> np.ndarray:
    """Controls (T, nu) of `dso simulate --excite`, as large as the limits allow (but for rest at the end)."""
    trials = setting.trials
    rng, drive = np.random.default_rng([seed, 7]), trials.drive
    unit = random_signal(kind, rng, trials.time, -np.ones(len(drive.rest)), np.ones(len(drive.rest)), top=2.0)
    room = np.minimum(drive.high - drive.rest, drive.rest - drive.low)
    judge = dataclasses.replace(trials.limits, still=np.inf)
    gains = np.geomspace(1.0, 0.02, 24)
    ctrl = drive.rest + gains[:, None, None] * room * unit
    fastest = np.abs(np.diff(ctrl, axis=1)).max(1) / trials.interval if kind != "steps" else 0 * ctrl[:, 0]
    kept = (judge.judge(trials.motion(ctrl).path, ctrl, trials.interval).excess == 0) & (fastest <= trials.rate).all(1)
    return ctrl[np.argmax(kept)] if kept.any() else ctrl[-1]


def conditions_of_bases(setting: Setting, paths: np.ndarray) -> np.ndarray:
    """The same as `condition` (R,) for full inertias: of the regressor of base parameters, columns over their sizes."""
    model, base = setting.there.mj, BaseNumbers(setting.vector)
    every, found = max(int(0.04 / setting.trials.interval), 1), []
    for path in paths:
        qvel = path[:, model.nq : model.nq + model.nv]
        qacc = np.gradient(qvel, setting.trials.interval, axis=0)
        at = slice(None, None, every)
        rows = base.rows(model, path[at, : model.nq], qvel[at], qacc[at])
        singular = np.linalg.svd(rows[:, base.lead] * base.size[base.lead], compute_uv=False)
        found.append(np.log(singular[0] / max(singular[-1], 1e-9 * singular[0])))
    return np.array(found)


def condition(setting: Setting, ctrl: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Logarithms (R,) of the condition number of the regressor of generalised forces, at 25 Hz, columns over their sizes."""
    vector, model = setting.vector, setting.there.mj
    if any(p.factor is not None for p in vector.parameters):
        return conditions_of_bases(setting, paths)
    z, found = setting.known.draws[0], []
    every = max(int(0.04 / setting.trials.interval), 1)
    steps = 1e-4 * vector.scale
    models = []
    for k in range(len(z)):
        pair = []
        for sign in (-1, 1):
            at = z.copy()
            at[k] += sign * steps[k]
            changed = mujoco.MjModel.__copy__(model)
            for name, value in vector.fields(at).items():
                set_model_field(changed, name, value)
            mujoco.mj_setConst(changed, mujoco.MjData(changed))
            pair.append((changed, mujoco.MjData(changed)))
        models.append(pair)
    for r in range(len(ctrl)):
        qacc = np.gradient(paths[r, :, model.nq : model.nq + model.nv], setting.trials.interval, axis=0)
        rows = []
        for t in range(0, len(paths[r]), every):
            columns = []
            for k, pair in enumerate(models):
                forces = []
                for changed, data in pair:
                    data.qpos[:], data.qvel[:] = paths[r, t, : model.nq], paths[r, t, model.nq : model.nq + model.nv]
                    data.ctrl[:] = ctrl[r, t]
                    mujoco.mj_fwdPosition(changed, data)
                    mujoco.mj_fwdVelocity(changed, data)
                    mujoco.mj_fwdActuation(changed, data)
                    data.qacc[:] = qacc[t]
                    mujoco.mj_inverse(changed, data)
                    forces.append(data.qfrc_inverse - data.qfrc_actuator)
                columns.append((forces[1] - forces[0]) / (2 * steps[k]) * vector.scale[k])
            rows.append(np.stack(columns, -1))
        singular = np.linalg.svd(np.concatenate(rows), compute_uv=False)
        found.append(np.log(singular[0] / max(singular[-1], 1e-9 * singular[0])))
    return np.array(found)


def conditioned(setting: Setting, budget: int, seed: int = 0) -> np.ndarray:
    """Controls (T, nu) of the best condition number, by `budget` trials of the same search in the same family."""
    trials = setting.trials

    def evaluate(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ctrl = trials.controls(numbers)
        excess, _, motions = trials.judged(ctrl)
        cost, good = np.full(len(numbers), np.inf), np.flatnonzero(excess == 0)
        if len(good):
            cost[good] = condition(setting, ctrl[good], motions[0].path[good])
        return cost, np.where(np.isinf(excess), 1e3, excess)

    rng = np.random.default_rng([seed, 1, 0])
    points = np.array([trials.waveform.draw(rng) for _ in range(16)])
    cost, excess = evaluate(points)
    for _ in range(4):
        bad = np.flatnonzero(excess > 0)
        if len(bad):
            points[bad] *= 0.5
            cost[bad], excess[bad] = evaluate(points[bad])
    start = points[np.lexsort((np.where(excess > 0, 0.0, cost), excess))[0]]
    method = Evolution(evaluate, trials.waveform.size, step=0.3 * float(np.sqrt(np.mean(start**2))), seed=seed)
    left = (budget - 40) // method.population
    return trials.controls(descend(method, method.init(None, start), iterations=left).theta[None])[0]


def by_figaroh(name: str, setting: Setting, folder: Path, python: str) -> dict[str, np.ndarray]:
    """figaroh's trajectory of the joints: "time" (T,), "qpos", "qvel", "qacc" (T, nv), "condition", and what it tried.

    Raises:
      RuntimeError: figaroh finds none.
    """
    out = folder / f"{name}-figaroh.npz"
    if not out.exists():
        model, allowed, problem = setting.there.mj, setting.trials.limits, PROBLEMS[name]
        torque = problem.study["amplitude"]["*"] if "amplitude" in problem.study else model.actuator_forcerange[:, 1]
        file, spec = folder / f"{name}.urdf", folder / f"{name}-figaroh.json"
        file.write_text(urdf(model, allowed.low, allowed.high, allowed.speed, np.broadcast_to(torque, model.nv)))
        joints = [model.joint(j).name for j in range(model.njnt)]
        rotor = any("armature" in path for path in problem.free)
        given = {"urdf": str(file), "joints": joints, "seconds": SECONDS, "friction": True, "rotor": rotor}
        spec.write_text(json.dumps(given | {"minutes": MINUTES, "share": 1.0 if problem.gains is None else 0.1}))
        made = subprocess.run([python, str(HERE / "excite_figaroh.py"), str(spec), str(out)], check=False)
        if made.returncode:
            raise RuntimeError("figaroh found no plan")
    return dict(np.load(out))


def followed(name: str, setting: Setting, plan: dict[str, np.ndarray], robot: mujoco.MjModel) -> np.ndarray:
    """Controls (T, nu) with which `robot` follows figaroh's trajectory, by the inverse dynamics of the model of the plan.

    Torques get those of a controller of position and speed besides, as on a real arm, and are what is recorded. References of
    servos are shifted so that the model of the plan would follow exactly. Controls are cut at their limits.
    """
    problem, drive, time = PROBLEMS[name], setting.trials.drive, setting.trials.time[:-1]
    qpos, qvel, qacc = (
        np.stack([np.interp(time, plan["time"], column) for column in plan[what].T], -1)
        for what in ("qpos", "qvel", "qacc")
    )
    ctrl = tracking(setting.there.mj, qpos, qvel, qacc)
    if problem.gains is None:
        return np.clip(ctrl, drive.low, drive.high)
    stiff, damp = problem.gains
    data = mujoco.MjData(robot)
    data.qpos[:] = qpos[0]
    for t in range(len(time)):
        feedback = stiff * (qpos[t] - data.qpos) + damp * (qvel[t] - data.qvel)
        ctrl[t] = np.clip(ctrl[t] + feedback, drive.low, drive.high)
        data.ctrl[:] = ctrl[t]
        mujoco.mj_step(robot, data)
    return ctrl


def urdf(model: mujoco.MjModel, low: np.ndarray, high: np.ndarray, speed: np.ndarray, effort: np.ndarray) -> str:
    """A URDF of a chain of hinges with the masses of `model`, and limits (njnt,) of the joints."""

    def row(values: np.ndarray) -> str:
        return " ".join(f"{v:.12g}" for v in values)

    def rpy(quat: np.ndarray) -> str:
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, quat)
        turn = turn.reshape(3, 3)
        pitch = np.arctan2(-turn[2, 0], np.hypot(turn[0, 0], turn[1, 0]))
        return row(np.array([np.arctan2(turn[2, 1], turn[2, 2]), pitch, np.arctan2(turn[1, 0], turn[0, 0])]))

    parts = ['<robot name="robot"><link name="world_link"/>']
    for i in range(1, model.nbody):
        body, parent = model.body(i), int(model.body_parentid[i])
        j = int(model.body_jntadr[i])
        inertia = dict(zip(("ixx", "iyy", "izz"), model.body_inertia[i], strict=True)) | {"ixy": 0, "ixz": 0, "iyz": 0}
        parts.append(
            f'<link name="{body.name}"><inertial><origin xyz="{row(model.body_ipos[i])}" rpy="{rpy(model.body_iquat[i])}"/>'
            f'<mass value="{model.body_mass[i]:.12g}"/><inertia '
            + " ".join(f'{k}="{v:.12g}"' for k, v in inertia.items())
            + "/></inertial></link>"
        )
        above = "world_link" if parent == 0 else model.body(parent).name
        parts.append(
            f'<joint name="{model.joint(j).name}" type="revolute"><parent link="{above}"/><child link="{body.name}"/>'
            f'<origin xyz="{row(model.body_pos[i])}" rpy="{rpy(model.body_quat[i])}"/><axis xyz="{row(model.jnt_axis[j])}"/>'
            f'<limit lower="{low[j]:.12g}" upper="{high[j]:.12g}" velocity="{speed[j]:.12g}" effort="{effort[j]:.12g}"/>'
            "</joint>"
        )
    return "\n".join([*parts, "</robot>"])
