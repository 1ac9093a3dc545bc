"""One, two and eight devices, and two and four processes, give the same numbers to rounding for every kind of study.

Devices of a CPU must be there before JAX starts, so each run is a process of its own.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dso_robotics.data.run_file import read_run
from tests.devices.work import KINDS, inputs

pytestmark = pytest.mark.mjx
ROOT = Path(__file__).parent.parent.parent
EVERY = ",".join(KINDS)
# Of the trainings by rollouts one that has both kinds of derivatives.
SHORT = "mixed,likelihood,identify,estimate"


def start(folder, kinds, *options, devices=1):
    """A process that runs the studies of `kinds` in `folder` with so many devices of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.devices.work", str(folder), kinds, *map(str, options)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, errors = process.communicate(timeout=1500)
    assert process.returncode == 0, errors
    return out


def numbers(folder):
    """Parameters, costs and the whole of theta of each study."""
    found = {}
    for place in sorted((folder / "out").iterdir()):
        summary = json.loads((place / "summary.json").read_text())
        tree, _, _ = read_run(place / "run.h5")
        found[f"{place.name} cost"] = summary["cost"]["total"]
        for path, entry in summary["parameters"].items():
            found[f"{place.name} {path}"] = entry["value"]
        for name, part in tree["theta"].items():
            found[f"{place.name} {name}"] = np.asarray(part, float)
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert len(one) > 2
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def made(folder):
    folder.mkdir()
    inputs(folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one device gives, for each kind that a test asks for."""
    folder, known = made(tmp_path_factory.mktemp("alone") / "one"), set()

    def of(kinds):
        if new := [kind for kind in kinds.split(",") if kind not in known]:
            finish(start(folder, ",".join(new)))
            known.update(new)
        return {name: value for name, value in numbers(folder).items() if name.split()[0] in kinds.split(",")}

    return of


@pytest.mark.slow
def test_two_devices_give_the_numbers_of_one(alone, tmp_path):
    folder = made(tmp_path / "two")
    finish(start(folder, SHORT, "--devices", 2, devices=2))
    assert_same(alone(SHORT), numbers(folder))
    assert abs(alone(SHORT)["mixed actuator/push/gear[0]"] - 2.0) > 1e-3


@pytest.mark.long
def test_eight_devices_give_the_numbers_of_one(alone, tmp_path):
    folder = made(tmp_path / "eight")
    finish(start(folder, EVERY, "--devices", "all", devices=8))
    assert_same(alone(EVERY), numbers(folder))


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(alone, tmp_path):
    share(tmp_path, ("mixed",), processes=2, devices=1)
    assert_same(alone("mixed"), numbers(tmp_path / "first"))


@pytest.mark.long
@pytest.mark.parametrize(("processes", "devices"), [(2, 1), (2, 4), (4, 1)])
def test_processes_give_the_numbers_of_one_and_only_the_first_writes(alone, tmp_path, processes, devices):
    share(tmp_path, KINDS, processes=processes, devices=devices)
    assert_same(alone(EVERY), numbers(tmp_path / "first"))


def share(tmp_path, kinds, *, processes, devices):
    """Studies done by several processes; their results are in tmp_path/first, and the other processes write none."""
    folder, running = made(tmp_path / "first"), []
    for kind in kinds:  # a process group per study, as a scheduler starts them
        address = f"127.0.0.1:{port()}"
        for index in range(processes):
            place = folder if index == 0 else tmp_path / f"{kind}{index}"
            if index:
                made(place)
            running.append(start(place, kind, "--hosts", f"{address},{processes},{index}", devices=devices))
        for process in running[-processes:]:
            finish(process)
        assert not any((tmp_path / f"{kind}{index}" / "out").exists() for index in range(1, processes))
