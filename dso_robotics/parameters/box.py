"""Unconstrained coordinates of bounded numbers: softplus for one bound, logistic for two, identity for none."""

from typing import Any

import numpy as np

Array = Any  # a NumPy or a JAX array
# A start value at a bound is moved inside by this fraction of its scale. The transforms reach a bound only at infinity.
_INSIDE = 1e-3


def constrain(theta: Array, low: np.ndarray, high: np.ndarray, scale: np.ndarray) -> Array:
    """Numbers (..., n) in [low, high] of unconstrained theta (..., n); `scale` (n,) are their typical sizes."""
    xp = theta.__array_namespace__()
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    low, high, scale = (np.where(np.isfinite(v), v, 0.0) for v in (low, high, scale))
    between = low + (high - low) * 0.5 * (1.0 + xp.tanh(0.5 * theta))
    above = low + scale * xp.logaddexp(theta, xp.zeros_like(theta))
    below = high - scale * xp.logaddexp(-theta, xp.zeros_like(theta))
    one = xp.where(has_low, above, xp.where(has_high, below, scale * theta))
    return xp.where(has_low & has_high, between, one)


def unconstrain(z: np.ndarray, low: np.ndarray, high: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """theta (n,) of numbers z (n,). A number at its bound is moved inside by a thousandth of its scale."""
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    span = np.where(has_low & has_high, high - low, scale)
    inside = _INSIDE * np.minimum(scale, span)
    z = np.clip(z, low + inside, high - inside)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.log((z - low) / (high - z))
        above, below = (y + np.log(-np.expm1(-y)) for y in ((z - low) / scale, (high - z) / scale))
    one = np.where(has_low, above, np.where(has_high, -below, z / scale))
    return np.where(has_low & has_high, between, one)
