"""Smoothing of positions before they are differentiated: SciPy's Savitzky-Golay filter away from the ends."""

import numpy as np
import pytest
from scipy.signal import savgol_coeffs, savgol_filter

from dso_robotics.robot.torque_balance import _kernel, _smoothed


@pytest.mark.parametrize("width", [5, 9, 31])
@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_the_filter_is_scipys(width, derivative):
    values, dt = np.random.default_rng(0).normal(size=200).cumsum(), 0.004
    found = _smoothed(values, width, derivative, dt)
    wanted = savgol_filter(values, width, 3, deriv=derivative, delta=dt)
    inner = slice(width // 2, -(width // 2))
    np.testing.assert_allclose(found[inner], wanted[inner], rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    size = np.linalg.norm(savgol_coeffs(width, 3, deriv=derivative, delta=dt))
    assert np.linalg.norm(_kernel(width, derivative, dt)) == pytest.approx(size, rel=1e-9)
