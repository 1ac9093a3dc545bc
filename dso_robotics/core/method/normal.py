"""The normal equations of least squares with private unknowns, at one point.

The residuals of block b depend on the shared z and on its own private x_b. If blocks are tied, they also depend on x_{b+1}.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from dso_robotics.core.covariance import spread
from dso_robotics.core.method.tridiagonal import Tridiagonal

if TYPE_CHECKING:
    from dso_robotics.core.method.least_squares import Problem, Reusing

# Curvature, in coordinates divided by their scale, below which a coordinate has no effect on the cost.
_NO_CURVATURE = 1e-6
# Curvature added to every coordinate, in coordinates divided by their size. If the data determine a coordinate only to within
# its size, this slows it by one hundredth.
_RIDGE = 1e-2
# How far, in prior standard deviations, a search may stop from the point that the prior alone would choose.
_PRIOR_STEP = 0.5


def block_cost(residual: np.ndarray) -> np.ndarray:
    """Half the sum of squares of each block (B,). NaN where it cannot be evaluated."""
    with np.errstate(over="ignore", invalid="ignore"):
        return 0.5 * np.sum(residual**2, axis=1)


def box_step(hessian: np.ndarray, gradient: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The step p (n,) in [low, high] with the least gradient' p + p' hessian p / 2, by a projected active set."""
    step, fixed = np.zeros_like(gradient), np.zeros(len(gradient), bool)
    for _ in range(len(gradient) + 1):
        free = ~fixed
        step = np.where(fixed, np.clip(step, low, high), 0.0)
        if free.any():
            rhs = -(gradient[free] + hessian[np.ix_(free, fixed)] @ step[fixed])
            step[free] = np.linalg.solve(hessian[np.ix_(free, free)], rhs)
        out = free & ((step < low) | (step > high))
        if not out.any():
            break
        step = np.clip(step, low, high)
        fixed |= out
    return step


