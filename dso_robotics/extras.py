"""What an installation may lack: which extra brings a package, told in one sentence where it is missed."""

import contextlib
import importlib.util
from collections.abc import Iterator

from dso_robotics.errors import DsoError

# Modules that the extra [mjx] brings.
_MJX = ("jax", "equinox", "jaxtyping", "lineax", "optax", "mujoco.mjx")


# What other extras bring.
_EXTRAS = {
    "logs": ("rosbags", "mcap"),
    "parquet": ("pyarrow",),
    "onnx": ("onnx",),
    "posterior": ("blackjax", "jax"),
    "tensorboard": ("tensorboardX",),
    "gymnasium": ("gymnasium",),
}


class MissingExtra(DsoError, ImportError):
    """A part of the toolkit was asked for whose packages are not installed; the message holds the cure."""


def require_mjx(what: str) -> None:
    """Return if JAX and MJX are installed; imports neither. `what` begins the message.

    Raises:
      MissingExtra: one of the packages is missing.
    """
    for module in _MJX:
        if importlib.util.find_spec(module) is None:
            raise _missing(what, module)


def require(extra: str, what: str) -> None:
    """Return if the packages of an extra such as `logs` or `parquet` are installed; imports none. `what` begins the message.

    Raises:
      MissingExtra: one of the packages is missing.
    """
    for module in _EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(_told(what, module, extra))


@contextlib.contextmanager
def needing(what: str) -> Iterator[None]:
    """Within the context a failed import of what an extra brings is told as `require_mjx` and `require` do.

    >>> with needing("the differentiable engine"):
    ...     import mujoco.mjx

    Raises:
      MissingExtra: such an import failed, or MuJoCo was taken apart by an upgrade. Any other failed import stays as it is.
    """
    try:
        yield
    except ImportError as error:
        module = error.name or ""
        if any(f"{module}.".startswith(f"{name}.") for name in (*_MJX, "jaxlib")):
            raise _missing(what, module) from error
        for extra, packages in _EXTRAS.items():
            if module.split(".")[0] in packages:
                raise MissingExtra(_told(what, module, extra)) from error
        if "mujoco-core" in str(error):  # pip removes the files of MuJoCo 3 after it has put those of 4 in their place
            raise MissingExtra(" ".join(str(error).split())) from error
        raise


def _missing(what: str, module: str) -> MissingExtra:
    return MissingExtra(f"{what} needs JAX and MJX ({module} is not installed): pip install 'dso-robotics[mjx]'")


def _told(what: str, module: str, extra: str) -> str:
    return f"{what} needs the package {module}, which is not installed: pip install 'dso-robotics[{extra}]'"
