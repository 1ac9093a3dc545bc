"""Off-chain Z-learning (82-94): L = l(x) + KL(P || base), z = exp(-V*), learned from samples of any chain."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import State
from dso_robotics.core.families import solvable_chain
from dso_robotics.core.finite import ENDLESS, FiniteChain, check_distribution, check_matrix, refuse
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.rollout import batched, log_prob_along
from dso_robotics.errors import DsoError

Integral = Callable[[Callable[[State], Float[Array, ""]], State], Float[Array, ""]]
"""G[f](x) = E_{x'~base}[f(x')], equation (83), as a function of f and x."""


class Passive(eqx.Module):
    """A baseline chain without parameters, and its state cost l(x). A terminal state is charged once: z = exp(-l)."""

    @abc.abstractmethod
    def initial(self, key: PRNGKeyArray) -> State:
        """Sample a start state."""

    @abc.abstractmethod
    def step(self, key: PRNGKeyArray, state: State) -> State:
        """Sample x' from the baseline chain."""

    @abc.abstractmethod
    def cost(self, state: State) -> Float[Array, ""]:
        """l(x)."""

    def terminal(self, state: State) -> Bool[Array, ""]:
        """Whether x is terminal."""
        return jnp.zeros((), bool)

    def log_prob(self, following: State, state: State) -> Float[Array, ""]:
        """log base(x'|x), which targets from another chain's samples need."""
        raise DsoError(
            f"{type(self).__name__} gives no log_prob, which samples of another chain are weighted by. Define "
            "log_prob(following, state), or sample from the baseline chain."
        )


class FinitePassive(Passive):
    """A baseline chain on states 0..ns-1: base (ns, ns), costs (ns,), start (ns,), exits (ns,)."""

    base: Float[Array, "ns ns"]
    costs: Float[Array, " ns"]
    start: Float[Array, " ns"]
    exits: Bool[Array, " ns"]

    def __init__(self, base: Array, costs: Array, start: Array, terminal: Array | None = None) -> None:
        self.base, self.costs, self.start = jnp.asarray(base), jnp.asarray(costs), jnp.asarray(start)
        size = self.costs.shape[0]
        self.exits = jnp.zeros(size, bool) if terminal is None else jnp.asarray(terminal, bool)
        check_matrix("base", np.asarray(self.base), size)
        check_distribution("start", np.asarray(self.start))
        if self.start.shape != (size,) or self.exits.shape != (size,):
            raise DsoError(f"start, terminal: expected {size} entries, got {self.start.shape}, {self.exits.shape}.")

    def initial(self, key: PRNGKeyArray) -> State:
        """Sample from the start density."""
        return jax.random.categorical(key, jnp.log(self.start))

    def step(self, key: PRNGKeyArray, state: State) -> State:
        """Sample from row x of the baseline."""
        return jax.random.categorical(key, jnp.log(self.base[state]))

    def cost(self, state: State) -> Float[Array, ""]:
        """l[x]."""
        return self.costs[state]

    def terminal(self, state: State) -> Bool[Array, ""]:
        """Whether x is terminal."""
        return self.exits[state]

    def log_prob(self, following: State, state: State) -> Float[Array, ""]:
        """log base[x, x']."""
        return jnp.log(self.base[state, following])

    def integral(self, function: Callable[[State], Float[Array, ""]], state: State) -> Float[Array, ""]:
        """G[f](x), summed exactly."""
        return self.base[state] @ jax.vmap(function)(jnp.arange(self.costs.shape[0]))


def baseline_target(
    passive: Passive, z: Callable[[State], Float[Array, ""]], state: State, following: State, *, gamma: float = 1.0
) -> Float[Array, ""]:
    """x' ~ base: exp(-l(x)) z(x')^gamma, the first line of (92). With x'' ~ base it is double sampling for a greedy step."""
    ahead = jnp.where(passive.terminal(state), 1.0, z(following) ** gamma)
    return jnp.exp(-passive.cost(state)) * ahead


def any_chain_target(
    passive: Passive,
    z: Callable[[State], Float[Array, ""]],
    state: State,
    following: State,
    *,
    ratio: Float[Array, ""],
    gamma: float = 1.0,
) -> Float[Array, ""]:
    """x' ~ P, any chain: exp(-l(x)) z(x')^gamma ratio, with ratio = base(x'|x) / P(x'|x), the second line of (92)."""
    ahead = jnp.where(passive.terminal(state), 1.0, ratio * z(following) ** gamma)
    return jnp.exp(-passive.cost(state)) * ahead


