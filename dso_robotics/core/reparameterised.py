"""Distributions with two gradients of E[f(u)]: through the draw, u = g(noise, parameters), and by the score.

    grad E[f(u)] = E[f'(u) dg/dp] = E[f(u) grad log p(u)]

Each has `draw`, differentiable in its parameters for a fixed key, and `log_prob`. A control variate c with a known mean m makes
the second form less noisy: f - alpha (c - m), where alpha = cov(f, c) / var(c) is the best.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Reparameterised(eqx.Module):
    """A distribution of one action (n,), whose fields are its parameters."""

    @abc.abstractmethod
    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """One draw, with a derivative by the parameters."""

    @abc.abstractmethod
    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """Log-density of an action."""


class Normal(Reparameterised):
    """N(mean, exp(log_scale)^2) of each entry."""

    mean: Float[Array, " n"]
    log_scale: Float[Array, " n"]

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """mean + scale noise."""
        return self.mean + jnp.exp(self.log_scale) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """The normal density."""
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, self.mean, jnp.exp(self.log_scale)))


class Squashed(Normal):
    """tanh of a normal draw, between -1 and 1."""

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """tanh(mean + scale noise)."""
        return jnp.tanh(super().draw(key))

    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """The normal density at atanh, by the width of tanh there."""
        return super().log_prob(jnp.arctanh(action)) - jnp.sum(jnp.log1p(-(action**2)))


class Truncated(Normal):
    """The normal distribution between -1 and 1. A draw inverts the distribution function."""

    def _ends(self) -> tuple[Array, Array]:
        scale = jnp.exp(self.log_scale)
        return tuple(jax.scipy.stats.norm.cdf(end, self.mean, scale) for end in (-1.0, 1.0))  # type: ignore[return-value]

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """The quantile of a uniform number."""
        low, high = self._ends()
        part = low + (high - low) * jax.random.uniform(key, self.mean.shape)
        return jnp.clip(self.mean + jnp.exp(self.log_scale) * jax.scipy.special.ndtri(part), -1.0, 1.0)

    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """The normal density, by the probability between the ends."""
        low, high = self._ends()
        return super().log_prob(action) - jnp.sum(jnp.log(high - low))


class Kumaraswamy(Reparameterised):
    """Between 0 and 1, with the distribution function 1 - (1 - u^a)^b, a = exp(log_a), b = exp(log_b)."""

    log_a: Float[Array, " n"]
    log_b: Float[Array, " n"]

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """The quantile of a uniform number."""
        uniform = jax.random.uniform(key, self.log_a.shape, minval=1e-7, maxval=1.0 - 1e-7)
        return (1.0 - (1.0 - uniform) ** jnp.exp(-self.log_b)) ** jnp.exp(-self.log_a)

    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """log a b u^(a-1) (1 - u^a)^(b-1)."""
        a, b = jnp.exp(self.log_a), jnp.exp(self.log_b)
        return jnp.sum(self.log_a + self.log_b + (a - 1) * jnp.log(action) + (b - 1) * jnp.log1p(-(action**a)))


class GumbelSoftmax(Reparameterised):
    """A relaxed choice among n, softmax((logits + Gumbel noise) / temperature); a choice as the temperature falls to 0."""

    logits: Float[Array, " n"]
    temperature: float = eqx.field(static=True, default=0.5)

    def draw(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """A point of the simplex."""
        return jax.nn.softmax((self.logits + jax.random.gumbel(key, self.logits.shape)) / self.temperature)

    def log_prob(self, action: Float[Array, " n"]) -> Float[Array, ""]:
        """Density by the first n - 1 entries (Jang et al. 2017)."""
        n, t = self.logits.shape[0], self.temperature
        logs, chances = jnp.log(action), jax.nn.log_softmax(self.logits)
        total = jax.scipy.special.logsumexp(chances - t * logs)
        return jax.scipy.special.gammaln(n) + (n - 1) * jnp.log(t) - n * total + jnp.sum(chances - (t + 1) * logs)


def pathwise_samples(
    key: PRNGKeyArray, law: Reparameterised, function: Callable[[Array], Array], count: int
) -> Reparameterised:
    """`count` samples of the gradient of E[f(u)] through the draw: a law whose leaves have one more leading axis."""
    return jax.vmap(lambda one: jax.grad(lambda here: function(here.draw(one)))(law))(jax.random.split(key, count))


def score_samples(
    key: PRNGKeyArray, law: Reparameterised, function: Callable[[Array], Array], count: int
) -> Reparameterised:
    """`count` samples by the score."""

    def one(own: PRNGKeyArray) -> Reparameterised:
        action = jax.lax.stop_gradient(law.draw(own))
        return jax.tree.map(lambda leaf: function(action) * leaf, jax.grad(lambda here: here.log_prob(action))(law))

    return jax.vmap(one)(jax.random.split(key, count))


def controlled(
    samples: Float[Array, "N n"], control: Float[Array, "N n"], mean: Float[Array, " n"] | float = 0.0
) -> Float[Array, "N n"]:
    """Samples less alpha (control - mean), with the best alpha of each entry, estimated from the same samples.

    It is then biased by the order of 1 / N. A control variate of a score is the score itself, whose mean is 0.
    """
    away, spread = samples - jnp.mean(samples, axis=0), control - jnp.mean(control, axis=0)
    alpha = jnp.sum(away * spread, axis=0) / jnp.maximum(jnp.sum(spread**2, axis=0), 1e-300)
    return samples - alpha * (control - mean)
