"""The quickstart runs as it stands, and the README shows it as it stands."""

import runpy

import numpy as np

import dso_robotics as dso
from tests.example_files import EXAMPLES


def test_the_quickstart_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLES / "quickstart.py"))
    found = names["found"]
    assert found.converged
    friction = found.parameters["joint/elbow/frictionloss"]
    assert names["model"].dof_frictionloss[1] == friction["value"]
    # The elbow of the log needs 0.115 N*m to begin to slide and 0.085 to go on.
    assert 0.085 < friction["low95"] < friction["high95"] < 0.115
    assert "95% interval" in capsys.readouterr().out
    assert (tmp_path / "prediction.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "arm-identified" / "report.html").is_file()
    again = dso.Estimator.load(tmp_path / "arm-estimator")
    again.reset(measurement=names["log"]["04"].sensordata[0])
    state = again.update(names["log"]["04"].ctrl[0], names["log"]["04"].sensordata[1])
    np.testing.assert_array_equal(state.qpos, names["state"].qpos)


def test_the_readme_shows_the_quickstart():
    code = (EXAMPLES / "quickstart.py").read_text()
    assert len(code.splitlines()) < 40
    assert code[code.index("import dso_robotics") :].strip() in (EXAMPLES.parent / "README.md").read_text()
