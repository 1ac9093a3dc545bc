"""One step of small models: `python steps.py FILE` writes next states and readings of the C MuJoCo of that Python, as JSON.

One model for each row of physics/versions.py, and near it one that the row must not name.
"""

import json
import sys

import mujoco
import numpy as np

ARM = """
<mujoco>
  <option integrator="{integrator}"/>
  <worldbody>
    <site name="wall" pos="0 0 1"/>
    <body name="upper" pos="0 0 1">
      <joint name="hinge" axis="0 1 0" damping="0.1" {joint}/> <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass="1"/>
      <body name="lower" pos="0.3 0 0">
        <joint name="elbow" axis="0 1 0"/> <geom name="lower" type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass=".5"/>
        <site name="tip" pos="0.3 0 0"/>
      </body>
    </body>
    <body name="puck" pos="1 0 1"><joint name="slide" type="slide"/> {puck} <geom name="puck" size="0.1" mass="1"/></body>
  </worldbody>
  <tendon><fixed name="belt" {belt}><joint joint="hinge" coef="1"/><joint joint="elbow" coef="-0.5"/></fixed></tendon>
  <actuator>{actuator}</actuator>
  <sensor><accelerometer name="acceleration" site="{site}"/></sensor>
</mujoco>
"""
WRAP = """
<mujoco>
  <option integrator="implicitfast"/>
  <worldbody>
    <site name="anchor" pos="-0.3 0 -0.02"/>
    <geom name="drum" type="{kind}" size="0.1 0.2" euler="90 0 0"/> <site name="side" pos="0.3 0 0"/>
    <body name="link"><joint name="hinge" axis="0 1 0"/> <geom type="capsule" fromto=".15 0 0 .4 0 0" size=".02" mass=".5"
      contype="0" conaffinity="0"/> <site name="end" pos="0.3 0 0.02"/></body>
  </worldbody>
  <tendon>
    <spatial name="rope" stiffness="200" springlength="0.4">
      <site site="anchor"/><geom geom="drum" {side}/><site site="end"/>
    </spatial>
  </tendon>
</mujoco>
"""
SERVO = '<position name="servo" joint="hinge" kp="40" kv="3"/>'
MOTOR = '<motor name="motor" joint="hinge" gear="5"/>'
LIMIT = 'actuatorfrcrange="-0.5 0.5"'
BALL = '<joint name="ball" type="ball" pos="0.1 0 0.2"/>'
PARTS = {"integrator": "implicitfast", "site": "tip", "actuator": SERVO, "joint": "", "puck": "", "belt": ""}


def arm(**parts: str) -> str:
    return ARM.format(**(PARTS | parts))


# Models that a row names: what it names, and the model.
NAMED = {
    "joint": ("joint 'hinge'", arm(joint=LIMIT)),
    "tendon": ("tendon 'belt'", arm(belt=LIMIT, actuator='<position tendon="belt" kp="30" kv="2"/>')),
    "ball": ("joint 'ball'", arm(integrator="RK4", puck=BALL)),
    "sphere": ("tendon 'rope'", WRAP.format(kind="sphere", side='sidesite="side"')),
    "cylinder": ("tendon 'rope'", WRAP.format(kind="cylinder", side='sidesite="side"')),
    "still": ("sensor 'acceleration'", arm(site="wall")),
}
UNNAMED = {
    "Euler": arm(joint=LIMIT, puck=BALL, integrator="Euler"),
    "motor": arm(joint=LIMIT, actuator=MOTOR),
    "no kv": arm(joint=LIMIT, actuator='<position joint="hinge" kp="40"/>'),
    "servo beside the tendon": arm(belt=LIMIT, actuator=SERVO + '<motor tendon="belt" gear="5"/>'),
    "free range": arm(joint='range="-1 1"'),
    "ball": arm(puck=BALL),
    "RK4": arm(integrator="RK4", joint=LIMIT),
    "either side": WRAP.format(kind="sphere", side=""),
}


def step(text: str) -> list[list[float]]:
    """State and readings after one step from each of eight states."""
    model = mujoco.MjModel.from_xml_string(text)
    data, found, rng = mujoco.MjData(model), [], np.random.default_rng(0)
    for _ in range(8):
        mujoco.mj_resetData(model, data)
        data.qvel[:] = rng.normal(size=model.nv)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 0.3)
        data.ctrl[:] = rng.normal(size=model.nu)
        mujoco.mj_step(model, data)
        found.append([*data.qpos, *data.qvel, *data.sensordata])
    return found


if __name__ == "__main__":
    models = {f"named {k}": text for k, (_, text) in NAMED.items()} | {f"unnamed {k}": v for k, v in UNNAMED.items()}
    with open(sys.argv[1], "w") as file:
        json.dump({name: step(text) for name, text in models.items()}, file)