def greedy_target(
    passive: Passive, z: Callable[[State], Float[Array, ""]], state: State, *, integral: Integral, gamma: float = 1.0
) -> Float[Array, ""]:
    """x' ~ P(w) of (89): exp(-l(x)) G[z^gamma](x), which does not depend on x' (94)."""
    ahead = jnp.where(passive.terminal(state), 1.0, integral(lambda following: z(following) ** gamma, state))
    return jnp.exp(-passive.cost(state)) * ahead


class Sampling(eqx.Module):
    """The chain that samples the states, and the matching target."""

    @abc.abstractmethod
    def __call__(
        self, key: PRNGKeyArray, passive: FinitePassive, table: Float[Array, " ns"], state: State, gamma: float
    ) -> tuple[State, Float[Array, ""]]:
        """The next state, and the target at the current one, for the table z of a finite problem."""

    def check(self, passive: FinitePassive) -> None:
        """Raise DsoError if targets under this chain do not have the mean exp(-l) G[z^gamma]."""

    def weight(self, passive: FinitePassive) -> Float[Array, ""] | float:
        """The largest factor by which a target exceeds that of the baseline chain."""
        return 1.0


class FromBaseline(Sampling):
    """Step with the baseline chain."""

    def __call__(self, key: PRNGKeyArray, passive: FinitePassive, table: Array, state: State, gamma: float) -> tuple:
        """x' ~ base and its target."""
        following = passive.step(key, state)
        return following, baseline_target(passive, lambda x: table[x], state, following, gamma=gamma)


class FromChain(Sampling):
    """Step with a given chain, such as the source of recorded data, and weight by the ratio of probabilities.

    The chain must be able to make every move of the baseline chain. A move that is never sampled cannot be weighted.
    """

    transition: Float[Array, "ns ns"]

    def _ratio(self, passive: FinitePassive) -> Float[Array, "ns ns"]:
        """base / P for the moves of the baseline chain; infinite if P is zero there."""
        return jnp.where((passive.base > 0.0) & ~passive.exits[:, None], passive.base / self.transition, 0.0)

    def check(self, passive: FinitePassive) -> None:
        """Raise DsoError if this is not a chain, or if it cannot make some move of the baseline chain."""
        if any(isinstance(array, jax.core.Tracer) for array in (self.transition, passive.base, passive.exits)):
            return  # in a compiled function, `learn_table` checks the weight
        check_matrix("transition", np.asarray(self.transition), passive.costs.shape[0])
        never = np.argwhere(np.isinf(np.asarray(self._ratio(passive))))
        if never.size:
            moves = ", ".join(f"{x} to {y}" for x, y in never[:8]) + (", ..." if len(never) > 8 else "")
            raise DsoError(
                f"transition: the sampling chain must make every move of the baseline chain; it never goes from state "
                f"{moves}. Give these moves some probability, such as a part of the baseline's own, or sample with "
                "FromBaseline or Greedy."
            )

    def weight(self, passive: FinitePassive) -> Float[Array, ""]:
        """The largest base / P."""
        return jnp.max(self._ratio(passive))

    def __call__(self, key: PRNGKeyArray, passive: FinitePassive, table: Array, state: State, gamma: float) -> tuple:
        """x' ~ P and its target."""
        following = jax.random.categorical(key, jnp.log(self.transition[state]))
        ratio = passive.base[state, following] / self.transition[state, following]
        return following, any_chain_target(passive, lambda x: table[x], state, following, ratio=ratio, gamma=gamma)


class Greedy(Sampling):
    """Step with the chain P(z) of (89). The target is exact or doubly sampled."""

    double: bool = eqx.field(static=True, default=False)

    def __call__(self, key: PRNGKeyArray, passive: FinitePassive, table: Array, state: State, gamma: float) -> tuple:
        """x' ~ P(z) and the target, which does not depend on x'."""
        step_key, second_key = jax.random.split(key)
        following = jax.random.categorical(step_key, jnp.log(passive.base[state]) + gamma * jnp.log(table))

        def z(x: State) -> Float[Array, ""]:
            return table[x]

        if self.double:
            return following, baseline_target(passive, z, state, passive.step(second_key, state), gamma=gamma)
        return following, greedy_target(passive, z, state, integral=passive.integral, gamma=gamma)


class TabularResult(eqx.Module):
    """The result of Z-learning on a table.

    z: (ns,) the solution.
    average: () the average cost c (0 for other settings).
    history: (m, ns) z at `steps / record` times.
    residual: (ns,) log of exp(c - l) G[z^gamma] / z, 0 at the solution. For average costs, the optimal cost lies between
      c - max and c - min of the residual.
    """

    z: Float[Array, " ns"]
    average: Float[Array, ""]
    history: Float[Array, "m ns"]
    residual: Float[Array, " ns"]


