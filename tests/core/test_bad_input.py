"""Bad input: errors at construction that name the argument and the rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from core_chains import random_chain, regulator

from dso_robotics.core.chain import Chain, stack
from dso_robotics.core.families import FiniteMDP, SoftmaxPolicy, general_chain, solvable_chain
from dso_robotics.core.finite import FiniteChain
from dso_robotics.core.gaussian import GaussianChain, LinearQuadratic
from dso_robotics.core.gradient.mixed import mixed
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import DriftBaseline, score
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import Average, Episodic, Problem, TimeVarying
from dso_robotics.core.surrogate import ProximalClip
from dso_robotics.core.value import KnownValue
from dso_robotics.errors import DsoError

THETA = jnp.zeros(2)
START = np.array([0.5, 0.5])
KEY = jax.random.key(0)


def fixed(matrix, **options):
    return FiniteChain(lambda t: jnp.array(matrix), lambda t: jnp.zeros(len(matrix)), START, theta=THETA, **options)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.1])
def test_gamma_outside_its_range(gamma):
    with pytest.raises(DsoError, match=r"gamma: .*\(0, 1\]"):
        Episodic(gamma, 10)


def test_chains_that_are_not_normalised():
    with pytest.raises(DsoError, match=r"transition: .*row 1 sums to 0.9"):
        fixed([[0.5, 0.5], [0.5, 0.4]])
    with pytest.raises(DsoError, match=r"start: .*sum to 1"):
        FiniteChain(lambda t: jnp.eye(2), lambda t: jnp.zeros(2), np.array([0.5, 0.6]), theta=THETA)
    with pytest.raises(DsoError, match=r"transition: .*non-negative"):
        fixed([[1.2, -0.2], [0.5, 0.5]])


def test_shapes_that_do_not_match():
    with pytest.raises(DsoError, match=r"transition: expected shape \(2, 2\)"):
        fixed(np.full((3, 3), 1 / 3))
    with pytest.raises(DsoError, match=r"terminal: .*shape"):
        fixed(np.eye(2), terminal=np.array([True]))
    with pytest.raises(DsoError, match="costs: expected 2"):
        FiniteChain(lambda t: jnp.eye(2), lambda t: jnp.zeros(3), START, theta=THETA)
    with pytest.raises(DsoError, match="theta: expected one flat vector"):
        Problem(fixed(np.eye(2)), Episodic(0.9, 3), theta=jnp.zeros((2, 2)))
    with pytest.raises(DsoError, match="q: expected shape"):
        LinearQuadratic(jnp.eye(2), jnp.ones((2, 1)), jnp.eye(3), jnp.eye(1), jnp.eye(2), jnp.eye(2))


def test_gamma_one_without_terminal_states():
    with pytest.raises(DsoError, match="gamma: 1 needs terminal states"):
        Problem(fixed(np.eye(2)), Episodic(1.0, 10), theta=THETA)
    chain, theta = regulator()
    with pytest.raises(DsoError, match="gamma: 1 needs terminal states"):
        Problem(chain, Episodic(1.0, 10), theta=theta)
    stuck = FiniteChain(
        lambda t: jnp.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]),
        lambda t: jnp.zeros(3),
        np.array([0.5, 0.5, 0.0]),
        theta=THETA,
        terminal=np.array([False, False, True]),
    )
    with pytest.raises(DsoError, match=r"from states \[0\]"):
        Problem(stuck, Episodic(1.0, 10), theta=THETA)


def test_average_cost_of_chains_that_are_not_ergodic():
    with pytest.raises(DsoError, match=r"ergodic.*no state"):
        Problem(fixed(np.eye(2)), Average(10), theta=THETA)
    with pytest.raises(DsoError, match="periodic"):
        Problem(fixed([[0.0, 1.0], [1.0, 0.0]]), Average(10), theta=THETA)
    Problem(fixed([[0.0, 1.0], [0.5, 0.5]]), Average(10), theta=THETA)
    Problem(fixed([[1.0, 0.0], [0.5, 0.5]]), Average(10), theta=THETA)  # one absorbing class: still one density
    ending = fixed([[0.5, 0.5], [0.5, 0.5]], terminal=np.array([False, True]))
    with pytest.raises(DsoError, match="endless"):
        Problem(ending, Average(10), theta=THETA)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Episodic(0.9, 0), "steps"),
        (lambda: TimeVarying(-1), "steps"),
        (lambda: Average(10, burn_in=5, window=5), "steps: must exceed"),
        (lambda: Episodic(1.0, 5, random_end=True), "random_end"),
        (lambda: Episodic(0.9, 5, divergence_cost=float("nan")), "divergence_cost"),
        (lambda: ProximalClip(1.5), "width"),
        (lambda: TrustRegion(radius=2.0), "radius"),
        (lambda: stack([random_chain(0, 3, 2)[0], fixed(np.eye(2))]), "stack"),
        (lambda: FiniteMDP(np.ones((2, 2, 2)), np.zeros((2, 2)), START), "dynamics"),
        (
            lambda: solvable_chain(
                lambda t: jnp.eye(2), jnp.array([[0.0, 1.0], [1.0, 0.0]]), THETA, START, theta=THETA
            ),
            "base",
        ),
    ],
)
def test_settings(make, message):
    with pytest.raises(DsoError, match=message):
        make()


def test_policy_that_does_not_fit_the_mdp():
    mdp = FiniteMDP(np.full((2, 3, 2), 0.5), np.zeros((2, 3)), START)
    with pytest.raises(DsoError, match="policy: expected"):
        general_chain(mdp, SoftmaxPolicy(2, 2), theta=jnp.zeros(4))


class Slope(GaussianChain):
    """One noise on two states, as an action through a motor: log P exists for no parameter of the drift."""

    noise: jax.Array

    def initial(self, key, theta):
        return jnp.zeros(2)

    def drift(self, state, theta):
        return theta[0] * state

    def cost(self, state, theta):
        return state @ state


class ActionNoise(Chain):
    """x' = x + theta_mass (u + eps): the state keeps the action u + eps that was played, theta = (gain, mass)."""

    def initial(self, key, theta):
        return jnp.array([1.0, 0.0, 0.0])

    def step(self, key, state, theta):
        action = theta[0] * state[0] + 0.2 * jax.random.normal(key)
        return jnp.array([state[0] + 0.1 * state[1], state[1] + theta[1] * action, action])

    def log_prob(self, following, state, theta):
        return -0.5 * ((following[2] - theta[0] * state[0]) / 0.2) ** 2

    def cost(self, state, theta):
        return state[0] ** 2 + 0.1 * state[2] ** 2

    def scored(self, theta):
        return np.array([True, False])

    def describe(self, entry):
        return ("policy/gain", "body/mass")[entry]


