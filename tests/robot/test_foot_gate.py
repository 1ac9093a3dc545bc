"""The gate of feet: judged beside the leg's own readings, and never shut for what stands always."""

import numpy as np
import pytest

from dso_robotics.data.foot_contact import ContactReadings, FootContact
from dso_robotics.robot.kalman_gate import RuntimeGate, beside

NAMES = ("rate", "contact.foot[0]")


def gate(foot: FootContact) -> RuntimeGate:
    return RuntimeGate(0.9999, ("rate", "contact.foot"), ContactReadings.of(NAMES, (foot,)))


def test_what_is_left_is_the_conditional_normal_distribution():
    rng = np.random.default_rng(0)
    root, e, known = rng.normal(size=(4, 4)), rng.normal(size=4), np.array([True, False, True, False])
    s, o, f = root @ root.T, [0, 2], [1, 3]
    left, spread = beside(e, s, known)
    gain = s[np.ix_(f, o)] @ np.linalg.inv(s[np.ix_(o, o)])
    np.testing.assert_allclose(left[f], e[f] - gain @ e[o])
    np.testing.assert_allclose(spread[np.ix_(f, f)], s[np.ix_(f, f)] - gain @ s[np.ix_(o, f)])


@pytest.mark.parametrize(("reading", "share", "slips"), [("touch", 0.99, True), (None, 1.0, False)])
def test_a_slipping_foot_is_wild_and_what_always_stands_is_not(reading, share, slips):
    made, seen = gate(FootContact("foot", reading, 0.5, 0.02, share)), np.array([True, True])
    # The leg's rate is unknown before it is read, and the foot moves with it.
    spread = np.array([[4.0, 4.0], [4.0, 4.01]])
    assert made.wild(np.array([2.0, 2.0]), spread, seen) == [False, False]
    assert made.wild(np.array([2.0, 0.0]), spread, seen) == [False, slips]
    assert made.wild(np.array([60.0, 60.0]), spread, seen) == [True, slips]
    assert not any(made.count([False, True], seen) for _ in range(30))


def test_readings_are_completed_by_what_tells_of_contact():
    feet = (FootContact("foot", "touch", 5.0, 0.02, 0.99), FootContact("hand", None, 0.5, 0.3, 1.0))
    made = ContactReadings.of(("rate", "contact.foot[0]", "contact.hand[0]"), feet)
    assert made.names == ("rate", "touch")
    for touch, expected in ((9.0, 0.0), (4.0, np.nan), (np.nan, np.nan)):
        np.testing.assert_array_equal(made.completed(np.array([0.3, touch])), [0.3, expected, 0.0])
    again = ContactReadings.from_dict(made.as_dict())
    again.check(3)
    assert again.names == made.names
