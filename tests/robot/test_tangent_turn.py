"""Which directions turn, and how rotations add, against C MuJoCo."""

import mujoco
import numpy as np

from dso_robotics.robot.tangent_turn import TangentTurns

MODEL = """
<mujoco>
  <worldbody>
    <body><joint name="rail" type="slide"/><joint name="hinge"/><geom size="0.1"/>
      <body><joint name="ball" type="ball"/><geom size="0.1"/><body><joint name="last"/><geom size="0.1"/></body></body>
    </body>
    <body><freejoint name="free"/><geom size="0.1"/></body>
  </worldbody>
</mujoco>
"""


def test_the_directions_that_turn():
    turns = TangentTurns(mujoco.MjModel.from_xml_string(MODEL))
    assert (turns.places, turns.hinges) == ([2, 9], [1, 5])
    assert turns.angles.tolist() == [1, 2, 3, 4, 5, 9, 10, 11]
    change = np.zeros(13)
    change[[0, 1, 5, 7]] = 1.0
    assert not turns.far(change, 0.02)
    change[11] = -0.03
    assert turns.far(change, 0.02)
    none = TangentTurns(
        mujoco.MjModel.from_xml_string('<mujoco><worldbody><body><joint/><geom size="1"/></body></worldbody></mujoco>')
    )
    assert not none
    assert none.angles.tolist() == [0]


def test_a_further_change_after_a_change():
    """Against differences of mj_integratePos by mj_differentiatePos; a number beside the position changes by itself."""
    model, rng = mujoco.MjModel.from_xml_string(MODEL), np.random.default_rng(0)
    turns, h = TangentTurns(model), 1e-5
    changes = np.concatenate(
        [rng.normal(size=(4, model.nv)), 1e-6 * rng.normal(size=(2, model.nv)), np.zeros((1, model.nv))]
    )
    wide = np.concatenate([changes, np.ones((len(changes), 1))], 1)
    found = turns.jacobian(wide, model.nv + 1)
    for change, jacobian in zip(changes, found, strict=True):
        for i, small in enumerate(h * np.eye(model.nv)):
            ends, off = [model.qpos0.copy(), model.qpos0.copy()], np.zeros(model.nv)
            for sign, end in zip((-1, 1), ends, strict=True):
                mujoco.mj_integratePos(model, end, change + sign * small, 1.0)
            mujoco.mj_differentiatePos(model, off, 2 * h, *ends)
            np.testing.assert_allclose(jacobian[:-1, i], off, atol=1e-8)
        np.testing.assert_array_equal(jacobian[-1], np.eye(model.nv + 1)[-1])
    np.testing.assert_allclose(
        turns.inverse(wide, model.nv + 1) @ found, np.broadcast_to(np.eye(model.nv + 1), found.shape), atol=1e-12
    )
