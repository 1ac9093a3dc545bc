"""Does a network of thousands of weights predict held-out runs better than the best parameters? Two real mechanisms.

Run: python benchmarks/network.py   (about 8 minutes on two idle cores; results in benchmarks/results/network.json)
"""

import json
import pathlib
import platform
import sys
import tempfile

import jax
import mujoco
from provenance import command

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))
import demo
import free_swing

from dso_robotics.data.assets import asset
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.registry import fetch
from dso_robotics.parameters.path import parse
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

OUT = pathlib.Path(__file__).parent / "results" / "network.json"


def studies(folder: pathlib.Path) -> dict[str, IdentifyStudy]:
    """Fit both mechanisms with the free parameters, starts and hold-out of their examples."""
    arm = free_swing.ARMS["single"]
    logs = {"single": fetch("multiarm_single"), "double": fetch("dfki_double_pendulum_A0")}
    for name, log in logs.items():
        write_log(folder / f"{name}.h5", Log("", log.source, log.licence, log.rollouts))
    return {
        "free single arm, whole runs": IdentifyStudy(
            str(asset(arm["model"])), (str(folder / "single.h5"),), tuple(map(parse, arm["free"])),
            hold_out=arm["hold_out"], window=3.0, score_window=arm["seconds"],
            network={"joints": ["*"], "iterations": 60},
        ),
        "torque-driven two-joint arm, 0.5 s": IdentifyStudy(
            str(asset("models/two_joint_arm.xml")), (str(folder / "double.h5"),), tuple(map(parse, demo.FREE)),
            hold_out="03,05,11,13", window=0.8, score_window=0.5, network={"joints": ["*"], "iterations": 100},
        ),
    }  # fmt: skip


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    told = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, study in studies(pathlib.Path(folder)).items():
            summary = identify(study, pathlib.Path(folder) / "out", force=True).summary
            network = summary["network"]
            told[name] = {key: network[key] for key in ("weights", "inputs", "watched", "iterations", "text")}
            told[name] |= {
                "network": network["fit"],
                "parameters": summary["fit"],
                "seconds": summary["seconds"]["total"],
            }
            print(name, network["text"], sep="\n  ")
            for channel, score in network["fit"]["hold_out"].items():
                plain = summary["fit"]["hold_out"][channel]
                print(
                    f"  {channel:14s} parameters {plain['rmse']:.5f}  with network {score['rmse']:.5f} {score['unit']}"
                )
    told["versions"] = {"mujoco": mujoco.__version__, "jax": jax.__version__, "python": platform.python_version()}
    told["command"] = command()
    OUT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
