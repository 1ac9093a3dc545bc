"""Backlash is a joint of its own, whose range is identified from the motor's encoder alone."""

import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

PLAY = 0.04
MODEL = """<mujoco><compiler angle="radian"/><option timestep="0.002" integrator="implicitfast"/><worldbody>
  <body><joint name="motor" axis="0 1 0" armature="0.01" damping="0.05"/>
    <geom size="0.02" mass="0.05" contype="0" conaffinity="0"/>
    <body><joint name="play" axis="0 1 0" range="-{play} {play}" damping="0.002" solreflimit="0.006 1"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.3" size="0.015" mass="0.4" contype="0" conaffinity="0"/></body></body>
</worldbody><actuator><motor name="drive" joint="motor"/></actuator>
<sensor><jointpos name="encoder" joint="motor"/><jointvel name="speed" joint="motor"/></sensor></mujoco>"""


def record():
    """Two recordings of 2 s at 100 Hz under sums of sines."""
    model, rng, runs = mujoco.MjModel.from_xml_string(MODEL.format(play=PLAY)), np.random.default_rng(0), []
    for name in ("a", "b"):
        data, time = mujoco.MjData(model), 0.01 * np.arange(200)
        speed, phase, size = (rng.uniform(low, high, 4) for low, high in ((1, 8), (0, 6.28), (0.2, 0.5)))
        ctrl, read = np.sin(np.outer(time, speed) + phase) @ size, []
        for u in ctrl:
            data.ctrl[0] = u
            mujoco.mj_forward(model, data)
            read.append(data.sensordata + rng.normal(size=2) * [2e-4, 5e-3])
            mujoco.mj_step(model, data, 5)
        channels = {"ctrl_names": ("drive",), "ctrl_units": ("N*m",)}
        channels |= {"sensor_names": ("encoder", "speed"), "sensor_units": ("rad", "rad/s")}
        runs.append(Rollout(name=name, time=time, ctrl=ctrl[:, None], sensordata=np.array(read), **channels))
    return Log("log", "simulated", "none", tuple(runs))


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.01, 0.1])
def test_the_play_is_found_from_far_starts(start):
    spec = mujoco.MjSpec.from_string(MODEL.format(play=0.02))
    found = dso.identify(
        spec, record(), free=[f"joint/play/range={start}@0.001:0.3", "joint/motor/damping=0.02"], window="full"
    )
    play = found.parameters["joint/play/range"]
    assert play["value"] == pytest.approx(PLAY, rel=0.02)
    assert play["low95"] <= PLAY <= play["high95"] or abs(play["value"] - PLAY) < 2e-4
    assert found.parameters["joint/motor/damping"]["value"] == pytest.approx(0.05, rel=0.02)
