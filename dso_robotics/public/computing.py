"""How a call computes, whoever calls it: in float64 and without MuJoCo's log file, and as before when it has ended."""

import contextlib
import sys
from collections.abc import Iterator

from dso_robotics.errors import DsoError

PRECISIONS = ("float64", "float32")


@contextlib.contextmanager
def computing(precision: str = "float64", *, jax: bool) -> Iterator[None]:
    """JAX computes in `precision` inside, in this thread only; the caller's own setting is not touched.

    jax: whether the call may need JAX, which is then imported here, before anything inside could import it with another
    setting. Meanwhile MuJoCo writes no MUJOCO_LOG.TXT: a simulation that blows up is reported by whoever runs it.

    Raises:
      DsoError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise DsoError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}.")
    import mujoco

    with contextlib.ExitStack() as stack:
        warned = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda text: None)
        stack.callback(mujoco.set_mju_user_warning, warned)
        if jax or "jax" in sys.modules:
            import jax as library

            stack.enter_context(library.enable_x64(precision == "float64"))
        yield
