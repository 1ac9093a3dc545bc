"""Both engines on every example: the same study on C MuJoCo and through MJX, and the distance between the optima.

    python benchmarks/engines.py              # all, writes benchmarks/results/engines.json
    python benchmarks/engines.py --only demo

A difference is relative to the number's size, or to its standard deviation if that is larger (a damping of zero has no
relative error). `examples/servo.py` is left out: a user-defined friction law works on C MuJoCo only.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from mechanisms import demo, free_swing, torque_pendulum
from provenance import begun

import dso_robotics.studies.identify as identification
from dso_robotics.data.assets import asset
from dso_robotics.data.log import write_log
from dso_robotics.data.registry import fetch
from dso_robotics.parameters.path import parse
from dso_robotics.studies.study import IdentifyStudy

RESULTS = Path(__file__).parent / "results" / "engines.json"
ENGINES = ("mujoco", "mjx")


def arm(log: str, hold_out: str, out: Path, **settings: Any) -> dict:
    """The demo's study on the log `log`."""
    study = IdentifyStudy(
        model=str(asset("models/two_joint_arm.xml")),
        logs=(log,),
        free=tuple(map(parse, demo.FREE)),
        hold_out=hold_out,
        window=0.8,
        **settings,
    )
    return identification.identify(study, out).summary


def real_arm(folder: Path) -> dict:
    """As `make demo`."""
    write_log(folder / "arm.h5", fetch("dfki_double_pendulum_A0"))
    return arm(str(folder / "arm.h5"), "03,05,11,13", folder / "result", score_window=0.5)


EXAMPLES = {
    "demo, without a network": lambda f: arm(
        str(asset("datasets/synthetic/two_joint_arm.h5")), "04,05", f / "result", score_window=0.5
    ),
    "demo": real_arm,
    "torque_pendulum": lambda f: torque_pendulum.main(str(f / "result")),
    "free_swing single": lambda f: free_swing.main("single", str(f / "result")),
    "free_swing double": lambda f: free_swing.main("double", str(f / "result")),
}


def on_engine(engine: str, name: str) -> dict:
    """Summary of the example `name`, with the given engine instead of its own."""
    original = identification._identify

    def forced(study, *rest):
        return original(dataclasses.replace(study, engine=engine), *rest)

    identification._identify = forced
    try:
        with tempfile.TemporaryDirectory() as folder:
            return EXAMPLES[name](Path(folder))
    finally:
        identification._identify = original


def compare(name: str) -> dict:
    """The numbers of both summaries, the largest difference and the number it belongs to."""
    found = {engine: on_engine(engine, name) for engine in ENGINES}
    rows, worst = {}, ("", 0.0)
    for path, c in found["mujoco"]["parameters"].items():
        x = found["mjx"]["parameters"][path]
        deviation = (c["high95"] - c["low95"]) / (2 * 1.96)
        difference = abs(c["value"] - x["value"]) / max(abs(c["value"]), deviation)
        rows[path] = {"mujoco": c["value"], "mjx": x["value"], "deviation": deviation, "difference": difference}
        worst = max(worst, (path, difference), key=lambda pair: pair[1])
    seconds = {engine: found[engine]["seconds"] for engine in ENGINES}
    print(f"{name}: largest difference {worst[1]:.1e}, {worst[0]}; {seconds}", flush=True)
    return {
        "largest_difference": worst[1],
        "of": worst[0],
        "cost": {engine: found[engine]["cost"]["total"] for engine in ENGINES},
        "converged": {engine: found[engine]["message"] for engine in ENGINES},
        "seconds": seconds,
        "parameters": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=EXAMPLES, nargs="*", default=list(EXAMPLES))
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = begun(RESULTS, {"examples": {}})
    for name in asked.only:
        results["examples"][name] = compare(name)
        results["versions"] = {p: importlib.metadata.version(p) for p in ("mujoco", "mujoco-mjx", "jax", "numpy")}
        results["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(any(results["examples"][name]["largest_difference"] > 1e-4 for name in asked.only))


if __name__ == "__main__":
    main()
