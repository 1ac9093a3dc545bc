"""Tuning a small autoregressive token model with the same functions that optimise a robot.

The state is the tokens written so far; a step of the chain appends one. The model starts from a base that does not know
the task. Its cost is the KL divergence from the base (an L-MDP) plus a cost of the finished text, for unmatched
brackets or a number of letters other than two. Lemma 4 gives the exact optimum. Run: python examples/token_model.py
"""

import itertools

import jax
import jax.numpy as jnp
import optax

from dso_robotics.core.chain import Chain
from dso_robotics.core.gradient.score import StateBaseline
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.objective import Problem, TimeVarying
from dso_robotics.core.sampler import ScoreSampler
from dso_robotics.core.value import KnownValue

LENGTH, TOKENS, PRICE = 6, 3, 3.0  # tokens: 0 opens a bracket, 1 closes one, 2 is a letter


def charge(text: jax.Array) -> jax.Array:
    """Cost of a finished text: unmatched brackets, or a number of letters other than two."""
    depth = jnp.cumsum(jnp.where(text == 0, 1, jnp.where(text == 1, -1, 0)))
    wrong = jnp.any(depth < 0) | (depth[-1] != 0)
    return PRICE * wrong + PRICE * (jnp.sum(text == 2) != 2)


class TokenModel(Chain):
    """A table of logits by position, open brackets and letters so far; theta holds it."""

    base: jax.Array

    def features(self, state):
        text, position = state
        seen = jnp.arange(LENGTH) < position
        depth = jnp.sum(jnp.where(seen, jnp.where(text == 0, 1, jnp.where(text == 1, -1, 0)), 0))
        letters = jnp.sum(seen & (text == 2))
        return jax.nn.one_hot(position * 49 + (depth + 3) * 7 + letters, (LENGTH + 1) * 49)

    def log_probs(self, state, theta):
        return jax.nn.log_softmax(theta.reshape(-1, TOKENS).T @ self.features(state) + jnp.log(self.base))

    def initial(self, key, theta):
        return jnp.zeros(LENGTH, int), jnp.zeros((), int)

    def step(self, key, state, theta):
        token = jax.random.categorical(key, self.log_probs(state, theta))
        return state[0].at[state[1]].set(token), state[1] + 1

    def log_prob(self, following, state, theta):
        return self.log_probs(state, theta)[following[0][state[1]]]

    def cost(self, state, theta):
        logs = self.log_probs(state, theta)
        kl = jnp.sum(jnp.exp(logs) * (logs - jnp.log(self.base)))
        return jnp.where(state[1] == LENGTH, charge(state[0]), kl)


TEXTS = jnp.array(list(itertools.product(range(TOKENS), repeat=LENGTH)))


def optimum(base: jax.Array) -> float:
    """J* = -log z(empty), with z = E_base[exp(-price)] over all texts (85)."""
    return float(-jnp.log(jnp.sum(jnp.prod(base[TEXTS], axis=1) * jnp.exp(-jax.vmap(charge)(TEXTS)))))


def exact_cost(model: TokenModel, theta: jax.Array) -> float:
    """J of the tuned model, summed over all texts: E[log p - log base + price]."""

    def log_p(text: jax.Array) -> jax.Array:
        return sum(model.log_probs((text, jnp.asarray(t)), theta)[text[t]] for t in range(LENGTH))

    logs = jax.jit(jax.vmap(log_p))(TEXTS)
    base = jnp.sum(jnp.log(model.base)[TEXTS], axis=1)
    return float(jnp.sum(jnp.exp(logs) * (logs - base + jax.vmap(charge)(TEXTS))))


def main(iterations: int = 300) -> tuple[float, float, float]:
    model = TokenModel(jnp.array([0.3, 0.3, 0.4]))
    theta = jnp.zeros((LENGTH + 1) * 49 * TOKENS)
    # Zero weights are the base itself; the baseline, its mean price, is crude, and enough.
    problem = Problem(model, TimeVarying(LENGTH), theta=theta)
    baseline = StateBaseline(KnownValue(lambda state: jnp.asarray(1.5)))

    sampler = ScoreSampler(problem, 512, baseline)
    adam = FirstOrder(optax.adam(optax.cosine_decay_schedule(0.3, iterations, 0.02)))
    result = minimise(
        jax.random.key(0), sampler, theta, adam, iterations=iterations, stopping=Stopping(noise_floor=False)
    )

    first, last, best = exact_cost(model, theta), exact_cost(model, result.theta), optimum(model.base)
    print(f"J of the base {first:.3f}, of the tuned model {last:.3f}, optimum over all chains {best:.3f}")
    return first, last, best


if __name__ == "__main__":
    main()
