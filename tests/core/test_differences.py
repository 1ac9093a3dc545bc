"""Functions of NumPy with central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.core.differences import measured
from dso_robotics.errors import DsoError

AT = jnp.array([0.3, -0.7, 1.1])


def wave(x):
    return np.array([[np.sin(x[0]) * x[1], x[2] ** 2], [x[0], np.exp(x[1] * x[2])]])


def wave_jax(x):
    return jnp.array([[jnp.sin(x[0]) * x[1], x[2] ** 2], [x[0], jnp.exp(x[1] * x[2])]])


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_value_and_both_modes_are_those_of_the_same_function_in_jax(derivative):
    function = measured(wave, (2, 2), step=np.array([1e-5, 1e-4, 1e-5]))
    np.testing.assert_allclose(jax.jit(function)(AT), wave_jax(AT), rtol=1e-14)
    np.testing.assert_allclose(jax.jit(derivative(function))(AT), derivative(wave_jax)(AT), atol=1e-8)


def test_a_number_can_be_minimised_by_its_gradient():
    cost = measured(lambda x: float(np.sum((x - 2.0) ** 2)))
    np.testing.assert_allclose(jax.grad(lambda x: cost(3.0 * x))(AT), 6.0 * (3.0 * AT - 2.0), atol=1e-8)


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), np.array([1e-4, 0.0, 1e-4])])
def test_a_step_that_is_no_length_is_refused(step):
    with pytest.raises(DsoError, match="step"):
        measured(wave, (2, 2), step=step)
