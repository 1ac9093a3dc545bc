"""An interrupted `dso estimate` goes on to the numbers of an uninterrupted one, by either engine."""

import json

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.core.method import gauss_newton, sampled, scoring
from dso_robotics.data.run_file import read_run
from dso_robotics.studies import estimate_gain
from tests.interrupt import interrupt

STUDY = """
model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = "run2"
free = ["joint/hinge/damping", "sensor/angle/bias"]
"""
SHORT = {
    "kalman": "window = 0.5\niterations = 5\n",
    "mujoco": "robust = 4.0\nvalidation = 0.25\n",
    "mjx": 'engine = "mjx"\nwindow = 0.3\niterations = 12\nlearning_rate = 0.05\nvalidation = 0.25\n',
}


def write(pendulum, tmp_path, text: str):
    for name in ("pendulum.xml", "pendulum.h5"):
        (tmp_path / name).write_bytes((pendulum / name).read_bytes())
    study = tmp_path / "study.toml"
    study.write_text(STUDY + text)
    return study


@pytest.mark.parametrize("engine", ["kalman", "mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_at_the_same_numbers(pendulum, tmp_path, monkeypatch, capsys, engine):
    monkeypatch.setattr(estimate_gain, "EVERY", 0.0)
    study = write(pendulum, tmp_path, SHORT[engine])
    whole, part = str(tmp_path / "whole"), str(tmp_path / "part")
    assert main(["estimate", str(study), "--out", whole, "--no-report"]) == 0
    with monkeypatch.context() as patched:
        if engine == "mujoco":
            interrupt(patched, gauss_newton, "Normal", 4)
        elif engine == "kalman":
            # The starts that are tried take steps too; the search begins at their best.
            interrupt(patched, scoring.FisherScoring, "step", 15)
        else:
            interrupt(patched, sampled.Sampled, "step", 6)
        assert main(["estimate", str(study), "--out", part, "--no-report"]) == 130
    assert "dso estimate --resume --out" in capsys.readouterr().err
    # A wrong study is refused before anything changes.
    study.write_text(STUDY + SHORT[engine] + "warm_up = 0.3\n")
    assert main(["estimate", str(study), "--out", part, "--resume"]) == 2
    assert "warm_up differ(s)" in capsys.readouterr().err
    assert main(["estimate", "--resume", "--out", part, "--no-report"]) == 0
    trees = [read_run(f"{folder}/run.h5")[0] for folder in (whole, part)]
    for name, block in trees[0]["theta"].items():
        np.testing.assert_array_equal(trees[1]["theta"][name], block)
    np.testing.assert_array_equal(trees[1]["history"]["cost"], trees[0]["history"]["cost"])
    np.testing.assert_array_equal(trees[1]["history"]["iteration"], trees[0]["history"]["iteration"])
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "part")]
    for key in ("fit", "noise", "cost", "parameters", "converged", "evaluations"):
        assert summaries[1][key] == summaries[0][key]
    assert main(["estimate", "--resume", "--out", part]) == 2
    assert "finished already" in capsys.readouterr().err


def test_what_cannot_be_resumed_is_refused(pendulum, tmp_path, capsys):
    study = write(pendulum, tmp_path, "iterations = 1\n")
    assert main(["estimate", "--out", str(tmp_path / "out")]) == 2
    assert "no study was given" in capsys.readouterr().err
    assert main(["estimate", "--resume", "--out", str(tmp_path / "out")]) == 2
    assert "no run.h5 to go on from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.h5").write_bytes(b"nothing")
    assert main(["estimate", str(study), "--resume", "--out", str(tmp_path / "out")]) == 2
    assert "is not an HDF5 file, so it is damaged or no run file" in capsys.readouterr().err
    assert (tmp_path / "out" / "run.h5").read_bytes() == b"nothing"
    whole = tmp_path / "whole"
    assert main(["estimate", str(study), "--no-report", "--out", str(whole)]) == 0
    stored = bytearray((whole / "run.h5").read_bytes())
    stored[len(stored) // 2] ^= 1
    (whole / "run.h5").write_bytes(stored)
    capsys.readouterr()
    assert main(["estimate", str(study), "--resume", "--out", str(whole)]) == 2
    assert "damaged" in capsys.readouterr().err
