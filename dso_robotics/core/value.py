"""Value approximations: linear features, networks, one per time step, and the value-gradient critic.

An approximation is a function of the state only. It is always fitted on earlier batches than the one whose gradient it
helps to estimate. `fitting.py` does the fitting.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State
from dso_robotics.errors import DsoError


class Value(eqx.Module):
    """V(x) of a fitted or known value function."""

    @abc.abstractmethod
    def __call__(self, state: State) -> Float[Array, ""]:
        """The approximate cost-to-go from x."""

    def at(self, time: Any) -> "Value":
        """The approximation of V_t. A constant value returns itself."""
        return self

    def closing(self, state: State) -> Float[Array, ""]:
        """A function whose derivative in x closes an unrolled horizon: the value itself, or a critic's gradient."""
        return self(state)


class ZeroValue(Value):
    """V(x) = 0: no baseline, no bootstrap."""

    def __call__(self, state: State) -> Float[Array, ""]:
        """Zero."""
        return jnp.zeros(())


class LinearValue(Value):
    """V(x) = w . phi(x). `features` maps one state to a vector (k,)."""

    features: Callable[[State], Float[Array, " k"]]
    weights: Float[Array, " k"]

    def __call__(self, state: State) -> Float[Array, ""]:
        """w . phi(x)."""
        return self.weights @ self.features(state)


class NetworkValue(Value):
    """V(x) = offset + scale * network(features(x)). The fit sets offset and scale so that the targets are standardised."""

    network: Callable[[Array], Array]
    features: Callable[[State], Array]
    offset: Float[Array, ""]
    scale: Float[Array, ""]

    def __call__(self, state: State) -> Float[Array, ""]:
        """The network's output, a scalar."""
        return self.offset + self.scale * jnp.reshape(self.network(self.features(state)), ())


class CostToGo(Value):
    """V(x) = L(x, theta) + rest(x): the cost of the state itself is known, and what follows it is fitted."""

    chain: Chain
    theta: Float[Array, " n"]
    rest: NetworkValue

    def __call__(self, state: State) -> Float[Array, ""]:
        """The sum."""
        return self.chain.cost(state, self.theta) + self.rest(state)


class TimeVaryingValue(Value):
    """V_t for t = 0..T: one approximation whose arrays have a leading time axis (9-11)."""

    stacked: Value

    def at(self, time: Any) -> Value:
        """The approximation of step `time`."""
        return jax.tree.map(lambda leaf: leaf[time] if eqx.is_array(leaf) else leaf, self.stacked)

    def __call__(self, state: State) -> Float[Array, ""]:
        """Always raises DsoError: a time-varying value needs a time. Use `at`."""
        raise DsoError("A TimeVaryingValue needs a time: call value.at(time)(state).")


class KnownValue(Value):
    """A value given as a function, such as a closed form or the exact value of a finite chain."""

    function: Callable[[State], Float[Array, ""]]

    def __call__(self, state: State) -> Float[Array, ""]:
        """The function's value."""
        return self.function(state)


class ValueGradient(Value):
    """A critic of the derivative, z(x) close to dV/dx. It closes a pathwise horizon without a value.

    slope: maps a state vector (nx,) to z (nx,).

    Its `closing` has the derivative z(x) and the value 0.
    """

    slope: Callable[[Float[Array, " nx"]], Float[Array, " nx"]]

    def __call__(self, state: State) -> Float[Array, ""]:
        """Always raises DsoError: only the derivative is known."""
        raise DsoError("A ValueGradient knows dV/dx, not V: it closes pathwise horizons only.")

    def closing(self, state: State) -> Float[Array, ""]:
        """z(x) . (x - x). Only the second x is held constant."""
        held = jax.lax.stop_gradient(state)
        return jax.lax.stop_gradient(self.slope(held)) @ (state - held)


def polynomial_features(degree: int) -> Callable[[Float[Array, " nx"]], Float[Array, " k"]]:
    """Monomials of a state vector up to degree 1 or 2, including the constant: the value of a linear-quadratic problem."""
    if degree not in (1, 2):
        raise DsoError(f"degree: 1 and 2 are provided, got {degree}. Give a function of your own for others.")

    def features(state: Float[Array, " nx"]) -> Float[Array, " k"]:
        rows, columns = jnp.triu_indices(state.shape[0])
        squares = (jnp.outer(state, state)[rows, columns],) if degree == 2 else ()
        return jnp.concatenate((jnp.ones(1), state, *squares))

    return features


def one_hot(count: int) -> Callable[[State], Float[Array, " k"]]:
    """Indicator features of `count` discrete states. A linear value of them is a table."""
    return lambda state: jax.nn.one_hot(state, count)


def linear_value(features: Callable[[State], Float[Array, " k"]], example: State) -> LinearValue:
    """A linear value with zero weights. Its size is that of `features` at an example state."""
    shape = jax.eval_shape(features, example).shape
    if len(shape) != 1:
        raise DsoError(f"features: expected a vector of features for one state, got shape {shape}.")
    return LinearValue(features, jnp.zeros(shape))


def network_value(
    key: PRNGKeyArray, size: int, width: int, *, depth: int = 2, features: Callable[[State], Array] = jnp.ravel
) -> NetworkValue:
    """A multilayer perceptron of tanh units on `features(x)`, a vector of length `size`."""
    network = eqx.nn.MLP(size, "scalar", width, depth, activation=jax.nn.tanh, key=key)
    return NetworkValue(network, features, jnp.zeros(()), jnp.ones(()))


def repeated(value: Value, steps: int) -> TimeVaryingValue:
    """Copies of the same approximation for the times 0..steps, to be fitted separately."""
    return TimeVaryingValue(
        jax.tree.map(lambda leaf: jnp.stack([leaf] * (steps + 1)) if eqx.is_array(leaf) else leaf, value)
    )
