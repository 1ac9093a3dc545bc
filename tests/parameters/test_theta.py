"""Theta: blocks to one vector and back, charts, priors, and refusals; NumPy and JAX agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.parameters import box
from dso_robotics.parameters.theta import Block, Prior, Theta


def blocks() -> tuple[Block, ...]:
    masses = Block(
        "physics",
        np.array([1.0, 0.0, -2.0]),
        low=np.array([0.0, -1.0, -np.inf]),
        high=np.array([np.inf, 1.0, np.inf]),
        scale=np.array([2.0, 0.5, 3.0]),
        prior=Prior(np.array([2.0, 0.1, 0.0]), np.array([0.5, 0.2, np.inf]), np.array([True, False, False])),
        entries=("mass", "offset", "angle"),
        units=("kg", "m", "rad"),
    )
    weights = Block(
        "policy", np.arange(6.0).reshape(2, 3), prior=Prior(np.zeros(6), np.full(6, 4.0), np.zeros(6, bool))
    )
    return weights, Block("noise", np.array([-1.0, -2.0]), free=False), masses


@pytest.mark.parametrize("chart", ["box", "open"])
def test_split_and_join_invert_each_other_with_batch_axes(chart):
    theta = Theta(blocks(), chart=chart)
    assert theta.size == 9
    points = np.random.default_rng(0).normal(size=(4, 5, theta.size))
    parts = theta.split(points)
    assert {name: part.shape for name, part in parts.items()} == {
        "policy": (4, 5, 2, 3),
        "noise": (2,),
        "physics": (4, 5, 3),
    }
    free = {name: part for name, part in parts.items() if name != "noise"}
    np.testing.assert_array_equal(theta.join(free), points)
    np.testing.assert_array_equal(theta.join({}), theta.initial)
    np.testing.assert_array_equal(theta.split(theta.initial)["policy"], np.arange(6.0).reshape(2, 3))
    one = theta.join({"physics": parts["physics"]})
    np.testing.assert_array_equal(one[..., theta.where("physics")], points[..., 6:])
    np.testing.assert_array_equal(one[2, 3, :6], np.arange(6.0))


def test_jax_gives_the_same_numbers():
    theta = Theta(blocks(), chart="open")
    point = np.random.default_rng(1).normal(size=theta.size)
    mine, other = theta.values(point), jax.jit(theta.values)(jnp.asarray(point))
    for name, part in mine.items():
        np.testing.assert_allclose(other[name], part, rtol=1e-14)
    free = {name: part for name, part in theta.split(jnp.asarray(point)).items() if name != "noise"}
    np.testing.assert_array_equal(theta.join(free), point)
    z = theta.constrain(point)
    np.testing.assert_allclose(theta.prior_residual(jnp.asarray(z)), theta.prior_residual(z), rtol=1e-14)


def test_the_open_chart_starts_at_the_numbers_and_stays_within_their_bounds():
    box_chart, theta = Theta(blocks()), Theta(blocks(), chart="open")
    start = theta.values(theta.initial)
    np.testing.assert_allclose(start["physics"], [1.0, 0.0, -2.0], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(start["policy"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(theta.initial, box_chart.unconstrain(box_chart.initial))
    for point in (-50.0 * np.ones(9), 50.0 * np.ones(9)):
        z = theta.constrain(point)
        np.testing.assert_array_equal(z[:6], point[:6])
        assert (z >= theta.low).all()
        assert (z <= theta.high).all()
        np.testing.assert_array_equal(z[6:], theta.values(point)["physics"])
    np.testing.assert_allclose(theta.constrain(50.0 * np.ones(9))[7], 1.0)
    at_bound = np.append(np.zeros(6), [0.0, 1.0, 5.0])
    inside = theta.constrain(theta.unconstrain(at_bound))[6:]
    np.testing.assert_allclose(inside, [2e-3, 1.0 - 0.5e-3, 5.0], rtol=1e-9)
    low, high, scale = (getattr(theta, name)[6:] for name in ("low", "high", "scale"))
    np.testing.assert_array_equal(theta.unconstrain(at_bound)[6:], box.unconstrain(at_bound[6:], low, high, scale))


def test_the_prior_is_the_log_density_and_its_slope_a_finite_difference():
    theta = Theta(blocks())
    z = np.append(np.arange(6.0) + 0.3, [0.7, 0.4, 9.0])
    residual, slope = theta.prior(z)
    expected = np.append(z[:6] / 4.0, [np.log(0.7 / 2.0) / 0.5, (0.4 - 0.1) / 0.2])
    np.testing.assert_allclose(residual, expected, rtol=1e-14)
    h = 1e-6
    columns = [(theta.prior_residual(z + d) - theta.prior_residual(z - d)) / (2 * h) for d in h * np.eye(9)]
    np.testing.assert_allclose(slope, np.stack(columns, -1), rtol=1e-7, atol=1e-9)
    assert theta.prior_residual(np.stack([z, z])).shape == (2, 8)
    assert theta.frozen(["policy"], z).prior(z[6:])[1].shape == (2, 3)


def test_a_theta_is_a_block_of_a_larger_one():
    inner = Theta(blocks())
    outer = Theta((Block("gain", np.ones(2)), inner.block("robot")))
    z = np.append(np.zeros(2), np.append(np.arange(6.0) + 0.3, [0.7, 0.4, 9.0]))
    np.testing.assert_array_equal(outer.split(z)["robot"], z[2:])
    np.testing.assert_array_equal(outer.prior(z)[0], inner.prior(z[2:])[0])
    np.testing.assert_array_equal(outer.prior(z)[1][:, 2:], inner.prior(z[2:])[1])
    for name in ("low", "high", "scale"):
        np.testing.assert_array_equal(getattr(outer, name)[2:], getattr(inner, name))
    assert outer.names == ("gain[0]", "gain[1]", *inner.names)
    assert outer.units[-3:] == ("kg", "m", "rad")


def test_names_places_and_spread():
    theta = Theta(blocks())
    assert [theta.describe(i) for i in (0, 5, 6, 8)] == ["policy[0]", "policy[5]", "mass", "angle"]
    assert theta.units == ("1",) * 6 + ("kg", "m", "rad")
    np.testing.assert_array_equal(theta.spread({"physics": 0.1}, 2.0), [2.0] * 6 + [0.1] * 3)
    assert [(block.name, here.stop - here.start) for block, here in theta.places()] == [
        ("policy", 6),
        ("noise", 0),
        ("physics", 3),
    ]
    frozen = theta.frozen(["policy"], np.append(10.0 + np.arange(6), [3.0, 0.5, 1.0]))
    assert frozen.size == 3
    np.testing.assert_array_equal(frozen.initial, [3.0, 0.5, 1.0])
    np.testing.assert_array_equal(frozen.split(frozen.initial)["policy"], 10.0 + np.arange(6.0).reshape(2, 3))


def test_what_cannot_be_a_theta_is_refused():
    first, *rest = blocks()
    with pytest.raises(DsoError, match="two blocks are called 'policy'"):
        Theta((first, first, *rest))
    with pytest.raises(DsoError, match="start value of block 'policy' is not finite"):
        Theta((dataclasses.replace(first, initial=np.full((2, 3), np.nan)), *rest))
    with pytest.raises(DsoError, match=r"no free block 'noise'.*'policy', 'physics'"):
        Theta(blocks()).where("noise")
    with pytest.raises(DsoError, match="no free block 'gain'"):
        Theta(blocks()).spread({"gain": 1.0}, 0.0)
    with pytest.raises(DsoError, match="no free block 'nosie'"):
        Theta(blocks()).join({"nosie": np.zeros(2)})
    for entry in (-1, 9):
        with pytest.raises(DsoError, match="9 entries"):
            Theta(blocks()).describe(entry)
    empty = Theta((dataclasses.replace(first, free=False),))
    assert empty.size == 0
    assert empty.initial.shape == empty.constrain(np.zeros(0)).shape == empty.join({}).shape == (0,)
