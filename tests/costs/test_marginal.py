"""The marginal likelihood against the integral in closed form, of a problem that is linear in all unknowns."""

import numpy as np
import pytest

from dso_robotics.costs.marginal import Marginal
from tests.costs.linear_problem import design, left, problem, record

TRUTH = np.array([1.2, 0.7])


def points(solution, rng):
    return solution.z + 0.05 * rng.normal(size=(6, 2))


def test_with_a_known_noise_it_is_the_normal_integral():
    """-log p(z) = S(z) / (2 sigma^2) + const, with S the sum of squares that the start states leave."""
    log = record(TRUTH, [0.02, 0.02], 0)
    made, solution = problem(log, noise=0.02)
    parts, marginal = design(made), Marginal(made, solution)
    rows = points(solution, np.random.default_rng(1))
    exact = np.array([left(parts, z)[0].sum() / (2 * 0.02**2) for z in rows])
    found = np.array([marginal.at(z).cost for z in rows])
    assert found - found[0] == pytest.approx(exact - exact[0], abs=1e-4)


def test_with_an_unknown_noise_of_each_recording_it_is_students_integral():
    """p(z) = prod_r S_r(z)^(-(N_r - K_r) / 2), with a flat prior of log sigma and of the start states."""
    log = record(TRUTH, [0.02, 0.06], 0)
    made, solution = problem(log)
    before = made.sigma.copy()
    parts, marginal = design(made), Marginal(made, solution)
    rows = points(solution, np.random.default_rng(2))
    exact = []
    for z in rows:
        squares, freedom = left(parts, z)
        exact.append(float(np.sum(freedom / 2 * np.log(squares))))
    found = [marginal.at(z) for z in rows]
    costs = np.array([point.cost for point in found])
    assert costs - costs[0] == pytest.approx(np.array(exact) - exact[0], abs=1e-3)
    squares, freedom = left(parts, rows[3])
    assert found[3].sigma[:, 0] == pytest.approx(np.sqrt(squares / freedom), rel=1e-4)
    assert found[3].freedom[:, 0] == pytest.approx(freedom, abs=1e-3)
    assert made.sigma == pytest.approx(before)


def test_a_number_that_changes_how_states_grow_has_no_prior_from_the_start_states():
    """With damping the state at the end of a window is a shrunken one; p(z) = S(z)^(-(N - K) / 2) all the same."""
    log = record(TRUTH, [0.02], 5, runs=1)
    made, solution = problem(log, free=("joint/x/damping=1.0@0:9",))
    marginal, exact, found = Marginal(made, solution), [], []
    for damping in (0.2, 1.0, 3.0, 6.0):
        z = np.array([damping])
        squares, freedom = left(design(made, z), np.zeros(1))
        exact.append(float(freedom[0] / 2 * np.log(squares[0])))
        found.append(marginal.at(z).cost)
    assert np.array(found) - found[0] == pytest.approx(np.array(exact) - exact[0], abs=2e-3)
    # The volume that a prior flat in the start states would have added is no small matter.
    assert abs(marginal.log_volume(np.array([6.0])) - marginal.log_volume(np.array([0.2]))) > 1.0


def test_drawn_noise_scales_and_start_states_have_their_conditional_spread():
    log = record(TRUTH, [0.02, 0.02], 3)
    made, solution = problem(log)
    marginal, rng = Marginal(made, solution), np.random.default_rng(0)
    point = marginal.at(solution.z)
    scales = np.array([marginal.drawn_sigma(point, rng) for _ in range(4000)])
    # sigma^2 is S / chi^2: the mean of 1 / sigma^2 is freedom / S = 1 / sigma_hat^2.
    assert np.mean(1 / scales**2, axis=0) == pytest.approx(1 / point.sigma**2, rel=0.02)
    assert np.std(np.log(scales), axis=0) == pytest.approx(1 / np.sqrt(2 * point.freedom), rel=0.1)
    starts = np.array([marginal.drawn_starts(point, rng) for _ in range(4000)])
    assert np.var(starts, axis=0) == pytest.approx(np.einsum("bii->bi", solution.private), rel=0.15)
    assert starts.mean(0) == pytest.approx(point.x, abs=0.01)


def test_where_a_window_diverges_there_is_no_likelihood():
    log = record(TRUTH, [0.02, 0.02], 0)
    made, solution = problem(log, free=("actuator/one/gear[0]", "actuator/two/gear[0]"))
    assert Marginal(made, solution).at(np.array([np.nan, 1.0])).cost == np.inf
