"""A policy goes on from a snapshot as if nothing had happened, also in another object."""

import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_policy import Policy
from tests.robot.policies import KINDS, numbers


@pytest.mark.parametrize("name", ["brain", "waves", "wide", "gated"])
def test_it_goes_on_from_a_snapshot(name):
    n = numbers(**KINDS[name])
    one, other, rng = Policy(n), Policy(n), np.random.default_rng(3)
    one.reset(dict.fromkeys(n.tasks, 0.3))
    seen = rng.normal(size=(9, 6))
    act = lambda policy, row: policy.act(qpos=row[:3], qvel=row[3:])  # noqa: E731
    for row in seen[:4]:
        act(one, row)
    kept = one.snapshot()
    expected = [act(one, row) for row in seen[4:]]
    other.restore(kept)
    np.testing.assert_array_equal([act(other, row) for row in seen[4:]], expected)
    one.restore(kept)
    np.testing.assert_array_equal([act(one, row) for row in seen[4:]], expected)


def test_a_snapshot_of_another_policy_is_refused():
    one, other = Policy(numbers(**KINDS["brain"])), Policy(numbers(**KINDS["wide"]))
    with pytest.raises(DsoError, match="snapshot of the same policy"):
        one.restore(other.snapshot())
    with pytest.raises(DsoError, match=r"expected what snapshot\(\) returned"):
        one.restore({"memory": [0.0]})
    with pytest.raises(DsoError, match="not finite"):
        one.restore(one.snapshot() | {"memory": np.full(4, np.nan)})
