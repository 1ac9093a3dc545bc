"""A training says that it converged only if it had come to rest."""

import numpy as np
import pytest

from dso_robotics.studies.train_settled import settled

LOOKS = np.arange(5, 101, 5)


@pytest.mark.parametrize(
    ("cost", "first", "said"),
    [
        (10 * np.exp(-LOOKS / 10), 10.0, ""),
        (np.where(LOOKS > 10, 3.0, np.inf), 10.0, ""),
        (10 - 0.05 * LOOKS, 10.0, "the last fifth of the iterations brought 20% of the improvement"),
        (np.where(LOOKS > 90, 1.0, 20.0), 10.0, "brought 100% of the improvement"),
        (10 + 0.1 * LOOKS, 10.0, "no look at an episode found a lower cost"),
        (np.full(20, np.inf), 10.0, "no look at an episode found a lower cost"),
        (np.full(20, 10.0), 10.0, "no look at an episode found a lower cost"),
    ],
)
def test_what_speaks_against_rest(cost, first, said):
    found = settled(LOOKS, np.asarray(cost, float), first, 100)
    assert (said in found) if said else not found


def test_a_training_that_broke_off_at_once_is_judged_too():
    assert "no look" in settled(np.zeros(0, int), np.zeros(0), 1.0, 3)
