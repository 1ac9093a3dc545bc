"""The curves of examples/studies/tendon_finger.py against fingers of C MuJoCo that a constant tension bends."""

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest
from scipy.optimize import brentq

from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

pytest.importorskip("jax")
STUDY = Path(__file__).parents[2] / "examples" / "studies" / "tendon_finger.toml"
EXACT = np.array([0.05, 0.04, 0.03, 0.0055, 0.004])  # [m] the lengths, then the radii of the middle and the end pulley


def study():
    spec = importlib.util.spec_from_file_location("tendon_finger", STUDY.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def task():
    return build(TrainStudy.read(STUDY))


@pytest.fixture(scope="module")
def design(task):
    return task.chain.mechanism.design


@pytest.fixture(scope="module")
def exact(models, design):
    """The finger of the exact design, as a user gets it: compiled from the MJCF that is written."""
    return mujoco.MjModel.from_xml_string(to_mjcf(load(models / "tendon_finger.xml"), design(EXACT)))


def balance(model, tension):
    """The posture in which springs and tendon are in balance, by C MuJoCo's forces and a search joint by joint."""
    data = mujoco.MjData(model)
    data.ctrl[0] = tension

    def surplus(angle, dof):
        data.qpos[dof] = angle
        mujoco.mj_forward(model, data)
        return data.qfrc_actuator[dof] + data.qfrc_passive[dof]

    for dof in range(model.nv):
        data.qpos[dof] = brentq(surplus, -0.1, 1.35, args=(dof,), xtol=1e-13)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.qfrc_actuator + data.qfrc_passive, 0, atol=1e-11)
    return data


def test_knuckle_and_tip_of_the_exact_finger_are_on_their_curves_at_every_tension(exact):
    angles = []
    for tension in (0.0, 5.0, 15.0, 25.0, 33.0):
        data = balance(exact, tension)
        places = [data.site(name).xpos[[0, 2]] for name in ("knuckle", "tip")]
        np.testing.assert_allclose(study().curves(data.qpos[0]), places, atol=1e-9)
        angles.append(data.qpos[0])
    assert angles[-1] > study().CLOSED - 1e-9


def test_the_start_of_the_study_is_15_to_25_percent_off_and_far_from_the_curves(models, design):
    away = design.initial / EXACT - 1
    np.testing.assert_array_less(0.15, np.abs(away))
    np.testing.assert_array_less(np.abs(away), 0.25)
    data = balance(load(models / "tendon_finger.xml").mj, 20.0)
    places = [data.site(name).xpos[[0, 2]] for name in ("knuckle", "tip")]
    assert np.linalg.norm(study().curves(data.qpos[0]) - np.array(places), axis=1).min() > 3 * study().TOLERANCE


def test_guides_and_pulleys_move_with_the_phalanges_and_the_written_finger_is_the_designed_one(models, design, exact):
    robot, fields = load(models / "tendon_finger.xml"), design(EXACT)
    for name in ("body_pos", "site_pos", "geom_pos", "geom_size", "body_mass", "body_ipos"):
        np.testing.assert_allclose(getattr(exact, name), fields[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for site, body, length in (
        ("proximal_high", "proximal", 0.05),
        ("middle_low", "middle", 0.04),
        ("anchor", "distal", 0.03),
    ):
        before, after = robot.mj.site(site).pos[2], exact.site(site).pos[2]
        old = design.initial[[f"body/{body}/length" == name for name in design.names]]
        np.testing.assert_allclose(after / before, length / old, rtol=1e-9)
    np.testing.assert_allclose(exact.geom("end_pulley").pos[2], exact.body("distal").pos[2], atol=1e-12)


def test_the_tendon_pulls_at_every_joint_with_the_radius_of_its_pulley(exact):
    """In the straight and in the closed finger: it leaves no pulley."""
    data = mujoco.MjData(exact)
    for angle in (0.0, 0.6, 1.1):
        data.qpos[:] = angle
        mujoco.mj_forward(exact, data)
        np.testing.assert_allclose(np.ravel(data.ten_J), -study().RADII, rtol=1e-6)


def test_the_curves_leave_no_other_finger(exact, design, models):
    """Along the direction of the design that the curves see least, 1% moves the ends by 0.02 mm or more (root mean square)."""
    robot, tensions = load(models / "tendon_finger.xml"), np.linspace(2.0, 33.0, 12)

    def missed(numbers):
        model = mujoco.MjModel.from_xml_string(to_mjcf(robot, design(numbers)))
        found = [balance(model, tension) for tension in tensions]
        return np.array(
            [
                [d.site(n).xpos[[0, 2]] for n in ("knuckle", "tip")] - np.asarray(study().curves(d.qpos[0]))
                for d in found
            ]
        ).ravel()

    slope = np.stack([missed(EXACT * (1 + 1e-4 * one)) / 1e-4 for one in np.eye(5)], 1)  # [m] for all of a number
    least = np.linalg.svd(slope / np.sqrt(len(tensions)), compute_uv=False)[-1]
    assert least > 0.002


def test_the_dots_of_the_model_are_on_the_curves(models):
    model = load(models / "tendon_finger.xml").mj
    dots = np.array([model.site_pos[i] for i in range(model.nsite) if not model.site(i).name])[:, [0, 2]]
    angles = np.linspace(0.0, study().CLOSED, len(dots) // 2)
    wanted = np.array([study().curves(angle) for angle in angles])
    np.testing.assert_allclose(dots, np.concatenate([wanted[:, 0], wanted[:, 1]]), atol=1e-5)
