"""A parameter family is one definition: paths, the search and the written model follow from it."""

import mujoco
import numpy as np
import pytest

import tests.pendulum
from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.family import FAMILIES, Family, Slot, register
from dso_robotics.parameters.path import every, parse, resolve
from dso_robotics.physics import export
from dso_robotics.physics.model import load
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

TRUE, GIVEN = 0.8, 1.5


def toy() -> Family:
    """The damping of an actuator, a field that nothing in the package knows."""
    return Family(
        "actuator",
        "drag",
        lambda model, i, k: "N*m*s/rad",
        lambda model, i, k: (Slot("actuator_damping", (i,)),),
        "damping inside the actuator",
        refuse=lambda model, i: "" if model.actuator_damping[i] else "it has no damping of its own",
        mjcf=("actuator_damping", "damping"),
    )


@pytest.fixture
def family():
    """The toy family, registered for one test."""
    yield register(toy())
    del FAMILIES._things["actuator/drag"], export.ATTRIBUTES["actuator_damping"]


def dragged(drag: float) -> str:
    """The test pendulum with damping in its motor."""
    return tests.pendulum.PENDULUM.replace('<motor name="motor"', f'<motor name="motor" damping="{drag}"')


def test_a_new_family_is_freed_identified_and_written_back(family, tmp_path, monkeypatch):
    model, log = tmp_path / "pendulum.xml", tmp_path / "log.h5"
    numbers = {"damping": 0.08, "frictionloss": 0.05, "mass": 0.7}
    model.write_text(dragged(GIVEN).format(**numbers))
    monkeypatch.setattr(tests.pendulum, "PENDULUM", dragged(TRUE))
    write_log(log, tests.pendulum.record(0, runs=2))
    monkeypatch.undo()
    robot = load(model)
    assert resolve("actuator/*/drag", robot)[0].nominal(robot) == GIVEN
    assert "actuator/motor/drag" in {target.path for target in every(robot)}
    asked = IdentifyStudy(model=str(model), logs=(str(log),), free=(parse("actuator/motor/drag"),), window=0.5)
    found = identify(asked, tmp_path / "out").summary["parameters"]["actuator/motor/drag"]
    assert found["unit"] == "N*m*s/rad"
    assert found["low95"] < TRUE < found["high95"]
    assert found["value"] == pytest.approx(TRUE, rel=0.02)
    written = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    np.testing.assert_allclose(written.actuator_damping, [found["value"]], rtol=1e-12)


def test_a_family_refuses_objects_and_a_second_of_its_name(family):
    robot = load(mujoco.MjSpec.from_string(tests.pendulum.PENDULUM.format(**tests.pendulum.TRUTH)))
    with pytest.raises(DsoError, match="it has no damping of its own"):
        resolve("actuator/motor/drag", robot)
    with pytest.raises(DsoError, match="parameter 'actuator/drag': two are called so"):
        register(toy())
