"""Finite chains: states 0..ns-1, with transition matrix and costs as functions of theta, checked at construction.

Everything the paper defines has a closed form on finite chains (`exact.py`). All tests of the core use these closed forms
as the reference.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.core.objective import Average, Episodic, Objective
from dso_robotics.errors import DsoError

Index = Int[Array, ""]
ENDLESS = (
    "gamma: 1 needs a terminal state, where z = exp(-V) is exp(-l), and there is none: V grows without end. Name the "
    "terminal states, take gamma < 1, or minimise the average cost (exact.optimal_average, learn_table(average=True))."
)


class FiniteChain(Chain):
    """A chain on the states 0..ns-1.

    transition: function from theta to P(theta) (ns, ns), whose rows sum to one.
    costs: function from theta to L(theta) (ns,).
    start: P0 (ns,).
    exits: (ns,) which states are terminal. There V = L, and the row of P is not used.

    The constructor takes `exits` as `terminal`, and checks everything at an example `theta`. If P0 depends on theta, a
    subclass overrides `log_initial` with all of log P0(x, theta), and `start` is not used.
    """

    transition: Callable[[Float[Array, " n"]], Float[Array, "ns ns"]]
    costs: Callable[[Float[Array, " n"]], Float[Array, " ns"]]
    start: Float[Array, " ns"]
    exits: Bool[Array, " ns"]

    def __init__(
        self,
        transition: Callable[[Float[Array, " n"]], Float[Array, "ns ns"]],
        costs: Callable[[Float[Array, " n"]], Float[Array, " ns"]],
        start: Float[Array, " ns"],
        *,
        theta: Float[Array, " n"],
        terminal: Bool[Array, " ns"] | None = None,
    ) -> None:
        self.transition, self.costs = transition, costs
        self.start = jnp.asarray(start, float)
        size = self.start.shape[0] if self.start.ndim == 1 else -1
        self.exits = jnp.zeros(max(size, 0), bool) if terminal is None else jnp.asarray(terminal, bool)
        theta = jnp.asarray(theta)
        check_distribution("start", np.asarray(self.start))
        if self.exits.shape != (size,):
            raise DsoError(f"terminal: expected a Boolean vector of shape ({size},), got {self.exits.shape}.")
        check_matrix("transition", np.asarray(transition(theta)), size)
        told = np.asarray(costs(theta))
        if told.shape != (size,) or not np.all(np.isfinite(told)):
            raise DsoError(f"costs: expected {size} finite numbers, one a state, got shape {told.shape}.")

    @classmethod
    def softmax(
        cls,
        logits: Callable[[Float[Array, " n"]], Float[Array, "ns ns"]],
        costs: Callable[[Float[Array, " n"]], Float[Array, " ns"]],
        start: Float[Array, " ns"],
        *,
        theta: Float[Array, " n"],
        terminal: Bool[Array, " ns"] | None = None,
    ) -> "FiniteChain":
        """P = softmax of the rows of `logits(theta)`. A logit of -inf forbids a move."""
        return cls(SoftmaxRows(logits), costs, start, theta=theta, terminal=terminal)

    @property
    def size(self) -> int:
        """Number of states."""
        return self.start.shape[0]

    def initial_density(self, theta: Float[Array, " n"]) -> Float[Array, " ns"]:
        """P0(., theta): `start`, or the density given by a subclass's `log_initial`."""
        if type(self).log_initial is Chain.log_initial:
            return self.start
        return jax.vmap(lambda state: jnp.exp(self.log_initial(state, theta)))(jnp.arange(self.size))

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> Index:
        """Sample x0."""
        return jax.random.categorical(key, jnp.log(self.initial_density(theta)))

    def step(self, key: PRNGKeyArray, state: Index, theta: Float[Array, " n"]) -> Index:
        """Sample x' from row x of P."""
        return jax.random.categorical(key, jnp.log(self.transition(theta)[state]))

    def log_prob(self, following: Index, state: Index, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P[x, x']. For an impossible move it is -inf, with zero derivative."""
        probability = self.transition(theta)[state, following]
        possible = probability > 0.0
        return jnp.where(possible, jnp.log(jnp.where(possible, probability, 1.0)), -jnp.inf)

    def cost(self, state: Index, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """L[x]."""
        return self.costs(theta)[state]

    def drift(self, state: Index, theta: Float[Array, " n"]) -> Index:
        """The most likely next state."""
        return jnp.argmax(self.transition(theta)[state])

    def terminal(self, state: Index) -> Bool[Array, ""]:
        """Whether x is terminal."""
        return self.exits[state]

    def divergence(
        self, key: PRNGKeyArray, state: Index, old: Float[Array, " n"], new: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """KL of row x under `old` from row x under `new`, summed exactly."""
        return kl_divergence(self.transition(old)[state], self.transition(new)[state])

    def ends(self) -> bool:
        """Whether any state is terminal."""
        return bool(np.any(np.asarray(self.exits)))

    def check(self, objective: Objective, theta: Float[Array, " n"]) -> None:
        """Raise DsoError if the chain does not support the objective.

        With gamma = 1, terminal states must be reachable. An average cost needs an ergodic chain. The `log_initial` of a
        subclass must be the logarithm of a distribution.
        """
        if type(self).log_initial is not Chain.log_initial:
            check_distribution("log_initial", np.asarray(self.initial_density(theta)))
        matrix, exits = np.asarray(self.transition(theta)), np.asarray(self.exits)
        if isinstance(objective, Episodic) and objective.gamma == 1.0:
            stuck = np.flatnonzero(~_reaches(matrix, exits))
            if stuck.size:
                raise DsoError(
                    f"gamma: 1 needs terminal states reached with probability one; from states {stuck[:8].tolist()} "
                    "none can be reached. Take gamma < 1, or make a terminal state reachable from them."
                )
        if isinstance(objective, Average):
            check_ergodic(matrix)


class SoftmaxRows(eqx.Module):
    """theta -> softmax of the rows of logits(theta)."""

    logits: Callable[[Float[Array, " n"]], Float[Array, "ns ns"]]

    def __call__(self, theta: Float[Array, " n"]) -> Float[Array, "ns ns"]:
        """The transition matrix."""
        return jax.nn.softmax(self.logits(theta), axis=-1)


def kl_divergence(p: Float[Array, "*s k"], q: Float[Array, "*s k"]) -> Float[Array, "*s"]:
    """sum_k p log(p / q), with 0 log 0 = 0. Impossible outcomes do not affect the derivative."""
    possible = p > 0.0
    ratio = jnp.log(jnp.where(possible, p, 1.0)) - jnp.log(jnp.where(possible, q, 1.0))
    return jnp.sum(p * ratio, axis=-1)


def refuse(value: Array, wrong: Array | np.ndarray | bool, message: str) -> Array:
    """Return `value`, or raise DsoError if `wrong` is true. Compiled functions raise Equinox's error with the same message."""
    if isinstance(wrong, jax.core.Tracer):
        return eqx.error_if(value, wrong, message)
    if bool(wrong):
        raise DsoError(message)
    return value


def check_distribution(name: str, p: np.ndarray) -> None:
    """Raise DsoError unless `p` is a vector of probabilities."""
    if p.ndim != 1 or p.size == 0:
        raise DsoError(f"{name}: expected a vector of probabilities, one a state, got shape {p.shape}.")
    if not np.all(np.isfinite(p)) or np.any(p < 0.0) or abs(p.sum() - 1.0) > 1e-5:
        raise DsoError(f"{name}: probabilities must be non-negative and sum to 1, they sum to {p.sum():.6g}.")


def check_matrix(name: str, matrix: np.ndarray, size: int) -> None:
    """Raise DsoError unless `matrix` is (size, size) and its rows are probabilities."""
    if matrix.shape != (size, size):
        raise DsoError(f"{name}: expected shape ({size}, {size}) to match `start`, got {matrix.shape}.")
    rows = matrix.sum(axis=1)
    bad = np.flatnonzero(~np.isfinite(rows) | (matrix < 0.0).any(axis=1) | (np.abs(rows - 1.0) > 1e-5))
    if bad.size:
        raise DsoError(
            f"{name}: every row must be non-negative and sum to 1; row {bad[0]} sums to {rows[bad[0]]:.6g}. "
            "FiniteChain.softmax normalises logits."
        )


def _reaches(matrix: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The states from which some target can be reached."""
    reached = targets.copy()
    for _ in range(matrix.shape[0]):
        reached = targets | ((matrix > 0.0) & reached[None, :]).any(axis=1)
    return reached


def check_ergodic(matrix: np.ndarray) -> None:
    """Raise DsoError unless the chain has exactly one recurrent class and it is aperiodic.

    Then there is one stationary density, and the chain converges to it from any start.
    """
    power = np.linalg.matrix_power((matrix > 0.0).astype(float) + np.eye(len(matrix)), len(matrix)) > 0.0
    common = power.all(axis=0)
    if not common.any():
        raise DsoError(
            "transition: an average cost needs an ergodic chain, and no state of this one is reached from every other: "
            "its stationary density depends on where it starts. Connect its classes, or use a discounted cost."
        )
    members = np.flatnonzero(common)
    recurrent = matrix[np.ix_(members, members)]
    size = len(members)
    # Wielandt: an aperiodic irreducible matrix is positive at this power. The power is computed by squaring patterns.
    pattern, exponent = recurrent > 0.0, 1
    while exponent < size * size - 2 * size + 2:
        pattern, exponent = (pattern.astype(float) @ pattern.astype(float)) > 0.0, 2 * exponent
    if not pattern.all():
        raise DsoError(
            "transition: an average cost needs an ergodic chain, and this one is periodic: its density does not settle. "
            "Give some state a chance to stay where it is."
        )
