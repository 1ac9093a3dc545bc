"""The interface of a Markov chain and its step cost. Both depend on one parameter vector theta.

All higher layers (gradients, surrogates, curvature, descent) use a chain only through these methods. The same functions
therefore optimise a finite chain, a Gaussian chain, a robot and a token model.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.errors import DsoError

State = Any
"""A pytree of arrays: a float vector for a Gaussian chain, an integer for a finite one, tokens for a language model."""


class Chain(eqx.Module):
    """P0(x, theta), P(x'|x, theta), F(x, theta), L(x, theta) and "is x terminal", for one unbatched state.

    A subclass must define `initial`, `step` and `cost`. Score estimators also need `log_prob`. The baseline of equations
    (57-59) also needs `drift`. For pathwise gradients, `initial` and `step` must be differentiable in state and theta for a
    fixed key. The `cost` of a terminal state is charged once, on arrival: V(x) = L(x) there.
    """

    @abc.abstractmethod
    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> State:
        """Sample x0 from P0(., theta)."""

    @abc.abstractmethod
    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        """Sample x' from P(.|x, theta)."""

    @abc.abstractmethod
    def cost(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """Step cost L(x, theta)."""

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Any:
        """The noise xi of `steps` steps, with time as the leading axis. It must not depend on x or on the values of theta.

        A rollout draws all its noise at once, before the loop. The default draws keys, which `move` passes to `step`.
        """
        return jax.random.split(key, steps)

    def move(self, noise: Any, state: State, theta: Float[Array, " n"]) -> State:
        """x' = f(x, xi, theta), with noise from `draw`. `step` is the same with noise drawn for one step."""
        return self.step(noise, state, theta)

    def log_prob(self, following: State, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P(x'|x, theta), including its full dependence on the entries of theta marked by `scored`.

        A chain driven by action noise stores the last action in its state. `log_prob` is then the log-probability of that
        action.
        """
        raise DsoError(
            f"{type(self).__name__} gives no log_prob, which score estimators, surrogates and Fisher products need. "
            "Define log_prob(following, state, theta), or use the pathwise estimator."
        )

    def log_initial(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P0(x, theta), up to terms independent of theta. Override it if the initial state depends on theta."""
        return jnp.zeros(())

    def drift(self, state: State, theta: Float[Array, " n"]) -> State:
        """F(x, theta) of equation (57): the next state with zero noise; ideally the mean of x'."""
        raise DsoError(
            f"{type(self).__name__} gives no drift F(x, theta), which the baseline V(F(x)) needs. Define "
            "drift(state, theta), or choose StateBaseline, which evaluates the fitted value at x itself."
        )

    def terminal(self, state: State) -> Bool[Array, ""]:
        """Whether the rollout ends at x."""
        return jnp.zeros((), bool)

    def may_end(self) -> bool:
        """Whether `terminal` is defined. If not, rollouts do not check for terminal states."""
        return type(self).terminal is not Chain.terminal

    def ends(self) -> bool:
        """Whether the chain has terminal states. By default, whether `terminal` is defined."""
        return self.may_end()

    def check(self, objective: Any, theta: Float[Array, " n"]) -> None:
        """Raise DsoError if this chain does not support the objective. Called when a Problem is created."""

    def diverged(self, state: State) -> Bool[Array, ""]:
        """Whether the simulation blew up at x. By default, whether any number in x is not finite."""
        leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return jnp.any(jnp.array([jnp.any(~jnp.isfinite(leaf)) for leaf in leaves] or [False]))

    def divergence(
        self, key: PRNGKeyArray, state: State, old: Float[Array, " n"], new: Float[Array, " n"]
    ) -> Float[Array, ""]:
        """KL(P(.|x, old) || P(.|x, new)), in the space (chain or action) in which `log_prob` is defined.

        The default is the one-sample estimate r - 1 - log r >= 0. Chains with a closed form override it.
        """
        following = jax.lax.stop_gradient(self.step(key, state, old))
        log_ratio = self.log_prob(following, state, new) - self.log_prob(following, state, old)
        return jnp.expm1(log_ratio) - log_ratio

    def scored(self, theta: Float[Array, " n"]) -> np.ndarray:
        """Which entries of theta `log_prob` covers, a Boolean NumPy vector (n,).

        False for entries that move the surface on which x' lies, such as physics parameters under action noise.
        """
        return np.full(np.shape(theta)[0], type(self).log_prob is not Chain.log_prob)

    def describe(self, entry: int) -> str:
        """Name of one entry of theta, for messages."""
        return f"theta[{entry}]"

    def at(self, time: Any) -> "Chain":
        """The chain (P_t, L_t) of step `time` (possibly traced) in a time-varying problem. A constant chain returns itself."""
        return self


class StackedChain(Chain):
    """A time-varying chain, stored as one chain whose array leaves have a leading time axis (9-11).

    With T transitions, time runs over 0..T. `stacked` therefore needs T + 1 rows; the last is used only for its cost L_T.
    """

    stacked: Chain

    def at(self, time: Any) -> Chain:
        """The chain of step `time`."""
        return jax.tree.map(lambda leaf: leaf[time] if eqx.is_array(leaf) else leaf, self.stacked)

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> State:
        """Sample x0 from the first chain."""
        return self.at(0).initial(key, theta)

    def log_initial(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """log P0 of the first chain."""
        return self.at(0).log_initial(state, theta)

    def step(self, key: PRNGKeyArray, state: State, theta: Float[Array, " n"]) -> State:
        """Always raises DsoError: the step of a time-varying chain needs a time. Use `at`."""
        raise DsoError("A StackedChain has no step, cost or log_prob without a time: use chain.at(time).")

    def cost(self, state: State, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """Always raises DsoError: the cost of a time-varying chain needs a time. Use `at`."""
        raise DsoError("A StackedChain has no step, cost or log_prob without a time: use chain.at(time).")

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Any:
        """Draw noise with the first chain."""
        return self.at(0).draw(key, theta, steps)

    def may_end(self) -> bool:
        """Whether the stacked chain defines `terminal`."""
        return self.stacked.may_end()

    def ends(self) -> bool:
        """Whether the stacked chain has terminal states."""
        return self.stacked.ends()

    def scored(self, theta: Float[Array, " n"]) -> np.ndarray:
        """Which entries of theta the log_prob of the stacked chain covers."""
        return self.stacked.scored(theta)

    def describe(self, entry: int) -> str:
        """Name of one entry of theta."""
        return self.stacked.describe(entry)


def stack(chains: list[Chain]) -> StackedChain:
    """Combine the chains of steps 0..T into one time-varying chain. They must have the same structure and static parts."""
    structures = {jax.tree.structure(eqx.filter(chain, eqx.is_array)) for chain in chains}
    statics = [eqx.filter(chain, eqx.is_array, inverse=True) for chain in chains]
    if len(structures) != 1 or not all(bool(eqx.tree_equal(statics[0], other)) for other in statics[1:]):
        raise DsoError(
            "stack(chains): the chains must be of one class and differ only in the values of their arrays; "
            "functions and settings must be the same objects. Move what varies into array fields."
        )
    return StackedChain(
        jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *chains)
    )


def covered(chain: Chain, theta: Float[Array, " n"], entries: np.ndarray | None = None) -> np.ndarray:
    """Return the entries of theta to differentiate by the score form. Raise DsoError if one of them has no score.

    `entries` is a Boolean mask (n,); by default all of theta.
    """
    size = np.shape(theta)[0]
    wanted = np.ones(size, bool) if entries is None else np.asarray(entries, bool)
    if wanted.shape != (size,):
        raise DsoError(
            f"entries: expected a Boolean mask of shape ({size},), one for each entry of theta, got {wanted.shape}."
        )
    # Called through the class: binding a method of a module takes longer than this check, which runs before every gradient.
    missing = np.flatnonzero(wanted & ~np.asarray(type(chain).scored(chain, theta), bool))
    if missing.size:
        names = ", ".join(chain.describe(int(entry)) for entry in missing[:6]) + (" ..." if missing.size > 6 else "")
        raise DsoError(
            f"The score form does not exist for {names} on {type(chain).__name__}. The noise has fewer dimensions than "
            "the state (as with physics parameters under action noise): the next state lives on a surface that moves "
            "with these parameters, so log P(x'|x, theta) is not defined for them. It is defined for policy and noise "
            "parameters, as the log-density of the action that was played. Use the pathwise estimator for these "
            "entries, `mixed` to keep the score form for the others, or a state-noise chain x' = F(x, theta) + "
            "S^(1/2) xi with full-rank S."
        )
    return wanted
