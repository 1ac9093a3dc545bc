"""Sizes in an estimator's folder that its arrays do not have are refused before memory is taken for them."""

import tracemalloc

import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.corrector import CORRECTORS, Scales, make_corrector
from dso_robotics.robot.learned import Learned


def stored(kind: str) -> dict:
    """A corrector of two sensors and four features as a run file holds it."""
    corrector = make_corrector(kind, 2, 2, 4, units=3)
    ones, none = np.ones(2), np.zeros(2)
    return Learned(
        corrector=corrector,
        weights=np.zeros(corrector.size),
        scales=Scales(ones, ones, np.zeros(4), np.ones(4)),
        scale=ones,
        bias=none,
        delay=none,
        sigma=ones,
        spread=np.zeros((2, 4)),
        covariance=None,
        names=("a", "b"),
        addresses=np.array([0, 1]),
        interval=0.01,
        substeps=1,
        gate=0.0,
    ).as_dict()


@pytest.mark.parametrize("kind", [kind for kind in CORRECTORS if not CORRECTORS[kind].linearises])
@pytest.mark.parametrize("place", range(4))
def test_forged_sizes_take_no_memory(kind, place):
    Learned.from_dict(stored(kind))
    forged = stored(kind)
    forged["sizes"] = np.array(forged["sizes"])
    if place == 3 and not CORRECTORS[kind].has_units:
        pytest.skip("this kind has no units")
    forged["sizes"][place] = 1 << 31
    tracemalloc.start()
    with pytest.raises((ValueError, DsoError), match=r"has shape|units"):
        Learned.from_dict(forged)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