def learn_table(
    key: PRNGKeyArray,
    passive: FinitePassive,
    sampling: Sampling,
    *,
    steps: int,
    gamma: float = 1.0,
    average: bool = False,
    rate: float = 1.0,
    patience: float = 50.0,
    record: int = 100,
) -> TabularResult:
    """Z-learning on a table along one trajectory, z(x) += a (target - z(x)), restarted at terminal states.

    a = rate / (w + visits(x) / patience). For samples of another chain, w is their largest ratio base / P, otherwise 1. No
    single target, not even 0, therefore replaces what was learned before. With `average`, targets are divided by exp(-c),
    which tracks target / z(x) (its mean at the solution), and z keeps mean log z = 0. Greedy targets are exact: rate 1
    without decay is then value iteration on the visited states (patience = inf).

    Raises:
      DsoError: a sampling chain that cannot make a move of the baseline chain; gamma = 1 without terminal states and
        without `average`; or a wrong table: not finite and positive or, with `average`, off by more than a factor of e
        where the equation of z is checked.
    """
    if isinstance(rate, int | float) and not 0.0 < rate <= 1.0:
        raise DsoError(f"rate: expected a number in (0, 1], got {rate}.")
    sampling.check(passive)
    endless = not average and gamma == 1.0
    start = refuse(passive.start, endless & ~jnp.any(passive.exits), ENDLESS)
    never = ~jnp.isfinite(sampling.weight(passive))
    start = refuse(start, never, "transition: the sampling chain must make every move of the baseline chain.")
    passive = eqx.tree_at(lambda chain: chain.start, passive, start)
    found = _learn_table(key, passive, sampling, steps, gamma, average, rate, patience, record)
    worst = jnp.max(jnp.abs(found.residual))
    wrong = ~(worst <= 1.0) if average else ~jnp.all(jnp.isfinite(found.z) & (found.z > 0.0))
    z = refuse(
        found.z,
        wrong,
        f"learn_table: the table has not settled after {steps} steps: it is not finite and positive or, for an average "
        "cost, exp(c - l) G[z] differs from z by more than a factor of e. Take more steps, a smaller rate, or Greedy() "
        "sampling, which needs the fewest.",
    )
    return eqx.tree_at(lambda result: result.z, found, z)


@eqx.filter_jit
def _learn_table(
    key: PRNGKeyArray,
    passive: FinitePassive,
    sampling: Sampling,
    steps: int,
    gamma: float,
    average: bool,
    rate: float,
    patience: float,
    record: int,
) -> TabularResult:
    size, weight = passive.costs.shape[0], sampling.weight(passive)

    def one(carry: tuple, now: tuple) -> tuple[tuple, None]:
        table, visits, state, scale, count = carry
        move_key, start_key = now
        following, target = sampling(move_key, passive, table, state, gamma)
        step = rate / (weight + visits[state] / patience)
        if average:
            scale = scale + (target / table[state] - scale) / (10.0 + count / 10.0)
            target = target / scale
        table = table.at[state].add(step * (target - table[state]))
        if average:
            table = table / jnp.exp(jnp.mean(jnp.log(table)))
        following = jnp.where(passive.terminal(state), passive.initial(start_key), following)
        return (table, visits.at[state].add(1.0), following, scale, count + 1.0), None

    def several(carry: tuple, keys: PRNGKeyArray) -> tuple[tuple, Array]:
        carry, _ = jax.lax.scan(one, carry, (keys[:, 0], keys[:, 1]))
        return carry, carry[0]

    first_key, loop_key = jax.random.split(key)
    carry = (jnp.ones(size), jnp.zeros(size), passive.initial(first_key), jnp.ones(()), jnp.zeros(()))
    keys = jax.random.split(loop_key, (max(steps // record, 1), record, 2))
    (table, _, _, scale, _), history = jax.lax.scan(several, carry, keys)
    mean = -jnp.log(scale) if average else jnp.zeros(())
    ahead = jnp.where(passive.exits, 1.0, passive.base @ table**gamma)
    return TabularResult(table, mean, history, mean - passive.costs + jnp.log(ahead) - jnp.log(table))


def hermite_points(size: int, *, order: int) -> tuple[Float[Array, "Q d"], Float[Array, " Q"]]:
    """The product Gauss-Hermite rule for `size` independent standard normal numbers, exact to degree 2 order - 1."""
    if order < 1:
        raise DsoError(f"order: expected at least 1 point a dimension, got {order}.")
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    grid = np.stack(np.meshgrid(*[points] * size, indexing="ij"), axis=-1).reshape(-1, size)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * size, indexing="ij"), axis=-1), axis=-1).reshape(-1)
    return jnp.asarray(grid), jnp.asarray(mass / mass.sum())


