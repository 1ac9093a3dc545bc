"""Imports MJX and its stages that this package uses, without the lines that MJX prints when warp is absent.

Import MJX from here. A plain import writes "Failed to import warp" to stdout, which would corrupt machine-readable output.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any, TypeVar

from dso_robotics.extras import needing

with contextlib.redirect_stdout(io.StringIO()), needing("the differentiable engine"):
    import mujoco.mjx as mjx
    from mujoco.mjx._src import collision_driver, constraint, forward, sensor, smooth, support
    from mujoco.mjx._src import math as mjx_math
    from mujoco.mjx._src import passive as mjx_passive

__all__ = [
    "collision_driver",
    "constraint",
    "forward",
    "mjx",
    "mjx_math",
    "mjx_passive",
    "replaced",
    "sensor",
    "smooth",
    "support",
]

_Tree = TypeVar("_Tree", mjx.Model, mjx.Data)


def replaced(tree: _Tree, changes: Mapping[str, Any]) -> _Tree:
    """`tree` with the fields named by dotted paths ("_impl.efc_J") replaced."""
    return tree.tree_replace(dict(changes))  # pyright: ignore[reportReturnType]
