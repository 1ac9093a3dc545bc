"""From a short log to a policy: trained on the posterior, on the point value, on ranges by hand, and on the true robot.

    python benchmarks/log_to_policy.py [--seeds 5] [--minutes 60]

Each seed draws a true robot (every free number within a factor of about 2 of the model's), records one short noisy log of it,
and identifies with `--posterior`. Four policies of the same size are trained for as many steps, and each is judged on the true
robot from 40 start states on C MuJoCo. Results go to results/log_to_policy.json after each training; what is there is not run
again. `--page` writes the tables into docs/posterior.md.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from provenance import begun, write_table

import dso_robotics as dso
from dso_robotics.data.excitation import excite
from dso_robotics.data.log import Log
from dso_robotics.data.record import Flaws, record
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "log_to_policy.json", HERE.parent / "docs" / "posterior.md"
WAYS = {
    "true": "true robot",
    "posterior": "posterior of the log",
    "point": "point value of the log",
    "hand": "point value, +-30% by hand",
}
STARTS, SPREAD, HAND = 40, 0.35, 0.3
POLE = """
<mujoco model="cartpole"><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="cart">
<joint name="slider" type="slide" axis="1 0 0" damping="0.5"/>
<geom type="box" size="0.1 0.1 0.1" mass="1" contype="0" conaffinity="0"/><body name="pole">
<joint name="hinge" axis="0 1 0" damping="0.01"/>
<geom type="capsule" fromto="0 0 0 0 0 0.6" size="0.02" mass="0.2" contype="0" conaffinity="0"/></body>
</body></worldbody><actuator><motor name="drive" joint="slider" gear="10" ctrlrange="-1 1"/></actuator>
<sensor><jointpos name="place" joint="slider"/><jointpos name="angle" joint="hinge"/></sensor></mujoco>"""
ARM = """
<mujoco model="arm"><option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/><worldbody><body name="upper">
<joint name="shoulder" axis="0 0 1" damping="0.2" armature="0.01"/>
<geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5" contype="0" conaffinity="0"/>
<body name="lower" pos="0.3 0 0"><joint name="elbow" axis="0 0 1" damping="0.1" armature="0.01"/>
<geom type="capsule" fromto="0 0 0 0.25 0 0" size="0.02" mass="0.3" contype="0" conaffinity="0"/>
<body name="load" pos="0.25 0 0"><geom type="sphere" size="0.03" mass="0.4" contype="0" conaffinity="0"/></body>
</body></body></worldbody>
<actuator><motor name="one" joint="shoulder" gear="4" ctrlrange="-1 1"/>
<motor name="two" joint="elbow" gear="2" ctrlrange="-1 1"/></actuator>
<sensor><jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/></sensor></mujoco>"""


@dataclasses.dataclass(frozen=True)
class Problem:
    """A robot, what of it is not known, how it is recorded, and its task.

    noise: of the recorded channels. seconds: of the log. push: controls of the log, as a share of their range.
    task: of `dso.train`. scale: (nq,) displacements that cost 1 a step. spread: half-width of the start positions [m, rad].
    """

    title: str
    model: str
    free: tuple[str, ...]
    noise: dict[str, float]
    seconds: float
    push: float
    task: dict[str, Any]
    scale: tuple[float, ...]
    spread: float


PROBLEMS = {
    "cartpole": Problem(
        "cart-pole: upright and in the middle",
        POLE,
        ("actuator/drive/gear[0]@2:40", "body/pole/mass@0.03:1", "joint/slider/damping@0:4"),
        {"place": 0.008, "angle": 0.016},
        0.8,
        0.6,
        {"control_step": 0.02, "policy": {"kind": "linear", "noise": 0.2}, "seconds": 3.0},
        (0.5, 0.2),
        0.2,
    ),
    "arm": Problem(
        "arm with a load: both joints to zero, with actions that are 40 ms late",
        ARM,
        ("actuator/one/gear[0]@1:16", "actuator/two/gear[0]@0.5:8", "body/load/mass@0.05:2", "joint/*/damping@0:1"),
        {"q1": 0.01, "q2": 0.01},
        0.6,
        0.5,
        {"control_step": 0.02, "policy": {"kind": "linear", "noise": 0.2, "delay": 0.04}, "seconds": 2.0},
        (0.3, 0.3),
        0.8,
    ),
}
TRAINING = {"environments": 64, "horizon": 25, "iterations": 200, "learning_rate": 0.02, "critic_rate": 0.01}


def costs(problem: Problem, model: mujoco.MjModel) -> dict[str, dict[str, Any]]:
    """The cost of the task: squares of the positions over their scales."""
    found: dict[str, dict[str, Any]] = {}
    for j, scale in enumerate(problem.scale):
        name = model.joint(j).name
        found[name] = {"kind": "square", "quantity": f"joint/{name}/position", "scale": scale}
    return found


def played(problem: Problem, model: mujoco.MjModel, policy: dso.Policy, seed: int = 0) -> np.ndarray:
    """Mean costs (STARTS,) of a control step in episodes of the policy on `model`."""
    rng, data, found = np.random.default_rng([seed, 11]), mujoco.MjData(model), []
    every = round(problem.task["control_step"] / model.opt.timestep)
    for _ in range(STARTS):
        mujoco.mj_resetData(model, data)
        data.qpos[:] = model.qpos0 + problem.spread * rng.uniform(-1, 1, model.nq)
        policy.reset()
        spent = []
        for _ in range(round(problem.task["seconds"] / problem.task["control_step"])):
            data.ctrl[:] = policy.act(data)
            for _ in range(every):
                mujoco.mj_step(model, data)
            spent.append(np.sum((data.qpos / problem.scale) ** 2))
        found.append(np.mean(spent))
    return np.array(found)


def known(problem: Problem, folder: Path, seed: int) -> tuple[mujoco.MjModel, dict[str, float], dso.Identification]:
    """The true robot, its free numbers, and what a short log of it tells."""
    file = folder / "model.xml"
    file.write_text(problem.model)
    robot = dso.load(file)
    vector = pack([parse(path) for path in problem.free], robot)
    rng = np.random.default_rng([seed, 3])
    factor = np.exp(np.clip(SPREAD * rng.standard_normal(vector.size), -0.7, 0.7))
    z = np.clip(vector.initial * factor, vector.low, vector.high)
    (folder / f"true-{seed}.xml").write_text(to_mjcf(robot, vector.written(z)))
    model = mujoco.MjModel.from_xml_path(str(folder / f"true-{seed}.xml"))
    times = model.opt.timestep * np.arange(round(problem.seconds / model.opt.timestep))
    low, high = problem.push * model.actuator_ctrlrange.T
    ctrl = excite("steps", rng, times, low, high, top=5.0)
    log = record(model, rng, [("00", ctrl)], flaws=Flaws(sensor_noise=problem.noise), spread_qpos=0.05)
    out = folder / f"log-{seed}"
    found = dso.identify(
        file,
        Log("", "", "", log.rollouts),
        free=list(problem.free),
        window=0.25,
        posterior=True,
        out=out,
        force=True,
        report=False,
    )
    return model, dict(zip(vector.coordinate_names, map(float, z), strict=True)), found


def trained(
    problem: Problem, way: str, model: mujoco.MjModel, found: dso.Identification, folder: Path, seed: int
) -> dso.Training:
    """The policy of one way."""
    base: Any = found.folder / "model.xml"
    randomise: dict[str, Any] | None = None
    if way == "true":
        base = folder / f"true-{seed}.xml"
    elif way == "posterior":
        randomise = {"from": str(found.folder)}
    elif way == "hand":
        randomise = {
            path: sorted(((1 - HAND) * row["value"], (1 + HAND) * row["value"]))
            for path, row in found.parameters.items()
        }
    given = {"cost": costs(problem, model), "start": {"spread": problem.spread}, "seed": seed, **problem.task}
    return dso.train(model=base, randomise=randomise, training=TRAINING, report=False, video=False, **given)


def main() -> None:
    """Run what is missing, within the minutes given."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--problem", choices=PROBLEMS, action="append")
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--page", action="store_true", help="only write the tables")
    args = options.parse_args()
    if args.page:
        write_table(PAGE, "log_to_policy.py", "\n".join(rows(json.loads(RESULTS.read_text()))))
        return
    kept, end = begun(RESULTS), time.time() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as folder:
        run(args, kept, end, Path(folder))
    write_table(PAGE, "log_to_policy.py", "\n".join(rows(kept)))


