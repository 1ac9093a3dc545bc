"""Headings, tilts and displacements of floating bases against SciPy's rotations."""

import jax.numpy as jnp
import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from dso_robotics.robot.base import displaced, heading_and_tilt, orientation
from tests.floating import WALKER


def matrix(quat):
    return Rotation.from_quat(np.asarray(quat), scalar_first=True).as_matrix()


def test_an_orientation_is_its_tilt_turned_by_its_heading():
    wanted = Rotation.from_euler("z", 0.7) * Rotation.from_rotvec([0.3, -1.2, 0.0])
    np.testing.assert_allclose(matrix(orientation(0.7, (0.3, -1.2))), wanted.as_matrix(), atol=1e-12)


def test_every_orientation_has_a_heading_and_a_tilt():
    quats = [*np.random.default_rng(0).normal(size=(20, 4)), [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [-1, 0, 0, 1e-9]]
    for quat in quats:
        heading, tilt = heading_and_tilt(np.array(quat, float))
        assert abs(np.linalg.norm(tilt)) <= np.pi + 1e-12
        unit = np.array(quat) / np.linalg.norm(quat)
        np.testing.assert_allclose(matrix(orientation(heading, tilt)), matrix(unit), atol=1e-12)


def test_a_base_is_displaced_about_the_vertical_and_its_own_axes():
    model, rng = mujoco.MjModel.from_xml_string(WALKER), np.random.default_rng(1)
    qpos, change = rng.normal(size=model.nq), rng.normal(size=model.nv)
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    found = displaced(model, qpos, change)
    before = Rotation.from_quat(qpos[3:7], scalar_first=True)
    wanted = Rotation.from_euler("z", change[5]) * before * Rotation.from_rotvec([*change[3:5], 0])
    np.testing.assert_allclose(matrix(found[3:7]), wanted.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(found[[0, 1, 2, 7, 8]], qpos[[0, 1, 2, 7, 8]] + change[[0, 1, 2, 6, 7]], atol=1e-12)
    np.testing.assert_allclose(displaced(model, jnp.asarray(qpos), jnp.asarray(change)), found, atol=1e-12)
