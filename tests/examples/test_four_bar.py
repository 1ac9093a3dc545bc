"""The curve of examples/studies/four_bar_path.py against the kinematics of MuJoCo, and the cost at the exact lengths."""

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dso_robotics.physics import loop
from dso_robotics.physics.design import LimbLength, compose
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.robot.closing import closing

pytest.importorskip("jax")
STUDY = Path(__file__).parents[2] / "examples" / "studies" / "four_bar_path.py"


def study():
    spec = importlib.util.spec_from_file_location("four_bar_path", STUDY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pen_of_the_exact_lengths_is_on_the_curve_at_every_angle(models):
    exact = study()
    robot = load(models / "four_bar.xml")
    lengths = compose([LimbLength(robot, name) for name in ("crank", "coupler", "rocker")], robot)
    fields = lengths(np.array([exact.CRANK, exact.COUPLER, exact.ROCKER]))
    made = load(mujoco.MjSpec.from_string(to_mjcf(robot, fields)))
    close, data = closing(made, made.mj, made.mj.qpos0, {"crank"}), mujoco.MjData(made.mj)
    crank = int(made.mj.joint("crank").qposadr[0])
    for angle in np.linspace(-3.0, 3.0, 7):
        drawn = np.array(made.mj.qpos0)
        drawn[crank] = angle
        data.qpos[:] = close(loop.model_fields(made.mj), drawn, np.zeros(made.mj.nv))[0]
        mujoco.mj_kinematics(made.mj, data)
        assert data.qpos[crank] == angle
        np.testing.assert_allclose(exact.curve(angle), data.site("pen").xpos[[0, 2]], atol=1e-9)
