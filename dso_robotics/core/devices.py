"""Batches of rollouts or windows on several devices: each works on its part, and sums over all are exchanged.

Nothing else knows of devices. Within `on_devices` the functions that map over a batch split it with `spread`; what they return
is one array again, which XLA reduces, with the collectives that this needs. Random numbers depend on the seed alone, so any
number of devices gives the same result to rounding.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dso_robotics.core import hosts
from dso_robotics.core.compiling import quick_jit
from dso_robotics.errors import DsoError

# The one axis of the mesh.
AXIS = "windows"
_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextlib.contextmanager
def on_devices(count: int | None = None) -> Iterator[int]:
    """Within the context batches are split over the first `count` devices of all processes, by default over all.

    Raises:
      DsoError: there are not so many, or a process would have none.
    """
    devices, processes = jax.devices(), jax.process_count()
    count = len(devices) if count is None else count
    if not 1 <= count <= len(devices):
        raise DsoError(
            f"--devices {count}: JAX sees {len(devices)} ({devices[0].platform}); give a number from 1 to that. A CPU shows as "
            "several with XLA_FLAGS=--xla_force_host_platform_device_count=N."
        )
    if processes > 1 and count != len(devices):
        raise DsoError(
            f"--devices {count}: {processes} processes use all of their {len(devices)} devices; leave it out."
        )
    token = _MESH.set(None if count == 1 else Mesh(np.array(devices[:count]), (AXIS,)))
    # What was compiled for another number of devices is not taken.
    jax.clear_caches()
    told = hosts.SHARING.set(count)
    try:
        yield count
    finally:
        hosts.SHARING.reset(told)
        _MESH.reset(token)
        jax.clear_caches()


@contextlib.contextmanager
def on_the_processor() -> Iterator[None]:
    """Within the context JAX computes on the CPU, what is not placed on a device already.

    For work that follows C MuJoCo step by step: a GPU would be waited for several times in each control step.
    """
    if jax.default_backend() == "cpu":  # nothing to change, and nothing to compile again
        yield
        return
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def beside_c(function: Callable[..., Any]) -> Callable[..., Any]:
    """jax.jit of `function`, which is called between steps of C MuJoCo: it runs on the CPU."""
    compiled = quick_jit(function)

    def run(*args: Any) -> Any:
        with on_the_processor():
            return compiled(*args)

    return compiled if jax.default_backend() == "cpu" else run


def mesh() -> Mesh | None:
    """The devices that batches are split over; None for one."""
    return _MESH.get()


def size() -> int:
    """The number of devices."""
    here = mesh()
    return 1 if here is None else here.size


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """What a device computes of its part is not split again."""
    token = _MESH.set(None)
    try:
        yield
    finally:
        _MESH.reset(token)


def spread(function: Callable[..., Any], shared: Any, *batch: Any) -> Any:
    """function(shared, *batch), which maps arrays (B, ...) to arrays (B, ...) row by row, with the rows split over the devices.

    shared: what every row needs, whole on each device. What `function` differentiates by must be in it or in the batch.

    If B is no multiple of the number of devices, the last row is repeated, and what comes of that is left out.
    """
    here = mesh()
    if here is None:
        return function(shared, *batch)
    count = jax.tree.leaves(batch)[0].shape[0]
    more = -count % here.size
    whole = jax.tree.map(lambda leaf: _longer(jnp.asarray(leaf), more), batch) if more else batch
    arrays, rest = eqx.partition(shared, eqx.is_array)
    split = PartitionSpec(AXIS)

    def part(arrays: Any, *mine: Any) -> Any:
        with _alone():
            return function(eqx.combine(arrays, rest), *mine)

    # Arrays that are on one device only, which they are outside of jit, cannot enter a program for all of them.
    arrays, whole = _known(arrays, PartitionSpec()), _known(whole, split)
    specs = (PartitionSpec(), *(split for _ in whole))
    # Within jit, arrays that `function` closes over become constants of every device.
    out = jax.jit(jax.shard_map(part, mesh=here, in_specs=specs, out_specs=split, check_vma=False))(arrays, *whole)
    return jax.tree.map(lambda leaf: leaf[:count], out) if more else out


def _known(tree: Any, how: PartitionSpec) -> Any:
    """The arrays of `tree` that are not traced are placed."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.core.Tracer) else _placed(leaf, how), tree)


def _longer(leaf: jax.Array, more: int) -> jax.Array:
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], more, axis=0)])


def parts(count: int, groups: int) -> int:
    """Into how many equal parts `count` rollouts in `groups` groups are cut, so that each is in one group and on one device.

    Raises:
      DsoError: that is not possible.
    """
    together = math.lcm(groups, size())
    if count % together:
        raise DsoError(
            f"{count} environments in {groups} group(s) cannot be shared by {size()} devices; make their number a multiple of "
            f"{together}, or use another number of devices."
        )
    return together


def everywhere(tree: Any) -> Any:
    """The arrays of `tree` whole on each device, as functions that work on all devices take and return them."""
    return _placed(tree, PartitionSpec())


def rows(tree: Any) -> Any:
    """The arrays of `tree` with their rows split over the devices. Their number is a multiple of that of the devices."""
    return _placed(tree, PartitionSpec(AXIS))


def whole() -> Any:
    """The sharding of a result that each process reads whole, for `jax.jit(..., out_shardings=...)`; None for one device."""
    here = mesh()
    return None if here is None else NamedSharding(here, PartitionSpec())


def _placed(tree: Any, how: PartitionSpec) -> Any:
    here = mesh()
    if here is None:
        return tree
    wanted = NamedSharding(here, how)

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        if isinstance(leaf, jax.core.Tracer):
            return jax.lax.with_sharding_constraint(leaf, wanted)
        if wanted.is_fully_addressable or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
            return jax.device_put(leaf, wanted)
        # Each process has the same numbers and gives its devices their part.
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        known = np.asarray(leaf)
        return jax.make_array_from_callback(known.shape, wanted, lambda index: known[index])

    return jax.tree.map(place, tree)


def read(leaf: Any) -> Any:
    """An array with all its rows in this process, wherever they are. All processes must ask for it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(leaf, tiled=True)
