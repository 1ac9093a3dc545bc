"""Tiny studies of each kind that devices can share: python -m tests.devices.work FOLDER KIND[,KIND] [OPTION ...]."""

import os
import sys
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.record import Flaws
from dso_robotics.data.record import record as simulate
from tests.pendulum import PENDULUM, record
from tests.studies.everything import CART as EVERYTHING
from tests.studies.train_robots import write

KINDS = {
    "train": [],
    "score": [],
    "mixed": [],
    "likelihood": [],
    "identify": ["--engine", "mjx", "--window", "0.1", "--starts", "2", "--no-report"],
    "estimate": ["--no-report"],
}
_TRAINED = ("train", "score", "mixed", "likelihood")
# Of the gear through the chain, of the policy by the score.
GEAR = """
[design.push]
kind = "gear"
of = "push"
low = 1.0
high = 4.0
"""
LIKELIHOOD = """
model = "robot.xml"
engine = "mjx"
seconds = 0.5
free = ["joint/x/damping=0.3@0:5", "sensor/place/noise"]
[sensors]
noise = { place = 0.05, speed = 0.02 }
[cost.recorded]
kind = "identification"
log = "cart.h5"
window = 0.2
[cost.bench]
kind = "calibration"
log = "cart.h5"
[training]
iterations = 4
"""


def inputs(folder: Path) -> None:
    """Write the models, logs and studies."""
    from dso_robotics.data.log import write_log

    (folder / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0, mass=1.0))
    write_log(folder / "pendulum.h5", record(0, runs=3, seconds=0.7))
    text = 'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nfree = ["joint/hinge/damping"]\nwindow = 0.2\n'
    (folder / "estimate.toml").write_text(f'{text}corrector = "gain"\nengine = "mjx"\niterations = 5\n')
    # The last theta, so that the steps are compared, not what three of them happened to gain.
    train = 'engine = "mjx"\n' + write(folder).read_text() + 'keep = "last"\n'
    (folder / "train.toml").write_text(train)
    (folder / "score.toml").write_text(train + 'method = "score"\n')
    (folder / "mixed.toml").write_text(train + 'method = "mixed"\n' + GEAR)
    cart, rng = mujoco.MjModel.from_xml_string(EVERYTHING), np.random.default_rng(0)
    ctrl = np.sign(np.sin(np.linspace(0, 25, 90)))[:, None]
    write_log(
        folder / "cart.h5", simulate(cart, rng, [("one", ctrl)], flaws=Flaws(sensor_noise={"*": 0.01}), keep_state=True)
    )
    (folder / "robot.xml").write_text(EVERYTHING)
    (folder / "likelihood.toml").write_text(LIKELIHOOD)


def work(folder: Path, kinds: list[str], options: list[str]) -> None:
    """Run the studies; the results go to folder/KIND."""
    from dso_robotics.cli import main

    os.chdir(folder)
    for kind in kinds:
        if kind == "identify":
            command = ["identify", "pendulum.xml", "pendulum.h5", "--free", "joint/hinge/damping"]
        else:
            command = [kind if kind == "estimate" else "train", f"{kind}.toml"]
            command += ["--no-report"] if kind in _TRAINED else []
        if status := main([*command, *KINDS[kind], "--out", f"out/{kind}", "--quiet", *options]):
            sys.exit(status)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
