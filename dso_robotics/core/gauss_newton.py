"""Bounded Levenberg-Marquardt for least squares whose unknowns are a few shared numbers and many private ones.

Identification estimates a handful of physical parameters z together with the start state of every window. The residual
of a window depends on z and on its own start alone, so the normal equations are an arrow: the starts are eliminated block
by block (Schur complement) and a step costs one small dense system, however many windows there are. SciPy's
`least_squares` would see hundreds of unknowns and one dense Jacobian; this is the piece it has no form for.

NumPy only: both engines feed it.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from dso_robotics.errors import DsoError

# Curvature, in coordinates divided by their scale, below which a coordinate has no say in the cost.
_NO_CURVATURE = 1e-6


# How far, in its standard deviations, a search may stop from where a prior alone would put the coordinates.
_PRIOR_STEP = 0.5


class StartError(DsoError):
    """The cost is not finite at the start point, so there is nothing to search from."""


class Problem(Protocol):
    """Residuals of B blocks, m each, whitened by their noise; NaN anywhere marks a point that cannot be evaluated.

    z: (n,) shared coordinates; x: (B, s) whatever describes the private unknowns, moved by `retract` in a k-dimensional
    tangent space.
    """

    def residual(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Whitened residuals (B, m)."""
        ...

    def linearize(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals (B, m) with derivatives by z (B, m, n) and by x (B, m, k)."""
        ...

    def prior(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened prior residuals (p,) and their derivative (p, n)."""
        ...

    def retract(self, x: np.ndarray, change: np.ndarray) -> np.ndarray:
        """x moved by change (B, k)."""
        ...

    def reweight(self, z: np.ndarray, x: np.ndarray) -> float:
        """Re-estimate the noise at this point; returns the largest relative change of a noise scale (0: noise fixed)."""
        ...

    def log_scale(self) -> float:
        """Sum of log noise scales over all measured numbers: what makes the cost a negative log-likelihood."""
        ...


@dataclasses.dataclass(frozen=True)
class Record:
    """One accepted iteration: its number, cost (half sum of squares plus log scales), damping, coordinates (n,), and how many
    residual evaluations it took to get there."""

    iteration: int
    cost: float
    damping: float
    z: np.ndarray
    evaluations: int = 0


@dataclasses.dataclass(frozen=True)
class Solution:
    """Where the search ended.

    information: (n, n) Gauss-Newton Hessian of z, private unknowns eliminated, prior included: the inverse of the
      covariance of z where no bound is active.
    scores: (B, n) each block's gradient with its private unknowns eliminated; they sum to zero at an inner optimum, and
      their spread is what the data themselves say about the noise (sandwich covariance).
    block_information: (B, n, n) each block's share of `information`; prior_information: (n, n) and
      prior_gradient: (n,) the prior's.
    active: (n,) True where a bound holds the coordinate.
    evaluations: residual evaluations, one for each linearisation included.
    private: (B, k, k) Gauss-Newton Hessian of the private unknowns; shared_private: (B, n, k) that between z and them.
    """

    z: np.ndarray
    x: np.ndarray
    cost: float
    converged: bool
    message: str
    information: np.ndarray
    scores: np.ndarray
    block_information: np.ndarray
    prior_information: np.ndarray
    prior_gradient: np.ndarray
    active: np.ndarray
    history: tuple[Record, ...]
    evaluations: int
    private: np.ndarray
    shared_private: np.ndarray

    def private_covariance(self, block: int, covariance: np.ndarray) -> np.ndarray:
        """Covariance (k, k) of one block's private change, given that of z (n, n): its own noise, and what z leaves open."""
        if not self.private.size:
            return np.zeros(self.private.shape[1:])
        own = np.linalg.pinv(self.private[block], hermitian=True)
        pull = own @ self.shared_private[block].T
        return own + pull @ covariance @ pull.T


@dataclasses.dataclass(frozen=True)
class Settings:
    """When to stop, and how to begin.

    step_tolerance: the undamped step against the uncertainty, of each coordinate (sandwich standard deviation) or of what
      the data see of all together: a search need not be more exact than its data. cost_tolerance: relative change of the
      cost. noise_tolerance: relative change of the noise scales, which must have settled too. iterations: their limit.
      damping, damping_limit: first value, limit.
    """

    step_tolerance: float = 0.1
    cost_tolerance: float = 1e-9
    noise_tolerance: float = 0.01
    iterations: int = 60
    damping: float = 1e-3
    damping_limit: float = 1e10


def solve(
    problem: Problem,
    z: np.ndarray,
    x: np.ndarray,
    *,
    low: np.ndarray,
    high: np.ndarray,
    scale: np.ndarray,
    settings: Settings = Settings(),
    observe: Callable[[Record, np.ndarray], None] | None = None,
) -> Solution:
    """Minimise half the sum of squares over z in [low, high] and x.

    `scale` (n,) is the typical size of each coordinate; `observe` is called with every accepted record and its x.
    Raises StartError when the residual is not finite at the start.
    """
    evaluations, damping = 1, settings.damping
    cost = _cost(problem, problem.residual(z, x), z)
    if not np.isfinite(cost):
        raise StartError("the residual is not finite at the start point; begin somewhere else.")
    problem.reweight(z, x)
    history: list[Record] = []
    message, converged = f"stopped after {settings.iterations} iterations", False
    normal = None
    for iteration in range(settings.iterations + 1):
        normal = _Normal(problem, z, x, scale)
        evaluations += 1
        cost = normal.cost
        record = Record(iteration, cost, damping, z, evaluations)
        history.append(record)
        if observe:
            observe(record, x)
        if iteration == settings.iterations:
            break
        z_step, _ = normal.step(z, low, high, 0.0)
        while damping <= settings.damping_limit:
            step, predicted = normal.step(z, low, high, damping)
            new_z = np.clip(z + step, low, high)
            new_x = problem.retract(x, normal.private_step(new_z - z, damping))
            new_cost = _cost(problem, problem.residual(new_z, new_x), new_z)
            evaluations += 1
            if np.isfinite(new_cost) and new_cost <= cost:
                break
            damping = max(damping, 1e-8) * 8
        else:
            converged = normal.stationary(z, low, high)
            message = "no step lowers the cost" + ("" if converged else "; the gradient is not zero")
            break
        gain = (cost - new_cost) / max(predicted, 1e-300)
        damping = damping / 8 if gain > 0.75 else damping if gain > 0.25 else damping * 2
        damping = max(damping, 1e-12)
        drop = cost - new_cost
        z, x = new_z, new_x
        noise_change = problem.reweight(z, x)
        if noise_change <= settings.noise_tolerance:
            if normal.small(z_step, settings.step_tolerance):
                converged, message = True, "steps are small against the uncertainty"
            elif drop <= settings.cost_tolerance * max(abs(cost), 1.0):
                converged, message = True, "the cost no longer changes"
        if converged:
            normal = _Normal(problem, z, x, scale)
            evaluations += 1
            history.append(Record(iteration + 1, normal.cost, damping, z, evaluations))
            if observe:
                observe(history[-1], x)
            break
    assert normal is not None
    return Solution(
        z=z,
        x=x,
        cost=normal.cost,
        converged=converged,
        message=message,
        information=normal.information(),
        scores=normal.scores(),
        block_information=normal.block_information(),
        prior_information=normal.prior / np.outer(scale, scale),
        prior_gradient=normal.prior_gradient / scale,
        active=normal.active(z, low, high),
        history=tuple(history),
        evaluations=evaluations,
        private=normal.xx,
        shared_private=normal.zx / scale[:, None],
    )


def _cost(problem: Problem, residual: np.ndarray, z: np.ndarray) -> float:
    prior, _ = problem.prior(z)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(0.5 * np.sum(residual**2) + 0.5 * np.sum(prior**2)) + problem.log_scale()


class _Normal:
    """Normal equations at one point, in coordinates divided by `scale`, private unknowns eliminated on demand."""

    def __init__(self, problem: Problem, z: np.ndarray, x: np.ndarray, scale: np.ndarray):
        r, jz, jx = problem.linearize(z, x)
        prior, prior_jacobian = problem.prior(z)
        jz, prior_jacobian = jz * scale, prior_jacobian * scale
        self.scale = scale
        self.cost = float(0.5 * np.sum(r**2) + 0.5 * np.sum(prior**2)) + problem.log_scale()
        self.zz_blocks = np.swapaxes(jz, 1, 2) @ jz
        self.prior = prior_jacobian.T @ prior_jacobian
        self.zz = self.zz_blocks.sum(0) + self.prior
        self.zx = np.swapaxes(jz, 1, 2) @ jx
        self.xx = np.swapaxes(jx, 1, 2) @ jx
        self.gb = (np.swapaxes(jz, 1, 2) @ r[..., None])[..., 0]
        self.prior_gradient = prior_jacobian.T @ prior
        self.gz = self.gb.sum(0) + self.prior_gradient
        self.gx = (np.swapaxes(jx, 1, 2) @ r[..., None])[..., 0]

    def _private(self, damping: float) -> np.ndarray:
        """Damped private blocks (B, k, k); a tiny ridge keeps directions that no residual sees where they are."""
        diagonal = np.einsum("bii->bi", self.xx)
        ridge = damping * diagonal + 1e-12 * np.max(diagonal, initial=1e-30) + 1e-30
        return self.xx + ridge[..., None] * np.eye(self.xx.shape[-1])

    def _schur(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        if self.xx.shape[-1] == 0:
            return self.zz, self.gz
        solved = np.linalg.solve(
            self._private(damping), np.concatenate([np.swapaxes(self.zx, 1, 2), self.gx[..., None]], -1)
        )
        reduced = self.zx @ solved
        return self.zz - reduced[..., :-1].sum(0), self.gz - reduced[..., -1].sum(0)

    def step(self, z: np.ndarray, low: np.ndarray, high: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
        """Step of z within the box (projected active set) and the decrease of the cost that the model predicts."""
        hessian, gradient = self._schur(damping)
        damped = hessian + damping * np.diag(
            np.maximum(np.diag(self.zz), 1e-12 * np.max(np.diag(self.zz), initial=1.0))
        )
        room_low, room_high = (low - z) / self.scale, (high - z) / self.scale
        step, fixed = np.zeros_like(z), np.zeros(len(z), bool)
        for _ in range(len(z) + 1):
            free = ~fixed
            step = np.where(fixed, np.clip(step, room_low, room_high), 0.0)
            if free.any():
                rhs = -(gradient[free] + damped[np.ix_(free, fixed)] @ step[fixed])
                step[free] = np.linalg.lstsq(damped[np.ix_(free, free)], rhs, rcond=None)[0]
            out = free & ((step < room_low) | (step > room_high))
            if not out.any():
                break
            step = np.clip(step, room_low, room_high)
            fixed |= out
        predicted = -float(gradient @ step + 0.5 * step @ hessian @ step)
        if self.gx.shape[-1]:
            predicted += 0.5 * float(
                np.sum(self.gx * np.linalg.solve(self._private(damping), self.gx[..., None])[..., 0])
            )
        return step * self.scale, predicted

    def private_step(self, change: np.ndarray, damping: float) -> np.ndarray:
        """Best private change (B, k) once z moves by `change` (n,)."""
        if self.xx.shape[-1] == 0:
            return np.zeros_like(self.gx)
        pull = self.gx + np.einsum("bnk,n->bk", self.zx, change / self.scale)
        return -np.linalg.solve(self._private(damping), pull[..., None])[..., 0]

    def small(self, step: np.ndarray, tolerance: float) -> bool:
        """Whether a step (n,) is below `tolerance` standard deviations, in every coordinate or of what the data see of it.

        Where a prior alone decides, a coordinate has no data to be measured against, and the valley that leads to the prior may
        be long and bent: there half a standard deviation of the prior, root mean square, is near enough.
        """
        hessian, scaled = self.information(), step / self.scale
        by_prior = float(scaled @ self.prior @ scaled)
        by_data = float(step @ hessian @ step) - by_prior
        if by_data <= tolerance**2 and by_prior <= _PRIOR_STEP**2 * np.count_nonzero(np.diag(self.prior)):
            return True
        inverse = np.linalg.pinv(hessian * np.outer(self.scale, self.scale), rcond=1e-14, hermitian=True)
        scores = self.scores() * self.scale
        scores = scores - scores.mean(0)
        deviation = np.sqrt(((scores @ inverse) ** 2).sum(0))
        return bool(np.all(np.abs(step / self.scale) <= tolerance * deviation))

    def active(self, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Coordinates that a bound holds, to a millionth of their scale; one that no residual sees is held by nothing."""
        near, hessian = 1e-6 * self.scale, self._schur(0.0)[0]
        return ((z <= low + near) | (z >= high - near)) & (np.diag(hessian) > _NO_CURVATURE)

    def stationary(self, z: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether the full Gauss-Newton step would lower the cost by less than a millionth of it."""
        _, predicted = self.step(z, low, high, 1e-9)
        return predicted <= 1e-4 * max(abs(self.cost), 1.0)

    def information(self) -> np.ndarray:
        """Schur complement (n, n) in the units of z."""
        hessian, _ = self._schur(0.0)
        return hessian / np.outer(self.scale, self.scale)

    def scores(self) -> np.ndarray:
        """Gradient of each block (B, n) in the units of z, private unknowns eliminated."""
        if self.xx.shape[-1] == 0:
            return self.gb / self.scale
        pull = np.linalg.solve(self._private(0.0), self.gx[..., None])
        return (self.gb - (self.zx @ pull)[..., 0]) / self.scale

    def block_information(self) -> np.ndarray:
        """Each block's share (B, n, n) of the Schur complement in the units of z, prior left out."""
        blocks = self.zz_blocks
        if self.xx.shape[-1]:
            blocks = blocks - self.zx @ np.linalg.solve(self._private(0.0), np.swapaxes(self.zx, 1, 2))
        return blocks / np.outer(self.scale, self.scale)
