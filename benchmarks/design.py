"""The reaching arm, its mechanism designed together with the policy, against the same training with the mechanism as it is.

Run: python benchmarks/design.py [--seeds 3]. Costs of an episode on C MuJoCo, on the exported model, at its own and at a
quarter of its time step; numbers go to benchmarks/results/design.json.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import tempfile
import time

HERE = pathlib.Path(__file__).parent
STUDY = HERE.parent / "examples" / "studies" / "reaching_arm.toml"
RESULTS = HERE / "results" / "design.json"
CACHE = tempfile.TemporaryDirectory()


def run(seed: int, joint: bool) -> dict:
    """One training, with or without the study's design numbers."""
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import read_train_study

    study = dataclasses.replace(read_train_study(STUDY), seed=seed)
    if not joint:
        study = dataclasses.replace(study, design={})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        summary = train(study, pathlib.Path(folder) / "out").summary
    return {
        "seed": seed,
        "cost": summary["cost"]["total"],
        "quarter_timestep": summary["cost"]["quarter_timestep"],
        "terms": summary["cost"]["terms"],
        "steps": summary["environment_steps"],
        "design": {name: row["value"] for name, row in summary["parameters"].items()},
        "compile": summary["seconds"]["compile"],
        "total": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    import mujoco

    machine = f"{os.cpu_count()} cores, python {platform.python_version()}, mujoco {mujoco.__version__}"
    results: dict = {"machine": machine, "fixed": [], "joint": []}
    for seed in range(args.seeds):
        for name in ("fixed", "joint"):
            found = run(seed, name == "joint")
            results[name].append(found)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(
                f"seed {seed}, {name}: cost {found['cost']:.2f}, at a quarter of the time step "
                f"{found['quarter_timestep']:.2f}, {found['total']:.0f} s ({found['compile']:.0f} s compiling)",
                flush=True,
            )


if __name__ == "__main__":
    main()
