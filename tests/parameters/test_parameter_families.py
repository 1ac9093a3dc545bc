"""A parameter family is one definition: paths, the search and the written model follow from it."""

import mujoco
import numpy as np
import pytest

import tests.pendulum
from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.families import FAMILIES, Family, Slot, register
from dso_robotics.parameters.path import every, parse, resolve
from dso_robotics.physics import export
from dso_robotics.physics.model import load
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

TRUE, GIVEN = 0.8, 1.5


def toy() -> Family:
    """The largest torque of a joint's actuators together, a field that nothing in the package knows."""
    return Family(
        "joint",
        "torque_limit",
        lambda model, i, k: "N*m",
        lambda model, i, k: (Slot("jnt_actfrcrange", (2 * i + 1,)), Slot("jnt_actfrcrange", (2 * i,), -1.0)),
        "largest torque, either way",
        refuse=lambda model, i: "" if model.jnt_actfrclimited[i] else "its torque is not limited",
        mjcf=("jnt_actfrcrange", "actuatorfrcrange"),
    )


@pytest.fixture
def family():
    """The toy family, registered for one test."""
    yield register(toy())
    del FAMILIES._things["joint/torque_limit"], export.ATTRIBUTES["jnt_actfrcrange"]


def limited(limit: float) -> str:
    """The test pendulum with a limit on its torque."""
    return tests.pendulum.PENDULUM.replace('axis="0 1 0"', f'axis="0 1 0" actuatorfrcrange="-{limit} {limit}"')


def test_a_new_family_is_freed_identified_and_written_back(family, tmp_path, monkeypatch):
    model, log = tmp_path / "pendulum.xml", tmp_path / "log.h5"
    numbers = {"damping": 0.08, "frictionloss": 0.05, "mass": 0.7}
    model.write_text(limited(GIVEN).format(**numbers))
    monkeypatch.setattr(tests.pendulum, "PENDULUM", limited(TRUE))
    write_log(log, tests.pendulum.record(0, runs=2))
    monkeypatch.undo()
    robot = load(model)
    assert resolve("joint/*/torque_limit", robot)[0].nominal(robot) == GIVEN
    assert "joint/hinge/torque_limit" in {target.path for target in every(robot)}
    asked = IdentifyStudy(model=str(model), logs=(str(log),), free=(parse("joint/hinge/torque_limit"),), window=0.5)
    found = identify(asked, tmp_path / "out").summary["parameters"]["joint/hinge/torque_limit"]
    assert found["unit"] == "N*m"
    assert found["low95"] < TRUE < found["high95"]
    assert found["value"] == pytest.approx(TRUE, rel=0.02)
    written = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    np.testing.assert_allclose(written.jnt_actfrcrange, [[-found["value"], found["value"]]], rtol=1e-12)


def test_a_family_refuses_objects_and_a_second_of_its_name(family):
    robot = load(mujoco.MjSpec.from_string(tests.pendulum.PENDULUM.format(**tests.pendulum.TRUTH)))
    with pytest.raises(DsoError, match="its torque is not limited"):
        resolve("joint/hinge/torque_limit", robot)
    with pytest.raises(DsoError, match="parameter 'joint/torque_limit': two are called so"):
        register(toy())
