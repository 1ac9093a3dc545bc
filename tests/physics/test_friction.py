"""Friction laws of one's own, against MuJoCo's own friction and a plain loop over mj_step."""

import mujoco
import numpy as np

from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.friction import FrictionEngine


def problem(models, n=3, steps=60):
    model = mujoco.MjModel.from_xml_path(str(models / "two_joint_arm.xml"))
    rng = np.random.default_rng(0)
    return model, rng.normal(size=(n, 4)), rng.normal(size=(n, steps, 2))


def test_a_constant_law_is_mujocos_dry_friction(models):
    model, start, ctrl = problem(models)
    dry = np.array([[0.05, 0.3]])
    fields = {"body_mass": model.body_mass * np.array([[1.0], [1.2], [0.8]])}
    got = FrictionEngine(model, lambda at: (dry, None)).simulate(fields, start, ctrl)
    want = BatchEngine(model).simulate(fields | {"dof_frictionloss": dry.repeat(3, 0)}, start, ctrl)
    np.testing.assert_allclose(got.state, want.state, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(got.sensordata, want.sensordata, rtol=1e-9, atol=1e-11)


def test_a_law_sees_the_present_and_its_force_acts_in_the_coming_step(models):
    model, start, ctrl = problem(models, n=1)
    seen = []

    def law(at):
        seen.append((at.qpos.copy(), at.qvel.copy(), at.bias.copy(), at.ctrl.copy()))
        return 0.1 * np.abs(at.ctrl), 0.5 * at.bias - 0.2 * np.arctan(10 * at.qvel)

    got = FrictionEngine(model, law).simulate({}, start, ctrl)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[0, :2], start[0, 2:]
    for k, control in enumerate(ctrl[0]):
        data.ctrl[:] = control
        mujoco.mj_forward(model, data)
        for mine, its in zip(seen[k], (data.qpos, data.qvel, data.qfrc_bias, control), strict=True):
            np.testing.assert_allclose(mine[0], its, rtol=1e-9, atol=1e-11)
        data.qfrc_applied[:] = 0.5 * data.qfrc_bias - 0.2 * np.arctan(10 * data.qvel)
        model.dof_frictionloss[:] = 0.1 * np.abs(control)
        mujoco.mj_step(model, data)
        np.testing.assert_allclose(got.state[0, k], np.r_[data.qpos, data.qvel], rtol=1e-8, atol=1e-10)


def test_a_simulation_that_a_law_blows_up_is_marked(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warning there
    model, start, ctrl = problem(models, n=2)
    fields = {"dof_damping": np.zeros((2, 2))}

    def law(at):
        return None, np.array([[0.0], [1e9]]) * at.qvel

    out = FrictionEngine(model, law).simulate(fields, start, ctrl)
    assert out.ended.tolist() == [False, True]
    assert np.isnan(out.state[1, -1]).all()
    assert np.isfinite(out.state[0]).all()
