"""MuJoCo without its warnings: they would be printed and written to MUJOCO_LOG.TXT in the user's folder."""

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco


def _silent(text: str) -> None:
    pass


@contextmanager
def quiet() -> Iterator[None]:
    """Drop MuJoCo's warnings inside the context. The caller checks for divergence itself."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(_silent)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
