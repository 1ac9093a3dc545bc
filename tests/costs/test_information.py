"""Information of runs: beside closed forms, and aims beside their definitions."""

import numpy as np
import pytest

from dso_robotics.costs.information import UNKNOWN, covariance, score, without


@pytest.fixture(scope="module")
def information():
    root = np.random.default_rng(0).normal(size=(12, 4))
    return root.T @ root


def test_other_unknowns_take_their_share(information):
    keep = np.array([True, False, True, True])
    part = np.linalg.inv(without(information, keep))
    np.testing.assert_allclose(part, np.linalg.inv(information)[np.ix_(keep, keep)], rtol=1e-6)


def test_what_nothing_shows_is_unknown_and_spoils_nothing_else(information):
    blind = np.zeros((5, 5))
    blind[:4, :4] = information
    spread = covariance(blind)
    np.testing.assert_allclose(spread[:4, :4], np.linalg.inv(information), rtol=1e-9)
    assert spread[4, 4] == pytest.approx(UNKNOWN**2)


def test_aims_are_what_they_are_called(information):
    spread = np.linalg.inv(information)
    every = np.ones(4, bool)
    assert np.exp(score("d", spread, every)) == pytest.approx(np.linalg.det(spread) ** (1 / 8))
    assert np.exp(score("a", spread, every)) == pytest.approx(np.sqrt(np.trace(spread) / 4))
    assert np.exp(score("e", spread, every)) == pytest.approx(np.sqrt(np.linalg.eigvalsh(spread)[-1]))
    assert np.exp(score("widest", spread, every)) == pytest.approx(np.sqrt(spread.diagonal().max()))
    only = np.array([False, True, False, False])
    for aim in ("d", "a", "e", "halve"):
        assert np.exp(score(aim, spread, only)) == pytest.approx(np.sqrt(spread[1, 1]))
    assert score("d", np.stack([spread, 4 * spread]), every)[1] == pytest.approx(score("d", spread, every) + np.log(2))
