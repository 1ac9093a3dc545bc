"""The descent loop: every method finds the optimum, failures are told, and a saved state resumes to the same numbers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from core_chains import exact, random_chain, regulator

from dso_robotics.core.descent import Best, Last, Status, descend
from dso_robotics.core.fitting import fit_linear
from dso_robotics.core.gradient.score import DriftBaseline
from dso_robotics.core.method.chain_iteration import ChainIteration
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.natural import Natural
from dso_robotics.core.method.newton import Newton
from dso_robotics.core.method.proximal import Proximal
from dso_robotics.core.method.sampled import Sampled, Stopping, minimise
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.sampler import ExactSampler, MixedSampler, PathwiseSampler, ScoreSampler
from dso_robotics.core.value import linear_value, polynomial_features
from dso_robotics.errors import DsoError

KEY = jax.random.key(6)
GAMMA = 0.9
CHAIN, THETA = regulator(noise=0.1)
PROBLEM = Problem(CHAIN, Episodic(GAMMA, 40), theta=THETA)
BEST = minimise(
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
    result = minimise(KEY, SAMPLER, THETA, method, iterations=25, stopping=Stopping(noise_floor=False))
    assert excess(result.theta) < 0.2
    assert result.status in (Status.ITERATIONS, Status.STALLED)
    assert len(result.history) == result.state.iteration > 0


def test_pathwise_and_mixed_samplers():
    for sampler in (
        PathwiseSampler(PROBLEM, 50),
        MixedSampler(PROBLEM, 200, np.array([True, False]), SAMPLER.baseline, refit),
    ):
        result = minimise(KEY, sampler, THETA, FirstOrder(optax.adam(0.1)), iterations=30)
        assert excess(result.theta) < 0.2


def test_exact_sampler_converges_and_says_so():
    assert BEST.status == Status.CONVERGED
    assert "Converged after" in BEST.message
    chain, theta = random_chain(3, 4, 3)
    problem = Problem(chain, Episodic(GAMMA, 1), theta=theta)
    result = minimise(
        KEY,
        ExactSampler(lambda t: exact.cost(problem, t)),
        theta,
        FirstOrder(optax.adam(0.05)),
        iterations=20,
    )
    assert result.status == Status.ITERATIONS
    assert result.history[-1].value < result.history[0].value


def test_noise_floor_stops_where_the_gradient_cannot_be_told_from_zero():
    result = minimise(KEY, SAMPLER, BEST.theta, FirstOrder(optax.sgd(1e-4)), iterations=60)
    assert result.status == Status.NOISE_FLOOR
    assert "take more of them" in result.message
    far = minimise(KEY, SAMPLER, THETA, FirstOrder(optax.sgd(1e-9)), iterations=10)
    assert far.status == Status.ITERATIONS


def cliff(theta):
    return jnp.where(theta[0] > 1.0, jnp.nan, (theta[0] - 0.9) ** 2)


def test_steps_into_divergence_are_taken_back_and_shortened():
    result = minimise(
        KEY,
        ExactSampler(cliff),
        jnp.zeros(1),
        FirstOrder(optax.sgd(0.8)),
        iterations=40,
        stopping=Stopping(tolerance=1e-3),
    )
    assert result.status == Status.CONVERGED
    notes = [record.note for record in result.history if record.note]
    assert notes
    assert "rejected" in notes[0]
    assert all(np.isfinite(record.value) for record in result.history)


def test_hopeless_starts_and_steps_are_told():
    lost = minimise(KEY, ExactSampler(cliff), jnp.array([2.0]), FirstOrder(optax.sgd(0.1)))
    assert lost.status == Status.DIVERGED
    assert "initial theta" in lost.message
    wall = ExactSampler(lambda t: jnp.where(t[0] != 0.0, jnp.inf, -t[0]))
    stuck = minimise(KEY, wall, jnp.zeros(1), FirstOrder(optax.sgd(1.0)), stopping=Stopping(rejections=5))
    assert stuck.status == Status.DIVERGED
    assert "5 steps in a row" in stuck.message
    np.testing.assert_array_equal(stuck.theta, 0.0)


@pytest.mark.parametrize("method", [FirstOrder(optax.adam(0.1)), Natural()], ids=["adam", "natural"])
def test_resumes_to_the_same_numbers(method):
    whole = minimise(KEY, SAMPLER, THETA, method, iterations=8, stopping=Stopping(noise_floor=False))
    sampled, saved = Sampled(method, SAMPLER, stopping=Stopping(noise_floor=False)), []

    def store(moment):
        # Caches are not stored: the sample is drawn anew.
        saved.append((dataclasses.replace(moment.state, sample=None), tuple(moment.history)))

    descend(sampled, sampled.init(KEY, THETA), iterations=5, checkpoint=store)
    assert [state.iteration for state, _ in saved] == [1, 2, 3, 4, 5]
    state, history = saved[3]
    rest = descend(sampled, state, iterations=8, past=history)
    np.testing.assert_array_equal(rest.theta, whole.theta)
    assert rest.history == whole.history


def test_callback_stops():
    result = minimise(KEY, SAMPLER, THETA, FirstOrder(optax.adam(0.1)), watch=lambda moment: moment.iteration == 3)
    assert result.status == Status.STOPPED
    assert len(result.history) == 3


def test_methods_that_need_rollouts_refuse_samplers_without_them():
    with pytest.raises(DsoError, match="Natural needs the rollouts"):
        minimise(KEY, ExactSampler(lambda t: t @ t), jnp.ones(2), Natural())
    assert eqx.is_array(BEST.theta)


@dataclasses.dataclass(frozen=True)
class Halving:
    """A toy method on plain numbers: x is halved until it is below a hundredth."""

    def init(self, key, theta):
        return Number(float(theta))

    def step(self, state):
        return Number(state.theta / 2), state.theta

    def done(self, state, record):
        return Status.CONVERGED if state.theta < 0.01 else None

    def message(self, state, status, steps):
        return f"{status} after {steps} steps"


@dataclasses.dataclass(frozen=True)
class Number:
    theta: float


def test_the_loop_counts_judges_and_resumes_any_method():
    method = Halving()
    whole = descend(method, method.init(None, 1.0), iterations=50)
    assert (whole.status, whole.message) == (Status.CONVERGED, "converged after 7 steps")
    assert whole.history == tuple(2.0**-i for i in range(7))
    moments = []
    part = descend(method, method.init(None, 1.0), iterations=3, checkpoint=moments.append)
    assert part.status is Status.ITERATIONS
    assert [m.iteration for m in moments] == [3, 3, 3]  # a moment's history is the loop's own
    assert descend(method, part.state, iterations=50, past=part.history).history == whole.history
    # Already there: no step is taken.
    assert descend(method, Number(0.0), iterations=50).history == ()
    # Best at 0.25; 0.5 and 0.125 are judged equally good, and the first is kept.
    best = Best(lambda state: abs(state.theta - 0.25) if state.theta != 0.25 else float("nan"), take=lambda s: s.theta)
    found = descend(method, method.init(None, 1.0), iterations=50, keep=best)
    assert (found.best.iteration, found.best.kept, found.best.cost) == (3, 0.125, 0.125)
    # Every third step, the first state and the last are judged.
    seen = []
    descend(method, method.init(None, 1.0), iterations=50, keep=Last(lambda state: seen.append(state.theta), every=3))
    assert seen == [2.0**-i for i in (0, 3, 6, 7)]
    with pytest.raises(DsoError, match="iterations"):
        descend(method, Number(1.0), iterations=-1)


@pytest.mark.parametrize("theta", [[0.1, 0.2], jnp.array([1, 2]), np.ones((2, 1)), 0.5])
def test_a_descent_from_what_is_no_vector_of_floats_says_what_to_write(theta):
    sampler = ExactSampler(lambda t: jnp.sum(t**2))
    with pytest.raises(DsoError, match="theta: expected one flat vector of floats"):
        minimise(jax.random.key(0), sampler, theta, FirstOrder(optax.sgd(0.1)))
