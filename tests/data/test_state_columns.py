"""The recorded state is put together in the model's order."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.convert import convert_table
from dso_robotics.data.state_columns import state_names
from dso_robotics.errors import DsoError

MODEL = """<mujoco><worldbody><body name="b"><freejoint name="base"/><geom size=".1"/>
<body pos="0 0 1"><joint name="hinge"/><geom size=".1"/></body></body></worldbody>
<sensor><jointpos name="q" joint="hinge"/></sensor></mujoco>"""
NAMES = ("t", "j", "qx", "qy", "qz", "qw", "z", "y", "x")


@pytest.fixture
def model():
    return mujoco.MjModel.from_xml_string(MODEL)


@pytest.fixture
def file(tmp_path):
    half = np.array([0.0, 0.1, 0.2])
    rows = np.stack([half, 7 + half, 0 * half, 0 * half, np.sin(half), np.cos(half), 3 + half, 2 + half, 1 + half], 1)
    rows[:, 2:6] *= 1.01  # rounded by the writer
    np.savetxt(tmp_path / "run.csv", rows, delimiter=",", header=",".join(NAMES), comments="")
    return tmp_path / "run.csv"


POSE = [f"base[{i}]={c}" for i, c in enumerate(("x", "y", "z", "qw", "qx", "qy", "qz"))]


def test_names(model):
    assert state_names(model, "qpos") == (*(f"base[{i}]" for i in range(7)), "hinge")
    assert len(state_names(model, "qvel")) == model.nv


def test_the_order_is_the_models(model, file):
    (rollout,) = convert_table(file, [], ["q=j"], qpos=["hinge=j:rad", *POSE], model=model, time="t").rollouts
    data = mujoco.MjData(model)
    data.joint("base").qpos[:] = [1.1, 2.1, 3.1, np.cos(0.1), 0, 0, np.sin(0.1)]
    data.joint("hinge").qpos[:] = 7.1
    np.testing.assert_allclose(rollout.qpos[1], data.qpos, atol=1e-12)


def test_what_is_missing_or_wrong_is_named(model, file):
    for qpos, word in (
        (POSE, "missing for hinge"),
        ([*POSE, "hinge=j", "elbow=j"], "--qpos elbow"),
        ([*POSE, "hinge=j", "hinge=j"], "more than once"),
        (["base[3]=x", *POSE[:3], *POSE[4:], "hinge=j"], "w, x, y, z"),
    ):
        with pytest.raises(DsoError, match=word):
            convert_table(file, [], ["q=j"], qpos=qpos, model=model, time="t")
    with pytest.raises(DsoError, match="--model"):
        convert_table(file, [], ["q=j"], qpos=["hinge=j"], time="t")


def test_resampled(file):
    (rollout,) = convert_table(file, [], ["q=j"], time="t", resample_rate=20).rollouts
    np.testing.assert_allclose(rollout.time, [0, 0.05, 0.1, 0.15, 0.2])
    np.testing.assert_allclose(rollout.sensor("q"), 7 + rollout.time)
    with pytest.raises(DsoError, match="positive"):
        convert_table(file, [], ["q=j"], time="t", resample_rate=0.0)
