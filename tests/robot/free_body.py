"""A small quadrotor with an inertial unit at 250 Hz, a compass at 50 Hz and a position at 10 Hz, and an arm of two joints."""

from collections.abc import Sequence

import mujoco
import numpy as np

from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from dso_robotics.robot.learned import Learned

QUADROTOR = """
<mujoco>
  <option timestep="0.004" integrator="implicitfast" magnetic="0.5 0 -0.8"/>
  <worldbody>
    <body name="quad">
      <freejoint name="quad"/>
      <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.02"/>
      <site name="imu"/>
      <site name="r0" pos="0.2 0 0"/>
      <site name="r1" pos="0 0.2 0"/>
      <site name="r2" pos="-0.2 0 0"/>
      <site name="r3" pos="0 -0.2 0"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="m0" site="r0" gear="0 0 1 0 0 0.05"/>
    <motor name="m1" site="r1" gear="0 0 1 0 0 -0.05"/>
    <motor name="m2" site="r2" gear="0 0 1 0 0 0.05"/>
    <motor name="m3" site="r3" gear="0 0 1 0 0 -0.05"/>
  </actuator>
  <sensor>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="acc" site="imu"/>
    <magnetometer name="compass" site="imu"/>
    <framepos name="position" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""
ARM = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" damping="0.05"/>
      <inertial pos="0 0 -0.2" mass="0.8" diaginertia="0.01 0.01 0.001"/>
      <body name="lower" pos="0 0 -0.4">
        <joint name="elbow" axis="0 1 0" damping="0.05"/>
        <inertial pos="0 0 -0.15" mass="0.5" diaginertia="0.005 0.005 0.001"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="m1" joint="shoulder"/><motor name="m2" joint="elbow"/></actuator>
  <sensor><jointpos name="shoulder" joint="shoulder"/><jointpos name="elbow" joint="elbow"/></sensor>
</mujoco>
"""
QUADROTOR_NOISE = Noise(
    process=np.array([1e-4] * 6 + [0.1] * 3 + [0.3] * 3),
    sensor=np.array([0.01] * 3 + [0.2] * 3 + [0.01] * 3 + [0.05] * 3),
    drift=np.zeros(12),
    prior=np.array([2.0] * 3 + [0.6, 0.6, 2.0] + [5.0] * 6),
    offset=np.full(12, 0.5),
)
ARM_NOISE = Noise(
    process=np.array([1e-4, 1e-4, 0.3, 0.3]),
    sensor=np.array([0.003, 0.003]),
    drift=np.zeros(2),
    prior=np.array([2.0, 2.0, 5.0, 5.0]),
    offset=np.full(2, 0.5),
)


def estimator(
    xml: str, noise: Noise, *, interval: float, gate: float = 0.0, delay: np.ndarray | None = None
) -> KalmanEstimator:
    """A Kalman filter of the model with all its sensors, as a run file would hold it."""
    model = mujoco.MjModel.from_xml_string(xml)
    ny, space, k = model.nsensordata, Space(model), 2 * model.nv + model.na
    corrector = make_corrector("kalman", k, ny, 0)
    one, names = np.ones(ny), []
    for i in range(model.nsensor):
        name, size = model.sensor(i).name, int(model.sensor_dim[i])
        names += [name] if size == 1 else [f"{name}[{j}]" for j in range(size)]
    learned = Learned(
        corrector=corrector,
        weights=corrector.layout.join({name: getattr(noise, name) for name in corrector.shapes()}),
        scales=Scales(noise.sensor, np.ones(k), np.zeros(space.width), np.ones(space.width)),
        scale=one,
        bias=0 * one,
        delay=0 * one if delay is None else delay,
        sigma=noise.sensor,
        spread=np.zeros((ny, 0)),
        covariance=None,
        names=tuple(names),
        addresses=np.arange(ny),
        interval=interval,
        substeps=max(round(interval / model.opt.timestep), 1),
        gate=gate,
    )
    return KalmanEstimator(model, Learned.from_dict(learned.as_dict()))


def hover(data: mujoco.MjData, t: int) -> np.ndarray:
    """Thrusts (4,) that keep the quadrotor nearly level while it wanders."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, data.qpos[3:7])
    up, w = turn.reshape(3, 3)[2], data.qvel[3:]
    aim = 0.2 * np.array([np.sin(0.01 * t), np.cos(0.013 * t)])
    roll, pitch = 0.3 * (up[1] - aim[0]) - 0.08 * w[0], -0.3 * (up[0] - aim[1]) - 0.08 * w[1]
    yaw = -0.02 * w[2] + 0.01 * np.sin(0.02 * t)
    return 9.81 / 4 + np.array([-pitch, roll, pitch, -roll]) / 0.4 + yaw / 0.2 * np.array([1.0, -1.0, 1.0, -1.0])


def flight(seed: int, steps: int, yaw: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (T+1, 13), thrusts (T, 4) and readings (T+1, 12) of a flight with gusts, NaN where a slow sensor is silent."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(QUADROTOR)
    return flown(model, rng, steps, QUADROTOR_NOISE.sensor, [(slice(6, 9), 5, 0), (slice(9, 12), 25, 0)], yaw)


def flown(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    steps: int,
    noise: np.ndarray,
    slow: Sequence[tuple[slice, int, int]],
    yaw: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`flight` of a quadrotor with sensors of its own.

    noise: of its channels, (ny,). slow: channels that are read every so many samples only, and the sample of the first.
    """
    data = mujoco.MjData(model)
    data.qpos[:3], data.qvel[:3] = rng.normal(size=3), 0.3 * rng.normal(size=3)
    data.qpos[3:7] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
    states, thrusts, readings = [], [], []
    for t in range(steps + 1):
        mujoco.mj_forward(model, data)
        y = data.sensordata + noise * rng.normal(size=len(noise))
        for channels, every, first in slow:
            y[channels] = np.nan if (t - first) % every else y[channels]
        states.append(np.concatenate([data.qpos, data.qvel]))
        readings.append(y)
        thrusts.append(hover(data, t))
        data.ctrl[:] = thrusts[-1]
        data.qvel[:] += QUADROTOR_NOISE.process[6:] * np.sqrt(0.004) * rng.normal(size=6)
        mujoco.mj_step(model, data)
    return np.array(states), np.array(thrusts[:-1]), np.array(readings)


def swing(seed: int, steps: int, every: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (T+1, 4), torques (T, 2) and readings (T+1, 2) of the arm, sampled every so many time steps."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(ARM)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = rng.normal(size=2), rng.normal(size=2)
    states, torques, readings = [], [], []
    for t in range(steps + 1):
        states.append(np.concatenate([data.qpos, data.qvel]))
        readings.append(data.qpos + ARM_NOISE.sensor * rng.normal(size=2))
        data.ctrl[:] = (0.5 * np.sin(0.02 * t), 0.3 * np.cos(0.031 * t))
        torques.append(data.ctrl.copy())
        for _ in range(every):
            data.qvel[:] += ARM_NOISE.process[2:] * np.sqrt(0.005) * rng.normal(size=2)
            mujoco.mj_step(model, data)
    return np.array(states), np.array(torques[:-1]), np.array(readings)
