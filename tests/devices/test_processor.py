"""What follows C MuJoCo step by step is computed on the CPU, also where JAX has a GPU.

The second device of the CPU stands for the GPU. Devices must be there before JAX starts, so this is a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mjx
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import jax

cpu, other = jax.devices()
jax.config.update("jax_default_device", other)
jax.devices = lambda backend=None: [cpu] if backend == "cpu" else [other]
jax.default_backend = lambda: "gpu"

import numpy as np

from dso_robotics.robot.play import Player
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

task = build(TrainStudy.read("examples/studies/reaching_arm.toml"))
theta = jax.numpy.asarray(task.chain.layout.initial) + 0.0
assert theta.devices() == {other}
player = Player(task.chain)
places = set()


def noted(function):
    def run(*args):
        out = function(*args)
        for leaf in jax.tree.leaves(out):
            places.update(leaf.devices())
        return out

    return run


for name in ("decide", "control", "_scene_cost", "_start"):
    setattr(player, name, noted(getattr(player, name)))
episode = player.play(theta, task.chain.scaling, steps=5)
assert places == {cpu}, places
assert np.isfinite(episode.terms).all()
"""


def test_episodes_are_played_on_the_processor():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
