"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dso_robotics.errors import DsoError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it replaces `path`, on an exception it is removed.

    The temporary file lies in the same folder, because a rename is atomic only within one file system.
    Raises DsoError when the folder is missing or cannot be written to.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise DsoError(
            f"{path}: cannot write there ({error.strerror or error}); create the folder {path.parent}, or choose one."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp gives mode 0600; a result should have the mode any other new file gets.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise DsoError(f"{path}: writing failed ({error.strerror or error}); nothing was left behind.") from error
    finally:
        temporary.unlink(missing_ok=True)


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise DsoError when `path` exists and `force` is False, so that no command destroys earlier work unasked."""
    path = Path(path)
    if path.is_dir():
        raise DsoError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not force:
        raise DsoError(
            f"{path} already exists and is left as it is; add --force to replace it, or choose another name."
        )
