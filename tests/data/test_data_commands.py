"""The commands inspect, convert, fetch and simulate, run in this process."""

import argparse
import subprocess
import sys

import numpy as np
import pytest

from dso_robotics.cli import convert, fetch, inspect, simulate
from dso_robotics.data.log import read_log
from dso_robotics.errors import DsoError


@pytest.fixture
def dso(capsys):
    """Function that runs a command line and returns what it printed."""

    def run(*words):
        parser = argparse.ArgumentParser(prog="dso")
        subparsers = parser.add_subparsers(required=True)
        for command in (inspect, convert, fetch, simulate):
            command.add_parser(subparsers)
        args = parser.parse_args([str(word) for word in words])
        assert args.run(args) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("command", ["inspect", "convert", "fetch", "simulate"])
def test_help_has_an_example(dso, capsys, command):
    with pytest.raises(SystemExit) as caught:
        dso(command, "--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    assert f"dso {command}" in text


def test_inspect(dso, log_file, tmp_path):
    text = dso("inspect", log_file, "--plot", tmp_path / "log.png")
    for part in ("made up", "2, 80 samples", "shoulder_vel", "rad/s", "100", "none found"):
        assert part in text
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DsoError, match="--force"):
        dso("inspect", log_file, "--plot", tmp_path / "log.png")
    dso("inspect", log_file, "--plot", tmp_path / "log.png", "--force")
    with pytest.raises(DsoError, match=r"\.png, \.svg, \.pdf"):
        dso("inspect", log_file, "--plot", tmp_path / "log.xyz")


def test_inspect_shows_problems_and_nan(dso, tmp_path, rollout):
    from dso_robotics.data.log import Log, write_log

    values = rollout().sensordata.copy()
    values[::2, 0] = np.nan
    write_log(tmp_path / "bad.h5", Log("", "", "", (rollout(sensordata=values, sensor_units=()),)))
    text = dso("inspect", tmp_path / "bad.h5", "--plot", tmp_path / "bad.svg")
    assert "50.0%" in text
    assert "no unit is stated" in text


