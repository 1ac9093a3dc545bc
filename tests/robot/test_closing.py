"""Starts of closed linkages: positions and velocities that satisfy the constraints of C MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.physics import loop
from dso_robotics.physics.loop import OpenLoopError
from dso_robotics.physics.model import load
from dso_robotics.robot.closing import closing
from tests.linkages import TURNED, four_bar, walking_platform


def violation(model, qpos, qvel):
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_fwdPosition(model, data)
    mujoco.mj_fwdVelocity(model, data)
    return max(np.abs(data.efc_pos).max(), np.abs(data.efc_vel).max())


@pytest.mark.parametrize("by", ["anchor", "sites", "weld"])
def test_a_start_is_closed_and_moves_as_the_loop_lets_it(by):
    robot = load(four_bar(0.1, 0.3, 0.2, by=by, frame=TURNED))
    model, rng = robot.mj, np.random.default_rng(0)
    close = closing(robot, model, model.qpos0, set())
    fields = loop.model_fields(model)
    # On the C engine the fields that no design moves are NumPy's beside positions of JAX.
    ours = jax.jit(lambda q, v: close(fields, q, v))
    for _ in range(4):
        drawn = 0.5 * rng.normal(size=model.nq), rng.normal(size=model.nv)
        qpos, qvel = close(fields, *drawn)
        assert violation(model, qpos, qvel) < 1e-11
        assert (qpos[0], qvel[0]) == (drawn[0][0], drawn[1][0])  # the driven crank stays as drawn
        for found, wanted in zip(ours(*drawn), (qpos, qvel), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_the_assembly_branch_is_kept_all_the_way_round():
    """A crank that turns fully ends where it began; a solver that starts afresh would flip the rocker."""
    robot = load(four_bar(0.1, 0.3, 0.2))
    close, fields = closing(robot, robot.mj, robot.mj.qpos0, set()), loop.model_fields(robot.mj)
    turn = [close(fields, np.array([a, 9.0, 9.0]), np.zeros(3))[0] for a in np.linspace(-np.pi, np.pi, 9)]
    assert all(violation(robot.mj, q, np.zeros(3)) < 1e-11 for q in turn)
    np.testing.assert_allclose(turn[0][2], turn[-1][2], atol=1e-10)
    signs = []
    for qpos in turn:
        data = mujoco.MjData(robot.mj)
        data.qpos[:] = qpos
        mujoco.mj_kinematics(robot.mj, data)
        one, two = (
            data.body("rocker").xpos - data.body("coupler").xpos,
            data.site("end_rocker").xpos - data.body("rocker").xpos,
        )
        signs.append(np.sign(np.cross(one, two)[1]))
    assert len({*signs}) == 1


def test_the_derivative_by_the_drawn_position_is_that_of_the_closed_posture():
    robot = load(walking_platform(0.2))
    close = closing(robot, robot.mj, robot.mj.qpos0, set())
    fields = {k: jnp.asarray(v) for k, v in loop.model_fields(robot.mj).items()}
    at = np.array(robot.mj.qpos0)
    free = [int(robot.mj.joint(name).qposadr[0]) for name in ("leg0", "leg1")]

    def posture(angles):
        return close(fields, jnp.asarray(at).at[np.array(free)].set(angles), jnp.zeros(robot.mj.nv))[0]

    angles = jnp.array([0.1, 0.15])
    slope = jax.jit(jax.jacrev(posture))(angles)
    for i, step in enumerate(1e-6 * np.eye(2)):
        np.testing.assert_allclose(slope[:, i], (posture(angles + step) - posture(angles - step)) / 2e-6, atol=1e-7)


def test_a_position_that_cannot_be_closed_starts_at_the_centre():
    robot = load(four_bar(0.3, 0.2, 0.2))  # not a crank: it swings only so far
    close, fields = closing(robot, robot.mj, robot.mj.qpos0, set()), loop.model_fields(robot.mj)
    qpos, _ = close(fields, np.array([3.0, 0, 0]), np.zeros(3))  # closes on the other side only, behind open postures
    np.testing.assert_allclose(qpos, robot.mj.qpos0, atol=1e-9)


def test_more_joints_given_than_the_loop_leaves_free_are_refused():
    robot = load(four_bar(0.1, 0.3, 0.2))
    with pytest.raises(OpenLoopError, match=r"loop of 'pin'.*fewer of its joints"):
        closing(robot, robot.mj, np.array([0.3, 0.0, 0.0]), {"crank", "coupler", "rocker"})
    assert closing(robot, robot.mj, np.array([0.3, 0.0, 0.1]), {"rocker"}).dofs == (0, 1)


def test_what_cannot_be_closed_nearby_is_nan():
    robot, short = (load(four_bar(*lengths, by="sites")) for lengths in ((0.1, 0.3, 0.2), (0.1, 0.05, 0.05)))
    close, pose = closing(robot, robot.mj, robot.mj.qpos0, set()), robot.mj.qpos0[None]
    np.testing.assert_allclose(close.near(loop.model_fields(robot.mj), pose), pose, atol=1e-9)
    assert np.isnan(close.near(loop.model_fields(short.mj), pose)).all()
