"""One flat vector: fields, names back, transforms, priors; NumPy and JAX agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.parameters.vector import pack, values
from dso_robotics.physics.model import load

PATHS = (
    "joint/*/damping=0.1@0:2",
    "body/upper/inertia",
    "body/lower/com[2]@-1:0",
    "actuator/*/gear",
    "joint/elbow/stiffness",
    "sensor/elbow_pos/bias",
)


@pytest.fixture(scope="module")
def vector(models):
    return pack([parse(p) for p in PATHS], load(models / "two_joint_arm.xml"))


def test_start_values_give_the_model_back_where_nothing_was_overridden(vector):
    fields = vector.fields(vector.initial)
    np.testing.assert_allclose(fields["body_mass"], vector.mj.body_mass, rtol=1e-12)
    np.testing.assert_allclose(fields["body_ipos"], vector.mj.body_ipos, atol=1e-12)
    np.testing.assert_allclose(fields["body_inertia_full"][1], np.diag(vector.mj.body_inertia[1]), atol=1e-12)
    assert np.isnan(fields["body_inertia_full"][2]).all()
    np.testing.assert_array_equal(fields["dof_damping"], [0.1, 0.1])


def test_numpy_batches_equal_jax(vector):
    rng = np.random.default_rng(0)
    z = np.clip(vector.initial + 0.1 * rng.normal(size=(3, vector.size)) * vector.scale, vector.low, vector.high)
    batch = vector.fields(z)
    for i in range(3):
        single = jax.jit(vector.fields)(jnp.asarray(z[i]))
        assert set(single) == set(batch)
        for name in batch:
            np.testing.assert_allclose(np.asarray(single[name]), batch[name][i], atol=1e-12)
    np.testing.assert_allclose(np.asarray(vector.signals(jnp.asarray(z[0]))["sensor_bias"]), [0, z[0, -1], 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_transforms_invert_each_other_and_respect_bounds(vector, seed):
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-5, 5, size=vector.size)
    z = vector.constrain(theta)
    assert np.all(z >= vector.low)
    assert np.all(z <= vector.high)
    np.testing.assert_allclose(vector.unconstrain(z), theta, atol=1e-7)
    inside = np.clip(vector.initial, vector.low + 0.1 * vector.scale, vector.high - 0.1 * vector.scale)
    np.testing.assert_allclose(vector.constrain(vector.unconstrain(inside)), inside, rtol=1e-9, atol=1e-12)


def test_names_and_units_come_back(vector):
    report = vector.report(vector.initial)
    assert report["body/upper/inertia[mass]"] == (pytest.approx(0.559381), "kg")
    assert report["joint/elbow/damping"][1] == "N*m*s/rad"
    assert values(vector, vector.initial)["body/upper/inertia[com_z]"] == pytest.approx(-0.3)
    assert len(vector.coordinate_names) == vector.size
    assert list(vector.split(vector.initial)) == [p.path for p in vector.parameters]


def test_prior_residual_is_the_normal_one(models):
    robot = load(models / "two_joint_arm.xml")
    vector = pack([Declaration("joint/elbow/damping", prior=(0.2, 0.05)), parse("joint/shoulder/damping")], robot)
    np.testing.assert_allclose(vector.prior_residual(np.array([0.3, 9.0])), [2.0])


def test_priors_and_their_slopes(models):
    robot = load(models / "two_joint_arm.xml")
    declarations = [
        Declaration("body/upper/mass", prior=(0.5, 0.1)),
        Declaration("joint/elbow/damping", prior=(0.002, 0.5), log_prior=True),
    ]
    vector = pack(declarations, robot)
    z = np.array([0.7, 0.004])
    np.testing.assert_allclose(vector.prior_residual(z), [2.0, np.log(2.0) / 0.5])
    h = 1e-7
    columns = [(vector.prior_residual(z + d) - vector.prior_residual(z - d)) / (2 * h) for d in h * np.eye(2)]
    np.testing.assert_allclose(vector.prior_slope(z), np.stack(columns, -1), rtol=1e-6)
    with pytest.raises(DsoError, match="positive median"):
        pack([Declaration("actuator/tau1/gear[0]", prior=(1.0, 0.1), log_prior=True)], robot)
