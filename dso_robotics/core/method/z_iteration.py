"""Z-iteration: the linear energy of z(x) = exp(-w . phi(x)), fitted again and again to the targets (92) and (94)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dso_robotics.core.chain import State
from dso_robotics.core.descent import Status
from dso_robotics.core.zlearning import Passive
from dso_robotics.errors import DsoError

# A regression ends when a step promises less than this of the cost, or after so many; the next iteration goes on from there.
_PROMISE, _SCORINGS = 1e-12, 8
_SHARES = 0.5 ** np.arange(9)


class Moves(eqx.Module):
    """Moves whose weighted sum is the mean over the baseline chain, G[f](x_i) = sum_q weights[i, q] f(following[i, q]).

    phi: (M, k), features of the states. ahead: (M, Q, k), of those that follow. weights: (M, Q).
    costs: (M,), l(x). terminal: (M,).
    exact: the sum is G itself, as by cubature; else only its mean is, as of sampled moves.
    """

    phi: Float[Array, "M k"]
    ahead: Float[Array, "M Q k"]
    weights: Float[Array, "M Q"]
    costs: Float[Array, " M"]
    terminal: Bool[Array, " M"]
    exact: bool = eqx.field(static=True)

    def targets(self, w: Float[Array, " k"], gamma: float) -> Float[Array, " M"]:
        """log of exp(-l) G[z^gamma], or of a sample of it: (94), or the lines of (92)."""
        summed = jax.nn.logsumexp(-gamma * (self.ahead @ w), b=self.weights, axis=1)
        return -self.costs + jnp.where(self.terminal, 0.0, summed)


def cubature_moves(
    passive: Passive,
    features: Callable[[State], Float[Array, " k"]],
    states: State,
    move: Callable[[Array, State], State],
    points: Float[Array, "Q d"],
    weights: Float[Array, " Q"],
) -> Moves:
    """The moves from `states` (M, ...) with the noise at the `points` of a rule, x' = move(xi, x).

    The rules are `zlearning.hermite_points` and `zlearning.cubature_points`.
    """

    def ahead(state: State) -> Array:
        return jax.vmap(lambda xi: features(move(xi, state)))(points)

    phi, following = jax.vmap(features)(states), jax.lax.map(ahead, states, batch_size=256)
    rule = jnp.broadcast_to(weights, following.shape[:2])
    return Moves(phi, following, rule, jax.vmap(passive.cost)(states), jax.vmap(passive.terminal)(states), True)


def recorded_moves(
    passive: Passive,
    features: Callable[[State], Float[Array, " k"]],
    states: State,
    following: State,
    ratio: Float[Array, " M"] | None = None,
) -> Moves:
    """Recorded moves, x to x' for each of M states.

    ratio: base(x'|x) / P(x'|x) for the chain P that was recorded; none for records of the baseline chain.

    Raises:
      DsoError: a ratio is negative or not finite.
    """
    phi, ahead = jax.vmap(features)(states), jax.vmap(features)(following)[:, None]
    weights = jnp.ones(len(phi)) if ratio is None else jnp.asarray(ratio)
    if not bool(jnp.all(jnp.isfinite(weights) & (weights >= 0.0))):
        raise DsoError("ratio: expected finite numbers from 0 on, base(x'|x) / P(x'|x) for the recorded moves.")
    costs, terminal = jax.vmap(passive.cost)(states), jax.vmap(passive.terminal)(states)
    return Moves(phi, ahead, weights[:, None], costs, terminal, False)


@dataclasses.dataclass(frozen=True)
class ZState:
    """w: (k,). change: of the energy at the states since the last step, root mean square [nats]."""

    w: Array
    change: float

    @property
    def theta(self) -> Array:
        """w."""
        return self.w


@dataclasses.dataclass(frozen=True)
class ZRecord:
    """cost: the error of the energy in its own equation, root mean square over the states [nats]. Sampled targets add their
    own spread to it. change: see `ZState`.
    """

    cost: float
    change: float


class ZIteration:
    """A method for `descend`: targets at the energy of now, then a regression of the next energy on them.

    Targets by cubature are exact, so -log of them is fitted by least squares. Those of recorded moves have their mean in z and
    not in log z (the logarithm of a noisy number is too low on average). They are fitted by maximum likelihood of a gamma
    distribution with the mean z, which is right for any distribution with this mean, weighs all sizes of z alike, and is
    convex in w; its expected information is the Gram matrix of the features, which is factorised once (Fisher scoring). The
    regression has a ridge towards the energy of now.
    """

    def __init__(self, moves: Moves, *, gamma: float, ridge: float = 1e-9, tolerance: float = 1e-6):
        if not 0.0 < gamma <= 1.0:
            raise DsoError(f"gamma: expected a number in (0, 1], got {gamma}.")
        if gamma == 1.0 and not bool(jnp.any(moves.terminal)):
            raise DsoError("gamma: without terminal states among the moves, z of gamma = 1 is 0; give a gamma below 1.")
        self.moves, self.gamma, self.tolerance = moves, gamma, tolerance
        gram = moves.phi.T @ moves.phi / len(moves.phi)
        self._ridge = ridge * jnp.trace(gram) / len(gram)
        self._factor = jnp.linalg.cholesky(gram + self._ridge * jnp.eye(len(gram)))

    def init(self, key: Any, theta: Array) -> ZState:
        """The state at w = theta. Nothing is random."""
        return ZState(jnp.asarray(theta, float), float("inf"))

    def step(self, state: ZState) -> tuple[ZState, ZRecord]:
        """One regression."""
        w, error, change = _step(self.moves, self._factor, self._ridge, state.w, self.gamma)
        return ZState(w, float(change)), ZRecord(float(error), float(change))

    def done(self, state: ZState, record: ZRecord | None) -> Status | None:
        """Converged once the energy changes by less than the tolerance; diverged if it is not finite."""
        if record is None:
            return None
        if not bool(jnp.all(jnp.isfinite(state.w))):
            return Status.DIVERGED
        return Status.CONVERGED if record.change < self.tolerance else None

    def message(self, state: ZState, status: Status, steps: int) -> str:
        """Why it ended."""
        if status is Status.DIVERGED:
            return (
                "the energy grew without bound: these features do not hold the next energy. Take features that add up to one "
                "at every state, such as normalised Gaussians, more states, or a larger ridge."
            )
        if status is Status.CONVERGED:
            return f"the energy changed by {state.change:.1e} nats, less than {self.tolerance:.1e}"
        return f"the energy still changed by {state.change:.1e} nats"


@eqx.filter_jit
def _step(moves: Moves, factor: Array, ridge: Array, w: Array, gamma: float) -> tuple[Array, Array, Array]:
    log_target, energy = moves.targets(w, gamma), moves.phi @ w
    if moves.exact:
        moved = jax.scipy.linalg.cho_solve((factor, True), moves.phi.T @ (-log_target - energy) / len(energy))
    else:
        moved = _scored(moves.phi, factor, ridge, energy, log_target)
    finite = jnp.where(jnp.isfinite(log_target), log_target, -energy)
    return w + moved, jnp.sqrt(jnp.mean((energy + finite) ** 2)), jnp.sqrt(jnp.mean((moves.phi @ moved) ** 2))


def _scored(phi: Array, factor: Array, ridge: Array, energy: Array, log_target: Array) -> Array:
    """By how much w moves to argmin of mean(t / z - log(1 / z)), where the weighted mean of t / z is one."""

    def cost(change: Array, along: Array) -> Array:
        new = energy + along
        return jnp.mean(jnp.exp(log_target + new) - new) + 0.5 * ridge * change @ change

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        change, along, _, count = carry
        share = jnp.exp(log_target + energy + along)
        slope = phi.T @ (share - 1.0) / len(phi) + ridge * change
        way = -jax.scipy.linalg.cho_solve((factor, True), slope)
        ahead = phi @ way
        costs = jax.vmap(lambda part: cost(change + part * way, along + part * ahead))(jnp.asarray(_SHARES))
        best = jnp.argmin(jnp.where(jnp.isfinite(costs), costs, jnp.inf))
        part = jnp.where(costs[best] <= cost(change, along), jnp.asarray(_SHARES)[best], 0.0)
        return change + part * way, along + part * ahead, jnp.where(part > 0.0, -slope @ way, 0.0), count + 1

    def going(carry: tuple[Array, Array, Array, Array]) -> Array:
        return (carry[2] > _PROMISE) & (carry[3] < _SCORINGS)

    start = jnp.zeros(phi.shape[1]), jnp.zeros_like(energy), jnp.array(jnp.inf), jnp.array(0)
    return jax.lax.while_loop(going, step, start)[0]
