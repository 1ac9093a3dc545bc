"""Regression on inverse dynamics: near the truth from a start ten times off, and a competitor in the search."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.warm_start import regress

FREE = {
    "joint/shoulder/frictionloss": 1.46084,
    "joint/elbow/frictionloss": 1.22522,
    "body/upper/mass": 5.6,
    "body/lower/mass": 6.0,
    "joint/elbow/armature": 0.0276,
}


@pytest.fixture(scope="module")
def log(models):
    """Both motors driven, positions with a little noise."""
    model, rng = mujoco.MjModel.from_xml_path(str(models / "two_joint_arm.xml")), np.random.default_rng(0)
    rollouts = []
    for run in range(2):
        data, rows, ctrl = mujoco.MjData(model), [], np.zeros((1500, 2))
        time = model.opt.timestep * np.arange(1500)
        for j in range(2):
            for f in rng.uniform(0.3, 2.5, 4):
                ctrl[:, j] += rng.normal(0, (0.8, 0.3)[j]) * np.sin(2 * np.pi * f * time + rng.uniform(0, 6))
        for u in ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + rng.normal(size=(1500, 4)) * [1e-5, 1e-5, 1e-3, 1e-3]
        names = tuple(model.sensor(i).name for i in range(4))
        rollouts.append(
            Rollout(
                name=f"run{run}", time=time, ctrl=ctrl, ctrl_names=("tau1", "tau2"), ctrl_units=("", ""),
                sensordata=measured, sensor_names=names, sensor_units=("",) * 4,
            )
        )  # fmt: skip
    return Log("", "simulated for a test", "CC0", tuple(rollouts))


def test_it_comes_near_the_truth_from_ten_times_off(models, log):
    robot = load(models / "two_joint_arm.xml")
    vector = pack([parse(f"{path}={start}") for path, start in FREE.items()], robot)
    windows = cut(log.rollouts, match_channels(log, robot.mj), timestep=0.002, seconds=0.5)
    truth = [
        robot.mj.dof_frictionloss[0],
        robot.mj.dof_frictionloss[1],
        *robot.mj.body_mass[1:3],
        robot.mj.dof_armature[1],
    ]
    found = regress(vector, windows)
    np.testing.assert_allclose(found, truth, rtol=0.2)


def test_it_competes_as_a_start_and_says_what_it_needs(models, log, tmp_path):
    write_log(tmp_path / "log.h5", log)
    free = tuple(parse(f"{path}={start}") for path, start in FREE.items())
    study = IdentifyStudy(str(models / "two_joint_arm.xml"), (str(tmp_path / "log.h5"),), free, warm_start=True)
    found = identify(study, tmp_path / "out").summary
    starts = found["starts"]
    assert starts["warm_start"] == 1
    assert starts["chosen"] == int(np.argmin(starts["costs"]))
    assert found["parameters"]["body/lower/mass"]["value"] == pytest.approx(0.604, rel=0.02)
    blind = dataclasses.replace(
        log.rollouts[0], sensordata=log.rollouts[0].sensordata[:, 1:], sensor_names=log.rollouts[0].sensor_names[1:],
        sensor_units=("",) * 3,
    )  # fmt: skip
    text = (models / "two_joint_arm.xml").read_text().replace('<jointpos name="shoulder_pos" joint="shoulder"/>', "")
    (tmp_path / "blind.xml").write_text(text)
    write_log(tmp_path / "blind.h5", dataclasses.replace(log, rollouts=(blind,)))
    with pytest.raises(DsoError, match="position of every joint"):
        identify(
            dataclasses.replace(study, model=str(tmp_path / "blind.xml"), logs=(str(tmp_path / "blind.h5"),)),
            tmp_path / "no",
        )
