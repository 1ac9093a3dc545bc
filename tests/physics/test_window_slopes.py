"""Derivatives of windows of C MuJoCo, against differences of whole control steps, where `mjd_transitionFD` alone is wrong."""

import mujoco
import numpy as np
import pytest

from dso_robotics.physics.sensitivity import window_slopes
from dso_robotics.physics.state import Tangent

MODEL = """<mujoco><option timestep="0.005" integrator="{integrator}"/>
  <worldbody><body name="one" pos="0 0 1"><joint name="a" axis="0 1 0" damping="0.1"/>
    <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="0.5"/><site name="s" pos="0.2 0 0"/>
    <body name="two" pos="0.3 0 0"><joint name="b" type="ball" damping="0.02"/>
      <geom type="capsule" fromto="0 0 0 0.2 0.05 0" size="0.02" mass="0.3"/></body></body></worldbody>
  <actuator>{actuator}</actuator>
  <sensor><accelerometer site="s"/><jointvel joint="a"/></sensor></mujoco>"""
MOTOR = '<motor joint="a" gear="2"/>'
MUSCLE = '<muscle joint="a" lengthrange="-1.5 1.5" force="3"/>'
# The gain falls with the speed.
DAMPED = '<general joint="a" gaintype="affine" gainprm="2 0 -0.8" dyntype="filter" dynprm="0.05"/>'


@pytest.mark.parametrize(
    ("integrator", "actuator"),
    [("Euler", MOTOR), ("RK4", MOTOR), ("implicitfast", MUSCLE), ("implicit", DAMPED)],
)
@pytest.mark.parametrize("centred", [False, True], ids=["forward", "centred"])
def test_a_control_step_of_three_steps(integrator, actuator, centred):
    model = mujoco.MjModel.from_xml_string(MODEL.format(integrator=integrator, actuator=actuator))
    rng, tangent, substeps = np.random.default_rng(0), Tangent(model), 3
    data = mujoco.MjData(model)
    change = 0.3 * rng.standard_normal(tangent.size)
    rest = np.concatenate([data.qpos, data.qvel, data.act])
    state, ctrl = tangent.move(rest, change), np.array([0.4])
    state[model.nq + model.nv :] = np.abs(state[model.nq + model.nv :])

    def played(state, ctrl, steps):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = state[: model.nq], state[model.nq : model.nq + model.nv]
        data.act[:], data.ctrl[:] = state[model.nq + model.nv :], ctrl
        for _ in range(steps):
            mujoco.mj_step(model, data)
        after = np.concatenate([data.qpos, data.qvel, data.act])
        mujoco.mj_forward(model, data)
        return after, data.sensordata.copy()

    after, _ = played(state, ctrl, substeps)
    path = np.stack([state, after])[None]
    found = window_slopes(
        [model], path, np.zeros((1, 2, model.nv)), np.stack([ctrl, ctrl])[None], substeps=substeps, sensors=range(4),
        forces=True, sound=np.ones((1, 2), bool), centred=centred,
    )  # fmt: skip
    h = 1e-5

    def slope(of, steps):
        columns = []
        for i in range(tangent.size + model.nu):
            move, push = np.zeros(tangent.size), np.zeros(model.nu)
            (move if i < tangent.size else push)[i if i < tangent.size else i - tangent.size] = h
            low = played(tangent.move(state, -move), ctrl - push, steps)[of]
            high = played(tangent.move(state, move), ctrl + push, steps)[of]
            columns.append((tangent.difference(low, high) if of == 0 else high - low) / (2 * h))
        return np.stack(columns, -1)

    size = 1e-8 if centred else 1e-5
    moved, seen = slope(0, substeps), slope(1, 0)
    for got, wanted in (
        (np.concatenate([found.state[0, 0], found.ctrl[0, 0]], -1), moved),
        (np.concatenate([found.sensor_state[0, 0], found.sensor_ctrl[0, 0]], -1), seen),
    ):
        np.testing.assert_allclose(got, wanted, rtol=10 * size, atol=size * np.abs(wanted).max())


@pytest.mark.parametrize("own", [False, True], ids=["one model", "a model a window"])
def test_any_number_of_threads_gives_the_same_numbers(own):
    """To the last bit, with enough states for a thread each."""
    windows, ends, rng = 5, 70, np.random.default_rng(0)
    models = [mujoco.MjModel.from_xml_string(MODEL.format(integrator="Euler", actuator=MOTOR)) for _ in range(windows)]
    for factor, model in enumerate(models if own else [], 1):
        model.dof_damping[:] *= factor
    first = models[0]
    rest = np.concatenate([first.qpos0, np.zeros(first.nv)])
    state = Tangent(first).move(rest, 0.1 * rng.standard_normal((windows, ends, 2 * first.nv)))
    sound, warm = np.ones((windows, ends), bool), np.zeros((windows, ends, first.nv))
    sound[3, 40:] = False
    ctrl = rng.uniform(0, 1, (windows, ends, first.nu))
    given = models if own else models[:1], state, warm, ctrl
    found = [
        window_slopes(*given, substeps=2, sensors=range(4), forces=True, sound=sound, threads=threads)
        for threads in (1, 2, 5)
    ]
    for name in ("state", "ctrl", "sensor_state", "sensor_ctrl"):
        one, *others = (getattr(slopes, name) for slopes in found)
        assert np.abs(one[4]).max() > 0
        for other in others:
            np.testing.assert_array_equal(other, one)
