"""Gaussian policies with a quadratic action cost: the S-MDP and its D-MDP partner (25-28) in closed form.

l(x, u) = q(x) + u.R u, x' = a(x) + B(x) u + S^(1/2) xi and pi(u|x) = N(m, W W^T). The D action is the pair (m, W), and

    l_D(x, m, W) = q(x) + m.R m + tr(W^T R W),    p_D(x'|x, m, W) = N(a + B m, S + B W W^T B^T)

where q, a, B are any functions of the state. Both families have this chain.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.core.gaussian import full_rank, gaussian_divergence, gaussian_log

Vector = Float[Array, " nx"]
Action = Float[Array, " nu"]
Theta = Float[Array, " n"]


class GaussianQuadratic(eqx.Module):
    """The data that S-MDP and D-MDP share.

    passive: a(x). gain: B(x), (nx, nu). state_cost: q(x).
    r: (nu, nu), positive semi-definite.
    noise: S^(1/2), (nx, k).
    """

    passive: Callable[[Vector], Vector]
    gain: Callable[[Vector], Float[Array, "nx nu"]]
    state_cost: Callable[[Vector], Float[Array, ""]]
    r: Float[Array, "nu nu"]
    noise: Float[Array, "nx k"]

    def cost(self, state: Vector, action: Action) -> Float[Array, ""]:
        """l(x, u) of the S-MDP."""
        return self.state_cost(state) + action @ self.r @ action

    def log_prob(self, following: Vector, state: Vector, action: Action) -> Float[Array, ""]:
        """log p(x'|x, u) of the S-MDP."""
        return gaussian_log(following - self.passive(state) - self.gain(state) @ action, self.noise)

    def mean_cost(self, state: Vector, mean: Action, width: Float[Array, "nu nu"]) -> Float[Array, ""]:
        """l_D(x, m, W) = E_u[l(x, u)], equation (26)."""
        return self.cost(state, mean) + jnp.vdot(width, self.r @ width)

    def spread(self, state: Vector, width: Float[Array, "nu nu"]) -> Float[Array, "nx k+nu"]:
        """A root [S^(1/2), B W] of the covariance of p_D(x'|x, m, W), equation (25)."""
        return jnp.concatenate([self.noise, self.gain(state) @ width], axis=1)


class GaussianPolicyChain(Chain):
    """The chain of both partners under a policy: the S-MDP samples u and x', the D-MDP has (m, W) as its action.

    mean: m(x, theta). width: W(theta), (nu, nu).
    start: root of the covariance of x0.
    """

    mdp: GaussianQuadratic
    mean: Callable[[Vector, Theta], Action]
    width: Callable[[Theta], Float[Array, "nu nu"]]
    start: Float[Array, "nx nx"]

    def initial(self, key: PRNGKeyArray, theta: Theta) -> Vector:
        """x0 ~ N(0, start start^T)."""
        return self.start @ jax.random.normal(key, (self.start.shape[1],), self.start.dtype)

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Float[Array, "steps k+nu"]:
        """Standard normal noise of the state and of the action."""
        size = self.mdp.noise.shape[1] + self.mdp.r.shape[0]
        return jax.random.normal(key, (steps, size), self.mdp.noise.dtype)

    def move(self, noise: Float[Array, " k+nu"], state: Vector, theta: Theta) -> Vector:
        """a + B u + S^(1/2) xi with u = m + W xi_u."""
        return self.drift(state, theta) + self._root(state, theta) @ noise

    def step(self, key: PRNGKeyArray, state: Vector, theta: Theta) -> Vector:
        """`move` with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def cost(self, state: Vector, theta: Theta) -> Float[Array, ""]:
        """l_D(x, m, W)."""
        return self.mdp.mean_cost(state, self.mean(state, theta), self.width(theta))

    def drift(self, state: Vector, theta: Theta) -> Vector:
        """a + B m."""
        return self.mdp.passive(state) + self.mdp.gain(state) @ self.mean(state, theta)

    def log_prob(self, following: Vector, state: Vector, theta: Theta) -> Float[Array, ""]:
        """log p_D(x'|x, m, W)."""
        return gaussian_log(following - self.drift(state, theta), self._root(state, theta))

    def divergence(self, key: PRNGKeyArray, state: Vector, old: Theta, new: Theta) -> Float[Array, ""]:
        """KL between the chains of two thetas, in closed form."""
        first, second = ((self.drift(state, t), self._root(state, t)) for t in (old, new))
        return gaussian_divergence(*first, *second)

    def scored(self, theta: Theta) -> np.ndarray:
        """All entries if the noise of the state alone has full rank, else none."""
        return np.full(np.shape(theta)[0], full_rank(self.mdp.noise))

    def _root(self, state: Vector, theta: Theta) -> Float[Array, "nx k+nu"]:
        return self.mdp.spread(state, self.width(theta))
