"""Hamiltonian Monte Carlo (NUTS, by blackjax) over numbers, start states and noise scales of an identification on MJX.

The unknowns are scaled by the normal approximation at the solution, with start states relative to where they adapt to the
numbers, so a step of one size suits all of them.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.costs.marginal import Marginal
from dso_robotics.errors import DsoError
from dso_robotics.physics.state import Tangent
from dso_robotics.studies.posterior import Posterior, laplace_covariance

_CHAINS, _WARM = 4, 300
# Gelman's R-hat above this: the chains disagree. Fewest effective draws, and most divergences as a share.
_MOST_RHAT, _FEWEST, _MOST_DIVERGED = 1.05, 100, 0.01
# Largest standard deviation of a number in its open chart: where a bound holds it, the normal approximation says nothing.
_WIDEST = 2.0
Unknowns = dict[str, Any]


class _Density:
    """log p of the scaled unknowns: "numbers" (n,), "starts" (B, k), "scales" (R, C), each about standard normal."""

    def __init__(self, problem: WindowedIdentification, solution: Solution):
        from dso_robotics.robot.prediction_mjx import MjxPrediction

        if not isinstance(problem.prediction, MjxPrediction) or problem.constrained:
            raise DsoError(
                "--sampler nuts: it knows the likelihood of MJX alone, not closed loops and a --residual in Python; use "
                "--sampler laplace."
            )
        self.problem, self.vector = problem, problem.vector
        self._errors = problem.prediction.errors
        self._z, self._x, self._response = solution.z, solution.x, jnp.asarray(solution.response)
        values, vectors = np.linalg.eigh(solution.private)
        self._private = jnp.asarray(vectors * np.sqrt(np.clip(values, 0.0, 1e6))[:, None])
        self._centre = self.vector.unconstrain(solution.z)
        slope = np.abs(np.diag(np.asarray(jax.jacfwd(self.vector.constrain)(jnp.asarray(self._centre)))))
        covariance = laplace_covariance(problem, solution) / np.maximum(np.outer(slope, slope), 1e-300)
        std = np.sqrt(np.diag(covariance))
        self._factor = np.minimum(std, _WIDEST)[:, None] * np.linalg.cholesky(
            covariance / np.outer(std, std) + 1e-10 * np.eye(len(std))
        )
        seen = np.isfinite(problem.windows.measured)
        members = (problem.windows.rollout[None] == np.arange(len(problem.windows.rollouts))[:, None]).astype(float)
        self.count = members @ seen.sum(1)
        least, most = problem.within(np.zeros(self.count.shape)), problem.within(np.full(self.count.shape, np.inf))
        self._free = (self.count > 0) & (least < most) & problem.learn_noise
        self._bounds = np.log(least), np.where(np.isfinite(most), np.log(most), np.inf)
        self._log_sigma, self._width = np.log(problem.sigma), 1 / np.sqrt(2 * np.maximum(self.count, 1))
        # The prior of the start states is flat in coordinates orthogonal to the numbers (see `costs.marginal`), to first order.
        marginal, steps = (
            Marginal(problem, solution),
            np.diag(0.3 * np.sqrt(np.diag(laplace_covariance(problem, solution)))),
        )
        box = (self.vector.low, self.vector.high)
        ends = [[np.clip(solution.z + sign * step, *box) for sign in (1, -1)] for step in steps]
        moved = [marginal.log_volume(a) - marginal.log_volume(b) for a, b in ends]
        self._volume = np.array(
            [m / max(float(np.abs(a - b).sum()), 1e-300) for m, (a, b) in zip(moved, ends, strict=True)]
        )
        known, which = self.vector.priors
        self._log_normal = which[known.log]

    def start(self, key: Any) -> Unknowns:
        """A start of a chain: a draw of the normal approximation."""
        shapes = {"numbers": self._z.shape, "starts": self._private.shape[:2], "scales": self.count.shape}
        keys = jax.random.split(key, len(shapes))
        return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    def physical(self, unknowns: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Numbers (n,), changes of the start states (B, k) and logarithms of the noise scales (R, C)."""
        z = self.vector.constrain(self._centre + self._factor @ unknowns["numbers"])
        own = jnp.einsum("bij,bj->bi", self._private, unknowns["starts"])
        change = own - self._response @ (z - self._z) if own.shape[1] else own
        return z, change, self._log_sigma + jnp.where(self._free, self._width * unknowns["scales"], 0.0)

    def __call__(self, unknowns: Mapping[str, Any]) -> Any:
        """log p, up to a constant."""
        problem = self.problem
        z, change, log_sigma = self.physical(unknowns)
        errors = self._errors(z, change, jnp.asarray(self._x), in_turn=True)
        scaled = errors * jnp.exp(-log_sigma)[problem.windows.rollout][:, None]
        cost = jnp.sum(problem.likelihood.cost(scaled)) + jnp.sum(self.count * log_sigma)
        cost += 0.5 * jnp.sum(self.vector.prior_residual(z) ** 2) + jnp.sum(jnp.log(z[self._log_normal]))
        # What is not free, or has no start state, keeps a standard normal, so that the sampler has something to hold.
        cost += 0.5 * jnp.sum(jnp.where(self._free, 0.0, unknowns["scales"]) ** 2)
        u = self._centre + self._factor @ unknowns["numbers"]
        slope = jax.jvp(self.vector.constrain, (u,), (jnp.ones_like(u),))[1]
        inside = jnp.all((log_sigma >= self._bounds[0] - 1e-9) & (log_sigma <= self._bounds[1] + 1e-9))
        cost -= self._volume @ (z - self._z)
        value = -cost + jnp.sum(jnp.log(jnp.abs(slope) + 1e-300))
        return jnp.where(inside & jnp.isfinite(value), value, -jnp.inf)


