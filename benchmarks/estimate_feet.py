"""A walker's base velocity and height by encoders, gyroscope and accelerometer, with and without its feet's contact.

    python -m benchmarks.estimate_feet --out benchmarks/results/estimate_feet.json

A planar robot of two legs walks on a floor that it feels by touch sensors, and is pushed. Nothing measures where it is. A
Kalman filter whose base is moved by the accelerometer (`strapdown`) is learned on two runs and judged on a third, which it
replays from a cold start; errors count after a second.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

import dso_robotics as dso
from benchmarks.provenance import command
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

WALKER = """
<mujoco model="walker">
  <option timestep="0.0025" integrator="implicitfast"/>
  <default>
    <geom contype="0" conaffinity="0"/>
    <default class="leg"><joint axis="0 1 0" damping="0.5" armature="0.02"/></default>
    <position kp="180" kv="6"/>
  </default>
  <worldbody>
    {floor}
    <body name="torso" pos="0 0 0.53">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <joint name="pitch" axis="0 1 0"/>
      <geom type="box" size="0.25 0.1 0.06" mass="{mass}"/>
      <site name="imu"/>
      <body name="front_thigh" pos="0.25 0 0">
        <joint name="front_hip" class="leg"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.27" size="0.025" mass="0.5"/>
        <body name="front_shank" pos="0 0 -0.27">
          <joint name="front_knee" class="leg"/>
          <geom type="capsule" fromto="0 0 0 0 0 -0.27" size="0.02" mass="0.3"/>
          <geom name="front_foot" type="sphere" pos="0 0 -0.27" size="0.02" mass="0.05" contype="1" conaffinity="1" {grip}/>
          <site name="front_foot" pos="0 0 -0.27" size="0.03"/>
        </body>
      </body>
      <body name="hind_thigh" pos="-0.25 0 0">
        <joint name="hind_hip" class="leg"/>
        <geom type="capsule" fromto="0 0 0 0 0 -0.27" size="0.025" mass="0.5"/>
        <body name="hind_shank" pos="0 0 -0.27">
          <joint name="hind_knee" class="leg"/>
          <geom type="capsule" fromto="0 0 0 0 0 -0.27" size="0.02" mass="0.3"/>
          <geom name="hind_foot" type="sphere" pos="0 0 -0.27" size="0.02" mass="0.05" contype="1" conaffinity="1" {grip}/>
          <site name="hind_foot" pos="0 0 -0.27" size="0.03"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="front_hip" joint="front_hip"/>
    <position name="front_knee" joint="front_knee"/>
    <position name="hind_hip" joint="hind_hip"/>
    <position name="hind_knee" joint="hind_knee"/>
  </actuator>
  <sensor>
    <jointpos name="front_hip_angle" joint="front_hip"/>
    <jointpos name="front_knee_angle" joint="front_knee"/>
    <jointpos name="hind_hip_angle" joint="hind_hip"/>
    <jointpos name="hind_knee_angle" joint="hind_knee"/>
    <jointvel name="front_hip_rate" joint="front_hip"/>
    <jointvel name="front_knee_rate" joint="front_knee"/>
    <jointvel name="hind_hip_rate" joint="hind_hip"/>
    <jointvel name="hind_knee_rate" joint="hind_knee"/>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="accelerometer" site="imu"/>
    <touch name="front_touch" site="front_foot"/>
    <touch name="hind_touch" site="hind_foot"/>
  </sensor>
