"""The core's examples run and show what they say."""

import pytest

from tests.example_files import load


def test_chain_subclass():
    first, last = load("chain_subclass").main(iterations=20)
    assert last < 0.75 * first


@pytest.mark.slow
def test_token_model_comes_close_to_its_exact_optimum():
    first, last, best = load("token_model").main(iterations=200)
    assert best <= last + 1e-9
    assert last - best < 0.08 * (first - best)


@pytest.mark.slow
def test_a_designed_model_plans_better_than_a_likely_one():
    best, likely, designed = load("model_design").main(iterations=400, seeds=2)
    assert best == pytest.approx(1.0272551, abs=1e-6)
    assert designed > likely + 0.2


@pytest.mark.slow
def test_a_model_without_lag_is_designed_for_a_motor_that_has_one():
    before, after = load("model_design_cartpole").main(iterations=12)
    assert after < 0.75 * before
