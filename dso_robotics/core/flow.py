"""Conditional normalising flows: a density through an invertible map of standard normal noise, xi -> y given c.

A flow is a chain of coupling layers and, at the end, one fixed location and triangular scale. A layer leaves one part of the
entries and moves the others, each by a monotone spline and by an affine map whose parameters a network reads from the part
left and from the condition c. So every layer has an exact inverse and a triangular Jacobian, and

    log p(y|c) = log N(xi; 0, I) - log |det dy/dxi|,  xi the inverse of y.

The spline is the rational-quadratic one of Durkan et al. 2019 on [-`BOUND`, `BOUND`], and the identity outside.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dso_robotics.errors import DsoError

# Half the width of the box in which splines act, in standard deviations of the noise.
BOUND = 6.0
# The smallest width and height of a bin, as a part of the box, and the smallest slope at a knot.
_LEAST, _FLATTEST = 1e-3, 1e-3

Vector = Float[Array, " n"]


class Spline(eqx.Module):
    """A monotone rational-quadratic spline of one number, and its inverse: the identity outside of [-BOUND, BOUND].

    across, up: (K+1,) places of the knots before and after.
    slopes: (K+1,) derivatives at the knots; 1 at both ends.
    """

    across: Float[Array, " K+1"]
    up: Float[Array, " K+1"]
    slopes: Float[Array, " K+1"]

    @classmethod
    def of(cls, numbers: Float[Array, " 3K-1"]) -> "Spline":
        """Of unconstrained numbers: K widths, K heights, K - 1 slopes. Of zeros it is the identity."""
        bins = (numbers.shape[0] + 1) // 3
        shift = jnp.log(jnp.expm1(1.0 - _FLATTEST))
        inner = _FLATTEST + jax.nn.softplus(numbers[2 * bins :] + shift)
        one = jnp.ones(1, numbers.dtype)
        return cls(_knots(numbers[:bins]), _knots(numbers[bins : 2 * bins]), jnp.concatenate([one, inner, one]))

    def forward(self, x: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """y and log dy/dx."""
        inside = jnp.clip(x, -BOUND, BOUND)
        k = _bin(self.across, inside)
        left, low, width, height, first, last = self._of_bin(k)
        r, s = (inside - left) / width, height / width
        y = low + height * (s * r**2 + first * r * (1.0 - r)) / (s + (first + last - 2.0 * s) * r * (1.0 - r))
        within = jnp.abs(x) < BOUND
        return jnp.where(within, y, x), jnp.where(within, _log_slope(r, s, first, last), 0.0)

    def inverse(self, y: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """x and log dy/dx there."""
        inside = jnp.clip(y, -BOUND, BOUND)
        k = _bin(self.up, inside)
        left, low, width, height, first, last = self._of_bin(k)
        s, above = height / width, inside - low
        bend = first + last - 2.0 * s
        a, b, c = height * (s - first) + above * bend, height * first - above * bend, -s * above
        r = 2.0 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4.0 * a * c, 0.0)))
        within = jnp.abs(y) < BOUND
        return jnp.where(within, left + r * width, y), jnp.where(within, _log_slope(r, s, first, last), 0.0)

    def _of_bin(self, k: Int[Array, ""]) -> tuple[Array, ...]:
        across, up, slopes = self.across, self.up, self.slopes
        return across[k], up[k], across[k + 1] - across[k], up[k + 1] - up[k], slopes[k], slopes[k + 1]


def _knots(numbers: Float[Array, " K"]) -> Float[Array, " K+1"]:
    parts = _LEAST + (1.0 - _LEAST * numbers.shape[0]) * jax.nn.softmax(numbers)
    inner = BOUND * (2.0 * jnp.cumsum(parts)[:-1] - 1.0)
    end = jnp.full(1, BOUND, numbers.dtype)
    return jnp.concatenate([-end, inner, end])


def _bin(knots: Float[Array, " K+1"], x: Float[Array, ""]) -> Int[Array, ""]:
    return jnp.sum(x >= knots[1:-1])


def _log_slope(r: Array, s: Array, first: Array, last: Array) -> Float[Array, ""]:
    top = last * r**2 + 2.0 * s * r * (1.0 - r) + first * (1.0 - r) ** 2
    return 2.0 * jnp.log(s) + jnp.log(top) - 2.0 * jnp.log(s + (first + last - 2.0 * s) * r * (1.0 - r))


class Coupling(eqx.Module):
    """One layer: the entries `moved` go through a spline and an affine map, given the others and the condition.

    network: (others, condition) -> for each entry moved a shift, a log scale and the 3K - 1 numbers of a `Spline`; without
      bins the shift and the log scale alone.
    """

    network: eqx.nn.MLP
    moved: tuple[int, ...] = eqx.field(static=True)
    kept: tuple[int, ...] = eqx.field(static=True)
    bins: int = eqx.field(static=True)

    def _maps(self, vector: Vector, condition: Float[Array, " k"]) -> tuple[Array, Array, Spline | None]:
        seen = jnp.concatenate([vector[np.array(self.kept, int)], condition])
        numbers = self.network(seen).reshape(len(self.moved), -1)
        return numbers[:, 0], numbers[:, 1], jax.vmap(Spline.of)(numbers[:, 2:]) if self.bins else None

    def forward(self, noise: Vector, condition: Float[Array, " k"]) -> tuple[Vector, Float[Array, ""]]:
        """What `noise` becomes, and log |det| of the Jacobian."""
        at = np.array(self.moved, int)
        shift, log_scale, splines = self._maps(noise, condition)
        moved, logs = noise[at], jnp.zeros(())
        if splines is not None:
            moved, logs = jax.vmap(Spline.forward)(splines, moved)
        return noise.at[at].set(shift + jnp.exp(log_scale) * moved), jnp.sum(logs) + jnp.sum(log_scale)

    def inverse(self, vector: Vector, condition: Float[Array, " k"]) -> tuple[Vector, Float[Array, ""]]:
        """The noise behind `vector`, and log |det| of the Jacobian of `forward` there."""
        at = np.array(self.moved, int)
        shift, log_scale, splines = self._maps(vector, condition)
        moved, logs = (vector[at] - shift) * jnp.exp(-log_scale), jnp.zeros(())
        if splines is not None:
            moved, logs = jax.vmap(Spline.inverse)(splines, moved)
        return vector.at[at].set(moved), jnp.sum(logs) + jnp.sum(log_scale)


class Flow(eqx.Module):
    """y = location + scale (layers)(xi; c), xi ~ N(0, I): a density of y (n,) for each condition c (k,).

    location: (n,).
    log_diagonal, below: (n,), (n, n) the lower triangular scale: logarithms of its diagonal, and what is below that.
    """

    layers: tuple[Coupling, ...]
    location: Vector
    log_diagonal: Vector
    below: Float[Array, "n n"]

    @property
    def size(self) -> int:
        """How many numbers y has."""
        return self.location.shape[0]

    def _scale(self) -> Float[Array, "n n"]:
        return jnp.tril(self.below, -1) + jnp.diag(jnp.exp(self.log_diagonal))

    def forward(self, noise: Vector, condition: Float[Array, " k"]) -> Vector:
        """The y that `noise` becomes, differentiable in both and in all weights."""
        for layer in self.layers:
            noise, _ = layer.forward(noise, condition)
        return self.location + self._scale() @ noise

    def inverse(self, y: Vector, condition: Float[Array, " k"]) -> Vector:
        """The noise that becomes y."""
        return self._unwound(y, condition)[0]

    def log_prob(self, y: Vector, condition: Float[Array, " k"]) -> Float[Array, ""]:
        """log p(y|c), exactly."""
        noise, logs = self._unwound(y, condition)
        return jnp.sum(jax.scipy.stats.norm.logpdf(noise)) - logs

    def _unwound(self, y: Vector, condition: Float[Array, " k"]) -> tuple[Vector, Float[Array, ""]]:
        vector, logs = jsl.solve_triangular(self._scale(), y - self.location, lower=True), jnp.sum(self.log_diagonal)
        for layer in reversed(self.layers):
            vector, more = layer.inverse(vector, condition)
            logs = logs + more
        return vector, logs


def normal_flow(
    key: PRNGKeyArray,
    location: Vector,
    covariance: Float[Array, "n n"],
    conditions: int,
    *,
    layers: int = 2,
    bins: int = 8,
    hidden: int = 32,
) -> Flow:
    """The flow that is N(location, covariance) for every condition, from which a fit begins.

    conditions: how many numbers the condition has.
    layers: coupling layers. They move the second half of the entries, the first, and so on; one number is moved by each.
    bins: of the splines; 0: affine layers, which keep one number normal, with a mean and a spread that depend on the condition.
    hidden: units of the two hidden layers of each network.

    Raises:
      DsoError: a number is out of range, or the covariance is not that of noise in all directions.
    """
    size = location.shape[0]
    for name, value, least in (("layers", layers, 1), ("bins", bins, 0), ("hidden", hidden, 1)):
        if value < least:
            raise DsoError(f"{name}: expected at least {least}, got {value}.")
    if bins == 1 or bins * _LEAST > 0.5:
        raise DsoError(f"bins: expected 0 (affine layers) or 2 to {int(0.5 / _LEAST)}, got {bins}.")
    if covariance.shape != (size, size):
        raise DsoError(f"covariance: expected shape ({size}, {size}), as location has it, got {covariance.shape}.")
    factor = jnp.linalg.cholesky(covariance)
    if not bool(jnp.all(jnp.isfinite(factor))):
        raise DsoError("covariance: it is not positive definite, and a density needs noise in every direction.")
    made = []
    for number, own in enumerate(jax.random.split(key, layers)):
        half = size // 2
        first, second = tuple(range(half)), tuple(range(half, size))
        kept, moved = (first, second) if number % 2 == 0 or not half else (second, first)
        numbers = len(moved) * (2 + (3 * bins - 1 if bins else 0))
        network = silent_network(own, len(kept) + conditions, numbers, hidden)
        made.append(Coupling(network, moved, kept, bins))
    diagonal = jnp.log(jnp.diag(factor))
    return Flow(tuple(made), location, diagonal, jnp.tril(factor, -1))


def silent_network(key: PRNGKeyArray, inputs: int, outputs: int, units: int) -> eqx.nn.MLP:
    """A network of two hidden layers of tanh units whose output is 0 until it learns."""
    network = eqx.nn.MLP(inputs, outputs, units, 2, jax.nn.tanh, key=key)
    last = jax.tree.map(lambda leaf: jnp.zeros_like(leaf), network.layers[-1])
    return eqx.tree_at(lambda n: n.layers[-1], network, last)
