"""Designed excitation beside multisines, random steps and a condition-number design, at equal time and equal limits.

    python benchmarks/excite.py [--seeds 10] [--problem arm|servo|puck] [--minutes 60]

Each recording is made by a robot whose numbers differ from the model that the plans were made with (a factor of about 20%), and
is identified by `dso.identify` from the model's numbers. Results go to results/excite.json after each recording; what is there
is not run again. `--page` writes the table into docs/excite.md.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import mujoco
import numpy as np
from provenance import begun

import dso_robotics as dso
from dso_robotics.core.descent import descend
from dso_robotics.core.method.evolution import Evolution
from dso_robotics.data.excitation import excite as random_signal
from dso_robotics.data.log import Log
from dso_robotics.data.record import Flaws, record
from dso_robotics.physics.model import set_model_field
from dso_robotics.studies.excite import Setting, excite, prepare
from dso_robotics.studies.excite_study import ExciteStudy

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "excite.json", HERE.parent / "docs" / "excite.md"
SERVO = """
<mujoco model="servo_arm"><option timestep="0.004" integrator="implicitfast"><flag contact="disable"/></option>
<default><geom mass="0" rgba="0.3 0.5 0.7 1"/></default>
<worldbody><light pos="0 -2 1" dir="0 1 -0.5"/>
<body name="upper"><joint name="shoulder" axis="0 -1 0" damping="0.6" frictionloss="0.3" armature="0.03"
 range="-115 115"/>
<inertial pos="0 0 -0.15" mass="0.8" diaginertia="0.006 0.006 0.0006"/>
<geom type="capsule" size="0.02" fromto="0 0 0 0 0 -0.3"/>
<body name="lower" pos="0 0 -0.3"><joint name="elbow" axis="0 -1 0" damping="0.3" frictionloss="0.15" armature="0.02"
 range="-115 115"/>
<inertial pos="0 0 -0.12" mass="0.5" diaginertia="0.003 0.003 0.0003"/>
<geom type="capsule" size="0.015" fromto="0 0 0 0 0 -0.25"/>
</body></body></worldbody>
<actuator><position name="shoulder_ref" joint="shoulder" kp="25" kv="0.5" ctrlrange="-2 2" forcerange="-9 9"/>
<position name="elbow_ref" joint="elbow" kp="15" kv="0.3" ctrlrange="-2 2" forcerange="-5 5"/></actuator>
<sensor><jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/></sensor></mujoco>"""
PUCK = """
<mujoco model="puck"><option timestep="0.004" integrator="implicitfast" cone="elliptic"/>
<worldbody><light pos="0 -2 2" dir="0 1 -1"/>
<geom name="floor" type="plane" size="3 3 0.1" friction="0.1 0.005 0.0001" rgba="0.8 0.8 0.8 1"/>
<body name="puck" pos="0 0 0.05"><freejoint name="base"/>
<inertial pos="0.03 0 0" mass="1.5" diaginertia="0.006 0.009 0.012"/>
<geom name="sole" type="box" size="0.15 0.1 0.05" friction="0.3 0.02 0.0001" condim="4" mass="0" rgba="0.3 0.5 0.7 1"/>
<site name="middle"/></body></worldbody>
<actuator><motor name="fx" site="middle" gear="1 0 0 0 0 0" ctrlrange="-12 12"/>
<motor name="fy" site="middle" gear="0 1 0 0 0 0" ctrlrange="-12 12"/>
<motor name="tz" site="middle" gear="0 0 0 0 0 1" ctrlrange="-1.2 1.2"/></actuator>
<sensor><framepos name="place" objtype="body" objname="puck"/><framequat name="turn" objtype="body" objname="puck"/>
<gyro name="gyro" site="middle"/></sensor></mujoco>"""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A robot, what is free, and what it may do."""

    title: str
    model: str
    free: tuple[str, ...]
    noise: dict[str, float]
    study: dict
    linear: tuple[str, ...]  # numbers of the regressor of the condition-number design


