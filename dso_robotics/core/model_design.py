"""Optimal Model Design (Nikishin et al. 2022): a model is judged by the cost of the policy that is optimal for it.

The Q-function that is optimal for a model is a fixed point of that model's Bellman operator (3), so it is an implicit
function of the model's parameters, and so are the policy and the cost J of this policy on the true process (4-5). A model that
cannot be right can still be made good for control. The likelihood fits it to where the data are instead.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dso_robotics.core.families import FiniteMDP, Theta
from dso_robotics.core.finite import kl_divergence
from dso_robotics.core.implicit import Inverse, fixed_point
from dso_robotics.errors import DsoError

Table = Float[Array, "ns na"]
Model = Callable[[Theta], tuple[Float[Array, "ns na ns"], Table]]
"""theta -> dynamics p(x'|x, u) and costs l(x, u)."""


def soft_bellman(
    q: Table, dynamics: Float[Array, "ns na ns"], costs: Table, *, gamma: float, temperature: float
) -> Table:
    """l(x, u) + gamma E[V(x')], V(x) = -temperature log sum_u exp(-Q(x, u) / temperature), equation (3) with costs."""
    ahead = -temperature * jax.nn.logsumexp(-q / temperature, axis=1)
    return costs + gamma * dynamics @ ahead


def optimal_q(
    dynamics: Float[Array, "ns na ns"],
    costs: Table,
    *,
    gamma: float,
    temperature: float,
    inverse: Inverse | None = None,
) -> Table:
    """Q* = B Q*, the fixed point of the soft Bellman operator, with its derivatives by dynamics and costs.

    inverse: how the system of the derivative is solved, by default exactly.

    Raises:
      DsoError: gamma is not in [0, 1), or the temperature is not positive.
    """
    if not 0.0 <= gamma < 1.0:
        raise DsoError(f"gamma: the Bellman operator contracts for a discount from 0 to below 1, got {gamma}.")
    if not temperature > 0.0:
        raise DsoError(
            f"temperature: expected a positive number, got {temperature}. Take 0.01 for an almost greedy one."
        )

    def operator(q: Table, model: tuple[Array, Array]) -> Table:
        return soft_bellman(q, *model, gamma=gamma, temperature=temperature)

    return fixed_point(operator, jnp.zeros_like(costs), (dynamics, costs), inverse=inverse)


class PlannedPolicy(eqx.Module):
    """theta -> the policy pi(u|x) (ns, na) that is optimal for model(theta). A policy as `families.general_chain` takes it.

    model: theta -> dynamics and costs, such as `SoftmaxModel`.
    inverse: see `optimal_q`.
    """

    model: Model
    gamma: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    inverse: Inverse | None = None

    def q(self, theta: Theta) -> Table:
        """Q* of the model."""
        more = {"gamma": self.gamma, "temperature": self.temperature, "inverse": self.inverse}
        return optimal_q(*self.model(theta), **more)

    def __call__(self, theta: Theta) -> Table:
        """exp(-Q / temperature), normalised."""
        return jax.nn.softmax(-self.q(theta) / self.temperature, axis=1)


class SoftmaxModel(eqx.Module):
    """theta = (logits (ns, na, ns), costs (ns, na)): any finite model. `scale` multiplies the logits: softmax(scale logits)."""

    states: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.states * self.actions * (self.states + 1)

    def __call__(self, theta: Theta) -> tuple[Float[Array, "ns na ns"], Table]:
        """Dynamics and costs."""
        shape = (self.states, self.actions)
        split = self.states * self.states * self.actions
        dynamics = jax.nn.softmax(self.scale * theta[:split].reshape(*shape, self.states), axis=-1)
        return dynamics, theta[split:].reshape(shape)

    def bounded(self, theta: Theta, bound: Float[Array, ""] | float) -> Theta:
        """Theta shrunk so that the norm of (scale logits, costs) is at most `bound`: what the model can represent."""
        split = self.states * self.states * self.actions
        length = jnp.linalg.norm(jnp.concatenate([self.scale * theta[:split], theta[split:]]))
        return theta * jnp.minimum(1.0, bound / jnp.where(length > 0.0, length, 1.0))


def model_error(mdp: FiniteMDP, dynamics: Float[Array, "ns na ns"], costs: Table) -> Float[Array, ""]:
    """What maximum likelihood minimises: means over x, u of KL(true p || p of the model) and of the squared error of costs."""
    return jnp.mean(kl_divergence(mdp.dynamics, dynamics)) + jnp.mean((costs - mdp.costs) ** 2)
