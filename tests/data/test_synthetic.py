"""The bundled synthetic log: reproducible, small, a drop-in for the real one, and not a log of the nominal model."""

import runpy

import mujoco
import numpy as np
import pytest

from dso_robotics.data.assets import asset
from dso_robotics.data.log import problems, read_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.registry import registry


@pytest.fixture(scope="module")
def shipped():
    return read_log(asset("datasets/synthetic/two_joint_arm.h5"))


def test_shape(shipped, arm):
    assert asset("datasets/synthetic/two_joint_arm.h5").stat().st_size < 300_000
    assert shipped.names == ("00", "01", "02", "03", "04", "05")
    assert all(len(r.time) == 2000 and r.time[1] == 0.002 for r in shipped.rollouts)
    # Nothing but its quanta, at their true size, and one control that its excitation clips.
    said = problems(shipped)
    steps = [text for text in said if "changes in steps of" in text]
    assert any("'shoulder_vel' changes in steps of 0.01 rad/s" in text for text in steps)
    assert all("looks saturated" in text for text in said if text not in steps)
    assert match_channels(shipped, arm).warnings == ()
    real = registry()["dfki_double_pendulum_A0"]
    assert [text.split("=")[0] for text in real.ctrl] == list(shipped.rollouts[0].ctrl_names)
    assert [text.split("=")[0] for text in real.sensors] == list(shipped.rollouts[0].sensor_names)


def test_the_script_records_it_again(shipped):
    again = runpy.run_path(str(asset("datasets/record_synthetic.py")))["two_joint_arm"]()
    assert dict(again.attributes) == dict(shipped.attributes)
    for name in shipped.names[:2]:
        # The arm is chaotic in principle: other processors may round differently, so only the beginning is compared.
        for kind in ("ctrl", "sensordata"):
            new, old = getattr(again[name], kind)[:300], getattr(shipped[name], kind)[:300]
            assert np.mean(np.abs(new - old) > 1e-6) < 0.01


def test_the_truth_is_told(shipped, arm):
    for path in ("body/lower/mass", "joint/elbow/damping", "joint/shoulder/frictionloss"):
        kind, name, field = path.split("/")
        nominal = float(np.ravel(getattr(getattr(arm, kind)(name), field))[0])
        assert shipped.attributes[f"truth.{path}"] > 0
        assert shipped.attributes[f"truth.{path}"] != pytest.approx(nominal, rel=0.02)


def test_the_nominal_model_does_not_explain_it(shipped, arm):
    rollout, data = shipped["00"], mujoco.MjData(arm)
    data.qpos[:], data.qvel[:] = rollout.sensordata[0, :2], rollout.sensordata[0, 2:]
    predicted = np.empty((1000, 2))
    for t in range(1000):
        predicted[t], data.ctrl[:] = data.qpos, rollout.ctrl[t]
        mujoco.mj_step(arm, data)
    error = np.sqrt(np.mean((predicted - rollout.sensordata[:1000, :2]) ** 2, axis=0))
    assert (error > 0.02).all()  # far above the encoder's 0.0004 rad
    assert (error < 2).all()  # yet the same mechanism
