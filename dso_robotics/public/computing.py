"""Settings for the duration of a call: float64 and no MuJoCo log file. The previous settings are restored afterwards."""

import contextlib
import sys
from collections.abc import Iterator

from dso_robotics.errors import DsoError

PRECISIONS = ("float64", "float32")


@contextlib.contextmanager
def computing(precision: str = "float64", *, jax: bool) -> Iterator[None]:
    """JAX computes in `precision` inside, in this thread only; the caller's own setting is not touched.

    jax: whether the call may need JAX. It is then imported here, before other code can import it with another setting.

    MuJoCo writes no MUJOCO_LOG.TXT inside. The code that runs a simulation reports its divergence.

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