def draw_nuts(
    problem: WindowedIdentification,
    solution: Solution,
    *,
    count: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Posterior:
    """About `count` draws by four chains, from different starts; see `studies.posterior.draw`."""
    import blackjax

    began, density = time.perf_counter(), _Density(problem, solution)
    each = -(-count // _CHAINS)
    warm = min(_WARM, max(2 * each, 100))
    adapt = blackjax.window_adaptation(blackjax.nuts, density)

    def chain(key: Any) -> Any:
        one, two, three = jax.random.split(key, 3)
        (state, settings), _ = adapt.run(one, density.start(two), warm)  # pyright: ignore[reportCallIssue]
        step = blackjax.nuts(density, **settings).step

        def move(state: Any, key: Any) -> Any:
            state, info = step(key, state)
            return state, (state.position, info.is_divergent, info.num_integration_steps)

        return jax.lax.scan(move, state, jax.random.split(three, each))[1]

    run, found = jax.jit(chain), []
    for i, key in enumerate(jax.random.split(jax.random.key(seed), _CHAINS)):
        found.append(jax.tree.map(np.asarray, run(key)))
        progress((i + 1) * each)
    position, diverged, steps = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
    flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in position.items()}
    z, change, log_sigma = map(np.asarray, jax.lax.map(density.physical, flat))
    watched = np.concatenate([z, log_sigma.reshape(len(z), -1)], axis=1)[:, : density.vector.size + density.count.size]
    chains = watched.reshape(_CHAINS, each, -1)
    moving = chains[..., chains.std((0, 1)) > 0]
    halves = moving[:, : 2 * (each // 2)].reshape(2 * _CHAINS, each // 2, -1)
    rhat = float(np.max(blackjax.diagnostics.potential_scale_reduction(jnp.asarray(halves))))
    effective = float(np.min(blackjax.diagnostics.effective_sample_size(jnp.asarray(moving))))
    share = float(diverged.mean())
    told, reliable = _told(rhat, effective, int(diverged.sum()), share, len(z))
    moved = (
        Tangent(density.vector.mj).move(solution.x, change) if change.shape[-1] else np.tile(solution.x, (len(z), 1, 1))
    )
    return Posterior(
        density.vector.coordinate_names,
        z,
        np.exp(log_sigma),
        moved,
        "nuts",
        {
            "rhat": rhat,
            "effective": effective,
            "divergences": float(diverged.sum()),
            "evaluations": float(steps.sum()),
            "seconds": time.perf_counter() - began,
        },
        reliable,
        told,
    )


def _told(rhat: float, effective: float, diverged: int, share: float, count: int) -> tuple[str, bool]:
    """The diagnostics in words, and whether the draws can be used."""
    cure = (
        "Do not use these draws: take more (--draws 4000), give priors or narrower bounds to what the data do not determine, "
        "or a shorter --window."
    )
    if not rhat <= _MOST_RHAT:
        return f"The four chains did not mix: they disagree (R-hat = {rhat:.2f}, at most {_MOST_RHAT}). {cure}", False
    if not effective >= _FEWEST:
        return (
            f"The chains moved slowly: {count} draws count as {effective:.0f} (effective sample size; {_FEWEST} are needed for "
            f"an interval). {cure}"
        ), False
    if share > _MOST_DIVERGED:
        return (
            f"{diverged} of {count} trajectories diverged: parts of the posterior are too sharp for the step, and may be "
            f"missing. {cure}"
        ), False
    return (
        f"The four chains agree (R-hat = {rhat:.3f}); {count} draws count as {effective:.0f}; {diverged} trajectories diverged."
    ), True