def run(args: argparse.Namespace, kept: dict[str, Any], end: float, folder: Path) -> None:
    """Run what is not kept yet, until the clock is at `end` [s]."""
    mujoco.set_mju_user_warning(lambda text: None)
    for seed in range(args.seeds):
        for name in args.problem or PROBLEMS:
            problem, ready = PROBLEMS[name], None
            for way in WAYS:
                key = f"{name}/{way}/{seed}"
                if key in kept or time.time() > end:
                    continue
                place = folder / name
                place.mkdir(exist_ok=True)
                ready = ready or known(problem, place, seed)
                model, true, found = ready
                began = time.process_time()
                made = trained(problem, way, model, found, place, seed)
                row: dict[str, Any] = {"costs": played(problem, model, made.policy).tolist()}
                row |= {"cpu_seconds": time.process_time() - began, "warnings": made.warnings}
                row["numbers"] = {path: [true[path], r["value"]] for path, r in found.parameters.items()}
                told = found.summary["posterior"]["parameters"]
                row["posterior"] = {path: [r["low95"], r["high95"]] for path, r in told.items()}
                kept[key] = row
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
                said = f"cost {np.mean(row['costs']):.3f} on average, {np.max(row['costs']):.3f} at worst"
                print(f"{key}: {said}, {row['cpu_seconds']:.0f} s", file=sys.stderr, flush=True)


def rows(kept: dict[str, Any]) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| task | trained on | robots | mean cost of a step | worst episode | worst robot's mean | best of three, robots |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, problem in PROBLEMS.items():
        seeds = sorted({int(key.split("/")[2]) for key in kept if key.startswith(f"{name}/")})
        seeds = [seed for seed in seeds if all(f"{name}/{way}/{seed}" in kept for way in WAYS)]
        if not seeds:
            continue
        costs = {way: np.array([kept[f"{name}/{way}/{seed}"]["costs"] for seed in seeds]) for way in WAYS}
        blind = [way for way in WAYS if way != "true"]
        winner = np.argmin([costs[way].mean(1) for way in blind], axis=0)
        for i, (way, label) in enumerate(WAYS.items()):
            c = costs[way]
            won = f"{np.sum(winner == blind.index(way))}" if way in blind else ""
            label = f"**{label}**" if way == "posterior" else label
            lines.append(
                f"| {problem.title if i == 0 else ''} | {label} | {len(seeds)} | {c.mean():.3f} | {c.max():.3f} "
                f"| {c.mean(1).max():.3f} | {won} |"
            )
    return lines


if __name__ == "__main__":
    main()
