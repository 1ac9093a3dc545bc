"""The regressor of inverse dynamics against MuJoCo's own inverse dynamics, for a tree with slides, tilted frames and a fork."""

import mujoco
import numpy as np
import pytest

from dso_robotics.physics.regressor import inertial_numbers, regressor, tensors

TREE = """<mujoco><compiler autolimits="true"/>
  <worldbody>
    <body name="trunk" pos="0.1 0.2 0.3" euler="20 -35 10">
      <joint name="a" axis="1 2 0.5" pos="0.05 0 -0.02"/>
      <inertial pos="0.03 -0.04 0.2" mass="1.7" fullinertia="0.05 0.04 0.03 0.004 -0.006 0.003"/>
      <body name="left" pos="0 0.1 0.4" euler="5 70 -15">
        <joint name="b" type="slide" axis="0.3 1 0"/>
        <inertial pos="-0.05 0.02 0.07" mass="0.6" fullinertia="0.01 0.02 0.015 0.001 0.002 -0.001"/>
        <body name="hand" pos="0.2 0 0" euler="0 0 50">
          <joint name="c" axis="0 1 0"/><joint name="d" axis="0 0 1" pos="0 0.03 0"/>
          <inertial pos="0.02 0.01 -0.06" mass="0.3" fullinertia="0.004 0.003 0.002 0.0003 0.0002 0.0001"/>
        </body>
      </body>
      <body name="right" pos="0 -0.1 0.4"><joint name="e" axis="1 0 0"/>
        <inertial pos="0 0 0.1" mass="0.4" fullinertia="0.006 0.005 0.002 0.0002 0.0001 0.0004"/></body>
    </body>
  </worldbody></mujoco>"""


@pytest.fixture(scope="module")
def tree():
    return mujoco.MjModel.from_xml_string(TREE)


def inverse(model, qpos, qvel, qacc):
    data, found = mujoco.MjData(model), np.empty_like(qvel)
    for row, q, v, a in zip(found, qpos, qvel, qacc, strict=True):
        data.qpos[:], data.qvel[:], data.qacc[:] = q, v, a
        mujoco.mj_inverse(model, data)
        row[:] = data.qfrc_inverse
    return found


def numbers(model):
    return inertial_numbers(model.body_mass, model.body_ipos, tensors(model.body_inertia, model.body_iquat))


def test_forces_are_linear_in_the_ten_numbers(tree):
    motion = np.random.default_rng(0).normal(size=(3, 40, tree.nv))
    matrix = regressor(tree, *motion, range(1, tree.nbody))
    found = np.einsum("nvbp,bp->nv", matrix, numbers(tree)[1:])
    np.testing.assert_allclose(found, inverse(tree, *motion), atol=1e-12)


def test_it_holds_for_other_bodies_too(tree):
    """W of the old bodies gives the forces of new ones: masses doubled, centres moved, axes of inertia turned."""
    motion = np.random.default_rng(1).normal(size=(3, 40, tree.nv))
    matrix = regressor(tree, *motion, [2, 3])
    other = mujoco.MjModel.from_xml_string(
        TREE.replace('pos="-0.05 0.02 0.07" mass="0.6"', 'pos="0.08 0.01 -0.09" mass="1.2"').replace(
            "0.004 0.003 0.002 0.0003", "0.004 0.003 0.002 -0.0005"
        )
    )
    change = np.einsum("nvbp,bp->nv", matrix, (numbers(other) - numbers(tree))[[2, 3]])
    np.testing.assert_allclose(inverse(tree, *motion) + change, inverse(other, *motion), atol=1e-12)
