"""Designed excitation beside multisines, random steps, and condition-number designs, at equal time and equal limits.

    python benchmarks/excite.py [--seeds 10] [--problem arm|servo|seven|ball|puck] [--minutes 60] [--figaroh PYTHON]

Each recording is made by a robot whose numbers differ from the model that the plans were made with (a factor of about 20%), and
is identified by `dso.identify` from the model's numbers. Results go to results/excite.json after each recording; what is there
is not run again. `--figaroh .venv-figaroh/bin/python` (`make bench-figaroh`) adds plans of figaroh. `--page` writes the table
into docs/excite.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import mujoco
import numpy as np
from excite_base import BaseNumbers
from excite_designs import by_figaroh, conditioned, followed, random_controls
from excite_problems import PROBLEMS, study
from provenance import begun, write_table

import dso_robotics as dso
from dso_robotics.core.covariance import Z95
from dso_robotics.data.log import Log
from dso_robotics.data.record import Flaws, record
from dso_robotics.physics.export import to_mjcf
from dso_robotics.studies.excite import Setting, excite, prepare

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "excite.json", HERE.parent / "docs" / "excite.md"
METHODS = ("dso", "condition number", "figaroh", "multisine", "steps")


def truth(setting: Setting, seed: int) -> tuple[mujoco.MjModel, np.ndarray]:
    """A robot whose numbers are off by about 20%, and these numbers."""
    vector, rng = setting.vector, np.random.default_rng([seed, 3])
    normal = rng.standard_normal(vector.size)
    z = setting.known.draws[0] * np.exp(np.clip(0.2 * normal, -0.4, 0.4))
    for p, here in vector.places():
        if p.factor is not None:
            # Coordinates of a full inertia: a tenth of one is 20% of the mass, or of the radii, or a turn of their axes.
            z[here] = 0.1 * normal[here]
    z = np.clip(z, vector.low, vector.high)
    return mujoco.MjModel.from_xml_string(to_mjcf(setting.robot, vector.written(z))), z


def judged(name: str, setting: Setting, ctrl: np.ndarray, seed: int, qpos: np.ndarray | None = None) -> dict:
    """What a recording of `ctrl` (T, nu) on the true robot, from rest at `qpos` (nq,) or the start of the plans, tells."""
    problem, (model, z) = PROBLEMS[name], truth(setting, seed)
    noise = dict(zip(setting.trials.channels, setting.trials.sigma, strict=True))
    log = record(model, np.random.default_rng([seed, 5]), [("00", ctrl)], flaws=Flaws(sensor_noise=noise), qpos=qpos)
    known, began = {name: float(s) for name, s in noise.items()}, time.process_time()
    found = dso.identify(setting.robot.source, Log("", "", "", log.rollouts), free=list(problem.free), noise=known)
    told = {"converged": found.converged, "doubts": len(found.summary.get("doubts", ()))}
    told["identify_cpu_seconds"] = time.process_time() - began
    if any(p.factor is not None for p in setting.vector.parameters):
        return told | by_bases(found, z)
    true = dict(zip(setting.vector.coordinate_names, z, strict=True))
    widths, errors, covered = {}, {}, {}
    for path, row in found.parameters.items():
        size = abs(true[path])
        widths[path] = (row["high95"] - row["low95"]) / 2 / size
        errors[path] = abs(row["value"] - true[path]) / size
        covered[path] = bool(row["low95"] <= true[path] <= row["high95"])
    return {"width": widths, "error": errors, "covered": covered} | told


def by_bases(found: dso.Identification, z: np.ndarray) -> dict:
    """Half-widths and errors of base parameters, as shares of the usual size of the number that leads each."""
    run = found.run
    base = BaseNumbers(run.vector)
    spread, quantile = run.uncertainty, run.uncertainty.quantile
    half = (quantile or Z95) * base.spread(run.solution.z, spread.covariance)
    error = np.abs(base.values(run.solution.z) - base.values(z))
    size = base.size[base.lead]
    names = [str(k) for k in base.lead]
    return {
        "width": dict(zip(names, half / size, strict=True)),
        "error": dict(zip(names, error / size, strict=True)),
        "covered": dict(zip(names, (error <= half).tolist(), strict=True)),
    }


def controls(
    method: str, name: str, setting: Setting, folder: Path, seed: int, python: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The controls (T, nu) of a method and where the robot starts; plans are made once and kept in `folder`."""
    if method in ("multisine", "steps"):
        return random_controls(setting, method, seed), None
    if method == "figaroh":
        plan = by_figaroh(name, setting, folder, python)
        return followed(name, setting, plan, truth(setting, seed)[0]), plan["qpos"][0]
    place = folder / f"{name}-{method.replace(' ', '_')}.npy"
    if not place.exists():
        made = (
            excite(study(name, folder)).runs[0].ctrl if method == "dso" else conditioned(setting, PROBLEMS[name].trials)
        )
        np.save(place, made)
    return np.load(place), None


