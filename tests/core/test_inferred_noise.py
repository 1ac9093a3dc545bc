"""Noise inferred from recorded transitions of a Gaussian chain, and gradients through them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from core_chains import regulator

KEY = jax.random.key(2)


def test_the_noise_of_a_recorded_step_is_found_and_replays_it():
    chain, theta = regulator()
    state = jnp.array([0.4, -0.9])
    noise = chain.draw(KEY, theta, 1)[0]
    following = chain.move(noise, state, theta)
    found = chain.inferred(following, state, theta)
    np.testing.assert_allclose(found, noise, atol=1e-10)
    np.testing.assert_allclose(chain.move(found, state, theta), following, atol=1e-12)
    # It holds the noise, not its dependence on theta.
    np.testing.assert_array_equal(jax.jacobian(lambda t: chain.inferred(following, state, t))(theta), 0.0)


def test_the_gradient_through_recorded_steps_is_that_of_the_same_steps_sampled():
    """Transitions played by another policy: one step of the value gradient with V(x) = x.m.x, against its closed form."""
    chain, theta = regulator()
    m = chain.value_matrix(theta, 0.9)
    state, other = jnp.array([0.4, -0.9]), theta + 0.3
    keys = jax.random.split(KEY, 4000)
    # Recorded by another policy. Of this policy's noise they are no sample, but the noise that explains them is one
    # of the shifted chain, so the mean gradient is the closed form at the mean of the recorded states.
    recorded = jax.vmap(lambda key: chain.step(key, state, other))(keys)

    def ahead(theta, following):
        held = jax.lax.stop_gradient(theta)
        moved = chain.move(chain.inferred(following, state, held), state, theta)
        return moved @ m @ moved

    slopes = jax.jit(jax.vmap(jax.grad(ahead), (None, 0)))(theta, recorded)
    jacobian = jax.jacobian(lambda t: chain.drift(state, t))(theta)
    exact = 2.0 * jax.vmap(lambda x: jacobian.T @ (m @ x))(recorded)
    np.testing.assert_allclose(slopes, exact, atol=1e-9)


def test_noise_of_fewer_dimensions_comes_as_close_as_it_can():
    chain, theta = regulator()
    thin = eqx.tree_at(lambda c: c.noise, chain, jnp.array([[1.0], [2.0]]))
    state = jnp.array([0.4, -0.9])
    following = thin.move(jnp.array([0.7]), state, theta) + jnp.array([2.0, -1.0])  # off the line, across it
    np.testing.assert_allclose(thin.inferred(following, state, theta), [0.7], atol=1e-10)
