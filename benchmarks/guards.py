"""Numbers that a refactoring must not change, compared with those in results/guards.json.

Run: python benchmarks/guards.py [--only NAME ...] [--write]

Each guard is a fit or a training with fixed seeds. The largest relative difference to the stored numbers is printed
with its tolerance. The exit status is 1 if a tolerance is exceeded. `--write` stores the new numbers instead. The demo
reads its recording from DSO_DATA or fetches it.
"""

import argparse
import json
import pathlib
import sys
import tempfile

import numpy as np
from provenance import begun

HERE = pathlib.Path(__file__).resolve().parent
KEPT = HERE / "results" / "guards.json"
# Of the problems of identify.py, those that a fit of seconds answers.
PROBLEMS = ("arm_noise", "wrong_start", "delay", "sliding", "spring_mass", "armature", "inertia20", "outliers")


def identify(name: str, folder: pathlib.Path) -> dict[str, float]:
    """The parameters that `dso identify` finds on the first draw of a problem of identify.py."""
    import identify as benchmark
    import identify_problems as problems

    from dso_robotics.cli import main

    problem = next(p for p in problems.PROBLEMS if p.name == name)
    problems.write(problem, folder)
    command = benchmark.worker(
        "dso", benchmark.tools(name)["dso"], folder, folder / "out", "", draws=(0, 1), report=False
    )
    assert main(command[3:]) == 0
    return _parameters(folder / "out")


def demo(folder: pathlib.Path) -> dict[str, float]:
    """The table of `make demo`."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import demo as example

    example.OUT = folder / "demo"
    assert example.demo() == 0
    pathlib.Path("two_joint_arm.h5").unlink(missing_ok=True)
    summary = json.loads((example.OUT / "summary.json").read_text())
    errors = {f"hold-out {name}": entry["rmse"] for name, entry in summary["fit"]["hold_out"].items()}
    return _parameters(example.OUT) | errors


def _parameters(folder: pathlib.Path) -> dict[str, float]:
    summary = json.loads((folder / "summary.json").read_text())
    low = {f"{name} low95": entry["low95"] for name, entry in summary["parameters"].items()}
    return {name: entry["value"] for name, entry in summary["parameters"].items()} | low


def lorenz(folder: pathlib.Path) -> dict[str, float]:
    """The second task of estimate_lorenz.py, 200 iterations: the learned numbers and the error in dB."""
    import estimate_lorenz as benchmark

    found = benchmark.rotation(np.random.default_rng(0), 200)
    blind = found["gain_and_sensor_from_measurements"]
    turned = {f"turn {axis}": degrees for axis, degrees in zip("xyz", blind["rotation_found_deg"], strict=True)}
    return {"supervised": found["mlp_supervised"]["test"], "blind": blind["test"], "ekf": found["ekf"]} | turned


def swing_up(folder: pathlib.Path) -> dict[str, float]:
    """Theta and the training cost after the first 20 iterations of the cart-pole swing-up, seed 0."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from dso_robotics.core.descent import descend
    from dso_robotics.robot.schedule import training_method
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy

    task = build(TrainStudy.read(HERE.parent / "examples" / "studies" / "cartpole_swing_up.toml"))
    method = training_method(task.chain, task.windows, explore=task.explore, supervised=task.supervised)
    first = method.init(jax.random.key(task.study.seed), jnp.asarray(task.chain.layout.initial))
    found = descend(method, first, iterations=20)
    return _training(np.asarray(found.state.theta), [record.cost for record in found.history])


def _training(theta: np.ndarray, costs: list[float]) -> dict[str, float]:
    shown = {f"theta[{i}]": float(theta[i]) for i in range(0, len(theta), max(len(theta) // 8, 1))}
    return {"cost": costs[-1], "|theta|": float(np.linalg.norm(theta)), **shown}


GUARDS = {f"identify {name}": (lambda folder, name=name: identify(name, folder)) for name in PROBLEMS} | {
    "demo": demo,
    "lorenz": lorenz,
    "swing-up": swing_up,
}
# Fits end where steps are small against the uncertainty, so a regrouped sum moves them by little of that.
TOLERANCES = {"swing-up": 1e-9, "lorenz": 1e-6}


def main() -> int:
    """Run the requested guards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(GUARDS), choices=list(GUARDS), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="keep what is found")
    args = parser.parse_args()
    kept = begun(KEPT)
    missed = []
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            found = GUARDS[name](pathlib.Path(folder))
        if args.write or name not in kept:
            kept[name] = found
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{name}: kept {len(found)} numbers", flush=True)
            continue
        tolerance = TOLERANCES.get(name, 1e-9)
        away = {key: abs(found[key] - value) / max(abs(value), 1e-12) for key, value in kept[name].items()}
        worst = max(away, key=lambda key: away[key])
        print(f"{name}: {away[worst]:.1e} at {worst} (tolerance {tolerance:.0e})", flush=True)
        if away[worst] > tolerance:
            missed.append(name)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
