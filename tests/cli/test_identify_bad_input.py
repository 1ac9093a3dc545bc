"""Every bad input of `dso identify`: status 2, one paragraph naming file, thing and cure, no result that looks complete."""

import h5py
import numpy as np
import pytest

from dso_robotics.cli import main
from tests.pendulum import PENDULUM

FREE = "--free=joint/hinge/damping"


@pytest.fixture
def files(pendulum, tmp_path):
    """A private copy of the good files to break, and the folder that must not come to look like a result."""
    for name in ("pendulum.xml", "pendulum.h5"):
        (tmp_path / name).write_bytes((pendulum / name).read_bytes())
    return tmp_path


def expect(capfd, files, words, *, model="pendulum.xml", log="pendulum.h5", options=(FREE,)):
    out = files / "out"
    status = main(["identify", str(files / model), str(files / log), *options, "--out", str(out), "--no-report"])
    captured = capfd.readouterr()
    text = captured.err.strip().splitlines()[-1]
    assert status == 2, captured.err
    assert "Traceback" not in captured.err
    assert text.startswith("dso: ")
    for word in words:
        assert word in text, text
    for name in ("summary.json", "report.html", "model.xml"):
        assert not (out / name).exists()


def damage(path, **changes):
    """Edit datasets of rollout run1 (None deletes); `attrs` edits the file's attributes."""
    with h5py.File(path, "r+") as file:
        for key, value in changes.pop("attrs", {}).items():
            file.attrs[key] = value
        group = file["rollouts/run1"]
        for key, value in changes.items():
            attrs = dict(group[key].attrs)
            old = group[key][()]
            del group[key]
            if value is not None:
                made = group.create_dataset(key, data=value(old))
                for name, content in attrs.items():
                    made.attrs[name] = content


def test_missing_and_broken_models(files, capfd):
    expect(capfd, files, ["nothere.xml", "no such model file", "pendulum.xml"], model="nothere.xml")
    (files / "bad.xml").write_text("<mujoco><worldbody><body></mujoco>")
    expect(capfd, files, ["bad.xml", "cannot load"], model="bad.xml")
    (files / "text.xml").write_text("hello")
    expect(capfd, files, ["text.xml", "cannot load"], model="text.xml")


def test_missing_truncated_and_foreign_logs(files, capfd):
    expect(capfd, files, ["nothere.h5"], log="nothere.h5")
    whole = (files / "pendulum.h5").read_bytes()
    (files / "short.h5").write_bytes(whole[: len(whole) // 2])
    expect(capfd, files, ["short.h5"], log="short.h5")
    (files / "text.h5").write_text("time,angle\n0,1\n")
    expect(capfd, files, ["text.h5", "HDF5"], log="text.h5")


def test_wrong_schema_and_version(files, capfd):
    damage(files / "pendulum.h5", attrs={"schema": "other"})
    expect(capfd, files, ["pendulum.h5", "schema", "other"])
    damage(files / "pendulum.h5", attrs={"schema": "dso-log", "schema_version": 9})
    expect(capfd, files, ["pendulum.h5", "9"])


def test_channels_unknown_to_the_model(files, capfd):
    with h5py.File(files / "pendulum.h5", "r+") as file:
        for name in file["rollouts"]:
            file[f"rollouts/{name}/sensordata"].attrs["names"] = ["angel", "speed"]
    expect(capfd, files, ["angel", "angle", "pendulum.h5"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ctrl": lambda a: a[:-3]}, ["run1", "ctrl", "samples"]),
        ({"time": lambda a: a[::-1]}, ["run1", "time", "not increase"]),
        ({"time": lambda a: np.where(np.arange(len(a)) == 5, np.nan, a)}, ["run1", "time", "nan", "sample 5"]),
        ({"time": None}, ["run1", "time"]),
        ({"sensordata": lambda a: np.c_[np.full(len(a), np.nan), a[:, 1]]}, ["run1", "angle", "NaN at every sample"]),
        ({"ctrl": lambda a: np.where(np.arange(len(a))[:, None] == 7, np.nan, a)}, ["run1", "ctrl", "sample 7"]),
        ({"ctrl": lambda a: np.c_[a, a]}, ["run1", "ctrl"]),
    ],
)
def test_damaged_rollouts(files, capfd, changes, words):
    damage(files / "pendulum.h5", **changes)
    expect(capfd, files, ["pendulum.h5", *words])


def test_a_forged_huge_shape_is_refused_before_it_is_read(files, capfd):
    with h5py.File(files / "pendulum.h5", "r+") as file:
        group = file["rollouts/run1"]
        del group["sensordata"]
        made = group.create_dataset("sensordata", shape=(10**9, 200), dtype="f8", chunks=(1000, 200))
        made.attrs["names"] = ["angle", "speed"]
    expect(capfd, files, ["pendulum.h5", "run1", "sensordata"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["nothing is free", "--free"]),
        (["--free=joint/hing/damping"], ["joint/hing/damping", "'hinge'", "pendulum.xml"]),
        (["--free=joint/hinge/damping=0.1@2:1"], ["2 is not below", "@LOW:HIGH"]),
        (["--free=joint/hinge/damping=5@0:1"], ["5", "outside the bounds 0 to 1"]),
        (["--free=body/pole/mass=-1"], ["body/pole/mass", "-1"]),
        (["--free=option/timestep"], ["option/timestep", "cannot be freed"]),
        ([FREE, "--hold-out=nobody"], ["nobody", "run0"]),
        ([FREE, "--hold-out=run0,run1,run2"], ["every rollout"]),
        ([FREE, "--hold-out=1.0"], ["everything"]),
        ([FREE, "--window=-1"], ["--window"]),
        ([FREE, "--window=100"], ["--window", "shorter"]),
        ([FREE, "--engine=warp"], ["warp", "mujoco"]),
        ([FREE, "--resume"], ["--resume", "run.h5"]),
        (["--free=body/pole/ipos[" + "9" * 5000 + "]"], ["not a parameter path"]),
        ([FREE, "--study=nothere.toml"], ["nothere.toml"]),
    ],
)
def test_bad_options(files, capfd, options, words):
    expect(capfd, files, words, options=options)


def test_a_folder_with_something_in_it_is_left_alone(files, capfd):
    (files / "out").mkdir()
    (files / "out" / "thesis.tex").write_text("years of work")
    expect(capfd, files, ["not empty", "--force"])
    expect(capfd, files, ["holds none"], options=(FREE, "--force"))
    assert (files / "out" / "thesis.tex").read_text() == "years of work"


def test_a_model_that_diverges_at_the_start_values(files, capfd, monkeypatch):
    monkeypatch.chdir(files)  # MuJoCo logs its warning there
    text = PENDULUM.format(damping=0.1, frictionloss=0, mass=1).replace('axis="0 1 0"', 'axis="0 1 0" stiffness="1e7"')
    (files / "wild.xml").write_text(text.replace('integrator="implicitfast"', 'integrator="Euler"'))
    expect(capfd, files, ["wild.xml", "diverges"], model="wild.xml", options=("--free=body/pole/mass",))


def test_the_commands_run_without_arguments_or_with_unknown_ones(capsys):
    for argv in ([], ["fly"], ["identify"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