</mujoco>
"""
FLOOR = '<geom name="floor" type="plane" size="20 20 0.1" pos="0 0 {height}" contype="1" conaffinity="1"/>'
NOISE = np.array([0.001] * 4 + [0.1] * 4 + [0.01] * 3 + [0.1] * 3 + [0.5] * 2)
EVERY, SECONDS = 2, 5.0


def xml(*, height: float | None = 0.0, friction: float = 0.8, mass: float = 6.0) -> str:
    """The walker on a floor of this height [m], or on none."""
    floor = "" if height is None else FLOOR.format(height=height)
    return WALKER.format(floor=floor, grip=f'friction="{friction} 0.005 0.0001"', mass=mass)


def steps(t: float, gait: np.ndarray) -> np.ndarray:
    """Servo positions (4,): each foot stands for 70% of a stride, then swings forward. gait: stride [m], rate [Hz]."""
    aims = []
    for phase in (0.0, 0.5):
        s = (t * gait[1] + phase) % 1.0
        stand = 0.7
        if s < stand:
            x, lift = gait[0] * (0.5 - s / stand), 0.0
        else:
            u = (s - stand) / (1 - stand)
            x, lift = gait[0] * (-0.5 + u), 0.06 * np.sin(np.pi * u)
        down = 0.5 - lift
        reach = np.hypot(x, down)
        knee = 2 * np.arccos(min(reach / 0.54, 1.0))
        aims += [-np.arctan2(x, down) - knee / 2, knee]
    return np.array(aims)


def walk(name: str, seed: int) -> Rollout:
    """One run with pushes, after a second to settle."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(xml(mass=6.3))
    data, rows = mujoco.MjData(model), {"qpos": [], "qvel": [], "ctrl": [], "sensordata": []}
    gait = np.array([rng.uniform(0.04, 0.14), rng.uniform(1.5, 2.2)])
    data.qpos[3:] = data.ctrl[:] = steps(0.0, gait)
    push = np.zeros(3)
    for t in range(round((1.0 + SECONDS) / model.opt.timestep)):
        now = t * model.opt.timestep
        if t % EVERY == 0:
            data.ctrl[:] = steps(now, gait)
        push += -push * model.opt.timestep / 0.3 + np.array([3.0, 3.0, 0.3]) * np.sqrt(model.opt.timestep) * rng.normal(
            size=3
        )
        data.qfrc_applied[:3] = push
        if now >= 1.0 and t % EVERY == 0:
            mujoco.mj_forward(model, data)
            rows["qpos"].append(data.qpos.copy())
            rows["qvel"].append(data.qvel.copy())
            rows["ctrl"].append(data.ctrl.copy())
            rows["sensordata"].append(data.sensordata + NOISE * rng.normal(size=len(NOISE)))
        mujoco.mj_step(model, data)
    names = []
    for i in range(model.nsensor):
        size = int(model.sensor_dim[i])
        names += [model.sensor(i).name] if size == 1 else [f"{model.sensor(i).name}[{k}]" for k in range(size)]
    units = ("rad",) * 4 + ("rad/s",) * 7 + ("m/s^2",) * 3 + ("N",) * 2
    return Rollout(
        name=name, time=EVERY * model.opt.timestep * np.arange(len(rows["qpos"])),
        ctrl_names=tuple(model.actuator(i).name for i in range(model.nu)), ctrl_units=("rad",) * 4,
        sensor_names=tuple(names), sensor_units=units, **{k: np.array(v) for k, v in rows.items()},
    )  # fmt: skip


def judged(feet: bool, log: Log, iterations: int) -> dict[str, float]:
    """Errors of the base over the last run of `log`, and squares of them over their variances."""
    contact = {f"{f}_foot": {"channel": f"{f}_touch", "site": f"{f}_foot", "above": 2.0} for f in ("front", "hind")}
    spec = mujoco.MjSpec.from_string(xml())
    keys: dict[str, Any] = {"contact": contact} if feet else {}
    found = dso.estimate(
        spec, log, hold_out=log.rollouts[-1].name, strapdown="accelerometer", iterations=iterations, **keys,
        sensors=[name for name in log.rollouts[0].sensor_names if name.endswith(("angle", "rate"))] + ["gyro"],
    )  # fmt: skip
    made, run = found.estimator, log.rollouts[-1]
    assert run.sensordata is not None
    assert run.qpos is not None
    assert run.qvel is not None
    columns = [run.sensor_names.index(name) for name in made.readings]
    pushed = [run.sensor_names.index(f"accelerometer[{i}]") for i in range(3)]
    made.reset(measurement=run.sensordata[0, columns])
    off, square = [], []
    for k in range(1, len(run.time)):
        told = made.update(run.sensordata[k, pushed], run.sensordata[k, columns])
        assert told.covariance is not None
        off.append(np.concatenate([told.qpos - run.qpos[k], told.qvel - run.qvel[k]]))
        square.append(off[-1] ** 2 / told.covariance.diagonal())
    first = round(1.0 / (run.time[1] - run.time[0]))
    e, nees = np.array(off)[first:], np.array(square)[first:].mean(0)
    rmse, nv = np.sqrt((e**2).mean(0)), run.qpos.shape[1]
    return {
        "height_m": rmse[1], "pitch_rad": rmse[2], "forward_m_s": rmse[nv], "upward_m_s": rmse[nv + 1],
        "drift_m": abs(e[-1, 0] - e[0, 0]), "nees_pitch": nees[2], "nees_forward": nees[nv], "nees_upward": nees[nv + 1],
    }  # fmt: skip


def main() -> None:
    """Learn both, print and write the table."""
    parser = argparse.ArgumentParser(description="A walker with and without its feet's contact")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=8)
    args = parser.parse_args()
    log = Log("", "written for this project", "Apache-2.0", tuple(walk(f"run{i}", i) for i in (0, 1, 3)))
    results: dict[str, Any] = {"command": command()}
    for feet in (True, False):
        began = time.perf_counter()
        row = judged(feet, log, args.iterations)
        results["with feet" if feet else "without"] = {k: float(v) for k, v in row.items()} | {
            "seconds": time.perf_counter() - began
        }
        print(json.dumps(results, indent=1), flush=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
