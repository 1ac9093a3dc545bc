"""The descent loop: every method finds the optimum, failures are told, and a saved state resumes to the same numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_chains import exact, random_chain, regulator

from dso_robotics.core.descent import Status, Stopping, descend
from dso_robotics.core.fitting import fit_linear
from dso_robotics.core.gradient.score import DriftBaseline
from dso_robotics.core.method import ChainIteration, FirstOrder, Natural, Newton, Proximal
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.sampler import ExactSampler, MixedSampler, PathwiseSampler, ScoreSampler
from dso_robotics.core.value import linear_value, polynomial_features
from dso_robotics.errors import DsoError

KEY = jax.random.key(6)
GAMMA = 0.9
CHAIN, THETA = regulator(noise=0.1)
PROBLEM = Problem(CHAIN, Episodic(GAMMA, 40), theta=THETA)
BEST = descend(
    KEY,
    ExactSampler(lambda t: CHAIN.episodic_cost(t, GAMMA)),
    THETA,
    Newton(jax.hessian(lambda t: CHAIN.episodic_cost(t, GAMMA))),
)


def refit(batch, baseline):
    return DriftBaseline(fit_linear(baseline.value, batch.trajectory, batch.problem.objective, lam=0.9))


SAMPLER = ScoreSampler(PROBLEM, 100, DriftBaseline(linear_value(polynomial_features(2), jnp.zeros(2))), refit)
METHODS = [
    FirstOrder(optax.adam(0.1)),
    Natural(),
    Natural(closed=True),
    ChainIteration(divergence_weight=10.0),
    Proximal(learning_rate=0.03),
    Newton(),
]


def excess(theta):
    start, best = CHAIN.episodic_cost(THETA, GAMMA), CHAIN.episodic_cost(BEST.theta, GAMMA)
    return float((CHAIN.episodic_cost(theta, GAMMA) - best) / (start - best))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_every_method_closes_the_gap(method):
    result = descend(KEY, SAMPLER, THETA, method, stopping=Stopping(iterations=25, noise_floor=False))
    assert excess(result.theta) < 0.2
    assert result.status in (Status.ITERATIONS, Status.STALLED)
    assert len(result.history) == result.state.iteration > 0


def test_pathwise_and_mixed_samplers():
    for sampler in (
        PathwiseSampler(PROBLEM, 50),
        MixedSampler(PROBLEM, 200, np.array([True, False]), SAMPLER.baseline, refit),
    ):
        result = descend(KEY, sampler, THETA, FirstOrder(optax.adam(0.1)), stopping=Stopping(iterations=30))
        assert excess(result.theta) < 0.2


def test_exact_sampler_converges_and_says_so():
    assert BEST.status == Status.CONVERGED
    assert "Converged after" in BEST.message
    chain, theta = random_chain(3, 4, 3)
    problem = Problem(chain, Episodic(GAMMA, 1), theta=theta)
    result = descend(
        KEY,
        ExactSampler(lambda t: exact.cost(problem, t)),
        theta,
        FirstOrder(optax.adam(0.05)),
        stopping=Stopping(iterations=20),
    )
    assert result.status == Status.ITERATIONS
    assert result.history[-1].value < result.history[0].value


def test_noise_floor_stops_where_the_gradient_cannot_be_told_from_zero():
    result = descend(KEY, SAMPLER, BEST.theta, FirstOrder(optax.sgd(1e-4)), stopping=Stopping(iterations=60))
    assert result.status == Status.NOISE_FLOOR
    assert "take more of them" in result.message
    far = descend(KEY, SAMPLER, THETA, FirstOrder(optax.sgd(1e-9)), stopping=Stopping(iterations=10))
    assert far.status == Status.ITERATIONS


def cliff(theta):
    return jnp.where(theta[0] > 1.0, jnp.nan, (theta[0] - 0.9) ** 2)


def test_steps_into_divergence_are_taken_back_and_shortened():
    result = descend(
        KEY,
        ExactSampler(cliff),
        jnp.zeros(1),
        FirstOrder(optax.sgd(0.8)),
        stopping=Stopping(iterations=40, tolerance=1e-3),
    )
    assert result.status == Status.CONVERGED
    notes = [record.note for record in result.history if record.note]
    assert notes
    assert "rejected" in notes[0]
    assert all(np.isfinite(record.value) for record in result.history)


def test_hopeless_starts_and_steps_are_told():
    lost = descend(KEY, ExactSampler(cliff), jnp.array([2.0]), FirstOrder(optax.sgd(0.1)))
    assert lost.status == Status.DIVERGED
    assert "initial theta" in lost.message
    wall = ExactSampler(lambda t: jnp.where(t[0] != 0.0, jnp.inf, -t[0]))
    stuck = descend(KEY, wall, jnp.zeros(1), FirstOrder(optax.sgd(1.0)), stopping=Stopping(rejections=5))
    assert stuck.status == Status.DIVERGED
    assert "5 steps in a row" in stuck.message
    np.testing.assert_array_equal(stuck.theta, 0.0)


@pytest.mark.parametrize("method", [FirstOrder(optax.adam(0.1)), Natural()], ids=["adam", "natural"])
def test_resumes_to_the_same_numbers(method):
    whole = descend(KEY, SAMPLER, THETA, method, stopping=Stopping(iterations=8, noise_floor=False))
    saved = []
    descend(
        KEY,
        SAMPLER,
        THETA,
        method,
        stopping=Stopping(iterations=5, noise_floor=False),
        checkpoint=saved.append,
        every=2,
    )
    assert [state.iteration for state in saved] == [2, 4]
    rest = descend(KEY, SAMPLER, THETA, method, stopping=Stopping(iterations=8, noise_floor=False), resume=saved[-1])
    np.testing.assert_array_equal(rest.theta, whole.theta)
    assert rest.history == whole.history


def test_callback_stops():
    result = descend(
        KEY, SAMPLER, THETA, FirstOrder(optax.adam(0.1)), callback=lambda state, record: state.iteration == 3
    )
    assert result.status == Status.STOPPED
    assert len(result.history) == 3


def test_methods_that_need_rollouts_refuse_samplers_without_them():
    with pytest.raises(DsoError, match="Natural needs the rollouts"):
        descend(KEY, ExactSampler(lambda t: t @ t), jnp.ones(2), Natural())
    assert eqx.is_array(BEST.theta)
