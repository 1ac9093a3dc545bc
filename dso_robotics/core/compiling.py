"""How functions are compiled that are not worth XLA's optimisation: those that run a few times, or for microseconds."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


def quick() -> dict[str, Any] | None:
    """Compiler options for such a function; None where there are none.

    On a CPU code without XLA's optimisation compiles in half the time. Where a window of a training takes most of the time it
    runs 4% slower, so a step of a training is compiled without them.
    """
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def quick_jit(function: Callable[..., Any]) -> Any:
    """jax.jit of a function that runs a few times, or for microseconds. It cannot be called by another compiled function."""
    return jax.jit(function, compiler_options=quick())


def quick_filter_jit(function: Callable[..., Any]) -> Any:
    """`quick_jit` of a function whose arguments and results hold more than arrays."""
    compiled: Any = eqx.filter_jit
    return compiled(function, compiler_options=quick())