def cubature_points(size: int) -> tuple[Float[Array, "Q d"], Float[Array, " Q"]]:
    """The 2 k points +-sqrt(k) e_i with equal weights, k = size. They are exact to degree three, in any dimension."""
    points = np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])
    return jnp.asarray(points), jnp.full(2 * size, 0.5 / size)


def gauss_hermite(drift: Callable[[State], Array], root: Float[Array, "nx k"], *, order: int) -> Integral:
    """G for x' = drift(x) + root xi by `hermite_points`."""
    return _rule(drift, root, *hermite_points(root.shape[1], order=order))


def spherical_cubature(drift: Callable[[State], Array], root: Float[Array, "nx k"]) -> Integral:
    """G for x' = drift(x) + root xi by `cubature_points`."""
    return _rule(drift, root, *cubature_points(root.shape[1]))


def _rule(drift: Callable[[State], Array], root: Array, points: Array, weights: Array) -> Integral:
    def integral(function: Callable[[State], Float[Array, ""]], state: State) -> Float[Array, ""]:
        return weights @ jax.vmap(lambda xi: function(drift(state) + root @ xi))(points)

    return integral


def z_loss(
    energy: Callable[[State, Array], Float[Array, ""]], w: Array, states: State, targets: Float[Array, " M"]
) -> Float[Array, ""]:
    """Mean squared error of z = exp(-E(x, w)) to its targets. Right for sampled targets, whose mean is in z, not in log z."""
    z = jax.vmap(lambda state: jnp.exp(-energy(state, w)))(states)
    return jnp.mean((z - jax.lax.stop_gradient(targets)) ** 2)


def fit_energy(
    features: Callable[[State], Float[Array, " k"]], states: State, targets: Float[Array, " M"], *, ridge: float = 1e-12
) -> Float[Array, " k"]:
    """w of the linear energy E = w . phi(x), by regression on -log target. Only for exact targets (greedy, cubature)."""
    phi = jax.vmap(features)(states)
    moment = phi.T @ phi
    size = ridge * jnp.trace(moment) / moment.shape[0]
    return jnp.linalg.solve(moment + size * jnp.eye(moment.shape[0]), phi.T @ -jnp.log(targets))


def energy_chain(
    passive: FinitePassive, features: Float[Array, "ns k"], *, gamma: float, theta: Float[Array, " k"]
) -> FiniteChain:
    """The chain (89), P = base(x'|x) z(x')^gamma / G[z^gamma](x) with z = exp(-theta . phi), and its cost (82)."""
    return solvable_chain(
        EnergyRows(passive.base, jnp.asarray(features), gamma),
        passive.base,
        passive.costs,
        passive.start,
        theta=theta,
        terminal=passive.exits,
    )


class EnergyRows(eqx.Module):
    """w -> the transition matrix (89) of a linear energy."""

    base: Float[Array, "ns ns"]
    features: Float[Array, "ns k"]
    gamma: float = eqx.field(static=True)

    def __call__(self, theta: Float[Array, " k"]) -> Float[Array, "ns ns"]:
        """P(w)."""
        return jax.nn.softmax(jnp.log(self.base) - self.gamma * (self.features @ theta)[None, :], axis=-1)


def compatible_weights(batch: Batch) -> Float[Array, " k"]:
    """r of the compatible value V = r . psi fitted to R_{t+1}. With it the natural gradient is w - r (end of 4.7).

    On the chain (89) with E = w . phi, dlog P = -gamma psi with psi(x, x') = phi(x') - E_P[phi | x]. Since
    dL = E_P[dlog P (-gamma w . phi(x'))], the gradient is gamma^2 C (w - r) with C = E[psi psi^T] and C r = E[psi V(x')],
    and the Fisher matrix is gamma^2 C.
    """
    gamma = batch.problem.objective.gamma

    def moments(problem: Any, path: Any, weight: Array, advantage: Array) -> tuple[Array, Array]:
        psi = -jax.jacrev(lambda theta: log_prob_along(problem, theta, path))(batch.theta) / gamma
        return (psi.T * weight) @ psi, psi.T @ (weight * advantage)

    parts = (batch.trajectory, batch.credit.move_weight, batch.advantage)
    matrices, vectors = batched(batch.problem, moments, *parts)
    return jnp.linalg.lstsq(jnp.mean(matrices, axis=0), jnp.mean(vectors, axis=0))[0]
