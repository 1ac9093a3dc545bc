"""A base that pulls itself along by a foot in one direction: accelerometer with a bias, encoder of the leg, foot switch."""

import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

STEPPER = """
<mujoco model="stepper">
  <option timestep="0.01" integrator="implicitfast"/>
  <default><position kp="50"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 0.1" pos="0 0 -0.4"/>
    <body name="base">
      <joint name="x" type="slide" axis="1 0 0"/>
      <geom size="0.1" mass="3"/>
      <site name="imu"/>
      <body name="foot" pos="0 0 -0.3">
        <joint name="leg" type="slide" axis="1 0 0" damping="3" stiffness="20"/>
        <geom name="foot" size="0.05" mass="0.5"/>
        <site name="sole" pos="0 0 -0.05" size="0.06"/>
      </body>
    </body>
  </worldbody>
  <actuator><position name="servo" joint="leg"/></actuator>
  <sensor>
    <jointpos name="encoder" joint="leg"/>
    <jointvel name="rate" joint="leg"/>
    <accelerometer name="acc" site="imu"/>
    <touch name="touch" site="sole"/>
  </sensor>
  <keyframe><key name="home" ctrl="0"/></keyframe>
</mujoco>
"""
STEP = 0.01
NAMES = ("encoder", "rate", "acc[0]", "acc[1]", "acc[2]", "touch", "switch")


def steps(name: str, seed: int, *, seconds: float = 4.0, slip: tuple[float, float] = (9.0, 9.0)) -> Rollout:
    """The foot stands for 0.7 s of each second but for an interval `slip` [s], in which it slides, at 1 m/s within 0.1 s."""
    rng, t = np.random.default_rng(seed), np.arange(0.0, seconds, STEP)
    phase = 2 * np.pi * rng.random()
    v = 0.3 + 0.2 * np.sin(4 * t + phase)
    a = 0.8 * np.cos(4 * t + phase)
    stands = t % 1.0 < 0.7
    slides = stands & (t >= slip[0]) & (t < slip[1])
    u = np.where(
        stands,
        np.where(slides, np.minimum(10 * (t - slip[0]), 1.0), 0.0),
        2.2 * np.sin(np.pi * np.maximum(t % 1.0 - 0.7, 0) / 0.3) ** 2,
    )
    x, foot = np.cumsum(v) * STEP, np.cumsum(u) * STEP
    data = np.stack([foot - x, u - v, a + 0.1, 0 * t, 0 * t + 9.81, 30.0 * stands, stands], 1)
    data[:, :5] += np.array([1e-3, 0.02, 0.05, 0.05, 0.05]) * rng.normal(size=(len(t), 5))
    return Rollout(
        name=name, time=t, sensordata=data, sensor_names=NAMES,
        sensor_units=("m", "m/s", "m/s^2", "m/s^2", "m/s^2", "N", ""),
        qpos=np.stack([x, foot - x], 1), qvel=np.stack([v, u - v], 1),
    )  # fmt: skip


def stepping(runs: int = 2, **keys) -> Log:
    """Runs "run0", "run1", ..."""
    return Log("", "test", "CC0", tuple(steps(f"run{i}", i, **keys) for i in range(runs)))


def readings(rollout: Rollout) -> np.ndarray:
    """Those of a run, (T, 7), in the order of `NAMES`."""
    assert rollout.sensordata is not None
    return rollout.sensordata
