"""A base on a leg that hops and is pushed along a floor, whose height and friction may be others than the model's."""

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

PUSHED = """
<mujoco model="pushed">
  <option timestep="0.002" integrator="implicitfast"/>
  <worldbody>
    <geom name="floor" type="plane" size="50 50 0.1" pos="0 0 {height}" friction="{friction} 0.005 0.0001"/>
    <body name="base" pos="0 0 0.5">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom type="box" size="0.1 0.1 0.1" mass="3" contype="0" conaffinity="0"/>
      <site name="imu"/>
      <body name="foot" pos="0 0 -0.45">
        <joint name="leg" type="slide" axis="0 0 1" damping="5" stiffness="600" range="-0.1 0.1" limited="true"/>
        <geom name="foot" type="sphere" size="0.05" mass="0.3" friction="0.05 0.005 0.0001"/>
        <site name="sole" size="0.06"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="thrust" joint="leg"/>
    <motor name="push" joint="x"/>
  </actuator>
  <sensor>
    <jointpos name="encoder" joint="leg"/>
    <jointvel name="rate" joint="leg"/>
    <accelerometer name="acc" site="imu"/>
    <touch name="touch" site="sole"/>
    <framepos name="seen" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""
NOISE = np.array([5e-4, 0.02, 0.1, 0.1, 0.1, 0.3, 0.01, 0.01, 0.01])
GUST = np.array([0.05, 0.05, 0.05])


def pushed(height: float = 0.0, friction: float = 0.6) -> str:
    """The robot on a floor of this height [m] and friction."""
    return PUSHED.format(height=height, friction=friction)


def hops(seed: int, *, seconds: float = 4.0, friction: float = 0.6) -> Rollout:
    """A run at 100 Hz on a floor at height 0, with a camera at 10 Hz; hops alternate with stances in which it is pushed."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(pushed(friction=friction))
    data, rows = mujoco.MjData(model), {"qpos": [], "qvel": [], "ctrl": [], "sensordata": []}
    mujoco.mj_step(model, data, 500)
    for t in range(round(100 * seconds)):
        phase = (t % 100) / 100
        # A push that the true floor holds or not, then a hop.
        data.ctrl[:] = -120.0 * (0.5 < phase < 0.6), 8.0 * np.sin(2 * np.pi * (t / 130 + rng.random() * 0.01))
        mujoco.mj_forward(model, data)
        y = data.sensordata + NOISE * rng.normal(size=9)
        y[6:] = np.nan if t % 10 else y[6:]
        for name, value in (("qpos", data.qpos), ("qvel", data.qvel), ("ctrl", data.ctrl), ("sensordata", y)):
            rows[name].append(value.copy())
        for _ in range(5):
            data.qvel[:] += GUST * np.sqrt(0.002) * rng.normal(size=3)
            mujoco.mj_step(model, data)
    names = ("encoder", "rate", "acc[0]", "acc[1]", "acc[2]", "touch", "seen[0]", "seen[1]", "seen[2]")
    units = ("m", "m/s", "m/s^2", "m/s^2", "m/s^2", "N", "m", "m", "m")
    return Rollout(
        name=f"run{seed}", time=0.01 * np.arange(len(rows["qpos"])), ctrl_names=("thrust", "push"), ctrl_units=("N", "N"),
        sensor_names=names, sensor_units=units, **{key: np.array(value) for key, value in rows.items()},
    )  # fmt: skip


def hopping(runs: int = 3, **keys) -> Log:
    """Runs "run0", "run1", ..."""
    return Log("", "test", "CC0", tuple(hops(i, **keys) for i in range(runs)))
