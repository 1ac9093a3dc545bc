"""Single coordinates of a floating base that a policy does not see."""

import mujoco
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.entries import state_entries
from tests.floating import WALKER


def test_where_a_base_is_can_be_hidden_and_its_height_and_orientation_stay():
    robot = load(mujoco.MjSpec.from_string(WALKER))
    plain, turning, labels = state_entries(robot, ["root/x", "root/y"])
    assert (plain, turning) == ((2, 3, 4, 5, 6), (7, 8))
    assert labels[:5] == ("root[2]", "root[3]", "root[4]", "root[5]", "root[6]")
    assert len(labels) == len(plain) + 2 * len(turning) + robot.mj.nv
    assert state_entries(robot, ["root"])[0] == ()
    with pytest.raises(DsoError, match=r"'root/heading' cannot be left out.*observes sensors"):
        state_entries(robot, ["root/heading"])
    with pytest.raises(DsoError, match="no joint 'rot' to leave out"):
        state_entries(robot, ["rot"])
