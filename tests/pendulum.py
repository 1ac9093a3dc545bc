"""A one-joint mechanism and a log of it with known truth: small enough for every test."""

import mujoco
import numpy as np

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

PENDULUM = """
<mujoco model="pendulum">
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="{damping}" frictionloss="{frictionloss}"/>
      <inertial pos="0 0 -0.3" mass="{mass}" diaginertia="0.01 0.01 0.001"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/></sensor>
</mujoco>
"""
TRUTH = {"damping": 0.08, "frictionloss": 0.05, "mass": 0.7}
NOISE = np.array([0.002, 0.02])


def record(seed: int, *, runs: int = 3, seconds: float = 4.0, noise: float = 1.0) -> Log:
    """A log of the true pendulum under random steps of torque, with white sensor noise."""
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(**TRUTH))
    rng, rollouts = np.random.default_rng(seed), []
    for run in range(runs):
        data, rows = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = rng.normal(size=1), rng.normal(size=1)
        steps = int(seconds / model.opt.timestep)
        ctrl = np.repeat(rng.normal(size=(steps // 20 + 1, 1)), 20, axis=0)[:steps]
        for u in ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + noise * NOISE * rng.normal(size=(steps, 2))
        rollouts.append(
            Rollout(
                name=f"run{run}",
                time=model.opt.timestep * np.arange(steps),
                ctrl=ctrl,
                ctrl_names=("motor",),
                ctrl_units=("N*m",),
                sensordata=measured,
                sensor_names=("angle", "speed"),
                sensor_units=("rad", "rad/s"),
            )
        )
    return Log("", "simulated for a test", "CC0", tuple(rollouts))
