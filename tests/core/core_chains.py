"""Random finite chains, their paths enumerated with probabilities, and a small linear-quadratic problem."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core import exact as closed_forms
from dso_robotics.core.finite import FiniteChain
from dso_robotics.core.gaussian import LinearQuadratic
from dso_robotics.core.gradient import score
from dso_robotics.core.gradient.score import Batch
from dso_robotics.core.rollout import Ending, Trajectory
from dso_robotics.core.zlearning import Passive

# Compiled whole: operation by operation they would take the tests minutes.
exact = types.SimpleNamespace(
    **{
        name: eqx.filter_jit(function)
        for name, function in vars(closed_forms).items()
        if isinstance(function, types.FunctionType) and not name.startswith("_")
    }
)
assemble = eqx.filter_jit(score.assemble)


class Logits(eqx.Module):
    base: jax.Array
    slopes: jax.Array

    def __call__(self, theta):
        return self.base + jnp.tanh(self.slopes @ theta)


class Costs(eqx.Module):
    base: jax.Array
    slopes: jax.Array

    def __call__(self, theta):
        return self.base + jnp.sin(self.slopes @ theta)


def random_chain(seed, size, parameters):
    """An ergodic chain without terminal states, and a theta."""
    rng = np.random.default_rng(seed)
    logits = Logits(jnp.array(rng.normal(size=(size, size))), jnp.array(rng.normal(size=(size, size, parameters))))
    costs = Costs(jnp.array(rng.normal(size=size)), jnp.array(rng.normal(size=(size, parameters))))
    theta = jnp.array(0.5 * rng.normal(size=parameters))
    start = rng.dirichlet(np.ones(size))
    return FiniteChain.softmax(logits, costs, start, theta=theta), theta


class FreeStart(FiniteChain):
    """A finite chain whose start distribution is a softmax that moves with theta."""

    def log_initial(self, state, theta):
        slopes = jnp.cos(1.0 + 3.0 * jnp.arange(self.size * theta.size)).reshape(self.size, theta.size)
        return jax.nn.log_softmax(jnp.log(self.start) + 2.0 * slopes @ theta)[state]


def free_start(chain, theta):
    """The same chain with a start that depends on theta."""
    return FreeStart(chain.transition, chain.costs, chain.start, theta=theta, terminal=chain.exits)


def layered_chain(seed, layers, width, parameters):
    """A chain that moves from layer to layer and ends in the last: every path has `layers` - 1 moves at most."""
    chain, theta = random_chain(seed, layers * width, parameters)
    layer = np.arange(layers * width) // width
    allowed = (layer[None, :] == layer[:, None] + 1) | ((layer[None, :] == layers - 1) & (layer[:, None] == layers - 1))
    allowed |= (layer[None, :] == layers - 1) & (layer[:, None] == 0)  # some paths end early
    logits = Logits(jnp.where(allowed, chain.transition.logits.base, -jnp.inf), chain.transition.logits.slopes)
    start = np.where(layer == 0, 1.0 / width, 0.0)
    made = FiniteChain.softmax(logits, chain.costs, start, theta=theta, terminal=layer == layers - 1)
    return made, theta


def enumerate_paths(problem, theta):
    """Every trajectory the sampler could return, stacked, and its probability."""
    objective, rows, chances = problem.objective, [], []
    tables = [problem.chain.at(t) for t in range(objective.steps + 1)]
    matrices = [np.asarray(chain.transition(theta)) for chain in tables]
    costs = [np.asarray(chain.costs(theta)) for chain in tables]
    exits = np.asarray(tables[0].exits)
    steps = objective.steps

    def finish(states, moves, ending, chance):
        visited = [True] + [True] * moves + [False] * (steps - moves)
        if ending == Ending.TIME and not objective.counts_last:
            visited[-1] = False
        padded = states + [states[-1]] * (steps + 1 - len(states))
        charged = [costs[t][x] if seen else 0.0 for t, (x, seen) in enumerate(zip(padded, visited, strict=True))]
        moved = [True] * moves + [False] * (steps - moves)
        rows.append((padded, charged, visited, moved, int(ending)))
        chances.append(chance)

    def grow(states, chance):
        time, here = len(states) - 1, states[-1]
        if exits[here]:
            return finish(states, time, Ending.TERMINAL, chance)
        if time == steps:
            return finish(states, time, Ending.TIME, chance)
        if objective.random_end:
            finish(states, time, Ending.RANDOM, chance * (1.0 - objective.gamma))
            chance *= objective.gamma
        for following in np.flatnonzero(matrices[time][here] > 0.0):
            grow([*states, int(following)], chance * matrices[time][here, following])
        return None

    start = np.asarray(tables[0].start)
    if isinstance(tables[0], FreeStart):
        start = np.exp([tables[0].log_initial(x, theta) for x in range(len(start))])
    for first in np.flatnonzero(start > 0.0):
        grow([int(first)], float(start[first]))
    columns = [jnp.array(column) for column in zip(*rows, strict=True)]
    return Trajectory(*columns), jnp.array(chances)


@eqx.filter_jit
def expectation(function, batch, chances):
    """sum over paths of chance * function(batch of that path alone)."""

    def alone(*parts):
        return function(
            Batch(batch.problem, batch.theta, *(jax.tree.map(lambda leaf: leaf[None], part) for part in parts))
        )

    parts = (batch.trajectory, batch.credit, batch.advantage, batch.start_advantage)
    each = jax.vmap(alone)(*parts)
    return jnp.tensordot(chances, each, axes=1)


def regulator(noise=0.3):
    """A double integrator under linear feedback, and a stabilising theta."""
    chain = LinearQuadratic(
        a=jnp.array([[1.0, 0.3], [0.0, 1.0]]),
        b=jnp.array([[0.05], [0.3]]),
        q=jnp.diag(jnp.array([1.0, 0.2])),
        r=jnp.array([[0.1]]),
        noise=noise * jnp.array([[1.0, 0.0], [0.3, 0.8]]),
        start=jnp.array([[1.0, 0.0], [0.2, 0.5]]),
    )
    return chain, jnp.array([-0.6, -1.0])


def within(estimate, error, truth, times=4.0):
    """Whether a sampled estimate agrees with the truth to `times` its standard error."""
    assert np.all(np.isfinite(error))
    assert np.all(np.asarray(error) > 0.0)
    return bool(np.all(np.abs(np.asarray(estimate) - np.asarray(truth)) <= times * np.asarray(error)))


# A linear-quadratic L-MDP.
A = jnp.array([[1.0, 0.2], [-0.1, 0.9]])
ROOT = jnp.array([[0.3, 0.0], [0.1, 0.4]])
Q = jnp.diag(jnp.array([0.5, 0.1]))


class LinearPassive(Passive):
    """x' = A x + S^(1/2) xi, l = x.Q x / 2."""

    def initial(self, key):
        return jax.random.normal(key, (2,))

    def step(self, key, state):
        return A @ state + ROOT @ jax.random.normal(key, (2,))

    def cost(self, state):
        return 0.5 * state @ Q @ state


def quadratic(x):
    return jnp.array([1.0, x[0] ** 2, 2.0 * x[0] * x[1], x[1] ** 2]) * 0.5
