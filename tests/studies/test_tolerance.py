"""Which number a policy does not tolerate, on costs that are known functions of the numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.context import Cloud, Context, Draw
from dso_robotics.studies.tolerance import QUANTILES, tolerance

NAMES = ("joint/hinge/damping", "body/pole/mass")


def judged(function, rows, before=10.0, steps=10):
    """The table and warnings of a policy whose episodes cost function(damping, mass)."""
    draws = tuple(Draw(name, *map(float, (c.min(), c.max()))) for name, c in zip(NAMES, rows.T, strict=True))
    context = Context((), draws, tuple(np.median(rows, axis=0)), cloud=Cloud(rows, (0, 1)))

    def play(theta, scaling, *, steps, model, context):
        assert model == tuple(context)
        cost = function(*context)
        return SimpleNamespace(cost=cost, terms=np.zeros((steps, 1)), ended=not np.isfinite(cost))

    task = SimpleNamespace(chain=SimpleNamespace(context=context), steps=steps, study=SimpleNamespace(seed=0))
    return tolerance(task, SimpleNamespace(play=play), np.zeros(1), None, before, lambda theta, at: tuple(at))


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal([1.0, 2.0], [0.2, 0.1], size=(400, 2))


def test_the_number_whose_end_costs_too_much_is_named(rows):
    table, (text,) = judged(lambda damping, mass: 2.0 + 40 * max(damping - 1.0, 0.0) ** 2, rows)
    assert text.startswith(f"The interval of {NAMES[0]}")
    assert "upper end" in text
    assert "identify again" in text
    ends = np.quantile(rows[:, 0], QUANTILES)
    # The other number follows the regression on this one, and the cost does not depend on it.
    assert table["numbers"][NAMES[0]]["cost"] == pytest.approx(2.0 + 40 * np.maximum(ends - 1.0, 0) ** 2, rel=1e-6)
    assert table["middle"] == pytest.approx(2.0 + 40 * max(np.median(rows[:, 0]) - 1, 0) ** 2)
    assert table["worst"] >= table["mean"]


def test_a_policy_that_does_well_everywhere_is_not_warned_of(rows):
    _, warnings = judged(lambda damping, mass: 2.0 + 0.1 * damping, rows)
    assert warnings == []


def test_numbers_that_vary_together_are_moved_together():
    one = np.random.default_rng(1).normal(size=300)
    rows = np.stack([1 + 0.2 * one, 2 + 0.4 * one], 1)
    # Only the ratio matters, and it is known: neither number alone is to blame.
    _, warnings = judged(lambda damping, mass: 2.0 + 100 * (mass - 2 * damping) ** 2, rows)
    assert warnings == []


def test_an_episode_that_is_lost_counts_as_not_tolerated(rows):
    table, warnings = judged(lambda damping, mass: np.inf if mass < 1.85 else 2.0, rows)
    assert any(NAMES[1] in text and "lower end" in text for text in warnings)
    assert np.isfinite(table["mean"])

    def fails(damping, mass):
        raise DsoError("no model")

    assert judged(fails, rows)[0]["worst"] == np.inf
