"""Signal models between log and physics: controls with delay, and sensors with bias, scale and delay."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = Any  # a NumPy or a JAX array


def commanded(ctrl: Array, past: Array, drive: Array, share: Array, gains: Array) -> tuple[Array, Array]:
    """`ctrl` (..., T, nu) and `past` (..., P, nu), with recorded controls replaced by those of controllers.

    drive: signals that `gains` (..., G) multiply, (..., P+T, G).
    share: the control that each product is added to, (G, nu).
    The physics clamps these controls to their range, like all others.
    """
    xp = gains.__array_namespace__()
    made = drive @ (gains[..., :, None] * share)
    before, mine = past.shape[-2], share.any(0)
    return xp.where(mine, made[..., before:, :], ctrl), xp.where(mine, made[..., :before, :], past)


def arriving(ctrl: Array, past: Array, delay: Array, timestep: float) -> Array:
    """The delayed controls (..., T, nu) that act if `ctrl` (..., T, nu) was commanded after `past` (..., P, nu).

    `delay` (..., nu) [s] is at most (P-1) time steps. Between steps the history is interpolated linearly, like MuJoCo with
    interp="linear". The derivative by the delay therefore exists.
    """
    xp = delay.__array_namespace__()
    history = xp.concatenate([past, ctrl], -2)
    steps, before = ctrl.shape[-2], past.shape[-2]
    late = xp.clip(delay / timestep, 0.0, before - 1.0)
    whole = xp.floor(late)
    share = (late - whole)[..., None, :]
    index = before + xp.arange(steps)[:, None] - whole.astype(int)[..., None, :]
    recent = xp.take_along_axis(xp.broadcast_to(history, (*index.shape[:-2], *history.shape[-2:])), index, -2)
    older = xp.take_along_axis(xp.broadcast_to(history, (*index.shape[:-2], *history.shape[-2:])), index - 1, -2)
    return recent + share * (older - recent)


def reported(sensordata: Array, signals: Mapping[str, Array]) -> Array:
    """Sensor output (..., T, nsensordata) for ideal readings, with scale and bias but without delay."""
    if "sensor_scale" in signals:
        sensordata = sensordata * signals["sensor_scale"][..., None, :]
    if "sensor_bias" in signals:
        sensordata = sensordata + signals["sensor_bias"][..., None, :]
    return sensordata


def corrected(reported: np.ndarray, signals: Mapping[str, np.ndarray], addresses: np.ndarray) -> np.ndarray:
    """Ideal readings of the sensors at `addresses` (C,) of sensordata, from their output (..., C)."""
    bias = signals["sensor_bias"][addresses] if "sensor_bias" in signals else 0.0
    scale = signals["sensor_scale"][addresses] if "sensor_scale" in signals else 1.0
    return (reported - bias) / np.where(scale == 0, 1.0, scale)
