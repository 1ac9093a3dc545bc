"""Starts of floating robots: keyframes, whole postures, bases with spreads and ranges, put on the floor."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dso_robotics.errors import DsoError
from dso_robotics.robot.base import heading_and_tilt
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.floating import WALKER, write

HOME = [0.5, 0.2, 0.4, 0.92388, 0, 0, 0.38268, 0.3, -0.3]


def task(folder, more=""):
    return build(TrainStudy.read(write(folder, more)))


def drawn(start, count=200):
    states = jax.vmap(start)(jax.random.split(jax.random.key(0), count))
    return np.asarray(states.body.qpos), np.asarray(states.body.qvel)


def test_a_keyframe_gives_posture_and_velocity_and_joints_change_it(tmp_path):
    start = task(
        tmp_path, '[start]\nkeyframe = "home"\nposition = { left = 0.1 }\nvelocity = { right = 2.0 }'
    ).chain.start
    qpos, qvel = drawn(start, 1)
    wanted = np.array(HOME)
    wanted[7] = 0.1
    np.testing.assert_allclose(qpos[0], wanted, atol=1e-5)
    np.testing.assert_allclose(qvel[0], [1, 0, 0, 0, 0, 0.5, 0, 2], atol=1e-12)


def test_a_base_is_placed_turned_and_tilted(tmp_path):
    more = """[start]
    qpos = [0, 0, 1, 1, 0, 0, 0, 0.2, 0.1]
    [start.base.root]
    position = [1.0, 2.0]
    heading = 0.5
    tilt = [3.0, 0.2]
    spin = [0, 0, 1]"""
    qpos, qvel = drawn(task(tmp_path, more).chain.start, 1)
    wanted = Rotation.from_euler("z", 0.5) * Rotation.from_rotvec([3.0, 0.2, 0])
    found = Rotation.from_quat(qpos[0, 3:7], scalar_first=True)
    assert (found.inv() * wanted).magnitude() < 1e-12
    np.testing.assert_allclose(qpos[0, [0, 1, 2, 7, 8]], [1, 2, 1, 0.2, 0.1])
    np.testing.assert_allclose(qvel[0], [0, 0, 0, 0, 0, 1, 0, 0])


def test_spreads_and_ranges_are_those_of_the_tangent_space(tmp_path):
    more = """[start]
    spread = 0.1
    base = { root = { tilt = [0.4, 0.0], spread = { heading = 1.0, tilt = 0.05, velocity = 0.3 } } }
    [explore.base.root]
    heading = [-3.0, 1.0]
    height = [1.0, 2.0]
    spin = [-2.0, 2.0]"""
    made = task(tmp_path, more)
    qpos, qvel = drawn(made.chain.start, 2000)
    np.testing.assert_allclose(np.linalg.norm(qpos[:, 3:7], axis=1), 1, atol=1e-12)
    angles = [heading_and_tilt(quat) for quat in qpos[:, 3:7]]
    tilt = np.array([t for _, t in angles])
    np.testing.assert_allclose(tilt.mean(0), [0.4, 0], atol=0.01)
    np.testing.assert_allclose(tilt.std(0), 0.05, rtol=0.1)
    assert (
        0.9 < np.std([np.sin(h) for h, _ in angles]) / np.std(np.sin(np.random.default_rng(0).normal(size=2000))) < 1.1
    )
    np.testing.assert_allclose(qpos[:, :3].std(0), 0, atol=1e-12)
    np.testing.assert_allclose(qpos[:, 7:].std(0), 0.1, rtol=0.1)
    np.testing.assert_allclose(qvel.std(0), [0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1], rtol=0.1)
    wide, spin = drawn(made.explore, 2000)
    heading = np.array([heading_and_tilt(quat)[0] for quat in wide[:, 3:7]])
    assert -3.1 < heading.min() < -2.7
    assert 0.7 < heading.max() < 1.1
    assert 1.0 < wide[:, 2].min() < 1.02
    assert 1.98 < wide[:, 2].max() < 2.0
    np.testing.assert_allclose(spin[:, 3:6].std(0), 2 / np.sqrt(3), rtol=0.1)


def test_a_share_of_the_ranges_is_drawn_log_uniformly(tmp_path):
    more = "[explore]\nsmallest = 0.01\n[explore.base.root]\nheight = [0.0, 2.0]\nvelocity = [-3.0, 3.0]"
    made = task(tmp_path, more)
    qpos, qvel = drawn(made.explore, 4000)
    off, speed = np.abs(qpos[:, 2] - 1.0), np.abs(qvel[:, :3]).max(1)
    # A width of 0.01^s with s uniform: the mean of |U| is 1/2, that of the width (1 - 0.01) / log(100).
    width = 0.99 / np.log(100)
    assert off.mean() == pytest.approx(0.5 * width, rel=0.08)
    assert off.max() <= 1.0
    # Height and speed of one start share their width, so both are small at once.
    slow = speed < 0.05 * 3
    assert off[slow].mean() < 0.4 * off[~slow].mean()
    # Of starts 0.01^s wide, log(10) / log(100), half, are within a tenth of the range.
    assert np.mean(off < 0.1) == pytest.approx(0.5 + 0.5 * 0.1 * 9 / np.log(10), abs=0.03)


@pytest.mark.parametrize("height", [None, 0.05])
def test_a_tilted_base_is_lifted_onto_the_floor(tmp_path, height):
    more = '[start]\nlift = "root"\nposition = { left = 0.5 }\n[start.base.root]\ntilt = [0.6, -0.3]\n'
    chain = task(tmp_path, more + ("" if height is None else f"height = {height}")).chain
    state = jax.jit(lambda theta: chain.initial(jax.random.key(0), theta))(jnp.asarray(chain.layout.initial))
    model = mujoco.MjModel.from_xml_string(WALKER)
    data = mujoco.MjData(model)
    data.qpos[:] = state.body.qpos
    mujoco.mj_kinematics(model, data)
    lowest = min(
        min(data.geom(leg).xpos[2] + sign * 0.15 * data.geom(leg).xmat[8] for sign in (1, -1)) - 0.02
        for leg in ("left", "right")
    )
    assert lowest == pytest.approx(height or 0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[start]\nkeyframe = "hom"', r"\[start\] keyframe: the model has no keyframe 'hom'; it has 'home'"),
        ("[start]\nqpos = [0, 0, 1]", "qpos has 3 numbers and the model's qpos 9"),
        ("[start]\nqpos = [0, 0, 1, 2, 0, 0, 0, 0, 0]", "quaternion of joint 'root' and have length 2"),
        ('[start]\nkeyframe = "home"\nqpos = [0.0]', "both give the whole posture"),
        ("[start]\nposition = { root = 1.0 }", r"for this one give \[start.base.root\]"),
        ("[start.base.left]\nheight = 1.0", "no free joint 'left'; it has 'root'"),
        ("[start.base.root]\nspread = { hight = 1.0 }", "no 'hight'; it has position, height"),
        ("[explore]\nsmallest = 0.1", "a share of ranges, and there are none"),
        ("[explore.base.root]\nrol = [0.0, 1.0]", "no 'rol'; it has position, height"),
        ('[start]\nlift = "left"', "does not raise|no slide or free joint"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_compiles(tmp_path, monkeypatch, more, told):
    monkeypatch.setattr("jax.jit", lambda *a, **k: pytest.fail("compiled"))
    with pytest.raises(DsoError, match=told):
        task(tmp_path, more)