def main() -> None:
    """Run what is missing, within the minutes given."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--problem", choices=PROBLEMS, action="append")
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--figaroh", default="", help="the Python of an environment with figaroh")
    options.add_argument("--page", action="store_true", help="only write the table")
    args = options.parse_args()
    if args.page:
        write_table(PAGE, "excite.py", "\n".join(rows(json.loads(RESULTS.read_text()))))
        return
    kept, end = begun(RESULTS), time.time() + 60 * args.minutes
    folder = HERE / "results" / ".excite"
    folder.mkdir(exist_ok=True)
    mujoco.set_mju_user_warning(lambda text: None)
    for name in args.problem or PROBLEMS:
        setting = None
        for seed in range(args.seeds):
            for method in METHODS:
                key = f"{name}/{method}/{seed}"
                skip = method == "figaroh" and not (args.figaroh and PROBLEMS[name].follows)
                if key in kept or skip or time.time() > end:
                    continue
                setting = setting or prepare(study(name, folder))
                began = time.process_time()
                try:
                    ctrl, qpos = controls(method, name, setting, folder, seed, args.figaroh)
                    spent = time.process_time() - began
                    kept[key] = judged(name, setting, ctrl, seed, qpos) | {"design_cpu_seconds": spent}
                except (dso.DsoError, RuntimeError) as error:
                    kept[key] = {"failed": str(error)}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
                widths = kept[key].get("width", {})
                typical = np.exp(np.mean(np.log(list(widths.values())))) if widths else np.nan
                spent = time.process_time() - began
                print(f"{key}: typical half-width {100 * typical:.3g}%, {spent:.0f} s", file=sys.stderr, flush=True)
    write_table(PAGE, "excite.py", "\n".join(rows(kept)))


def rows(kept: dict) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| robot (numbers) | excitation | runs | typical half-width | widest | typical error | worst error | in interval |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, problem in PROBLEMS.items():
        first = True
        for method in METHODS:
            mine = [v for k, v in kept.items() if k.startswith(f"{name}/{method}/") and "width" in v]
            if not mine:
                continue
            widths, errors = (np.array([list(v[what].values()) for v in mine]) for what in ("width", "error"))
            inside = np.mean([list(v["covered"].values()) for v in mine])
            typical, widest = np.exp(np.log(np.maximum(widths, 1e-12)).mean(1)), widths.max(1)
            typical_error, worst = np.sqrt((errors**2).mean(1)), errors.max(1)
            cells = [100 * np.median(v) for v in (typical, widest, typical_error, worst)]
            title, first = f"{problem.title} ({widths.shape[1]})" if first else "", False
            label = "**dso excite**" if method == "dso" else method
            lines.append(
                f"| {title} | {label} | {len(mine)} | "
                + " | ".join(f"{c:.3g}%" for c in cells)
                + f" | {100 * inside:.0f}% |"
            )
    return lines


if __name__ == "__main__":
    main()
