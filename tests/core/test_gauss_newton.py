"""Bounded Levenberg-Marquardt with private unknowns, against dense solvers and closed forms."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from dso_robotics.core.covariance import describe, spread, uncertainty
from dso_robotics.core.method import gauss_newton
from dso_robotics.core.method.normal import Normal


class Exponentials:
    """B decays a_b exp(-k t) + c with shared (k, c) and a private a_b each."""

    def __init__(self, blocks=6, noise=0.01, seed=0):
        rng = np.random.default_rng(seed)
        self.t = np.linspace(0, 2, 25)
        self.truth = np.array([1.3, 0.2])
        self.a = rng.uniform(1, 3, size=(blocks, 1))
        self.noise = noise
        self.y = self.model(self.truth, self.a) + noise * rng.normal(size=(blocks, 25))

    def model(self, z, x):
        return x * np.exp(-z[0] * self.t) + z[1]

    def residual(self, z, x):
        return (self.model(z, x) - self.y) / self.noise

    def linearize(self, z, x):
        decay = np.exp(-z[0] * self.t)
        jz = np.stack([-x * self.t * decay, np.ones_like(self.y)], -1) / self.noise
        jx = np.broadcast_to(decay, self.y.shape)[..., None] / self.noise
        return self.residual(z, x), jz, jx

    def prior(self, z):
        return np.zeros(0), np.zeros((0, 2))

    def retract(self, x, change):
        return x + change

    def reweight(self, z, x):
        return 0.0

    def log_scale(self):
        return 0.0


def run(problem, low=(-10, -10), high=(10, 10), **settings):
    return gauss_newton.solve(
        problem,
        np.array([0.4, 0.6]),
        np.ones_like(problem.a),
        low=np.array(low, float),
        high=np.array(high, float),
        scale=np.ones(2),
        settings=gauss_newton.Settings(step_tolerance=1e-6, cost_tolerance=1e-14, **settings),
    )


def dense(problem, low=(-10, -10), high=(10, 10)):
    blocks = len(problem.a)
    return least_squares(
        lambda p: problem.residual(p[:2], p[2:, None]).ravel(),
        np.r_[0.4, 0.6, np.ones(blocks)],
        bounds=(np.r_[low, np.full(blocks, -np.inf)], np.r_[high, np.full(blocks, np.inf)]),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-12,
    )


def test_the_optimum_is_that_of_a_dense_solver():
    problem = Exponentials()
    found, expected = run(problem), dense(problem)
    assert found.converged
    np.testing.assert_allclose(found.z, expected.x[:2], rtol=1e-6)
    np.testing.assert_allclose(found.x[:, 0], expected.x[2:], rtol=1e-6)
    np.testing.assert_allclose(found.cost, expected.cost, rtol=1e-9)
    inverse = np.linalg.inv(expected.jac.T @ expected.jac)
    np.testing.assert_allclose(np.linalg.inv(found.information), inverse[:2, :2], rtol=1e-4)


def test_a_bound_holds_and_the_rest_is_optimal_given_it():
    problem = Exponentials()
    found, expected = run(problem, high=(1.0, 10)), dense(problem, high=(1.0, 10))
    assert found.active.tolist() == [True, False]
    assert found.z[0] == 1.0
    np.testing.assert_allclose(found.z[1], expected.x[1], rtol=1e-4)


def test_a_start_that_cannot_be_evaluated_is_an_error():
    problem = Exponentials()
    problem.y[0, 0] = np.nan
    with pytest.raises(gauss_newton.StartError, match="not finite"):
        run(problem)


def test_a_step_into_nan_is_rejected():
    class Cliff(Exponentials):
        def residual(self, z, x):
            return super().residual(z, x) if z[0] < 1.5 else np.full_like(self.y, np.nan)

    found = run(Cliff())
    assert found.converged
    np.testing.assert_allclose(found.z, Exponentials().truth, atol=0.05)


def test_the_jackknife_is_that_of_fits_without_each_block():
    """A linear problem of few blocks, one of which has most of the say: what the fit does without it is known exactly."""
    rng = np.random.default_rng(0)
    jacobian, r = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 6))
    jacobian[0] *= 4.0
    whole = np.linalg.lstsq(jacobian.reshape(-1, 2), -r.ravel(), rcond=None)[0]
    moves = []
    for b in range(5):
        others = np.arange(5) != b
        moves.append(np.linalg.lstsq(jacobian[others].reshape(-1, 2), -r[others].ravel(), rcond=None)[0] - whole)
    at = r + jacobian @ whole
    shares = np.swapaxes(jacobian, 1, 2) @ jacobian
    scores = (np.swapaxes(jacobian, 1, 2) @ at[..., None])[..., 0]
    found = spread(shares.sum(0), scores, shares, np.zeros((2, 2)))
    np.testing.assert_allclose(found, np.array(moves).T @ np.array(moves), rtol=1e-9)


def test_each_block_s_share_of_the_information_is_what_its_own_unknown_leaves():
    problem = Exponentials()
    _, jz, jx = problem.linearize(problem.truth, problem.a)
    found = Normal(problem, problem.truth, problem.a, np.array([2.0, 0.5])).block_information()
    for b in range(len(problem.a)):
        seen = jx[b] @ np.linalg.pinv(jx[b])
        np.testing.assert_allclose(found[b], jz[b].T @ (np.eye(25) - seen) @ jz[b], rtol=1e-8)


class Straight(Exponentials):
    """Residuals that are linear in z and in the private unknowns."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.jz, self.jx, self.r = rng.normal(size=(6, 5, 2)), rng.normal(size=(6, 5, 1)), rng.normal(size=(6, 5))

    def residual(self, z, x):
        return self.r + self.jz @ z + (self.jx @ x[..., None])[..., 0]

    def linearize(self, z, x):
        return self.residual(z, x), self.jz, self.jx


