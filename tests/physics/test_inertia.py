"""Log-Cholesky inertia against MuJoCo's own compiler."""

import mujoco
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.physics import inertia

BODY = """<mujoco><worldbody><body><freejoint/><inertial mass="{mass!r}" pos="{pos}" fullinertia="{full}"/></body>
</worldbody></mujoco>"""


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