PROBLEMS = {
    "arm": Problem(
        "two-joint arm, torques",
        str(HERE.parent / "models" / "two_joint_arm.xml"),
        (
            "joint/*/damping=0.02@0:1",
            "joint/*/frictionloss",
            "joint/elbow/armature",
            "body/*/mass",
            "body/lower/ipos[2]",
        ),
        {"*_pos": 0.002, "*_vel": 0.03},
        {"amplitude": {"*": 2.0}, "speed": {"*": 12.0}, "position": {"*": (-3.0, 3.0)}},
        (),
    ),
    "servo": Problem(
        "two-joint arm, position servos",
        SERVO,
        ("joint/*/damping", "joint/*/frictionloss", "joint/*/armature", "body/*/mass", "body/lower/ipos[2]"),
        {"*": 0.001},
        {"speed": {"*": 6.0}, "rate": {"*": 12.0}},
        (),
    ),
    "puck": Problem(
        "free body that slides on a floor",
        PUCK,
        (
            "geom/sole/friction[0]",
            "geom/sole/friction[1]",
            "body/puck/mass",
            "body/puck/ipos[0]",
            "body/puck/diaginertia[2]",
        ),
        {"place": 0.001, "turn": 0.001, "gyro": 0.01},
        {"speed": {"base": 4.0}, "touch": ("sole:floor",), "trials": 120},
        (),
    ),
}
SECONDS, TRIALS, DESIGNS = 5.0, 600, 1
METHODS = ("dso", "condition number", "multisine", "steps")


def study(problem: Problem, folder: Path, seed: int) -> ExciteStudy:
    """The study of a plan."""
    model = problem.model
    if model.lstrip().startswith("<"):
        model = str(folder / f"{problem.title.split(',')[0].replace(' ', '_')}_{seed}.xml")
        Path(model).write_text(problem.model)
    given = {"free": list(problem.free), "noise": problem.noise, "seconds": SECONDS, "trials": TRIALS, "seed": seed}
    given |= {"end": "any", "fade": 0.2, "still": 0.0}
    return ExciteStudy.read(None, model=model, draws=1, **given | problem.study)


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


def condition(setting: Setting, ctrl: np.ndarray, paths: np.ndarray) -> np.ndarray:
    """Logarithms (R,) of the condition number of the regressor of generalised forces, at 25 Hz, columns over their sizes."""
    vector, model = setting.vector, setting.there.mj
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
                if name in ("body_inertia_full",):
                    continue
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


def conditioned(setting: Setting, seed: int, budget: int) -> np.ndarray:
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


def truth(setting: Setting, seed: int) -> tuple[mujoco.MjModel, np.ndarray]:
    """A robot whose numbers are off by about 20%, and these numbers."""
    vector, rng = setting.vector, np.random.default_rng([seed, 3])
    z = setting.known.draws[0] * np.exp(np.clip(0.2 * rng.standard_normal(vector.size), -0.4, 0.4))
    z = np.clip(z, vector.low, vector.high)
    from dso_robotics.physics.export import to_mjcf

    return mujoco.MjModel.from_xml_string(to_mjcf(setting.robot, vector.written(z))), z


def judged(problem: Problem, setting: Setting, ctrl: np.ndarray, seed: int) -> dict:
    """What a recording of `ctrl` (T, nu) on the true robot tells."""
    model, z = truth(setting, seed)
    noise = dict(zip(setting.trials.channels, setting.trials.sigma, strict=True))
    log = record(model, np.random.default_rng([seed, 5]), [("00", ctrl)], flaws=Flaws(sensor_noise=noise))
    known = {name: float(s) for name, s in noise.items()}
    found = dso.identify(setting.robot.source, Log("", "", "", log.rollouts), free=list(problem.free), noise=known)
    true = dict(zip(setting.vector.coordinate_names, z, strict=True))
    widths, errors, covered = {}, {}, {}
    for name, row in found.parameters.items():
        size = abs(true[name])
        widths[name] = (row["high95"] - row["low95"]) / 2 / size
        errors[name] = abs(row["value"] - true[name]) / size
        covered[name] = bool(row["low95"] <= true[name] <= row["high95"])
    return {"width": widths, "error": errors, "covered": covered, "converged": found.converged}


