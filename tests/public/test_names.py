"""The public names: what `import dso_robotics as dso` offers, and the small functions among them."""

import subprocess
import sys

import numpy as np
import pytest

import dso_robotics as dso
from tests.pendulum import record


def test_every_public_name_is_there_and_is_listed():
    assert set(dso.__all__) == set(dso._PUBLIC)
    for name in dso.__all__:
        assert callable(getattr(dso, name))
    assert set(dso.__all__) <= set(dir(dso))
    with pytest.raises(AttributeError, match="no attribute 'identity'"):
        _ = dso.identity


def test_what_editors_see_is_what_there_is():
    import ast
    import pathlib

    tree = ast.parse(pathlib.Path(dso.__file__).read_text())
    seen = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen - {None} == set(dso.__all__)


def test_importing_is_quick():
    code = "import time; t = time.perf_counter(); import dso_robotics; print(time.perf_counter() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.1


def test_parameters_are_listed_and_print_themselves(models):
    found = dso.list_parameters(models / "two_joint_arm.xml")
    assert "joint/elbow/damping" in found.paths
    assert "body/upper/inertia" in found.paths
    assert "viscous friction" in str(found)
    assert "<table>" in found._repr_html_()
    # The package of the same name, imported by whatever else is used, is the function too.
    import dso_robotics.parameters.path

    assert dso_robotics.list_parameters(dso.load(models / "two_joint_arm.xml")).paths == found.paths


def test_a_table_becomes_a_log(tmp_path):
    (tmp_path / "run.csv").write_text("t,u,q\n0,1,0\n10,1,0.5\n20,0,1.5\n")
    log = dso.read_log(tmp_path / "run.csv", ctrl={"motor": "u:N*m"}, sensors=["angle=q*2:rad"], time="t*0.001")
    np.testing.assert_allclose(log.rollouts[0].time, [0.0, 0.01, 0.02])
    np.testing.assert_allclose(log.rollouts[0].sensordata[:, 0], [0.0, 1.0, 3.0])
    assert log.rollouts[0].ctrl_names == ("motor",)
    with pytest.raises(dso.DsoError, match=r"with ctrl= or sensors="):
        dso.read_log(tmp_path / "run.csv")
    mapping = {"ctrl": "motor=u:N*m", "sensors": "angle=q:rad", "time": "t*0.001"}
    written = dso.convert(tmp_path / "run.csv", tmp_path / "run.h5", **mapping)
    assert dso.read_log(tmp_path / "run.h5").names == written.names == ("run",)
    with pytest.raises(dso.DsoError, match="force=True"):
        dso.convert(tmp_path / "run.csv", tmp_path / "run.h5", **mapping)


def test_a_simulation_is_a_log(models):
    log = dso.simulate(models / "two_joint_arm.xml", seconds=0.5, rollouts=2, amplitude=1.0, sensor_noise=0.01, seed=3)
    assert log.names == ("00", "01")
    again = dso.simulate(
        models / "two_joint_arm.xml", seconds=0.5, rollouts=2, amplitude=1.0, sensor_noise=0.01, seed=3
    )
    np.testing.assert_array_equal(log.rollouts[1].sensordata, again.rollouts[1].sensordata)
    with pytest.raises(dso.DsoError, match="no file was given"):
        dso.read_log()


def test_recordings_are_listed():
    found = dso.fetch()
    assert "dfki_double_pendulum_A0" in found
    assert "dfki_double_pendulum_A0" in str(found)
    with pytest.raises(dso.DsoError, match="there is no recording of that name"):
        dso.fetch("nothing")


def test_a_model_is_checked(models):
    assert "differentiable engine (engine='mjx'): supported" in str(dso.check(models / "two_joint_arm.xml"))
    assert record(0, runs=1, seconds=1.0).names == ("run0",)
