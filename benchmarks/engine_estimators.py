"""Basis of `engine = "auto"` with an estimator in the loop: what a training costs on C MuJoCo and on MJX.

    python benchmarks/engine_estimators.py [--only NAME ...] [--page]

For each ready study with an estimator: CPU seconds until the first iteration is done, compiled from nothing, and of an
iteration after it (the median of eight), each engine in a process of its own. From them follows the length of a training
from which MJX is ahead. Results go to results/engine_estimators.json after each study; `--page` writes the table into
docs/policies.md.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import begun, write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "engine_estimators.json", ROOT / "docs" / "policies.md"
NAMES, REPEATS = ("balance", "everything", "everything_arm"), 8


def measured(name: str, engine: str) -> dict[str, float]:
    """CPU seconds of the first iteration and of a later one. The process must be new."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from dso_robotics.robot.schedule import training_method
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy

    study = TrainStudy.read(ROOT / "examples" / "studies" / f"{name}.toml")
    task = build(dataclasses.replace(study, engine=engine))
    apart: Any = {"supervised": task.supervised} if task.supervised else {}
    method = training_method(task.chain, task.windows, explore=task.explore, **apart)
    state, ends = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial)), []
    for _ in range(1 + REPEATS):
        state = method.step(state)[0]
        jax.block_until_ready([leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)])
        ends.append(time.process_time())
    steps = task.windows.environments * task.windows.horizon
    return {"until the first": ends[0], "each": float(np.median(np.diff(ends))), "steps": steps}


def page(results: dict) -> str:
    """The table of the docs."""
    rows = [
        "| study | steps an iteration | C, until the first | C, each | MJX, until the first | MJX, each | MJX is ahead from |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results["studies"].items():
        c, mjx = row["mujoco"], row["mjx"]
        ahead = (mjx["until the first"] - c["until the first"]) / (c["each"] - mjx["each"]) * c["steps"]
        cells = [f"{one[key]:.3g} s" for one in (c, mjx) for key in ("until the first", "each")]
        rows.append(f"| {name} | {c['steps']:,} | {' | '.join(cells)} | {round(ahead, -3):,.0f} steps |")
    return "\n".join(rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", default=NAMES)
    arguments.add_argument("--page", action="store_true")
    arguments.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(measured(*given.one)))
        return
    if given.page:
        write_table(PAGE, "engine_estimators.py", page(json.loads(RESULTS.read_text())))
        return
    results = begun(RESULTS, {"studies": {}})
    results["versions"] = {p: importlib.metadata.version(p) for p in ("mujoco", "mujoco-mjx", "jax")}
    results["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in given.only:
        for engine in ("mujoco", "mjx"):
            with tempfile.TemporaryDirectory() as cache:
                words = [sys.executable, __file__, "--one", name, engine]
                env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
                out = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout
            results["studies"].setdefault(name, {})[engine] = json.loads(out.splitlines()[-1])
            print(name, engine, results["studies"][name][engine], flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
