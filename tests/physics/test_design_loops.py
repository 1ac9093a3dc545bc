"""Designs of closed linkages and of tendons against recompiled descriptions with other lengths."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from test_design import applied, assert_same_model

from dso_robotics.errors import DsoError
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.design import Gear, LimbLength, UniformScale, compose
from dso_robotics.physics.device import put_model
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.loop import OpenLoopError
from dso_robotics.physics.model import load
from tests.linkages import TURNED, finger, four_bar, geared, slider_crank, walking_platform


def lengths(robot, *bodies):
    return compose([LimbLength(robot, body) for body in bodies], robot)


def designed(robot, design, numbers):
    """The recompiled MJCF, which equals the model whose fields were changed."""
    fields = design(np.array(numbers, float))
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))
    assert_same_model(applied(robot.mj, fields), model)
    return model


def gap(model, qpos=None):
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0 if qpos is None else qpos
    mujoco.mj_fwdPosition(model, data)
    return np.abs(data.efc_pos[data.efc_type == int(mujoco.mjtConstraint.mjCNSTR_EQUALITY)]).max()


def assert_same_kinematics(found, wanted):
    """A joint's number means the same in both: poses agree at any qpos, although the reference postures differ."""
    rng, datas = np.random.default_rng(0), [mujoco.MjData(m) for m in (found, wanted)]
    for _ in range(3):
        qpos = rng.normal(size=found.nq)
        for model, data in zip((found, wanted), datas, strict=True):
            data.qpos[:] = qpos
            mujoco.mj_fwdPosition(model, data)
        for name in ("xpos", "xmat", "site_xpos", "geom_xpos", "xipos"):
            np.testing.assert_allclose(*(getattr(d, name) for d in datas), atol=1e-10, err_msg=name)


@pytest.mark.parametrize("frame", ["", TURNED])
@pytest.mark.parametrize("by", ["anchor", "sites", "weld"])
def test_a_four_bar_has_its_pins_at_the_ends_of_its_bars_and_is_closed(by, frame):
    robot = load(four_bar(0.1, 0.3, 0.2, by=by, frame=frame))
    design = lengths(robot, "crank", "coupler", "rocker")
    np.testing.assert_allclose(design.initial, [0.1, 0.3, 0.2], atol=1e-12)
    for numbers in ([0.13, 0.3, 0.2], [0.1, 0.36, 0.2], [0.12, 0.33, 0.25]):
        model = designed(robot, design, numbers)
        assert gap(model) < 1e-12
        wanted = four_bar(*numbers, by=by, frame=frame).compile()
        assert_same_kinematics(model, wanted)
        np.testing.assert_allclose(model.body_mass, wanted.body_mass, rtol=1e-12)
        if by == "anchor":
            np.testing.assert_allclose(model.eq_data[0, :6], [numbers[1], 0, 0, 0, 0, numbers[2]], atol=1e-12)
        if by == "weld":
            np.testing.assert_allclose(model.eq_data[0, :6], [0, 0, numbers[2], 0, 0, 0], atol=1e-12)
        assert model.qpos0[0] == 0  # the driven crank stays where it was, the others follow
        assert abs(model.qpos0[1:]).max() > 1e-3


def test_the_posture_is_that_of_two_circles():
    """The rocker's pin is where circles about the two ground pins and the crank's end meet, on the same side."""
    robot = load(four_bar(0.1, 0.3, 0.2))
    model = designed(robot, lengths(robot, "crank", "coupler"), [0.12, 0.34])
    end, ground = np.array([0.0, 0.12]), np.array([0.3, -0.1])
    away = np.linalg.norm(ground - end)
    along = (0.34**2 - 0.2**2 + away**2) / (2 * away)
    unit = (ground - end) / away
    pin = end + along * unit + np.sqrt(0.34**2 - along**2) * np.array([-unit[1], unit[0]])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(data.site("end_rocker").xpos[[0, 2]] - [0.1, 0.3], pin, atol=1e-12)


@pytest.mark.parametrize("frame", ["", TURNED])
def test_a_slider_follows_the_rod(frame):
    robot = load(slider_crank(0.1, 0.15, frame=frame))
    model = designed(robot, lengths(robot, "crank", "rod"), [0.12, 0.2])
    assert gap(model) < 1e-12
    np.testing.assert_allclose(model.qpos0, [0, 0, 0.32 - 0.25], atol=1e-12)
    np.testing.assert_allclose(model.eq_data[0, 3:6], [0.2, 0, 0], atol=1e-12)
    assert_same_kinematics(model, slider_crank(0.12, 0.2, frame=frame).compile())


def test_a_free_platform_stands_where_its_legs_hold_it():
    robot = load(walking_platform(0.2))
    model = designed(robot, lengths(robot, "upper0", "upper1"), [0.23, 0.23])
    assert gap(model) < 1e-12
    assert gap(designed(robot, lengths(robot, "upper0", "upper1"), [0.23, 0.2])) < 1e-12


