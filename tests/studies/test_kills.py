"""Runs that are killed at any moment, again and again, end with the numbers of a run that nobody disturbed."""

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.studies import train_robots

ESTIMATE = """
model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = "run2"
corrector = "gain"
free = ["joint/hinge/damping"]
window = 0.5
"""
IDENTIFY = ["pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--free=body/pole/mass", "--window=0.3"]
DESIGN = """
[design.push]
kind = "gear"
of = "push"
low = 1.0
high = 4.0
"""
COMMANDS = {"identify": IDENTIFY, "estimate": ["estimate.toml"], "train": ["study.toml"], "design": ["design.toml"]}
HURRY = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def start(command, argv, folder):
    # The kernel's SIGKILL leaves a program no chance to tidy up.
    return subprocess.Popen(
        [sys.executable, "-m", "dso_robotics.cli", command, *argv],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | HURRY | {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
    )


def finish(command, argv, folder):
    child = start(command, argv, folder)
    said, _ = child.communicate(timeout=600)
    assert child.returncode == 0, said


def numbers(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return summary["parameters"], summary["cost"], summary["fit"], summary["converged"]


def killed_again_and_again(command, folder, kills, seed):
    argv = COMMANDS[command]
    began = time.monotonic()
    finish(command, [*argv, "--out", "whole", "--no-report"], folder)
    lasts = time.monotonic() - began
    rng, out = np.random.default_rng(seed), folder / "out"
    done = 0
    while done < kills and not (out / "summary.json").exists():
        again = ["--resume"] if (out / "run.h5").exists() else argv
        child = start(command, [*again, "--out", "out", "--no-report"], folder)
        time.sleep(rng.uniform(0.3, 1.0) * lasts)
        child.kill()
        said, _ = child.communicate()
        assert child.returncode in (-9, 0), said
        done += 1
    if not (out / "summary.json").exists():
        again = ["--resume"] if (out / "run.h5").exists() else argv
        finish(command, [*again, "--out", "out", "--no-report"], folder)
    assert numbers(out) == numbers(folder / "whole")
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    return done


@pytest.fixture
def folder(pendulum, tmp_path):
    """The inputs of all commands."""
    for name in ("pendulum.xml", "pendulum.h5"):
        shutil.copy(pendulum / name, tmp_path / name)
    (tmp_path / "estimate.toml").write_text(ESTIMATE)
    text = train_robots.write(tmp_path, iterations=3).read_text()
    (tmp_path / "design.toml").write_text(text + DESIGN)
    return tmp_path


@pytest.mark.parametrize("command", ["identify", "estimate"])
def test_three_kills(folder, command):
    killed_again_and_again(command, folder, 3, seed=1)


@pytest.mark.slow
@pytest.mark.mjx
@pytest.mark.parametrize("command", ["train", "design"])
def test_three_kills_of_a_training(folder, command):
    killed_again_and_again(command, folder, 3, seed=2)


@pytest.mark.long
@pytest.mark.mjx
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_hundred_kills(folder, command):
    total, round_ = 0, 0
    while total < 100:
        shutil.rmtree(folder / "out", ignore_errors=True)
        shutil.rmtree(folder / "whole", ignore_errors=True)
        total += killed_again_and_again(command, folder, 10, seed=round_)
        round_ += 1


def test_a_kill_in_the_first_write_is_no_obstacle(folder):
    (folder / "out").mkdir()
    (folder / "out" / ".run-abcdefgh.h5").write_bytes(b"half of it")
    finish("identify", [*IDENTIFY, "--out", "out", "--no-report"], folder)
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["model.xml", "run.h5", "summary.json"]
