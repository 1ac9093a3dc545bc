"""MuJoCo without its warnings: they would be printed and written to MUJOCO_LOG.TXT in the user's folder."""

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep MuJoCo's warnings inside the context to the list that it yields. The caller checks for divergence itself."""
    before, said = mujoco.get_mju_user_warning(), list[str]()
    mujoco.set_mju_user_warning(said.append)
    try:
        yield said
    finally:
        mujoco.set_mju_user_warning(before)
