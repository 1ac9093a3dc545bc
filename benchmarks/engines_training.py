"""Basis of `engine = "auto"` of a training: what it costs on C MuJoCo and on MJX, by the size of the robot.

    python benchmarks/engines_training.py [--only NAME ...] [--page]

CPU seconds until the first iteration is done, compiled from nothing, CPU seconds of an iteration after it (the median of
eight), and the largest memory, each engine in a process of its own. From them follows the length of a training from which MJX
is ahead. The robots are those of ready studies, with and without an estimator, and Gymnasium's Walker2d, Ant and Humanoid
(RK4), which are read from its package. Results go to results/engines_training.json after each robot; what is there is not
measured again. `--page` writes the table into docs/policies.md.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import begun, write_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "engines_training.json", ROOT / "docs" / "policies.md"
READY = ("cartpole_swing_up", "hopper_run", "cheetah_run", "balance", "everything", "everything_arm")
GYMNASIUM = ("walker2d", "ant", "humanoid")
ENGINES, REPEATS = ("mujoco", "mjx"), 8
OUTSIDE = """
model = "{model}"
control_step = {step}
seconds = 5.0
[policy]
hidden = [64, 64]
[cost.run]
kind = "square"
quantity = "body/torso/vx"
target = 1.0
[training]
environments = 32
horizon = 16
"""


def study_of(name: str, folder: Path) -> Path:
    """The study file: a ready one, or one made for a robot of Gymnasium."""
    if name in READY:
        return ROOT / "examples" / "studies" / f"{name}.toml"
    import mujoco

    package = importlib.util.find_spec("gymnasium")
    assert package is not None
    assert package.origin is not None
    model = Path(package.origin).parent / "envs" / "mujoco" / "assets" / f"{name}.xml"
    step = 5 * mujoco.MjModel.from_xml_path(str(model)).opt.timestep
    path = folder / f"{name}.toml"
    path.write_text(OUTSIDE.format(model=model, step=step))
    return path


def measured(name: str, engine: str) -> dict[str, float]:
    """CPU seconds of the first iteration and of a later one, and the memory [MiB]. The process must be new."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from dso_robotics.robot.schedule import training_method
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy

    with tempfile.TemporaryDirectory() as folder:
        study = TrainStudy.read(study_of(name, Path(folder)))
    task = build(dataclasses.replace(study, engine=engine))
    apart: Any = {"supervised": task.supervised} if task.supervised else {}
    method = training_method(task.chain, task.windows, explore=task.explore, **apart)
    state, ends = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial)), []
    for _ in range(1 + REPEATS):
        state = method.step(state)[0]
        jax.block_until_ready([leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)])
        ends.append(time.process_time())
    return {
        "until the first": ends[0],
        "each": float(np.median(np.diff(ends))),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "steps": task.windows.environments * task.windows.horizon,
        "nv": int(task.chain.mj.nv),
        "estimator": task.chain.filter is not None,
    }


def page(results: dict) -> str:
    """The table of the docs."""
    rows = [
        "| training | nv | steps an iteration | C: until the first, each, memory | MJX: until the first, each, memory "
        "| MJX is ahead from |",
        "| --- | ---: | ---: | --- | --- | ---: |",
    ]
    for name, row in results["trainings"].items():
        c, mjx = row["mujoco"], row["mjx"]
        saved = c["each"] - mjx["each"]
        ahead = (mjx["until the first"] - c["until the first"]) / saved * c["steps"] if saved > 0 else np.inf
        cells = [f"{one['until the first']:.0f} s, {one['each']:.2f} s, {one['memory']:.0f} MiB" for one in (c, mjx)]
        told = f"{round(ahead, -3):,.0f} steps" if np.isfinite(ahead) else "never"
        with_one = ", an estimator" if c["estimator"] else ""
        rows.append(f"| {name}{with_one} | {c['nv']} | {c['steps']:,} | {' | '.join(cells)} | {told} |")
    return "\n".join(rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", default=(*READY, *GYMNASIUM))
    arguments.add_argument("--page", action="store_true")
    arguments.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(measured(*given.one)))
        return
    if given.page:
        write_table(PAGE, "engines_training.py", page(json.loads(RESULTS.read_text())))
        return
    results = begun(RESULTS, {"trainings": {}})
    names = ("mujoco", "mujoco-mjx", "jax", "gymnasium")
    results["versions"] = {name: importlib.metadata.version(name) for name in names}
    results["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in given.only:
        found = dict(results["trainings"].get(name, {}))
        for engine in ENGINES:
            if engine in found:
                continue
            with tempfile.TemporaryDirectory() as cache:
                words = [sys.executable, __file__, "--one", name, engine]
                env = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
                out = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
            found[engine] = json.loads(out.splitlines()[-1])
            print(name, engine, found[engine], flush=True)
        results["trainings"][name] = found
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
