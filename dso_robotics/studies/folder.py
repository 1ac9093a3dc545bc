"""The result folder. It looks complete only after the run has finished. Only one run at a time can write to it."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dso_robotics.data.atomic import atomic_file
from dso_robotics.errors import DsoError

SUMMARY, RUN, MODEL, REPORT = "summary.json", "run.h5", "model.xml", "report.html"


@contextlib.contextmanager
def claim(out: str | Path, *, resume: bool, force: bool) -> Iterator[Path]:
    """Create or check the folder of a run, and lock it against other runs for the duration of the context.

    Existing files are not removed here; see `clear`. A folder that was created here and is still empty is removed again.

    Raises:
      DsoError: the folder is not empty (and neither `resume` nor `force` is set), there is nothing to resume, or another
        run is writing to it.
    """
    folder = Path(out)
    try:
        if folder.exists() and not folder.is_dir():
            raise DsoError(f"--out {folder}: this is a file; name a folder.")
    except (OSError, ValueError) as error:
        name = str(folder)[:80]
        raise DsoError(f"--out {name!r}: no folder can have this name ({error.args[-1]}); choose another.") from error
    if resume and not (folder / RUN).is_file():
        raise DsoError(f"--resume: {folder} has no {RUN} to go on from; leave --resume out to start a new run.")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DsoError(f"--out {folder}: cannot make this folder ({error.strerror}).") from error
    try:
        with _lock(folder):
            if not resume:
                _refuse_others(folder, force=force)
            yield folder
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _refuse_others(folder: Path, *, force: bool) -> None:
    if not any(folder.iterdir()):
        return
    if not force:
        raise DsoError(
            f"--out {folder}: the folder is not empty, and nothing in it is overwritten unasked; choose another name, "
            "--resume to go on with the run in it, or --force to replace its result."
        )
    if not (folder / RUN).is_file() and not (folder / SUMMARY).is_file():
        raise DsoError(f"--out {folder}: --force replaces an earlier result only, and this folder holds none.")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the folder itself, without a lock file. Has no effect on systems that do not support this."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DsoError(
                f"--out {folder}: another run is writing to this folder; wait until it ends, or choose another."
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def clear(folder: Path) -> None:
    """Remove the files of an earlier run. The summary is removed first, because it marks a finished run."""
    for name in (SUMMARY, REPORT, MODEL):
        (folder / name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, the last file of a run. Numbers that are not finite become null, because JSON has no NaN."""
    write_text(folder / SUMMARY, json.dumps(finite(summary), indent=1) + "\n")


def finite(value: Any) -> Any:
    """`value` with null for every number that is not finite."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
