"""Both engines predict the same, and the cost's reverse-mode gradient is that of central differences of C MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction

SMOOTH = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.08" stiffness="0.2"/>
      <inertial pos="0.02 0 -0.3" mass="0.7" fullinertia="0.011 0.012 0.005 0.001 0.002 -0.001"/>
      <body name="tip" pos="0 0 -0.5">
        <joint name="wrist" axis="1 0.3 0" damping="0.03" armature="0.01"/>
        <inertial pos="0 0.03 -0.1" mass="0.3" diaginertia="0.002 0.002 0.001"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge" gear="1.5"/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/>
    <jointpos name="turn" joint="wrist"/><framepos name="where" objtype="xbody" objname="tip"/>
  </sensor>
</mujoco>
"""
CONTACT = """
<mujoco>
  <option timestep="0.005" tolerance="0" iterations="50" cone="elliptic"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="0.3 0.005 0.001" condim="3"/>
    <body name="puck" pos="0 0 0.0995">
      <joint name="x" type="slide" axis="1 0 0" damping="0.2"/><joint name="z" type="slide" axis="0 0 1"/>
      <joint name="spin" axis="0 1 0" frictionloss="0.01"/>
      <geom name="ball" type="sphere" size="0.1" mass="0.8" friction="0.4 0.005 0.001" condim="3"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x"/></actuator>
  <sensor>
    <jointpos name="px" joint="x"/><jointpos name="pz" joint="z"/><jointpos name="angle" joint="spin"/>
    <jointvel name="vx" joint="x"/><jointvel name="w" joint="spin"/>
  </sensor>
</mujoco>
"""
SMOOTH_FREE = (
    "joint/*/damping",
    "joint/wrist/armature",
    "joint/hinge/stiffness",
    "body/pole/inertia",
    "body/tip/mass",
    "body/tip/ipos[1]",
    "actuator/motor/gear",
    "sensor/angle/bias",
)
CONTACT_FREE = (
    "geom/ball/friction[0]",
    "joint/x/damping",
    "joint/spin/frictionloss",
    "body/puck/mass",
    "actuator/push/gear",
)


def problem(text, free, tmp_path, qvel):
    """Vector and windows of a simulated log with noise, at parameters a tenth off, with irregular sample times."""
    (tmp_path / "model.xml").write_text(text)
    robot = load(tmp_path / "model.xml")
    model, rng = robot.mj, np.random.default_rng(0)
    data = mujoco.MjData(model)
    data.qvel[:] = qvel
    rows, ctrl = [], np.repeat(rng.normal(size=(4, 1)), 10, axis=0)
    for u in ctrl:
        data.ctrl[:] = u
        mujoco.mj_forward(model, data)
        rows.append(np.r_[data.sensordata, data.qpos, data.qvel])
        mujoco.mj_step(model, data)
    rows = np.array(rows)
    names = tuple(
        name if dim == 1 else f"{name}[{i}]"
        for name, dim in ((model.sensor(s).name, int(model.sensor_dim[s])) for s in range(model.nsensor))
        for i in range(dim)
    )
    measured = rows[:, : model.nsensordata] + 0.01 * rng.normal(size=(40, model.nsensordata))
    time = model.opt.timestep * (np.arange(40) + 0.3 * rng.uniform(size=40) * (np.arange(40) % 7 > 0))
    log = Log("", "", "", (Rollout(
        name="a", time=time, ctrl=ctrl, ctrl_names=(model.actuator(0).name,), sensordata=measured, sensor_names=names,
        qpos=rows[:, model.nsensordata : model.nsensordata + model.nq], qvel=rows[:, model.nsensordata + model.nq :],
    ),))  # fmt: skip
    vector = pack([parse(p) for p in free], robot)
    windows = cut(
        log.rollouts, match_channels(log, model), timestep=model.opt.timestep, seconds=20 * model.opt.timestep
    )
    z = vector.initial + 0.1 * vector.scale * rng.uniform(size=vector.size)
    return vector, windows, z, start.guess(windows, model)