@pytest.mark.parametrize("noise", [jnp.ones((2, 1)), jnp.ones((2, 2))])
def test_score_under_rank_deficient_noise_explains_itself(noise):
    problem = Problem(Slope(noise), Episodic(0.9, 5), theta=jnp.ones(1))
    with pytest.raises(
        DsoError, match=r"(?s)does not exist for theta\[0\].*surface that moves.*pathwise.*mixed.*full-rank S"
    ):
        score(KEY, problem, jnp.ones(1), count=4)


def test_score_of_physics_parameters_under_action_noise_names_them():
    theta = jnp.array([-0.5, 1.0])
    problem = Problem(ActionNoise(), TimeVarying(4), theta=theta)
    with pytest.raises(DsoError, match=r"does not exist for body/mass on ActionNoise"):
        score(KEY, problem, theta, count=4)
    estimate, _ = score(KEY, problem, theta, count=4000, entries=np.array([True, False]))
    assert float(estimate.gradient[1]) == 0.0
    assert not bool(estimate.entries[1])
    both, _ = mixed(KEY, problem, theta, count=4000, by_score=np.array([True, False]))
    through, _ = pathwise(jax.random.key(5), problem, theta, count=4000)
    assert np.all(
        np.abs(both.gradient - through.gradient) < 4.0 * np.hypot(both.standard_error, through.standard_error)
    )


def test_missing_parts_and_wrong_forms():
    chain, theta = random_chain(0, 3, 2)
    problem = Problem(chain, Episodic(0.9, 5), theta=theta)
    with pytest.raises(DsoError, match="states are integers"):
        pathwise(KEY, problem, theta, count=4)
    smooth, gain = regulator()
    lq = Problem(smooth, TimeVarying(4), theta=gain)
    with pytest.raises(DsoError, match="horizon: expected 1 to 4"):
        pathwise(KEY, lq, gain, count=4, horizon=9)
    with pytest.raises(DsoError, match="count"):
        score(KEY, lq, gain, count=0)
    with pytest.raises(DsoError, match="groups: expected a divisor"):
        score(KEY, lq, gain, count=10, groups=3)
    noisy = Problem(ActionNoise(), TimeVarying(4), theta=theta)
    with pytest.raises(DsoError, match="gives no drift"):
        score(
            KEY,
            noisy,
            theta,
            count=4,
            entries=np.array([True, False]),
            baseline=DriftBaseline(KnownValue(lambda x: x[0])),
        )


@pytest.mark.parametrize("estimator", [score, pathwise])
@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([-0.6, -1.0], r"got a list; write jnp.asarray\(theta, float\)"),
        (-0.6, r"got a float; write jnp.asarray"),
        (jnp.array([-1, -1]), r"type int64; write theta.astype\(float\)"),
        (np.array([-1, -1]), r"type int64; write theta.astype\(float\)"),
        (jnp.zeros((2, 1)), r"got shape \(2, 1\).*jnp.ravel"),
    ],
)
def test_theta_that_is_no_vector_of_floats(estimator, theta, message):
    chain, gain = regulator()
    problem = Problem(chain, TimeVarying(4), theta=gain)
    with pytest.raises(DsoError, match="theta: expected one flat vector of floats, .*" + message):
        estimator(KEY, problem, theta, count=4)


def test_theta_may_be_a_vector_of_numpy():
    chain, gain = regulator()
    problem = Problem(chain, TimeVarying(4), theta=gain)
    one, two = (score(KEY, problem, theta, count=4)[0].gradient for theta in (np.asarray(gain), gain))
    np.testing.assert_array_equal(one, two)


def test_unstable_closed_loop_has_no_value():
    chain, _ = regulator()
    with pytest.raises(Exception, match="unstable"):
        jax.block_until_ready(chain.average_cost(jnp.zeros(2)))
