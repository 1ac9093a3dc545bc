"""Hold-out names something, and not everything."""

import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.split import hold_out, trained
from dso_robotics.errors import DsoError


@pytest.fixture
def runs(rollout):
    """A log of five rollouts, two of them named like numbers."""
    return Log("arm.h5", "", "", tuple(rollout(name) for name in ("00", "01", "x", "y", "0.5")))


def names(split):
    return [r.name for r in split.train], [r.name for r in split.hold_out]


@pytest.mark.parametrize(
    ("choice", "held"),
    [
        (None, []),
        ("01", ["01"]),
        (" y , 00,", ["00", "y"]),
        ("0.5", ["0.5"]),  # a name first
        ("0.4", ["y", "0.5"]),
        ("0.01", ["0.5"]),
        ("0.99", ["01", "x", "y", "0.5"]),
    ],
)
def test_choices(runs, choice, held):
    train, hold = names(hold_out(runs, choice))
    assert hold == held
    assert train == [name for name in runs.names if name not in held]


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ("", "names nothing"),
        (" , ", "names nothing"),
        ("0", "names nothing"),
        ("-0.2", "names nothing"),
        ("1", "names everything"),
        ("1.0", "names everything"),
        ("7", "names everything"),
        ("20%", "no fraction"),
        ("00,01,x,y,0.5", "holds out every rollout"),
        ("z", "no rollout 'z'"),
        ("00,2", "no rollout '2'"),
    ],
)
def test_bad_choices_list_the_rollouts(runs, choice, word):
    with pytest.raises(DsoError, match=r"00, 01, x, y, 0.5") as caught:
        hold_out(runs, choice)
    assert word in str(caught.value)
    assert "arm.h5" in str(caught.value)


def test_a_single_rollout_gives_its_tail(rollout):
    whole = rollout("run", samples=100)
    split = hold_out(Log("", "", "", (whole,)), "0.25")
    assert names(split) == (["run[head]"], ["run[tail]"])
    head, tail = split.train[0], split.hold_out[0]
    np.testing.assert_array_equal(np.concatenate([head.ctrl, tail.ctrl]), whole.ctrl)
    assert tail.time[0] == pytest.approx(0.75 * whole.time[-1], abs=0.011)
    with pytest.raises(DsoError, match="fewer than 2 samples"):
        hold_out(Log("", "", "", (whole,)), "0.999")
    with pytest.raises(DsoError, match="every rollout"):
        hold_out(Log("", "", "", (whole,)), "run")


def test_which_rollouts_are_left_to_fit(rollout):
    log = Log("", "", "", tuple(rollout(name) for name in "abcd"))
    assert trained(log, "c") == ["a", "b", "d"]
    assert trained(log, None) == ["a", "b", "c", "d"]
    assert trained(log, "x") is None
    assert trained(Log("", "", "", (rollout("a"),)), "0.25") is None  # cut in time
