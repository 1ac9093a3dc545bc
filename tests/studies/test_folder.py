"""The result folder: nothing that dso did not write is replaced, no input of the run either, and every end resumes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import read_log, write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.physics.model import load
from dso_robotics.studies import folder as folders
from dso_robotics.studies.identify import identify
from dso_robotics.studies.run import session
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import record


@pytest.fixture(scope="module")
def inputs(pendulum, tmp_path_factory):
    """A folder with the model and a short log: no number counts here."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(pendulum / "pendulum.xml", folder)
    write_log(folder / "pendulum.h5", record(0, seconds=1.1))
    return folder


@pytest.fixture
def files(inputs, tmp_path, monkeypatch):
    """A private copy of the inputs, as the working folder."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """The result of a run in a folder of its own."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        identify(study(), "out")
    return folder / "out"


def study(**changes):
    free = (parse("joint/hinge/damping"),)
    return IdentifyStudy(**({"model": "pendulum.xml", "logs": ("pendulum.h5",), "free": free} | changes))


@pytest.fixture
def result(files, finished):
    """A finished run in the folder `out`."""
    return shutil.copytree(finished, files / "out")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("place", ["run.h5", "model.xml", "figures/log.h5", "report.html"])
def test_no_input_is_replaced(result, files, place):
    model = place.endswith("xml")
    (result / "figures").mkdir()
    if place in ("run.h5", "model.xml", "report.html"):
        (result / place).unlink(missing_ok=True)
    shutil.copy("pendulum.xml" if model else "pendulum.h5", result / place)
    before = contents(result)
    asked = study(model=str(result / place)) if model else study(logs=(str(result / place),))
    with pytest.raises(DsoError) as caught:
        identify(asked, "out", force=True)
    assert place.rpartition("/")[2] in str(caught.value)
    assert contents(result) == before


def test_the_model_of_an_earlier_result_is_no_input_of_the_next_in_the_same_folder(result):
    before = contents(result)
    with pytest.raises(DsoError, match=r"model\.xml: the run reads this file"):
        identify(study(model="out/model.xml"), "out", force=True)
    assert contents(result) == before
    link = result.parent / "link.xml"
    link.symlink_to(result / "model.xml")
    with pytest.raises(DsoError, match=r"the run reads this file"):
        identify(study(model="link.xml"), "out", force=True)


def test_an_included_file_is_an_input_too(result, files):
    shutil.move(result / "model.xml", files / "kept.xml")
    (result / "model.xml").write_text("<!-- written by dso --><mujocoinclude><size nuser_geom='1'/></mujocoinclude>")
    text = (files / "pendulum.xml").read_text().replace("<option", '<include file="out/model.xml"/><option')
    (files / "with.xml").write_text(text)
    with pytest.raises(DsoError, match=r"out/model\.xml: the run reads this file"):
        identify(study(model="with.xml"), "out", force=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"mine": 1}'),
        ("summary.json", "[1, 2"),
        ("model.xml", "<mujoco/>"),
        ("report.html", "<html>my notes</html>"),
        ("run.h5", "no HDF5"),
    ],
)
@pytest.mark.parametrize("way", ["force", "resume"])
def test_files_of_others_are_not_replaced(result, name, content, way, capsys):
    (result / name).write_text(content)
    before = contents(result)
    argv = ["identify", "pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--out=out", f"--{way}"]
    assert main([*argv, "--no-report"]) == 2
    assert name in capsys.readouterr().err
    assert contents(result) == before


def test_a_recording_called_run_h5_survives(files):
    (files / "out").mkdir()
    shutil.copy("pendulum.h5", "out/run.h5")
    with pytest.raises(DsoError, match=r"run\.h5: dso did not write this file"):
        identify(study(), "out", force=True)
    assert read_log("out/run.h5").names == ("run0", "run1", "run2")


def test_force_replaces_a_result(result):
    old = (result / "summary.json").stat().st_mtime_ns
    (result / ".run-abcdefgh.h5").write_text("what a killed run left")
    identify(study(), "out", force=True)
    assert (result / "summary.json").stat().st_mtime_ns > old
    assert not (result / ".run-abcdefgh.h5").exists()