def test_convert_and_scale(dso, tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("ms,amps,deg\n0,1,90\n10,2,180\n20,3,0\n")
    out = tmp_path / "log.h5"
    mapping = ("--time", "ms*0.001", "--ctrl", "tau=amps*0.1:N*m", "--sensor", "angle=deg:deg", "--licence", "MIT")
    dso("convert", tmp_path / "one.csv", tmp_path / "two.csv", "--out", out, *mapping)
    log = read_log(out)
    assert (log.names, log.licence) == (("one", "two"), "MIT")
    with pytest.raises(DsoError, match="already exists"):
        dso("convert", tmp_path / "one.csv", "--out", out, *mapping)
    dso("convert", out, "--out", tmp_path / "rad.h5", "--scale", f"angle={np.pi / 180}:rad")
    scaled = read_log(tmp_path / "rad.h5")["one"]
    np.testing.assert_allclose(scaled.sensor("angle"), [np.pi / 2, np.pi, 0])
    assert scaled.sensor_units == ("rad",)
    for wrong in ("angle", "angle=x:rad"):
        with pytest.raises(DsoError, match="CHANNEL=FACTOR"):
            dso("convert", out, "--out", tmp_path / "x.h5", "--scale", wrong)


def test_convert_says_what_became_of_each_column(dso, tmp_path):
    (tmp_path / "run.csv").write_text("time,amps,deg,note\ns,A,deg,-\n0,1,90,a\n1,2,180,b\n2,3,-170,c\n")
    text = dso(
        "convert",
        tmp_path / "run.csv",
        "--out",
        tmp_path / "log.h5",
        "--ctrl",
        "tau=amps*0.1:N*m",
        "--sensor",
        "q=deg:rad",
    )
    rows = [line.split() for line in text.splitlines()]
    assert ["amps", "A", "->", "tau", "ctrl", "N*m", "0.1", "0.1", "0.3"] in rows
    assert ["deg", "deg", "->", "q", "sensor", "rad", "0.0174533", "-2.967", "3.142"] in rows
    assert "not used: note" in text
    dso("convert", tmp_path / "log.h5", "--out", tmp_path / "open.h5", "--unwrap", "q")
    opened = read_log(tmp_path / "open.h5")["run"].sensor("q")
    np.testing.assert_allclose(opened, np.deg2rad([90, 180, 190]))
    with pytest.raises(DsoError, match="is a log already"):
        dso("convert", tmp_path / "log.h5", "--out", tmp_path / "x.h5", "--ctrl", "tau")


def test_inspect_shows_the_match(dso, log_file, models):
    text = dso("inspect", log_file, "--model", models / "two_joint_arm.xml")
    rows = [line.split() for line in text.splitlines()]
    assert ["elbow_vel", "sensor", "yes", "rad/s", "yes", "rad/s"] in rows
    assert "a study can use this log" in text


def test_fetch(dso, tmp_path, real_data):
    out = tmp_path / "pendulum.h5"
    assert "BSD-3-Clause" in dso("fetch", "dfki_simple_pendulum", "--out", out)
    assert read_log(out).licence == "BSD-3-Clause"
    with pytest.raises(DsoError, match="--force"):
        dso("fetch", "dfki_simple_pendulum", "--out", out)


def test_fetch_lists(dso):
    text = dso("fetch")
    for part in ("dfki_double_pendulum_A0", "two-joint arm", "BSD-3-Clause"):
        assert part in text


def test_simulate(dso, tmp_path, models):
    model, out = models / "two_joint_arm.xml", tmp_path / "log.h5"
    options = (
        "--seconds",
        1,
        "--amplitude",
        1,
        "--amplitude",
        "tau2=0.3",
        "--rollouts",
        2,
        "--every",
        5,
        "--keep-state",
    )
    dso("simulate", model, "--out", out, *options, "--sensor-noise", "elbow_pos=0.01", "--seed", 3)
    log = read_log(out)
    assert len(log.rollouts) == 2
    assert log["00"].time[1] == pytest.approx(0.01)
    assert 0.8 < np.abs(log["00"].control("tau1")).max() <= 1
    assert 0.2 < np.abs(log["00"].control("tau2")).max() <= 0.3
    assert np.std(log["00"].sensor("elbow_pos") - log["00"].qpos[:, 1]) == pytest.approx(0.01, rel=0.3)
    dso("simulate", model, "--out", tmp_path / "again.h5", *options, "--sensor-noise", "elbow_pos=0.01", "--seed", 3)
    assert (tmp_path / "again.h5").read_bytes() == out.read_bytes()
    dso("simulate", model, "--out", tmp_path / "replay.h5", "--controls", out)
    assert len(read_log(tmp_path / "replay.h5")["00"].time) == 496
    dso("simulate", model, "--out", tmp_path / "free.h5", "--excite", "none", "--spread-qpos", 1, "--seconds", 0.2)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--amplitude", "x"), "NAME=number"),
        ((), "no ctrlrange"),
        (("--amplitude", 1, "--rollouts", 0), "--rollouts"),
        (("--controls", "nothing.h5"), "no such log file"),
        (("--controls", "nothing.csv"), "no such file"),
    ],
)
def test_simulate_refuses(dso, tmp_path, models, options, word):
    with pytest.raises(DsoError) as caught:
        dso("simulate", models / "two_joint_arm.xml", "--out", tmp_path / "log.h5", *options)
    assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_command_loads_jax():
    """Importing jax takes seconds, and none of these commands needs it."""
    code = (
        "import sys; from dso_robotics.cli import convert, fetch, inspect, simulate; "
        "light = {'mujoco', 'h5py', 'numpy', 'matplotlib', 'jax'} & set(sys.modules); "
        "from dso_robotics.data import controls, match, plot, record, registry, resample, split; "
        "print(sorted(light), 'jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] False"
