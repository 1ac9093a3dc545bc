"""Log-Cholesky inertia against MuJoCo's own compiler."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.physics import inertia

BODY = """<mujoco><worldbody><body><freejoint/><inertial mass="{mass!r}" pos="{pos}" fullinertia="{full}"/></body>
</worldbody></mujoco>"""
FULL = ("3 4 2 0.4 -0.3 0.2", "0.3 0.3 0.3 0 0 0", "1 1.2 1.4 0.1 0.1 0.1")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_any_real_vector_is_a_body_that_mujoco_accepts(seed):
    rng = np.random.default_rng(seed)
    factor = inertia.nominal_factor(2.0, np.array([0.1, -0.2, 0.3]), np.diag([0.03, 0.04, 0.05]))
    mass, com, tensor = inertia.body_from_coordinates(rng.normal(size=10), factor)
    entries = inertia.numbers(mass, com, tensor)[4:]
    text = BODY.format(
        mass=float(mass), pos=" ".join(map(repr, com.tolist())), full=" ".join(map(repr, entries.tolist()))
    )
    model = mujoco.MjModel.from_xml_string(text)
    axes = inertia.rotation(model.body_iquat[1])
    np.testing.assert_allclose(
        axes @ np.diag(model.body_inertia[1]) @ axes.T, tensor, rtol=1e-6, atol=1e-9 * np.trace(tensor)
    )
    moments, quat = inertia.principal(tensor)
    np.testing.assert_allclose(moments, model.body_inertia[1], rtol=1e-6)
    rebuilt = inertia.rotation(quat) @ np.diag(moments) @ inertia.rotation(quat).T
    np.testing.assert_allclose(rebuilt, tensor, rtol=1e-9, atol=1e-12 * np.trace(tensor))


def test_zero_is_the_nominal_body_and_alpha_scales_its_mass_by_e_squared():
    com, tensor = np.array([0.1, -0.2, 0.3]), np.array([[0.03, 0.001, 0], [0.001, 0.04, 0.002], [0, 0.002, 0.05]])
    factor = inertia.nominal_factor(2.0, com, tensor)
    mass, found_com, found = inertia.body_from_coordinates(np.zeros(10), factor)
    np.testing.assert_allclose([mass, *found_com], [2.0, *com], rtol=1e-12)
    np.testing.assert_allclose(found, tensor, atol=1e-14)
    scaled = inertia.body_from_coordinates(np.eye(10)[0], factor)
    np.testing.assert_allclose(scaled[0], 2.0 * np.e**2)
    np.testing.assert_allclose(scaled[1], com)
    np.testing.assert_allclose(scaled[2], tensor * np.e**2, atol=1e-14)


def test_a_full_tensor_becomes_a_diagonal_and_products_in_the_models_own_axes():
    given = [f'<body><freejoint/><inertial mass="1" pos="0 0 0" fullinertia="{t}"/></body>' for t in FULL]
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{''.join(given)}</worldbody></mujoco>")
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, model.nbody, 3, 3))
    full = root @ np.swapaxes(root, -1, -2)
    full[:, 1] = np.nan  # keeps the model's
    diagonal, products = inertia.diagonal_and_products(model, full)
    assert np.array_equal(diagonal[:, 1], np.tile(model.body_inertia[1], (5, 1)))
    assert not products[:, 1].any()
    axes, (xy, xz, yz) = inertia.rotation(model.body_iquat), np.moveaxis(products, -1, 0)
    local = np.stack([diagonal[..., 0], xy, xz, xy, diagonal[..., 1], yz, xz, yz, diagonal[..., 2]], -1)
    rebuilt = axes @ local.reshape(5, -1, 3, 3) @ np.swapaxes(axes, -1, -2)
    np.testing.assert_allclose(rebuilt[:, 2:], full[:, 2:], rtol=1e-12, atol=1e-12)

    def total(tensors):
        return sum((part**2).sum() for part in inertia.diagonal_and_products(model, tensors))

    slope, move = np.asarray(jax.grad(total)(jnp.asarray(full[0]))), rng.normal(size=full[0].shape)
    assert not slope[1].any()
    assert np.isclose(np.sum(slope * move), (total(full[0] + move) - total(full[0] - move)) / 2)  # exact for a square
