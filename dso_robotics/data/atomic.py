"""Atomic writing: a file is either complete or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from dso_robotics.data.archive import seal
from dso_robotics.errors import DsoError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path. Without an exception its file replaces `path`; after an exception it is removed.

    The temporary file is in the same folder, because a rename is atomic only within one file system.
    Raises DsoError when the folder is missing or not writable.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise DsoError(
            f"{path}: cannot write there ({error.strerror or error}); create the folder {path.parent}, or choose another."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp gives mode 0600; a result should have the usual mode of a new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        raise DsoError(
            f"{path}: writing failed ({error.strerror or error}) and the partial file was removed; free some space or choose "
            "another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def memory_file(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file in memory. Without an exception it is written to `path` in one go, with a checksum.

    On a full disk HDF5 leaves its file half closed, and the process crashes at exit. A plain write only fails.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(seal(image))


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raise DsoError when `path` exists and `force` is False, so that no command overwrites earlier work by accident."""
    path = Path(path)
    if path.is_dir():
        raise DsoError(f"{path} is a folder; give the name of a file to write.")
    if path.exists() and not force:
        raise DsoError(f"{path} already exists and was not changed; add --force to replace it, or choose another name.")