def main() -> None:
    """Run what is missing, within the minutes given."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--problem", choices=PROBLEMS, action="append")
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--page", action="store_true", help="only write the table")
    args = options.parse_args()
    kept = begun(RESULTS)
    if args.page:
        write_page(kept)
        return
    end = time.time() + 60 * args.minutes
    folder = HERE / "results" / ".excite"
    folder.mkdir(exist_ok=True)
    mujoco.set_mju_user_warning(lambda text: None)
    for name in args.problem or PROBLEMS:
        problem = PROBLEMS[name]
        settings = {}
        for seed in range(args.seeds):
            for method in METHODS:
                key = f"{name}/{method}/{seed}"
                if key in kept or time.time() > end:
                    continue
                design = seed % DESIGNS
                if design not in settings:
                    settings[design] = prepare(study(problem, folder, design))
                setting, began = settings[design], time.time()
                place = folder / f"{name}-{method.replace(' ', '_')}-{design}.npy"
                if method in ("multisine", "steps"):
                    ctrl = random_controls(setting, method, seed)
                elif place.exists():
                    ctrl = np.load(place)
                else:
                    plan = excite(study(problem, folder, design)) if method == "dso" else None
                    ctrl = (
                        plan.runs[0].ctrl if plan else conditioned(setting, design, problem.study.get("trials", TRIALS))
                    )
                    np.save(place, ctrl)
                spent = time.time() - began
                try:
                    kept[key] = judged(problem, setting, ctrl, seed) | {"design_seconds": spent}
                except dso.DsoError as error:
                    kept[key] = {"failed": str(error)}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
                widths = kept[key].get("width", {})
                typical = np.exp(np.mean(np.log(list(widths.values())))) if widths else np.nan
                print(
                    f"{key}: typical half-width {100 * typical:.3g}%, {time.time() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    write_page(kept)


def rows(kept: dict) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| robot (numbers) | excitation | runs | typical half-width | widest | typical error | worst error | in interval |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, problem in PROBLEMS.items():
        for method in METHODS:
            mine = [v for k, v in kept.items() if k.startswith(f"{name}/{method}/") and "width" in v]
            if not mine:
                continue
            widths, errors = (np.array([list(v[what].values()) for v in mine]) for what in ("width", "error"))
            inside = np.mean([list(v["covered"].values()) for v in mine])
            typical, widest = np.exp(np.log(np.maximum(widths, 1e-12)).mean(1)), widths.max(1)
            typical_error, worst = np.sqrt((errors**2).mean(1)), errors.max(1)
            cells = [100 * np.median(v) for v in (typical, widest, typical_error, worst)]
            title = f"{problem.title} ({widths.shape[1]})" if method == METHODS[0] else ""
            label = "**dso excite**" if method == "dso" else method
            lines.append(
                f"| {title} | {label} | {len(mine)} | "
                + " | ".join(f"{c:.3g}%" for c in cells)
                + f" | {100 * inside:.0f}% |"
            )
    return lines


def write_page(kept: dict) -> None:
    """Put the table between the marks of docs/excite.md."""
    if not PAGE.exists():
        print("\n".join(rows(kept)))
        return
    head, _, rest = PAGE.read_text().partition("<!-- measured: benchmarks/excite.py -->")
    _, _, tail = rest.partition("<!-- end -->")
    table = "\n".join(rows(kept))
    PAGE.write_text(f"{head}<!-- measured: benchmarks/excite.py -->\n\n{table}\n\n<!-- end -->{tail}")


if __name__ == "__main__":
    main()
