"""The path of a signal between log and physics: controls that arrive late, sensors with bias, scale and delay."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = Any  # a NumPy or a JAX array


def commanded(ctrl: Array, past: Array, drive: Array, share: Array, gains: Array) -> tuple[Array, Array]:
    """`ctrl` (..., T, nu) and `past` (..., P, nu) with the controls of controllers in the place of what was recorded.

    `drive` (..., P+T, G) are the signals that `gains` (..., G) multiply, `share` (G, nu) says in whose control. The physics
    clamps controls to their range, these like any others.
    """
    xp = gains.__array_namespace__()
    made = drive @ (gains[..., :, None] * share)
    before, mine = past.shape[-2], share.any(0)
    return xp.where(mine, made[..., before:, :], ctrl), xp.where(mine, made[..., :before, :], past)


def arriving(ctrl: Array, past: Array, delay: Array, timestep: float) -> Array:
    """The controls (..., T, nu) that act when `ctrl` (..., T, nu) was commanded after `past` (..., P, nu).

    `delay` (..., nu) [s] is at most (P-1) time steps. Between steps the history is interpolated linearly, as MuJoCo does
    with interp="linear", so the derivative by the delay exists.
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
    """What the sensors report, (..., T, nsensordata), for what they should read: scaled and biased, not yet late."""
    if "sensor_scale" in signals:
        sensordata = sensordata * signals["sensor_scale"][..., None, :]
    if "sensor_bias" in signals:
        sensordata = sensordata + signals["sensor_bias"][..., None, :]
    return sensordata


def corrected(reported: np.ndarray, signals: Mapping[str, np.ndarray], addresses: np.ndarray) -> np.ndarray:
    """What the sensors at `addresses` of sensordata (C,) should have read, from what they reported (..., C)."""
    bias = signals["sensor_bias"][addresses] if "sensor_bias" in signals else 0.0
    scale = signals["sensor_scale"][addresses] if "sensor_scale" in signals else 1.0
    return (reported - bias) / np.where(scale == 0, 1.0, scale)
