"""Every bad input of `dso identify`: status 2, one paragraph naming file, thing and cure, no result that looks complete."""

import os
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dso_robotics.cli import identify, main, parser
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
            file[f"rollouts/{name}/sensordata"].attrs["names"] = ["angel", "sped"]
    expect(capfd, files, ["angel", "angle", "pendulum.h5"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ctrl": lambda a: a[:-3]}, ["run1", "ctrl", "samples"]),
        ({"time": lambda a: a[::-1]}, ["run1", "time", "not increase"]),
        ({"time": lambda a: np.where(np.arange(len(a)) == 5, np.nan, a)}, ["run1", "time", "nan", "sample 5"]),
        ({"time": None}, ["run1", "time"]),
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
        ([FREE, "--seed=-1"], ["--seed"]),
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
    for argv in ([], ["fly"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2
    assert main(["identify"]) == 2
    captured = capsys.readouterr().err
    assert "--out DIR" in captured
    assert "Traceback" not in captured


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("window = true", ["window", "True"]),
        ('window = "0.5"', ["window"]),
        (f"window = 1{'0' * 400}", ["window"]),
        ("window = 1e300", ["window = 1e+300", "a number from 0"]),
        (f"seed = {2**70}", ["seed = 1180591620717411303424"]),
        ("seed = -1", ["seed = -1", "a whole number from 0"]),
        ("seed = 2020-01-01", ["seed"]),
        ("logs = [1]", ["logs"]),
        ('logs = [["x"]]', ["logs"]),
        ('logs = ["a\\u0000b.h5"]', ["no file can have this name"]),
        ('model = "a\\u0000b.xml"', ["no file can have this name"]),
        ("hold_out = 0", ["--hold-out 0", "between 0 and 1"]),
        ("hold_out = [{}]", ["hold_out"]),
        (f"free = {'[' * 5000}", ["study.toml"]),
        ("free = [1]", ["free", "1 is no text", "no table with a path"]),
        ("free = [{path = 1}]", ["path = 1", "a text"]),
        ('free = [{path = "body/pole/mass", init = "0.1"}]', ["body/pole/mass", "init", "'0.1'"]),
        ('free = [{path = "body/pole/mass", init = true}]', ["init", "True"]),
        ('free = [{path = "body/pole/mass", init = inf}]', ["init = inf", "a number"]),
        ('free = [{path = "body/pole/mass", init = 1e300}]', ["init = 1e+300", "a number"]),
        (f'free = [{{path = "body/pole/mass", init = 1{"0" * 400}}}]', ["init"]),
        ('free = [{path = "body/pole/mass", low = "a"}]', ["low", "'a'"]),
        ('free = [{path = "body/pole/mass", high = nan}]', ["high = nan", "a number"]),
        ('free = [{path = "body/pole/mass", prior = 5}]', ["prior = 5", "a list of 2 numbers"]),
        ('free = [{path = "body/pole/mass", prior = [1, inf]}]', ["prior = [1, inf]"]),
        ('free = [{path = "body/pole/mass", prior = [nan, 1]}]', ["prior = [nan, 1]"]),
        ('free = [{path = "body/pole/inertia", prior = [1, 0.1]}]', ["body/pole/inertia", "ten numbers"]),
    ],
)
def test_bad_study_files(files, capfd, line, words):
    key = line.split(" ")[0]
    good = {"model": '"pendulum.xml"', "logs": '["pendulum.h5"]', "free": '["joint/hinge/damping"]'}
    lines = [f"{name} = {value}" for name, value in good.items() if name != key]
    (files / "study.toml").write_text("\n".join([*lines, line]))
    status = main(["identify", "--study", str(files / "study.toml"), "--out", str(files / "out"), "--no-report"])
    error = capfd.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    for word in words:
        assert word in error
    assert not (files / "out").exists()


def test_an_option_of_zero_wins_over_the_study_file(files):
    text = 'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nseed = 3\nwindow = 1.0\nstarts = 4\n'
    (files / "study.toml").write_text(text)
    argv = ["identify", "--study", str(files / "study.toml"), "--seed", "0", "--window", "0", "--out", "out", FREE]
    found = identify._study(parser().parse_args(argv))
    assert (found.seed, found.window, found.starts, found.robust) == (0, 0.0, 4, False)
    assert found.free[0].path == "joint/hinge/damping"


def test_a_log_given_twice_or_after_a_study_file(files, capfd):
    log = str(files / "pendulum.h5")
    assert main(["identify", str(files / "pendulum.xml"), log, log, FREE, "--out", str(files / "out")]) == 2
    assert "given twice" in capfd.readouterr().err
    (files / "study.toml").write_text('model = "pendulum.xml"\nfree = ["joint/hinge/damping"]\n')
    argv = ["identify", "--study", str(files / "study.toml"), log, "--out", str(files / "out"), "--no-report"]
    assert main(argv) == 0
    assert "joint/hinge/damping" in capfd.readouterr().out


@pytest.mark.parametrize("timestep", ["0", "-0.01", "nan", "1e-7"])
def test_time_steps_that_cannot_be_simulated(files, capfd, timestep):
    text = (files / "pendulum.xml").read_text().replace('timestep="0.01"', f'timestep="{timestep}"')
    (files / "odd.xml").write_text(text)
    expect(capfd, files, ["odd.xml" if timestep != "1e-7" else "pendulum.h5", "timestep"], model="odd.xml")


def test_a_missing_mesh_is_looked_for_where_it_is_said(files, capfd):
    mesh = '<compiler meshdir="parts"/><asset><mesh name="m" file="arm.stl"/></asset><worldbody>'
    (files / "mesh.xml").write_text((files / "pendulum.xml").read_text().replace("<worldbody>", mesh))
    expect(capfd, files, ["mesh.xml", "arm.stl", str(files), "meshdir"], model="mesh.xml")


def test_numbers_of_different_things_are_not_tied_and_none_is_freed_twice(files, capfd):
    text = (files / "pendulum.xml").read_text()
    text = text.replace("<inertial", '<geom name="bob" size="0.01"/><inertial')
    (files / "geom.xml").write_text(text)
    options = ("--free=actuator/motor/gear+geom/bob/friction[0]",)
    expect(
        capfd, files, ["actuator/motor/gear+geom/bob/friction", "different things"], model="geom.xml", options=options
    )
    expect(capfd, files, ["joint/hinge/damping: frees the same number twice"], options=(FREE, FREE))


def test_empty_names_of_channels(files, capfd):
    with h5py.File(files / "pendulum.h5", "r+") as file:
        file["rollouts/run1/sensordata"].attrs["names"] = h5py.Empty("f")
    expect(capfd, files, ["pendulum.h5", "run1", "'names' is empty"])


def test_names_cannot_command_the_terminal(files, capfd):
    with h5py.File(files / "pendulum.h5", "r+") as file:
        for name in file["rollouts"]:
            file[f"rollouts/{name}/sensordata"].attrs["names"] = ["\x1b[2Jangle\n", "\x1b[2Jspeed"]
    expect(capfd, files, ["pendulum.h5", "\\x1b[2Jangle"])


def run_limited(files, prefix, *options, **environment):
    command = [sys.executable, "-m", "dso_robotics.cli", "identify", "pendulum.xml", "pendulum.h5", FREE, *options]
    shell = f"{prefix} {' '.join(map(shlex.quote, command))}"
    return subprocess.run(
        ["bash", "-c", shell], cwd=files, capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_a_full_disk_is_said_and_what_is_saved_is_kept(files):
    """A limit on the size of files stands for the full disk: the same failed write."""
    for blocks, left in ((4, []), (30, ["model.xml", "run.h5"])):
        done = run_limited(files, f"ulimit -f {blocks};", f"--out=out{blocks}", PYTHONPATH=os.getcwd())
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "writing failed" in done.stderr.splitlines()[-1]
        folder = files / f"out{blocks}"
        assert sorted(p.name for p in folder.glob("*.*")) == left if left else not folder.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full to write to")
def test_output_that_cannot_be_written(files):
    done = run_limited(files, "exec >/dev/full;", "--out=out", "--no-report", PYTHONPATH=os.getcwd())
    assert done.returncode == 2
    assert "writing failed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert (files / "out" / "summary.json").exists()


def test_an_ascii_terminal(files):
    (files / "pendulum.h5").rename(files / "péndulo.h5")
    (files / "pendulum.h5").symlink_to("péndulo.h5")
    done = run_limited(
        files, "", "--out=oút", "--no-report", PYTHONPATH=os.getcwd(), PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    assert r"o\xfat" in done.stdout