class Normal:
    """Normal equations at one point, in coordinates divided by `scale`. Private unknowns are eliminated when needed.

    again: reuse the derivatives of the last linearisation, if the problem supports it.
    """

    def __init__(
        self, problem: "Problem | Reusing", z: np.ndarray, x: np.ndarray, scale: np.ndarray, *, again: bool = False
    ):
        linearize = problem.again if again else problem.linearize  # pyright: ignore[reportAttributeAccessIssue]
        r, jz, jx, *ahead = linearize(z, x)
        prior, prior_jacobian = problem.prior(z)
        jz, prior_jacobian = jz * scale, prior_jacobian * scale
        self.scale = scale
        self.block_cost = block_cost(r)
        self.cost = float(0.5 * np.sum(r**2) + 0.5 * np.sum(prior**2)) + problem.log_scale()
        self.zz_blocks = np.swapaxes(jz, 1, 2) @ jz
        self.prior = prior_jacobian.T @ prior_jacobian
        self.zz = self.zz_blocks.sum(0) + self.prior
        self.gb = (np.swapaxes(jz, 1, 2) @ r[..., None])[..., 0]
        self.prior_gradient = prior_jacobian.T @ prior
        self.gz = self.gb.sum(0) + self.prior_gradient
        # Derivatives of a block's residuals by its own private unknowns and, in `_next`, by those of the next block.
        self._own = _Half(r, jz, jx)
        self._next = _Half(r, jz, ahead[0]) if ahead and jx.shape[-1] else None
        self.zx, self.xx, self.gx = self._own.zx, self._own.xx, self._own.gx
        self._above = None
        if self._next is not None:
            self.zx, self.xx, self.gx = (
                a + np.concatenate([np.zeros_like(b[:1]), b[:-1]])
                for a, b in zip(self._own.parts, self._next.parts, strict=True)
            )
            self._above = np.swapaxes(jx, 1, 2) @ ahead[0]

    @property
    def tied(self) -> bool:
        """Whether residuals of a block depend on the next block's private unknowns."""
        return self._above is not None

    def _solve_private(self, damping: float | np.ndarray, right: np.ndarray) -> np.ndarray:
        """Inverse of the damped private Hessian times `right` (B, k, m)."""
        if self._above is None:
            return np.linalg.solve(self._private(damping), right)
        return Tridiagonal(self._private(damping), self._above).solve(right)

    def _private(self, damping: float | np.ndarray) -> np.ndarray:
        """Private blocks (B, k, k), with a common damping or one per block (B,).

        A tiny ridge is added for directions that no residual depends on.
        """
        diagonal = np.einsum("bii->bi", self.xx)
        ridge = np.asarray(damping)[..., None] * diagonal + 1e-12 * np.max(diagonal, initial=1e-30) + 1e-30
        return self.xx + ridge[..., None] * np.eye(self.xx.shape[-1])

    def _schur(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        if self.xx.shape[-1] == 0:
            return self.zz, self.gz
        solved = self._solve_private(damping, np.concatenate([np.swapaxes(self.zx, 1, 2), self.gx[..., None]], -1))
        reduced = self.zx @ solved
        return self.zz - reduced[..., :-1].sum(0), self.gz - reduced[..., -1].sum(0)

    def step(self, z: np.ndarray, low: np.ndarray, high: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
        """Step of z within the box (projected active set), and the decrease of the cost that the model predicts."""
        hessian, gradient = self._schur(damping)
        # A coordinate known only to within its own size moves slowly, so that rounding errors cannot move it far.
        ridge = _RIDGE / np.maximum(1.0, np.abs(z) / self.scale) ** 2
        damped = hessian + np.diag(damping * np.diag(self.zz) + ridge)
        step = box_step(damped, gradient, (low - z) / self.scale, (high - z) / self.scale)
        predicted = -float(gradient @ step + 0.5 * step @ hessian @ step)
        if self.gx.shape[-1]:
            predicted += 0.5 * float(np.sum(self.gx * self._solve_private(damping, self.gx[..., None])[..., 0]))
        return step * self.scale, predicted

    def private_step(self, change: np.ndarray, damping: float | np.ndarray) -> np.ndarray:
        """Best private change (B, k) when z moves by `change` (n,). `damping` is common to all blocks or one per block (B,)."""
        if self.xx.shape[-1] == 0:
            return np.zeros_like(self.gx)
        pull = self.gx + np.einsum("bnk,n->bk", self.zx, change / self.scale)
        return -self._solve_private(damping, pull[..., None])[..., 0]

    @functools.cached_property
    def response(self) -> np.ndarray:
        """Minus the derivative of the private unknowns by z, (B, k, n), in coordinates divided by `scale`."""
        return self._solve_private(0.0, np.swapaxes(self.zx, 1, 2))

    def private_covariance(self) -> np.ndarray:
        """Covariance (B, k, k) of each block's private unknowns given z."""
        if self._above is None:
            return np.linalg.pinv(self.xx, hermitian=True) if self.xx.size else self.xx
        return Tridiagonal(self._private(0.0), self._above).inverse()[0]

    def deviation(self, z: np.ndarray) -> np.ndarray:
        """Standard deviation (n,) of each coordinate, from the disagreement between windows."""
        size = np.maximum(self.scale, np.abs(z))
        unit = np.outer(size, size)
        scores, shares = self.scores(), self.block_information()
        arguments = self.information() * unit, (scores - scores.mean(0)) * size, shares * unit
        prior = self.prior * np.outer(size / self.scale, size / self.scale)
        covariance = spread(*arguments, prior)
        if not np.isfinite(covariance).all():
            covariance = spread(*arguments, prior, method="likelihood")
        return size * np.sqrt(np.diag(covariance))

    def near(self, step: np.ndarray, tolerance: float) -> bool:
        """Whether a step (n,) is below `tolerance` standard deviations of the data, over all coordinates together.

        Where only a prior determines a coordinate, there are no data to measure against, and the valley that leads to the
        prior may be long and curved. There, a step of half a prior standard deviation (root mean square) is small enough.
        """
        scaled = step / self.scale
        by_prior = float(scaled @ self.prior @ scaled)
        by_data = float(step @ self.information() @ step) - by_prior
        few = _PRIOR_STEP**2 * np.count_nonzero(np.diag(self.prior))
        return by_data <= tolerance**2 and by_prior <= few

    def active(self, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Coordinates that a bound holds, to a millionth of their scale. Those that no residual depends on are not active."""
        near, hessian = 1e-6 * self.scale, self._schur(0.0)[0]
        return ((z <= low + near) | (z >= high - near)) & (np.diag(hessian) > _NO_CURVATURE)

    def information(self) -> np.ndarray:
        """Schur complement (n, n) in the units of z."""
        hessian, _ = self._schur(0.0)
        return hessian / np.outer(self.scale, self.scale)

    def scores(self) -> np.ndarray:
        """Gradient of each block (B, n) in the units of z, with private unknowns eliminated."""
        if self.xx.shape[-1] == 0:
            return self.gb / self.scale
        pull = np.einsum("bkn,bk->bn", self.response, self._own.gx)
        if self._next is not None:
            pull += np.einsum("bkn,bk->bn", _following(self.response), self._next.gx)
        return (self.gb - pull) / self.scale

    def block_information(self) -> np.ndarray:
        """Share of each block (B, n, n) in the Schur complement, in the units of z, without the prior."""
        blocks = self.zz_blocks
        if self._next is not None:
            # (J_z - J_x W_b - J_next W_{b+1}) squared: the sensitivity of each block's residuals to z after all x have adapted.
            assert self._above is not None
            here, there = self.response, _following(self.response)
            seen = self._own.zx @ here + self._next.zx @ there
            cross = np.swapaxes(here, 1, 2) @ self._above @ there
            square = np.swapaxes(here, 1, 2) @ self._own.xx @ here + np.swapaxes(there, 1, 2) @ self._next.xx @ there
            blocks = blocks - seen - np.swapaxes(seen, 1, 2) + cross + np.swapaxes(cross, 1, 2) + square
        elif self.xx.shape[-1]:
            blocks = blocks - self.zx @ self.response
        return blocks / np.outer(self.scale, self.scale)


class _Half:
    """Products of the residuals' derivatives with those by one set of private unknowns.

    zx: (B, n, k).
    xx: (B, k, k).
    gx: (B, k).
    """

    def __init__(self, r: np.ndarray, jz: np.ndarray, jx: np.ndarray):
        across = np.swapaxes(jx, 1, 2)
        self.zx = np.swapaxes(jz, 1, 2) @ jx
        self.xx = across @ jx
        self.gx = (across @ r[..., None])[..., 0]

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.zx, self.xx, self.gx


def _following(blocks: np.ndarray) -> np.ndarray:
    """The next block of each block (B, ...), with zeros after the last."""
    return np.concatenate([blocks[1:], np.zeros_like(blocks[:1])])
