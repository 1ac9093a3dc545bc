"""The replay: the newest transitions in the place of the oldest, drawn uniformly, and means over those that took place."""

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.experience import Transitions, no_experience


def numbered(first, count, valid=True):
    """Transitions whose cost is their number."""
    cost = jnp.arange(first, first + count, dtype=float)
    row = jnp.stack([cost, -cost], 1)
    flags = jnp.full(count, valid)
    return Transitions(row, cost[:, None], cost, row + 0.5, ~flags, flags)


def test_the_oldest_make_room():
    kept = no_experience(5, 2, 1)
    for first, count in ((0, 3), (3, 1), (4, 4)):
        kept = kept.stored(numbered(first, count))
    assert sorted(np.asarray(kept.kept.cost)) == [3, 4, 5, 6, 7]
    np.testing.assert_array_equal(kept.kept.row[:, 0], kept.kept.cost)
    np.testing.assert_array_equal(kept.kept.following[:, 0], kept.kept.cost + 0.5)
    assert int(kept.count) == 8


def test_a_batch_is_drawn_evenly_from_what_is_there():
    kept = no_experience(8, 2, 1).stored(numbered(1, 4))
    cost = np.asarray(kept.drawn(jax.random.key(0), 4000).cost)
    number, shares = np.unique(cost, return_counts=True)
    assert list(number) == [1, 2, 3, 4]
    # Four standard errors of a share of 1/4.
    assert np.abs(shares / 4000 - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_means_leave_out_what_did_not_take_place():
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), numbered(0, 3), numbered(10, 2, valid=False))
    np.testing.assert_allclose(mixed.weights, [1 / 3, 1 / 3, 1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(numbered(0, 2, valid=False).weights, 0.0)
