"""The evolution strategy: a quadratic with a known minimum, limits that are never paid for, and the same numbers again."""

import numpy as np

from dso_robotics.core.descent import descend
from dso_robotics.core.method.evolution import Evolution


def search(evaluate, size, iterations, seed=0):
    method = Evolution(evaluate, size, step=0.5, seed=seed)
    return descend(method, method.init(None, np.ones(size)), iterations=iterations)


def test_it_finds_the_minimum_of_a_slender_quadratic():
    scale = np.array([1.0, 10.0, 100.0, 3.0])

    def evaluate(points):
        return ((points - 0.3) ** 2 * scale).sum(1), np.zeros(len(points))

    found = search(evaluate, 4, 150)
    np.testing.assert_allclose(found.theta, 0.3, atol=2e-3)


def test_points_that_break_a_limit_never_win():
    # The minimum of x + y within the unit circle is at (-1, -1)/sqrt(2). Outside it the cost says nothing.
    def evaluate(points):
        beyond = np.maximum(np.linalg.norm(points, axis=1) - 1.0, 0.0)
        return np.where(beyond > 0, -1e9, points.sum(1)), beyond

    found = search(evaluate, 2, 120)
    assert found.state.violation == 0
    np.testing.assert_allclose(found.theta, -np.sqrt(0.5), atol=0.02)


def test_the_same_seed_gives_the_same_search():
    def evaluate(points):
        return (points**2).sum(1), np.zeros(len(points))

    one, same, other = (search(evaluate, 3, 10, seed).theta for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0
