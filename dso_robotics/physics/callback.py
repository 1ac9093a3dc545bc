"""A function of NumPy arrays, called from compiled code in the precision of its arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def call(function: Callable[..., Any], out: Any, *given: Any, batched: bool = False) -> Any:
    """`function` of the arrays of `given`, without derivative, called when the compiled code runs.

    out: shapes and types of what it returns.
    batched: under `vmap` it is called once, with leading axes of all arrays; otherwise once for each row.
    """

    def run(*bits: Any) -> Any:
        plain = [_from_bits(np.asarray(one), dtype) for one, dtype in zip(bits, kinds, strict=True)]
        found = function(*jax.tree.unflatten(shape_in, plain))
        return jax.tree.map(lambda value, shape: _to_bits(np.asarray(value, shape.dtype)), found, out)

    # The thread that calls back has no `jax.enable_x64` of the caller and would round to 32 bits: numbers cross as their bits.
    leaves, shape_in = jax.tree.flatten(jax.lax.stop_gradient(given))
    kinds = [jnp.asarray(leaf).dtype for leaf in leaves]
    bits = jax.tree.map(lambda one: jax.ShapeDtypeStruct(*_bits_of(one.shape, one.dtype)), out)
    sent = [jax.lax.bitcast_convert_type(jnp.asarray(leaf), jnp.uint32) for leaf in leaves]
    found = jax.pure_callback(run, bits, *sent, vmap_method="broadcast_all" if batched else "sequential")
    return jax.tree.map(lambda one, shape: jax.lax.bitcast_convert_type(one, shape.dtype), found, out)


def _bits_of(shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...], Any]:
    """Shape and type of the bits of an array: two halves for each number of 64 bits."""
    return ((*shape, 2) if np.dtype(dtype).itemsize == 8 else shape), np.uint32


def _to_bits(array: np.ndarray) -> np.ndarray:
    shape, kind = _bits_of(array.shape, array.dtype)
    return np.ascontiguousarray(array).reshape(-1).view(kind).reshape(shape)


def _from_bits(bits: np.ndarray, dtype: Any) -> np.ndarray:
    shape = bits.shape[:-1] if np.dtype(dtype).itemsize == 8 else bits.shape
    return np.ascontiguousarray(bits).reshape(-1).view(dtype).reshape(shape)
