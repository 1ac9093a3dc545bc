"""Runs that are killed at any moment, again and again, end with the numbers of a run that nobody disturbed."""

import json
import os
import subprocess
import sys

import pytest

from tests.studies.kills import COMMANDS, write_inputs
from tests.studies.processes import run

HURRY = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def killed(command, folder, kills, *more):
    """Kill a command so many times. What was compiled once is kept for all."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    asked = [sys.executable, "-m", "tests.studies.kills", str(folder), command, str(kills), "1", *more]
    done = subprocess.run(asked, env=os.environ | HURRY | cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(command, done.stdout)
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path, request):
    """The inputs of all commands."""
    write_inputs(tmp_path, mjx=request.node.get_closest_marker("mjx") is not None)
    return tmp_path


@pytest.mark.parametrize("command", ["identify", "estimate"])
def test_three_kills(folder, command):
    assert killed(command, folder, 3)["finished"] > 0


@pytest.mark.slow
@pytest.mark.mjx
@pytest.mark.parametrize("command", ["train", "design"])
def test_three_kills_of_a_training(folder, command):
    assert killed(command, folder, 3)["finished"] > 0


@pytest.mark.long
@pytest.mark.mjx
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_hundred_kills(folder, command):
    """Nine in ten of runs without a report, which is where most of the time goes; one in ten of runs with one."""
    assert killed(command, folder, 90)["kills"] >= 90
    assert killed(command, folder, 10, "report")["kills"] >= 10


def test_a_kill_in_the_first_write_is_no_obstacle(folder):
    (folder / "out").mkdir()
    (folder / "out" / ".run-abcdefgh.h5").write_bytes(b"half of it")
    assert run(["identify", *COMMANDS["identify"], "--out=out", "--no-report"], folder).status == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["model.xml", "run.h5", "summary.json"]
