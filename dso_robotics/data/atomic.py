"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

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
        raise DsoError(
            f"{path}: writing failed ({error.strerror or error}); nothing of it was left behind, so make room there or choose "
            "another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def memory_file(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory that is written to `path` in one go on a clean exit.

    HDF5 that meets a full disk leaves its file half closed, and the process crashes when it ends; plain writing just fails.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise DsoError when `path` exists and `force` is False, so that no command destroys earlier work unasked."""
    path = Path(path)
    if path.is_dir():
        raise DsoError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not force:
        raise DsoError(
            f"{path} already exists and is left as it is; add --force to replace it, or choose another name."
        )
