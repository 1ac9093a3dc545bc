"""MDP families as chains (12-22), and the two equivalences of section 2.2 as functions that convert between families."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dso_robotics.core.finite import FiniteChain, check_distribution, kl_divergence
from dso_robotics.errors import DsoError

Theta = Float[Array, " n"]
Policy = Callable[[Theta], Float[Array, "ns na"]]


class FiniteMDP(eqx.Module):
    """The data shared by all families.

    dynamics: p(x'|x, u) (ns, na, ns).
    costs: l(x, u) (ns, na).
    start: P0 (ns,).
    terminal: (ns,) which states are terminal.

    At a terminal state the cost is charged once, averaged over the policy there. Use the same cost for every action.
    """

    dynamics: Float[Array, "ns na ns"]
    costs: Float[Array, "ns na"]
    start: Float[Array, " ns"]
    terminal: Bool[Array, " ns"]

    def __init__(self, dynamics: Array, costs: Array, start: Array, terminal: Array | None = None) -> None:
        self.dynamics, self.costs, self.start = jnp.asarray(dynamics), jnp.asarray(costs), jnp.asarray(start)
        if self.dynamics.ndim != 3 or self.dynamics.shape[0] != self.dynamics.shape[2]:
            raise DsoError(f"dynamics: expected p(x'|x, u) of shape (ns, na, ns), got {self.dynamics.shape}.")
        ns, na, _ = self.dynamics.shape
        if self.costs.shape != (ns, na):
            raise DsoError(f"costs: expected shape ({ns}, {na}) to match `dynamics`, got {self.costs.shape}.")
        sums = np.asarray(self.dynamics).sum(axis=2)
        if np.any(np.asarray(self.dynamics) < 0.0) or np.any(np.abs(sums - 1.0) > 1e-5):
            raise DsoError("dynamics: p(.|x, u) must be non-negative and sum to 1 for every state and action.")
        check_distribution("start", np.asarray(self.start))
        self.terminal = jnp.zeros(ns, bool) if terminal is None else jnp.asarray(terminal, bool)
        if self.start.shape != (ns,) or self.terminal.shape != (ns,):
            raise DsoError(f"start, terminal: expected {ns} entries, got {self.start.shape}, {self.terminal.shape}.")


class SoftmaxPolicy(eqx.Module):
    """pi(u|x, theta) = softmax of logits(theta) (ns, na). By default theta is the table of logits."""

    states: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)

    def __call__(self, theta: Theta) -> Float[Array, "ns na"]:
        """The table of probabilities."""
        return jax.nn.softmax(theta.reshape(self.states, self.actions), axis=-1)


class Charge(eqx.Module):
    """The part of a G-MDP's cost that depends on the policy itself, for every state."""

    @abc.abstractmethod
    def __call__(self, policy: Float[Array, "ns na"]) -> Float[Array, " ns"]:
        """The term added to E_pi[l]."""


class NoCharge(Charge):
    """S-MDP (17)."""

    def __call__(self, policy: Float[Array, "ns na"]) -> Float[Array, " ns"]:
        """Zero."""
        return jnp.zeros(policy.shape[0])


class EntropyCharge(Charge):
    """-weight H(pi): the H-MDP (19), maximum entropy."""

    weight: float

    def __call__(self, policy: Float[Array, "ns na"]) -> Float[Array, " ns"]:
        """-weight H(pi(.|x))."""
        return self.weight * jnp.sum(policy * jnp.log(jnp.where(policy > 0.0, policy, 1.0)), axis=1)


class ProximalCharge(Charge):
    """weight KL(pi_old || pi): the R-MDP (20)."""

    weight: float
    old: Float[Array, "ns na"]

    def __call__(self, policy: Float[Array, "ns na"]) -> Float[Array, " ns"]:
        """weight KL(pi_old(.|x) || pi(.|x))."""
        return self.weight * kl_divergence(self.old, policy)


class _Mixture(eqx.Module):
    """P(x'|x, theta) = sum_u p(x'|x, u) pi(u|x, theta), equation (12)."""

    dynamics: Float[Array, "ns na ns"]
    policy: Policy

    def __call__(self, theta: Theta) -> Float[Array, "ns ns"]:
        return jnp.einsum("xuy,xu->xy", self.dynamics, self.policy(theta))


class _MeanCost(eqx.Module):
    """L(x, theta) = E_pi[l(x, u, theta)] + charge, equation (12)."""

    costs: Callable[[Theta], Float[Array, "ns na"]]
    policy: Policy
    charge: Charge
    terminal: Bool[Array, " ns"]

    def __call__(self, theta: Theta) -> Float[Array, " ns"]:
        policy = self.policy(theta)
        mean = jnp.sum(self.costs(theta) * policy, axis=1)
        return mean + jnp.where(self.terminal, 0.0, self.charge(policy))


class _Constant(eqx.Module):
    """A function of theta that does not depend on it."""

    array: Array

    def __call__(self, theta: Theta) -> Array:
        return self.array


def general_chain(
    mdp: FiniteMDP,
    policy: Policy,
    *,
    theta: Theta,
    charge: Charge | None = None,
    costs: Callable[[Theta], Float[Array, "ns na"]] | None = None,
) -> FiniteChain:
    """G-MDP (12): any stochastic policy, and a cost that may depend on theta. `costs(theta)` replaces the MDP's own cost."""
    table = np.asarray(policy(jnp.asarray(theta)))
    if table.shape != mdp.costs.shape or np.any(np.abs(table.sum(axis=1) - 1.0) > 1e-5):
        raise DsoError(
            f"policy: expected pi(u|x) of shape {mdp.costs.shape} with rows that sum to 1, got {table.shape}."
        )
    priced = _MeanCost(_Constant(mdp.costs) if costs is None else costs, policy, charge or NoCharge(), mdp.terminal)
    return FiniteChain(_Mixture(mdp.dynamics, policy), priced, mdp.start, theta=theta, terminal=mdp.terminal)


def stochastic_chain(mdp: FiniteMDP, policy: Policy, *, theta: Theta) -> FiniteChain:
    """S-MDP (17): L = E_pi[l]."""
    return general_chain(mdp, policy, theta=theta)


def entropy_chain(mdp: FiniteMDP, policy: Policy, *, theta: Theta, weight: float) -> FiniteChain:
    """H-MDP (19): L = E_pi[l] - weight H(pi)."""
    return general_chain(mdp, policy, theta=theta, charge=EntropyCharge(weight))


def proximal_chain(
    mdp: FiniteMDP, policy: Policy, *, theta: Theta, old: Float[Array, "ns na"], weight: float
) -> FiniteChain:
    """R-MDP (20): L = E_pi[l] + weight KL(pi_old || pi)."""
    return general_chain(mdp, policy, theta=theta, charge=ProximalCharge(weight, jnp.asarray(old)))


class DeterministicMDP(eqx.Module):
    """D-MDP (18) with continuous actions: p_D(x'|x, a) and l_D(x, a) as functions of one action a for every state.

    dynamics: actions (ns, ...) -> (ns, ns).
    costs: actions -> (ns,).
    policy: theta -> actions.
    """

    dynamics: Callable[[Array], Float[Array, "ns ns"]]
    costs: Callable[[Array], Float[Array, " ns"]]
    policy: Callable[[Theta], Array]
    start: Float[Array, " ns"]
    terminal: Bool[Array, " ns"]


class _Composed(eqx.Module):
    outer: Callable[[Array], Array]
    inner: Callable[[Theta], Array]

    def __call__(self, theta: Theta) -> Array:
        return self.outer(self.inner(theta))


def deterministic_chain(mdp: DeterministicMDP, *, theta: Theta) -> FiniteChain:
    """D-MDP (18): P(x'|x) = p_D(x'|x, pi(x, theta)), L = l_D(x, pi(x, theta))."""
    dynamics, costs = _Composed(mdp.dynamics, mdp.policy), _Composed(mdp.costs, mdp.policy)
    return FiniteChain(dynamics, costs, mdp.start, theta=theta, terminal=mdp.terminal)


class _SolvableCost(eqx.Module):
    """l(x) + KL(P(.|x, theta) || base(.|x)), equation (21)."""

    transition: Callable[[Theta], Float[Array, "ns ns"]]
    base: Float[Array, "ns ns"]
    costs: Float[Array, " ns"]
    terminal: Bool[Array, " ns"]

    def __call__(self, theta: Theta) -> Float[Array, " ns"]:
        return self.costs + jnp.where(self.terminal, 0.0, kl_divergence(self.transition(theta), self.base))


def solvable_chain(
    transition: Callable[[Theta], Float[Array, "ns ns"]],
    base: Float[Array, "ns ns"],
    costs: Float[Array, " ns"],
    start: Float[Array, " ns"],
    *,
    theta: Theta,
    terminal: Bool[Array, " ns"] | None = None,
) -> FiniteChain:
    """L-MDP (21): L = l(x) + KL(P(.|x, theta) || base(.|x)). P must stay within the support of the baseline chain."""
    base = jnp.asarray(base)
    exits = jnp.zeros(base.shape[0], bool) if terminal is None else jnp.asarray(terminal, bool)
    now = np.asarray(transition(jnp.asarray(theta)))
    if now.shape == base.shape and np.any((now > 0.0) & (np.asarray(base) <= 0.0) & ~np.asarray(exits)[:, None]):
        raise DsoError("base: the baseline chain must allow every move that P makes; its KL cost would be infinite.")
    priced = _SolvableCost(transition, base, jnp.asarray(costs), exits)
    return FiniteChain(transition, priced, start, theta=theta, terminal=exits)


class _Density(eqx.Module):
    """(26): sum_u q(u|a) table(x, u, ...) for sufficient statistics a (ns, k) of the action density."""

    table: Array
    density: Callable[[Array], Float[Array, "ns na"]]

    def __call__(self, statistics: Array) -> Array:
        return jnp.einsum("xu...,xu->x...", self.table, self.density(statistics))


def stochastic_to_deterministic(
    mdp: FiniteMDP, density: Callable[[Array], Float[Array, "ns na"]], statistics: Callable[[Theta], Array]
) -> DeterministicMDP:
    """S -> D (25-28): the D action is the vector of sufficient statistics a of the S policy pi(u|x) = q(u|a(x, theta)).

    l_D(x, a) = E_{u~q(.|a)}[l(x, u)], p_D(x'|x, a) = E_{u~q(.|a)}[p(x'|x, u)].
    """
    return DeterministicMDP(
        _Density(mdp.dynamics, density), _Density(mdp.costs, density), statistics, mdp.start, mdp.terminal
    )


class _MatchedCost(eqx.Module):
    """(23): l_D(x, a) = l(x) + KL(p_D(.|x, a) || base(.|x))."""

    dynamics: Callable[[Array], Float[Array, "ns ns"]]
    base: Float[Array, "ns ns"]
    costs: Float[Array, " ns"]
    terminal: Bool[Array, " ns"]

    def __call__(self, actions: Array) -> Float[Array, " ns"]:
        return self.costs + jnp.where(self.terminal, 0.0, kl_divergence(self.dynamics(actions), self.base))


def solvable_to_deterministic(
    dynamics: Callable[[Array], Float[Array, "ns ns"]],
    policy: Callable[[Theta], Array],
    base: Float[Array, "ns ns"],
    costs: Float[Array, " ns"],
    start: Float[Array, " ns"],
    *,
    theta: Theta,
    terminal: Bool[Array, " ns"] | None = None,
) -> tuple[FiniteChain, DeterministicMDP]:
    """L -> D (23-24): for any dynamics and deterministic policy, the L-MDP and the D-MDP that have the same chain."""
    base, costs = jnp.asarray(base), jnp.asarray(costs)
    exits = jnp.zeros(base.shape[0], bool) if terminal is None else jnp.asarray(terminal, bool)
    solvable = solvable_chain(_Composed(dynamics, policy), base, costs, start, theta=theta, terminal=exits)
    matched = DeterministicMDP(dynamics, _MatchedCost(dynamics, base, costs, exits), policy, jnp.asarray(start), exits)
    return solvable, matched