def test_a_report_that_fails_again_and_again_keeps_the_run(files, capsys):
    argv = ["identify", "pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--out=out"]
    again = ["identify", "--resume", "--out", "out", "--figures"]
    (files / "out").mkdir()
    assert main([*argv, "--no-report"]) == 0
    whole = json.loads((files / "out" / "summary.json").read_text())
    (files / "out" / "summary.json").unlink()
    (files / "out" / "figures").write_text("in the way")
    for _ in range(3):
        assert main(again) == 2
        assert "figures" in capsys.readouterr().err
        assert not (files / "out" / "summary.json").exists()
    (files / "out" / "figures").unlink()
    assert main(again) == 0
    assert json.loads((files / "out" / "summary.json").read_text())["parameters"] == whole["parameters"]
    assert main(again) == 2
    assert "finished already" in capsys.readouterr().err


@pytest.mark.parametrize("earlier", [False, True])
def test_a_study_that_wrote_nothing_before_its_end(files, earlier, monkeypatch):
    """The files of an earlier run go first, so that no kill leaves a folder that looks finished and holds two runs."""
    if earlier:
        identify(study(), "out")
    write_model, seen = folders.write_model, []

    def look(folder, mjcf):
        seen.append(sorted(path.name for path in folder.iterdir()))
        return write_model(folder, mjcf)

    monkeypatch.setattr(folders, "write_model", look)
    summary = {"command": "identify", "version": "test", "seconds": {}, "cost": {"total": 0.0}}
    with session("out", resume=False, force=earlier, progress=lambda news: None) as here:
        here.begin({"command": "identify"}, load("pendulum.xml"), {})
        here.finish(summary, "<mujoco/>", None, {})
    assert seen == [["run.h5"]]
    assert sorted(path.name for path in (files / "out").iterdir()) == ["model.xml", "run.h5", "summary.json"]
    assert "<mujoco/>" in (files / "out" / "model.xml").read_text()


def test_a_fit_by_forces_resumes_in_the_gap_before_summary_json(files):
    argv = ["identify", "pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--fit=torque"]
    assert main([*argv, "--out=whole", "--no-report"]) == 0
    assert main([*argv, "--out=out", "--no-report"]) == 0
    (files / "out" / "summary.json").unlink()
    assert main(["identify", "--resume", "--out", "out", "--no-report"]) == 0
    found, whole = (json.loads((files / out / "summary.json").read_text()) for out in ("out", "whole"))
    assert found["parameters"] == whole["parameters"]


def test_a_disk_that_is_full_leaves_nothing_half_written(files):
    code = (
        "import resource, sys\n"
        "from dso_robotics.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.exit(main(['identify', 'pendulum.xml', 'pendulum.h5', '--free=joint/hinge/damping', '--out=out']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "writing failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (files / "out").exists() or list((files / "out").iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_with_the_line_that_resumes(files, number, status):
    code = (
        "import sys, time\n"
        "from dso_robotics.core.method.gauss_newton import GaussNewton\n"
        "step = GaussNewton.step\n"
        "GaussNewton.step = lambda self, state: (time.sleep(0.5), step(self, state))[1]\n"
        "from dso_robotics.cli import main\n"
        "sys.exit(main(['identify', 'pendulum.xml', 'pendulum.h5', '--free=joint/hinge/damping', '--out=out']))\n"
    )
    # A shell in the background makes its children deaf to SIGINT.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", code], **pipes, **heard)
    until = time.monotonic() + 60
    while not (files / "out" / "run.h5").exists() and time.monotonic() < until:
        time.sleep(0.05)
    child.send_signal(number)
    _, said = child.communicate(timeout=240)
    assert child.returncode == status
    assert said.splitlines()[-1] == "dso: interrupted; `dso identify --resume --out out` continues the run."
    assert [p.name for p in (files / "out").iterdir()] == ["run.h5"]
    assert main(["identify", "--resume", "--out", "out", "--no-report"]) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(files):
    (files / "out").mkdir(mode=0o500)
    with pytest.raises(DsoError):
        identify(study(), "out")


def test_a_run_file_with_another_schema_is_told_before_the_search(files):
    (files / "out").mkdir()
    with h5py.File("out/run.h5", "w") as file:
        file.attrs["schema"] = "mine"
    with pytest.raises(DsoError, match="dso did not write this file"):
        identify(study(), "out", force=True)
