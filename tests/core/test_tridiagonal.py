"""Tied private unknowns: block-tridiagonal elimination against dense algebra, SciPy's least squares, and a Kalman smoother."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from dso_robotics.core.method import gauss_newton
from dso_robotics.core.method.normal import Normal
from dso_robotics.core.method.tridiagonal import Tridiagonal


def chains(rng, lengths, k):
    """Diagonal and upper blocks of a positive definite matrix whose chains have `lengths`, and the dense matrix."""
    blocks = sum(lengths)
    diagonal, above = np.zeros((blocks, k, k)), np.zeros((blocks, k, k))
    ends = np.cumsum(lengths) - 1
    for b in range(blocks):
        here, there = rng.normal(size=(2, k + 2, k))
        diagonal[b] += here.T @ here + 0.1 * np.eye(k)
        if b not in ends:
            diagonal[b + 1] += there.T @ there
            above[b] = here.T @ there
    dense = np.zeros((blocks * k, blocks * k))
    for b in range(blocks):
        at = slice(b * k, (b + 1) * k)
        dense[at, at] = diagonal[b]
        if b not in ends:
            after = slice((b + 1) * k, (b + 2) * k)
            dense[at, after], dense[after, at] = above[b], above[b].T
    return diagonal, above, dense


@pytest.mark.parametrize("lengths", [(1,), (7,), (3, 1, 5, 1, 1, 4), (1, 1, 1)])
def test_solutions_and_blocks_of_the_inverse_are_those_of_the_dense_matrix(lengths):
    rng, k = np.random.default_rng(0), 3
    diagonal, above, dense = chains(rng, lengths, k)
    factor, blocks = Tridiagonal(diagonal, above), len(diagonal)
    right = rng.normal(size=(blocks, k, 2))
    expected = np.linalg.solve(dense, right.reshape(-1, 2)).reshape(right.shape)
    np.testing.assert_allclose(factor.solve(right), expected, rtol=1e-9, atol=1e-11)
    own, between = factor.inverse()
    inverse = np.linalg.inv(dense).reshape(blocks, k, blocks, k)
    for b in range(blocks):
        np.testing.assert_allclose(own[b], inverse[b, :, b], rtol=1e-9, atol=1e-11)
        if above[b].any():
            np.testing.assert_allclose(between[b], inverse[b, :, b + 1], rtol=1e-9, atol=1e-11)
        else:
            np.testing.assert_array_equal(between[b], 0.0)


def test_a_matrix_that_is_not_positive_is_refused():
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        Tridiagonal(-np.ones((2, 1, 1)), np.zeros((2, 1, 1)))


class Tied:
    """B blocks y_b = c(z) exp(-x_b t) whose rates drift: x_{b+1} = x_b + z_1 + jump, several chains, shared z.

    The last residual of a block is its jump over `scale`; the true jumps are of size 0.05.
    """

    def __init__(self, lengths=(4, 1, 3), scale=0.05, seed=0):
        rng, blocks = np.random.default_rng(seed), sum(lengths)
        self.t, self.scale, self.noise = np.linspace(0, 1, 12), scale, 0.02
        self.tied = np.ones(blocks, bool)
        self.tied[np.cumsum(lengths) - 1] = False
        self.truth, x = np.array([1.5, 0.2]), np.zeros((blocks, 1))
        for b in range(blocks):
            fresh = b == 0 or not self.tied[b - 1]
            x[b] = rng.uniform(0.5, 1.5) if fresh else x[b - 1] + self.truth[1] + 0.05 * rng.normal()
        self.x = x
        self.y = self.model(self.truth, x) + self.noise * rng.normal(size=(blocks, 12))

    def model(self, z, x):
        return z[0] * np.exp(-x * self.t)

    def residual(self, z, x):
        after = np.concatenate([x[1:], x[:1]])
        jump = np.where(self.tied, (after - x)[:, 0] - z[1], 0.0) / self.scale
        return np.concatenate([(self.model(z, x) - self.y) / self.noise, jump[:, None]], axis=1)

    def linearize(self, z, x):
        decay = np.exp(-x * self.t) / self.noise
        tied = self.tied[:, None] / self.scale
        by_c = np.concatenate([decay, 0 * tied], 1)
        by_drift = np.concatenate([0 * decay, -tied], 1)
        own = np.concatenate([-z[0] * self.t * decay, -tied], 1)
        ahead = np.concatenate([0 * decay, tied], 1)
        return self.residual(z, x), np.stack([by_c, by_drift], -1), own[..., None], ahead[..., None]

    def prior(self, z):
        return np.array([(z[1] - 0.1) / 0.3]), np.array([[0.0, 1 / 0.3]])

    def retract(self, x, change):
        return x + change

    def reweight(self, z, x):
        return 0.0

    def log_scale(self):
        return 0.0


def solved(problem, begin=(1.0, 0.0)):
    return gauss_newton.solve(
        problem, np.array(begin), np.ones_like(problem.x), low=np.full(2, -10.0), high=np.full(2, 10.0), scale=np.ones(2),
        settings=gauss_newton.Settings(step_tolerance=1e-8, cost_tolerance=1e-15, decrease=0.0, patience=100),
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1e-3, 0.05, 1e3])
def test_the_optimum_and_its_curvature_are_those_of_a_dense_solver(scale):
    problem = Tied(scale=scale)
    found, blocks = solved(problem), len(problem.x)
    dense = least_squares(
        lambda p: np.r_[problem.residual(p[:2], p[2:, None]).ravel(), problem.prior(p[:2])[0]],
        np.r_[problem.truth, problem.x[:, 0]], jac="3-point", xtol=1e-15, ftol=1e-15, gtol=1e-13,
    )  # fmt: skip
    np.testing.assert_allclose(found.z, dense.x[:2], rtol=1e-5)
    np.testing.assert_allclose(found.x[:, 0], dense.x[2:], rtol=1e-5)
    np.testing.assert_allclose(found.cost, dense.cost, rtol=1e-8)
    normal = Normal(problem, found.z, found.x, np.ones(2))
    _, jz, jx, ahead = problem.linearize(found.z, found.x)
    whole = np.zeros((jz.shape[0], jz.shape[1], 2 + blocks))
    whole[..., :2] = jz
    for b in range(blocks):
        whole[b, :, 2 + b] += jx[b, :, 0]
        if problem.tied[b]:
            whole[b, :, 3 + b] += ahead[b, :, 0]
    flat = np.concatenate([whole.reshape(-1, 2 + blocks), np.c_[problem.prior(found.z)[1], np.zeros((1, blocks))]])
    covariance = np.linalg.inv(flat.T @ flat)
    np.testing.assert_allclose(np.linalg.inv(found.information), covariance[:2, :2], rtol=1e-6)
    for b in range(blocks):
        variance = found.private_covariance(b, np.linalg.inv(found.information))
        np.testing.assert_allclose(variance, covariance[2 + b, 2 + b], rtol=1e-6)
    # The blocks' shares and scores add up to the whole.
    share = found.block_information.sum(0) + found.prior_information
    np.testing.assert_allclose(share, found.information, rtol=1e-6, atol=1e-6 * np.abs(found.information).max())
    np.testing.assert_allclose(found.scores.sum(0) + found.prior_gradient, 0, atol=1e-3 * np.abs(found.scores).max())
    # A step to a point nearby is the dense Gauss-Newton step.
    z, x = found.z + 0.01, found.x - 0.02
    normal = Normal(problem, z, x, np.ones(2))
    r, *_ = problem.linearize(z, x)
    jacobian = dense_jacobian(problem, z, x)
    gradient = jacobian.T @ np.r_[r.ravel(), problem.prior(z)[0]]
    step = -np.linalg.solve(jacobian.T @ jacobian + np.diag(np.r_[1e-2 * np.ones(2), np.zeros(blocks)]), gradient)
    mine, predicted = normal.step(z, np.full(2, -10.0), np.full(2, 10.0), 0.0)
    np.testing.assert_allclose(mine, step[:2], rtol=1e-5)
    np.testing.assert_allclose(normal.private_step(mine, 0.0)[:, 0], step[2:], rtol=1e-4, atol=1e-9)
    assert predicted > 0


def dense_jacobian(problem, z, x):
    _, jz, jx, ahead = problem.linearize(z, x)
    blocks = len(x)
    whole = np.zeros((*jz.shape[:2], 2 + blocks))
    whole[..., :2] = jz
    for b in range(blocks):
        whole[b, :, 2 + b] += jx[b, :, 0]
        if problem.tied[b]:
            whole[b, :, 3 + b] += ahead[b, :, 0]
    return np.concatenate([whole.reshape(-1, 2 + blocks), np.c_[problem.prior(z)[1], np.zeros((1, blocks))]])


class Linear:
    """x_{b+1} = A x_b + w, y_b = C x_b + v; z is a known number that nothing depends on."""

    def __init__(self, blocks=12, seed=0):
        rng = np.random.default_rng(seed)
        self.a, self.c = np.array([[1.0, 0.1], [-0.3, 0.9]]), np.array([[1.0, 0.0]])
        self.q, self.r, x = np.array([0.02, 0.1]), 0.05, np.zeros((blocks, 2))
        x[0] = rng.normal(size=2)
        for b in range(blocks - 1):
            x[b + 1] = self.a @ x[b] + self.q * rng.normal(size=2)
        self.y = x @ self.c.T + self.r * rng.normal(size=(blocks, 1))
        self.first = 10.0  # standard deviation of a vague first state

    def residual(self, z, x):
        jump = np.concatenate([x[1:] - x[:-1] @ self.a.T, np.zeros((1, 2))]) / self.q
        begin = np.zeros_like(x)
        begin[0] = x[0] / self.first
        return np.concatenate([(x @ self.c.T - self.y) / self.r, jump, begin], axis=1)

    def linearize(self, z, x):
        blocks = len(x)
        own, ahead = np.zeros((2, blocks, 5, 2))
        own[:, :1] = self.c / self.r
        own[:-1, 1:3], ahead[:-1, 1:3] = -self.a / self.q[:, None], np.diag(1 / self.q)
        own[0, 3:] = np.eye(2) / self.first
        return self.residual(z, x), np.zeros((blocks, 5, 1)), own, ahead

    def prior(self, z):
        return z.copy(), np.eye(1)

    def retract(self, x, change):
        return x + change

    def reweight(self, z, x):
        return 0.0

    def log_scale(self):
        return 0.0


def test_a_linear_chain_is_the_kalman_smoother():
    problem = Linear()
    found = gauss_newton.solve(
        problem, np.zeros(1), np.zeros((12, 2)), low=np.full(1, -1.0), high=np.ones(1), scale=np.ones(1),
        settings=gauss_newton.Settings(damping=0.0, cost_tolerance=1e-14),
    )  # fmt: skip
    a, c, noise = problem.a, problem.c, np.diag(problem.q**2)
    mean, spread = np.zeros(2), np.eye(2) * problem.first**2
    kept = []
    for b, y in enumerate(problem.y):
        if b:
            mean, spread = a @ mean, a @ spread @ a.T + noise
        before = mean, spread
        gain = spread @ c.T / (c @ spread @ c.T + problem.r**2)
        mean, spread = mean + gain @ (y - c @ mean), spread - gain @ c @ spread
        kept.append((before, (mean, spread)))
    smooth = [kept[-1][1]]
    for (_, (m, p)), (predicted, _) in zip(reversed(kept[:-1]), reversed(kept[1:]), strict=True):
        pull = p @ a.T @ np.linalg.inv(predicted[1])
        later = smooth[0]
        smooth.insert(0, (m + pull @ (later[0] - predicted[0]), p + pull @ (later[1] - predicted[1]) @ pull.T))
    for b, (m, p) in enumerate(smooth):
        np.testing.assert_allclose(found.x[b], m, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found.private_covariance(b, np.zeros((1, 1))), p, rtol=1e-6, atol=1e-10)


def test_the_cost_grows_with_the_blocks_and_not_with_their_cube():
    """A thousand blocks take no dense matrix: 4000 unknowns would need 128 MB and a minute."""
    rng = np.random.default_rng(0)
    _, above, _ = chains(rng, (3,), 4)
    many = np.tile(np.eye(4) * 50, (1000, 1, 1)), np.tile(above[0], (1000, 1, 1))
    many[1][-1] = 0
    right = rng.normal(size=(1000, 4, 1))
    x = Tridiagonal(*many).solve(right)
    back = many[0] @ x
    back[:-1] += many[1][:-1] @ x[1:]
    back[1:] += np.swapaxes(many[1][:-1], 1, 2) @ x[:-1]
    np.testing.assert_allclose(back, right, atol=1e-10)