def test_the_predicted_decrease_is_that_of_a_linear_problem():
    """Of any step of z, here one that a bound holds back, with the private unknowns at their best after it."""
    problem, z, x = Straight(), np.array([0.3, -0.2]), np.full((6, 1), 0.7)
    low, high = np.array([0.29, -50.0]), np.array([0.31, 50.0])
    step, predicted = Normal(problem, z, x, np.array([2.0, 0.5])).step(z, low, high, 0.0)
    assert 0.0 < abs(step[0]) <= 0.0101

    def cost(r):
        return 0.5 * np.sum(r**2)

    after = problem.residual(z + step, np.zeros((6, 1)))
    best = sum(cost(a + j @ np.linalg.lstsq(j, -a, rcond=None)[0]) for a, j in zip(after, problem.jx, strict=True))
    assert predicted == pytest.approx(cost(problem.residual(z, x)) - best, rel=1e-9)


@pytest.mark.slow
def test_both_kinds_of_interval_cover_when_noise_is_white():
    hits = {"jackknife": [], "likelihood": []}
    for seed in range(120):
        problem = Exponentials(blocks=40, noise=0.05, seed=seed)
        solution = run(problem)
        estimate = uncertainty(solution, np.ones(2))
        assert estimate.method == "jackknife"
        hits["jackknife"].append(np.abs(solution.z - problem.truth) < 1.96 * estimate.std)
        plain = np.sqrt(np.diag(np.linalg.inv(solution.information)))
        hits["likelihood"].append(np.abs(solution.z - problem.truth) < 1.96 * plain)
    for kind in hits:
        coverage = np.mean(hits[kind], 0)
        # 240 draws of a probability 0.95 lie within four standard errors of it.
        assert np.all(np.abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 120)), (kind, coverage)


def test_the_jackknife_sees_correlated_residuals_that_the_likelihood_misses():
    """An offset common to each block, as model error makes it: the plain inverse Hessian promises too much."""
    found, promised = [], []
    for seed in range(60):
        problem = Exponentials(blocks=40, noise=0.02, seed=seed)
        problem.y += np.random.default_rng(1000 + seed).normal(size=(40, 1)) * 0.03
        solution = run(problem)
        found.append(solution.z)
        promised.append(uncertainty(solution, np.ones(2)).std)
        plain = np.sqrt(np.diag(np.linalg.inv(solution.information)))
        assert promised[-1][1] > 1.5 * plain[1]
    # The spread of 60 estimates is known to 9%; four of its standard errors.
    np.testing.assert_allclose(np.std(found, 0) / np.mean(promised, 0), 1.0, atol=0.37)


