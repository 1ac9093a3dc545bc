"""Taking up a run: from its folder alone, with the inputs it was begun with, however late it was killed."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies import folder as folders
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import record

FREE = tuple(map(parse, ("joint/hinge/damping", "body/pole/mass")))


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def files(pendulum, tmp_path, monkeypatch):
    """A private copy of the inputs, as the working folder."""
    for name in ("pendulum.xml", "pendulum.h5"):
        shutil.copy(pendulum / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(**changes):
    return IdentifyStudy(**({"model": "pendulum.xml", "logs": ("pendulum.h5",), "free": FREE} | changes))


def kill_at(stage, iteration=0, event="at"):
    def progress(news):
        if news.event == event and news.stage == stage and news.iteration >= iteration:
            raise Killed

    return progress


@pytest.fixture
def begun(files):
    with pytest.raises(Killed):
        identify(study(), "out", progress=kill_at("start states estimated", 2))
    return files


def test_a_folder_is_enough_from_anywhere(begun, capsys, monkeypatch, tmp_path_factory):
    whole = identify(study(), "whole")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["identify", "--resume", str(begun / "out"), "--no-report"]) == 0
    summary = json.loads((begun / "out" / "summary.json").read_text())
    expected = whole.summary
    for path, entry in expected["parameters"].items():
        assert summary["parameters"][path] == entry
    # What the killed sitting had done counts: the iteration that was repeated is the only difference.
    assert summary["evaluations"] >= expected["evaluations"]
    assert expected["simulated_steps"] <= summary["simulated_steps"] < 1.5 * expected["simulated_steps"]


def test_other_spellings_of_the_same_files_are_the_same_study(begun):
    same = study(model=str(begun / "pendulum.xml"), logs=(str(begun / "." / "pendulum.h5"),))
    assert identify(same, "out", resume=True).summary["converged"]


def test_a_changed_model_or_log_is_noticed(begun):
    text = (begun / "pendulum.xml").read_text()
    (begun / "pendulum.xml").write_text(text.replace('pos="0 0 -0.3"', 'pos="0 0 -0.31"'))
    with pytest.raises(DsoError, match=r"model .*pendulum\.xml has changed"):
        identify(study(), "out", resume=True)
    (begun / "pendulum.xml").write_text(text)
    write_log("pendulum.h5", record(5))
    with pytest.raises(DsoError, match=r"log .*pendulum\.h5 has changed"):
        identify(study(), "out", resume=True)


def test_a_changed_residual_is_noticed(files, monkeypatch, tmp_path_factory):
    (files / "scale.py").write_text("def weighed(p): return (p['body/pole/mass'] - 0.7) / 0.05\n")
    asked = study(residual="scale.py:weighed")
    with pytest.raises(Killed):
        identify(asked, "out", progress=kill_at("start states estimated", 1))
    text = (files / "scale.py").read_text()
    (files / "scale.py").write_text(text.replace("0.05", "0.01"))
    with pytest.raises(DsoError, match=r"residual .*scale\.py has changed"):
        identify(asked, "out", resume=True)
    (files / "scale.py").write_text(text)
    with pytest.raises(DsoError, match=r"the study that was begun, but residual differ"):
        identify(study(), "out", resume=True)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = ["identify", "--resume", "--residual", f"{files}/scale.py:weighed", "--out", f"{files}/out", "--no-report"]
    assert main(again) == 0


def test_a_run_killed_after_its_search_is_finished_not_searched_again(files, monkeypatch):
    whole = identify(study(), "whole", report=lambda folder: None)
    for moment, event in (("evaluating", "at"), ("report", "begin")):
        with pytest.raises(Killed):
            identify(study(), moment, progress=kill_at(moment, event=event), report=lambda folder: None)
        drawn = []
        found = identify(study(), moment, resume=True, report=drawn.append)
        assert len(drawn) == 1
        assert (files / moment / "summary.json").exists()
        np.testing.assert_array_equal(found.solution.z, whole.solution.z)
        np.testing.assert_array_equal(found.uncertainty.covariance, whole.uncertainty.covariance)
        assert found.summary["message"] == whole.summary["message"]
        assert found.summary["converged"]
    with pytest.raises(DsoError, match="finished already"):
        identify(study(), "report", resume=True)


def test_force_keeps_the_old_result_until_the_new_run_is_viable(files):
    identify(study(), "out", report=lambda folder: None)
    before = {p.name: p.read_bytes() for p in (files / "out").iterdir()}
    text = (files / "pendulum.xml").read_text()
    (files / "wild.xml").write_text(
        text.replace('axis="0 1 0"', 'axis="0 1 0" stiffness="1e7"').replace("implicitfast", "Euler")
    )
    for bad in (study(window=100.0), study(model="wild.xml")):
        with pytest.raises(DsoError):
            identify(bad, "out", force=True)
        assert {p.name: p.read_bytes() for p in (files / "out").iterdir()} == before
    with pytest.raises(Killed):
        identify(study(window=0.4), "out", force=True, progress=kill_at("start states as measured"))
    assert sorted(p.name for p in (files / "out").iterdir()) == ["run.h5"]
    assert identify(study(window=0.4), "out", resume=True).summary["converged"]


def test_two_runs_do_not_share_a_folder(files):
    with folders.claim("out", resume=False, force=False), pytest.raises(DsoError, match="another run is writing"):
        identify(study(), "out")
    assert not (files / "out").exists()
    assert identify(study(), "out").summary["converged"]


def test_an_early_interrupt_promises_nothing(files, monkeypatch, capsys):
    def interrupted(*args, **settings):
        raise KeyboardInterrupt

    argv = ["identify", "pendulum.xml", "pendulum.h5", "--free=body/pole/mass", "--out=out", "--no-report"]
    monkeypatch.setattr("dso_robotics.studies.identify.load", interrupted)
    assert main(argv) == 130
    assert "nothing of this run was saved" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(files)
    monkeypatch.setattr("dso_robotics.studies.identify.uncertainty", interrupted)
    assert main(argv) == 130
    assert "--resume --out out" in capsys.readouterr().err


def test_logs_of_one_name_in_two_folders(files):
    for folder in ("a", "b"):
        (files / folder).mkdir()
        log = record(ord(folder), runs=2)
        write_log(files / folder / "log.h5", dataclasses.replace(log))
    found = identify(study(logs=("a/log.h5", "b/log.h5")), "out")
    assert found.summary["windows"]["rollouts"]["train"] == ["log-1:run0", "log-1:run1", "log-2:run0", "log-2:run1"]