@pytest.mark.parametrize(
    ("text", "free", "qvel"),
    [(SMOOTH, SMOOTH_FREE, [1.0, -2.0]), (CONTACT, CONTACT_FREE, [1.2, 0.0, 3.0])],
    ids=["smooth", "contact"],
)
def test_engines_agree_and_the_gradient_is_that_of_central_differences(text, free, qvel, tmp_path):
    vector, windows, z, x = problem(text, free, tmp_path, qvel)
    c, mjx = CPrediction(vector, windows), MjxPrediction(vector, windows)
    np.testing.assert_allclose(mjx.predict(z, x), c.predict(z, x), rtol=1e-9, atol=1e-10)

    sigma = np.linspace(0.01, 0.02, len(windows.channels.sensor_names))
    cost = WindowedIdentification(vector, windows, c, sigma=sigma, learn_noise=False)
    k = 2 * vector.mj.nv
    change = 1e-2 * np.random.default_rng(1).normal(size=(len(x), k))
    value, (by_z, by_change) = jax.jit(jax.value_and_grad(mjx.cost(sigma), argnums=(0, 1)))(
        jnp.asarray(z), jnp.asarray(change), jnp.asarray(x)
    )

    def c_cost(z, change):
        return sum(cost.terms(z, cost.retract(x, change)).values())

    np.testing.assert_allclose(value, c_cost(z, change), rtol=1e-9)

    def central(function, size):
        """Richardson's combination of two central differences, error of order h^4."""
        estimates = [(function(h) - function(-h)) / (2 * h) for h in (1e-4 * size, 2e-4 * size)]
        return (4 * estimates[0] - estimates[1]) / 3

    units = np.eye(vector.size)
    expected = [central(lambda h, u=u: c_cost(z + h * u, change), s) for u, s in zip(units, vector.scale, strict=True)]
    np.testing.assert_allclose(
        by_z * vector.scale, expected * vector.scale, rtol=1e-6, atol=1e-6 * np.abs(by_z * vector.scale).max()
    )
    for w in range(len(x)):
        for i in range(k):
            unit = np.zeros_like(change)
            unit[w, i] = 1
            numeric = central(lambda h, u=unit: c_cost(z, change + h * u), 0.1)
            np.testing.assert_allclose(by_change[w, i], numeric, rtol=1e-6, atol=1e-6 * float(np.abs(by_change).max()))


def test_forward_mode_agrees_with_finite_differences_of_c(tmp_path):
    vector, windows, z, x = problem(SMOOTH, SMOOTH_FREE, tmp_path, [1.0, -2.0])
    c, mjx = CPrediction(vector, windows), MjxPrediction(vector, windows)
    for exact, approximate in zip(mjx.linearize(z, x), c.linearize(z, x), strict=True):
        np.testing.assert_allclose(approximate, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    y, by_z, by_x = mjx.linearize(z, x, by_start=False)
    assert by_x.shape == (*y.shape, 0)
    assert by_z.shape == (*y.shape, vector.size)


def test_a_prior_enters_the_cost(tmp_path):
    (tmp_path / "model.xml").write_text(SMOOTH)
    robot = load(tmp_path / "model.xml")
    vector = pack([Declaration("joint/hinge/damping", prior=(0.1, 0.01))], robot)
    assert vector.prior_residual(np.array([0.12])) == pytest.approx(2.0)


def test_friction_of_a_tendon_that_mjx_would_leave_out_is_refused(tmp_path):
    tendon = '<tendon><fixed name="cable"><joint joint="hinge" coef="1"/></fixed></tendon><actuator>'
    text = SMOOTH.replace("<actuator>", tendon)
    vector, windows, *_ = problem(text, ("tendon/cable/frictionloss",), tmp_path, [1.0, -2.0])
    with pytest.raises(DsoError, match="--engine mujoco"):
        MjxPrediction(vector, windows)