def test_an_unseen_direction_is_named():
    class Twin(Exponentials):
        """c is the sum of two numbers: only their sum is determined."""

        def model(self, z, x):
            return super().model(np.array([z[0], sum(z[1:])]), x)

        def linearize(self, z, x):
            _, jz, jx = super().linearize(np.array([z[0], z[1] + z[2]]), x)
            return self.residual(z, x), np.concatenate([jz, jz[..., 1:]], -1), jx

        def prior(self, z):
            return np.zeros(0), np.zeros((0, 3))

    problem = Twin()
    problem.y = Exponentials().y
    solution = gauss_newton.solve(
        problem,
        np.array([0.4, 0.1, 0.1]),
        np.ones_like(problem.a),
        low=np.full(3, -10.0),
        high=np.full(3, 10.0),
        scale=np.ones(3),
    )
    estimate = uncertainty(solution, np.ones(3))
    assert describe(estimate.unseen, ("k", "c", "d")) in (["c - d"], ["d - c"])


def test_at_a_bound_the_interval_is_that_without_it():
    """A bound just inside the optimum: variance and centre are those of the free problem, to first order."""
    problem = Exponentials(blocks=12)
    free = run(problem)
    held = run(problem, high=(free.z[0] - 0.01, 10))
    expected, found = uncertainty(free, np.ones(2)), uncertainty(held, np.ones(2))
    assert held.active.tolist() == [True, False]
    np.testing.assert_allclose(found.centre[0], free.z[0], atol=5e-4)
    np.testing.assert_allclose(found.std[0], expected.std[0], rtol=0.1)
    assert found.covariance[0, 1] == 0.0


def test_what_no_residual_sees_keeps_the_width_of_its_prior_or_none():
    class Idle(Exponentials):
        """Two more numbers that nothing depends on; the last has a prior of width 0.3."""

        def linearize(self, z, x):
            residual, jz, jx = super().linearize(z, x)
            return residual, np.concatenate([jz, np.zeros((*jz.shape[:2], 2))], -1), jx

        def prior(self, z):
            return (z[3:] - 0.5) / 0.3, np.array([[0, 0, 0, 1 / 0.3]])

    problem = Idle(blocks=20)
    start = np.array([0.4, 0.6, 2.0, 2.0])
    bounds = {"low": np.full(4, -10.0), "high": np.full(4, 10.0), "scale": np.ones(4)}
    solution = gauss_newton.solve(problem, start, np.ones_like(problem.a), **bounds)
    assert solution.converged
    np.testing.assert_allclose(solution.z[2:], [2.0, 0.5], atol=1e-6)
    estimate = uncertainty(solution, np.ones(4))
    assert estimate.method == "jackknife"
    assert np.all(estimate.std[:2] < 0.1)
    assert estimate.std[2] > 1e5
    np.testing.assert_allclose(estimate.std[3], 0.3, rtol=1e-6)
    assert set(describe(estimate.unseen, ("k", "c", "idle", "guessed"))) == {"idle", "guessed"}


class BentValley(Exponentials):
    """Data that see z0 + z1^2 alone and sharply, and a prior elsewhere along that bent valley."""

    def residual(self, z, x):
        return np.full((6, 1), (z[0] + z[1] ** 2 - 1.0) * 1e4) + x

    def linearize(self, z, x):
        jz = np.broadcast_to(1e4 * np.array([1.0, 2 * z[1]]), (6, 1, 2))
        return self.residual(z, x), jz, np.zeros((6, 1, 0))

    def prior(self, z):
        return z - np.array([-3.0, -2.3]), np.eye(2)

    def retract(self, x, change):
        return x


def test_a_search_stops_where_only_the_prior_is_left_to_please():
    problem, found = BentValley(), []
    noise = np.random.default_rng(0).normal(size=(6, 1))
    for tolerance in (0.1, 1e-6):
        solution = gauss_newton.solve(
            problem, np.array([-3.0, -1.8]), noise, low=np.full(2, -10.0), high=np.full(2, 10.0), scale=np.ones(2),
            settings=gauss_newton.Settings(step_tolerance=tolerance, cost_tolerance=1e-15, decrease=0.0, iterations=5000),
        )  # fmt: skip
        assert solution.converged
        found.append(solution)
    coarse, fine = found
    assert coarse.evaluations < 0.5 * fine.evaluations
    seen = [s.z[0] + s.z[1] ** 2 for s in found]
    assert abs(seen[0] - seen[1]) < 0.1 * 1e-4 / np.sqrt(6)  # a tenth of what the data know


