"""Delays of actions as whole numbers of control steps. Does not import JAX."""

import math
from collections.abc import Sequence


def delay_steps(delay: float | Sequence[float], period: float) -> range:
    """The whole numbers of control steps of `period` [s] in a delay [s], or from its lower to its upper end."""
    low, high = (delay, delay) if isinstance(delay, int | float) else delay
    return range(math.ceil(low / period - 1e-6), math.floor(high / period + 1e-6) + 1)
