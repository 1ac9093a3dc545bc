"""Studies that name all nine costs and free all seven blocks: a cart-pole, an arm and a floating body, without contacts."""

from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.log import write_log
from dso_robotics.data.record import Flaws, record

CART = """<mujoco model="cart">
  <option timestep="0.05" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <worldbody><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
    <geom name="cart" type="box" size="0.1 0.1 0.1" mass="1"/>
  </body></worldbody>
  <actuator><motor name="push" joint="x" gear="2" ctrllimited="true" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="place" joint="x"/><jointvel name="speed" joint="x"/></sensor>
</mujoco>"""

CARTPOLE = """<mujoco model="cartpole">
  <option timestep="0.02" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <worldbody><body name="cart">
    <joint name="slider" type="slide" axis="1 0 0" damping="0.2"/>
    <geom type="box" size="0.1 0.1 0.1" mass="1"/>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.02"/>
      <geom name="pole" type="capsule" fromto="0 0 0 0 0 0.6" size="0.03" mass="0.2"/>
      <site name="tip" pos="0 0 0.6"/>
    </body></body></worldbody>
  <actuator><motor name="drive" joint="slider" gear="5" ctrllimited="true" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="place" joint="slider"/><jointpos name="angle" joint="hinge"/><gyro name="gyro" site="tip"/></sensor>
</mujoco>"""

ARM = """<mujoco model="arm">
  <option timestep="0.02"><flag contact="disable"/></option>
  <worldbody><body name="upper">
    <joint name="shoulder" axis="0 1 0" damping="0.3"/>
    <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="0.6"/>
    <body name="lower" pos="0.4 0 0">
      <joint name="elbow" axis="0 1 0" damping="0.1" armature="0.01"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.3"/>
      <site name="tip" pos="0.3 0 0"/>
    </body></body></worldbody>
  <actuator><motor name="one" joint="shoulder" gear="4" ctrllimited="true" ctrlrange="-1 1"/>
    <motor name="two" joint="elbow" gear="2" ctrllimited="true" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/>
    <gyro name="imu" site="tip"/></sensor>
</mujoco>"""

FLOATER = """<mujoco model="floater">
  <option timestep="0.02"><flag contact="disable"/></option>
  <worldbody><body name="hull" pos="0 0 1">
    <freejoint name="root"/>
    <geom name="hull" type="box" size="0.2 0.15 0.1" mass="1"/>
    <site name="left" pos="0.1 0.2 0"/><site name="right" pos="0 -0.2 0.05"/>
    <body name="arm" pos="0.2 0 0">
      <joint name="wrist" axis="0 1 0" damping="0.05"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.2"/>
    </body></body></worldbody>
  <actuator>
    <general name="lift" site="left" gear="0 0 1 0 0 0.1" gainprm="8" ctrllimited="true" ctrlrange="0 1"/>
    <general name="push" site="right" gear="0 0.2 1 0.1 0 0" gainprm="8" ctrllimited="true" ctrlrange="0 1"/>
    <motor name="turn" joint="wrist" ctrllimited="true" ctrlrange="-1 1"/></actuator>
  <sensor><framepos name="where" objtype="body" objname="hull"/><gyro name="gyro" site="left"/>
    <jointpos name="wrist_angle" joint="wrist"/></sensor>
</mujoco>"""

# Model, quantity of the task, free paths, designed part, sensors with noise, position of the start.
ROBOTS = {
    "cart": (
        CART, "joint/x/position",
        ["body/cart/mass=1.2@0.2:5", "joint/x/damping=0.2@0:2", "sensor/place/bias=0.02@-1:1", "sensor/speed/noise"],
        ("gear", "push"), '"*" = 0.02', "{ x = 0.5 }",
    ),
    "cartpole": (
        CARTPOLE, "joint/hinge/position",
        ["body/pole/mass=0.25@0.05:1", "joint/slider/damping=0.3@0:2", "sensor/angle/bias=0.02@-1:1", "sensor/gyro/noise[1]"],
        ("gear", "drive"), '"*" = 0.01, gyro = 0.02', '{ hinge = 0.3 }',
    ),
    "arm": (
        ARM, "joint/elbow/position",
        ["joint/elbow/damping=0.2@0:2", "body/lower/mass=0.4@0.1:1", "sensor/q1/bias=0.03@-1:1", "sensor/imu/noise[1]"],
        ("gear", "two"), '"*" = 0.01, imu = 0.02', '{ shoulder = 0.4, elbow = 0.5 }',
    ),
    "floater": (
        FLOATER, "joint/wrist/velocity",
        ["body/hull/mass=1.1@0.5:3", "joint/wrist/damping=0.1@0:1", "sensor/gyro/bias[0]=0.02@-1:1", "sensor/where/noise"],
        ("gear", "turn"), '"*" = 0.01', '{ wrist = 0.2 }',
    ),
}  # fmt: skip

STUDY = """
model = "robot.xml"
seconds = 0.4
free = {free}
[policy]
kind = "linear"
noise = 0.2
learn_noise = true
observe = "estimate"
[start]
position = {start}
spread = 0.02
[sensors]
noise = {{ {noise} }}
[estimator]
corrector = "{corrector}"
units = 3
[design.part]
kind = "{design[0]}"
of = "{design[1]}"
[cost.task]
kind = "square"
quantity = "{quantity}"
[cost.tracking]
kind = "tracking"
log = "log.h5"
weight = 0.1
[cost.control]
kind = "divergence"
weight = 0.01
[cost.ahead]
kind = "estimation"
weight = 0.01
[cost.known]
kind = "prior"
numbers = {{ "{prior}" = [1.0, 0.5] }}
weight = 0.1
[cost.imitated]
kind = "cloning"
log = "log.h5"
weight = {weight}
[cost.bench]
kind = "calibration"
log = "log.h5"
[cost.recorded]
kind = "identification"
log = "log.h5"
window = 0.2
[cost.watched]
kind = "identification_cloning"
log = "log.h5"
window = 0.1
[cost.filtered]
kind = "estimation"
log = "log.h5"
window = 0.4
[training]
environments = 4
horizon = 6
iterations = {iterations}
critic_hidden = 8
learning_rate = 0.01
"""


def write(folder: Path, name: str, *, iterations: int = 3, corrector: str = "mlp", weight: str = "0.1") -> Path:
    """Write robot.xml, log.h5 and study.toml, and return the study's path."""
    xml, quantity, free, design, noise, start = ROBOTS[name]
    (folder / "robot.xml").write_text(xml)
    model, rng = mujoco.MjModel.from_xml_string(xml), np.random.default_rng(0)
    low, high = model.actuator_ctrlrange.T
    waves = np.sin(np.linspace(0, 6, 41)[:, None] * (1 + np.arange(model.nu)) + np.arange(model.nu))
    ctrl = (low + high) / 2 + 0.3 * (high - low) * waves
    noises = {"*": 0.01}
    log = record(
        model, rng, [("one", ctrl)], flaws=Flaws(sensor_noise=noises), spread_qpos=0.1, keep_state=True, source=name
    )
    write_log(folder / "log.h5", log)
    prior = free[0].partition("=")[0]
    told = {"free": free, "quantity": quantity, "design": design, "noise": noise, "start": start, "prior": prior}
    path = folder / "study.toml"
    path.write_text(STUDY.format(iterations=iterations, corrector=corrector, weight=weight, **told))
    return path