def test_a_coupling_of_joints_keeps_its_curve():
    """Its polynomial counts from the reference posture, which moves along a joint whose body has another one."""
    robot = load(geared(0.1))
    model, wanted = designed(robot, lengths(robot, "crank"), [0.13]), geared(0.13).compile()
    assert gap(model) < 1e-12
    assert_same_kinematics(model, wanted)
    for q in np.random.default_rng(1).normal(size=(3, 4)):
        here = [mujoco.MjData(m) for m in (model, wanted)]
        for m, data in zip((model, wanted), here, strict=True):
            data.qpos[:] = q
            mujoco.mj_fwdPosition(m, data)
        np.testing.assert_allclose(here[0].efc_pos[3], here[1].efc_pos[3], atol=1e-12)


def test_the_rest_length_of_a_tendon_follows_the_links():
    robot = load(finger(1.0))
    design = compose([UniformScale(robot, "first")], robot)
    model, wanted = designed(robot, design, [1.3]), finger(1.3).compile()
    assert_same_model(model, wanted)
    assert model.tendon_lengthspring[0, 0] > 1.05 * robot.mj.tendon_lengthspring[0, 0]
    np.testing.assert_array_equal(model.tendon_lengthspring[2], 0.03)  # a given one is kept
    ours, slope = jax.jit(lambda n: jax.jvp(design, (n,), (jnp.ones(1),)))(jnp.array([1.3]))
    np.testing.assert_allclose(ours["tendon_lengthspring"], wanted.tendon_lengthspring, atol=1e-12)
    numeric = [finger(1.3 + step).compile().tendon_lengthspring for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope["tendon_lengthspring"], (numeric[0] - numeric[1]) / 2e-5, atol=1e-8)


def test_gradients_are_those_of_the_recompiled_linkage():
    """All fields of the designed four-bar, the posture and the derived constants included."""
    robot = load(four_bar(0.1, 0.3, 0.2, frame=TURNED))
    design = compose([LimbLength(robot, "crank"), LimbLength(robot, "coupler"), Gear(robot, "m")], robot)
    base = put_model(robot.mj)
    names = ("body_pos", "body_quat", "qpos0", "eq_data", "site_pos", "body_mass", "body_invweight0", "dof_invweight0")

    def ours(numbers):
        model, _ = with_fields(base, robot.mj, design(numbers))
        return [getattr(model, name) for name in names]

    def compiled(numbers):
        model = mujoco.MjModel.from_xml_string(to_mjcf(robot, design(numbers)))
        return [np.array(getattr(model, name)) for name in names]

    at = np.array([0.12, 0.31, 2.0])
    value, slopes = jax.jit(lambda n: (ours(n), jax.jacfwd(ours)(n)))(jnp.asarray(at))
    for found, wanted, name in zip(value, compiled(at), names, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10, err_msg=name)
    for i, direction in enumerate(1e-5 * np.eye(3)):
        high, low = compiled(at + direction), compiled(at - direction)
        for name, slope, one, two in zip(names, slopes, high, low, strict=True):
            numeric = (one - two) / 2e-5
            np.testing.assert_allclose(slope[..., i], numeric, rtol=1e-5, atol=1e-6, err_msg=f"{name} by {i}")


def test_a_linkage_that_cannot_close_is_refused():
    robot = load(four_bar(0.1, 0.3, 0.2))
    design = lengths(robot, "crank", "coupler", "rocker")
    with pytest.raises(OpenLoopError, match=r"body/coupler/length = 0\.15 m.*loop of 'pin'.*Narrow the bounds"):
        design(np.array([0.1, 0.15, 0.1]))
    assert np.isnan(design(jnp.array([0.1, 0.15, 0.1]))["qpos0"]).all()
    assert np.isfinite(design(np.array([0.1, 0.3, 0.2]))["qpos0"]).all()


def test_what_cannot_follow_is_refused_with_the_cure():
    muscle = '<muscle name="pull" tendon="given" {}/>'
    robot = load(finger(1.0, muscle.format('lengthrange=".02 .06"')))
    compose([UniformScale(robot, "first")], robot)
    robot = load(finger(1.0, muscle.format("")))
    with pytest.raises(DsoError, match=r"muscle 'pull'.*write lengthrange=.LOW HIGH"):
        compose([UniformScale(robot, "first")], robot)
    compose([Gear(robot, "m")], robot)
    limited = walking_platform(0.2).to_xml().replace('type="ball"', 'type="ball" limited="true" range="0 1"')
    robot = load(mujoco.MjSpec.from_string(limited))
    with pytest.raises(DsoError, match=r"ball joint .* limit"):
        lengths(robot, "upper0")


def test_a_gear_alone_closes_nothing():
    robot = load(four_bar(0.1, 0.3, 0.2))
    assert compose([Gear(robot, "m")], robot).reference is None