def test_a_block_that_overshoots_does_not_hold_back_the_others():
    class Bent(Exponentials):
        """One block's private unknown enters so bent that its full step lands far beyond; the others are straight."""

        def bend(self, x):
            return np.concatenate([np.arctan(x[:1] - 2.0) + 2.0, x[1:]])

        def residual(self, z, x):
            return super().residual(z, self.bend(x))

        def linearize(self, z, x):
            residual, jz, jx = super().linearize(z, self.bend(x))
            slope = np.concatenate([1 / (1 + (x[:1] - 2.0) ** 2), np.ones_like(x[1:])])
            return residual, jz, jx * slope[..., None]

    problem = Bent()
    problem.a[0] = 1.9
    problem.y = problem.model(problem.truth, problem.a)
    start = np.concatenate([[[-1.0]], np.ones_like(problem.a[1:])])
    bounds = {"low": np.full(2, -10.0), "high": np.full(2, 10.0), "scale": np.ones(2)}
    found = gauss_newton.solve(problem, np.array([0.4, 0.6]), start, **bounds)
    assert found.converged
    np.testing.assert_allclose(found.z, problem.truth, atol=1e-3)
    assert len(found.history) < 15


def test_a_search_ends_when_nothing_noticeable_happens_any_more():
    class Crawl(Exponentials):
        """A scatter of a ten thousandth of a nat on top, as finite differences or contacts leave it."""

        def log_scale(self):
            self.calls = getattr(self, "calls", 0) + 1
            return -2e-3 * self.calls

    problem = Crawl(blocks=20)
    bounds = {"low": np.full(2, -10.0), "high": np.full(2, 10.0), "scale": np.ones(2)}
    found = gauss_newton.solve(problem, np.array([0.4, 0.6]), np.ones_like(problem.a), **bounds)
    assert found.converged
    settings = gauss_newton.Settings(decrease=0.0, step_tolerance=0.0)
    endless = gauss_newton.solve(problem, found.z, found.x, **bounds, settings=settings)
    assert not endless.converged
    np.testing.assert_allclose(endless.z, found.z, atol=0.1 * np.min(uncertainty(found, np.ones(2)).std))


class Counted(Exponentials):
    """Derivatives counted, and kept for `again`."""

    linearized = 0

    def linearize(self, z, x):
        self.linearized += 1
        self.kept = super().linearize(z, x)[1:]
        return self.residual(z, x), *self.kept


class Remembering(Counted):
    def again(self, z, x):
        return self.residual(z, x), *self.kept


def test_steps_on_derivatives_at_hand_save_linearisations_and_reach_the_same_optimum():
    plain, remembering = Counted(noise=0.1), Remembering(noise=0.1)
    first, second = (run(p, decrease=1e-9, patience=99) for p in (plain, remembering))
    np.testing.assert_allclose(second.z, first.z, rtol=1e-6)
    np.testing.assert_allclose(second.cost, first.cost, rtol=1e-12)
    np.testing.assert_allclose(second.information, first.information, rtol=1e-5)
    assert remembering.linearized < plain.linearized


def test_a_search_looks_again_when_the_noise_changed_on_derivatives_at_hand():
    """Steps that were small against the noise of before may be large against that of now."""

    class Settling(Remembering):
        changes = iter((0.0, 0.5, 0.001, *[0.0] * 99))

        def reweight(self, z, x):
            return next(self.changes)

    problem = Settling(noise=0.1)
    gauss_newton.solve(
        problem,
        np.array([0.4, 0.6]),
        np.ones_like(problem.a),
        low=np.full(2, -10.0),
        high=np.full(2, 10.0),
        scale=np.ones(2),
        settings=gauss_newton.Settings(step_tolerance=1e6, decrease=1e-9),
    )
    assert problem.linearized == 3
