"""The result folder. It looks complete only after the run has finished. Only one run at a time can write to it."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.bundle import write_bundled
from dso_robotics.data.run_file import SCHEMA, label_of, run_schema
from dso_robotics.errors import DsoError

SUMMARY, RUN, MODEL, REPORT = "summary.json", "run.h5", "model.xml", "report.html"
PLAN = "plan.xml"
"""The model that the policy of a training is planned with, with its found numbers."""
FIGURES = "figures"
SMOOTHED, SMOOTHED_BY = "smoothed.h5", "dso estimate --smooth"
_RESULTS = (SUMMARY, RUN, MODEL, REPORT, SMOOTHED, PLAN)
"""A log with the smoothed state, and the value of its attribute `smoothed_by`."""
MARK = "written by dso"
"""In the first lines of every model.xml and report.html that dso wrote."""
_MARKED_BYTES = 1000
_COMMANDS = ("identify", "train", "design", "estimate")


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
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise DsoError(f"--out {folder}: this folder is read-only, so no result can be written; choose another.")
    if resume and not (folder / RUN).is_file():
        raise DsoError(f"--resume: {folder} has no {RUN} to go on from; leave --resume out to start a new run.")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DsoError(f"--out {folder}: cannot make this folder ({error.strerror}).") from error
    try:
        with _lock(folder):
            _sweep(folder)
            if not resume:
                _refuse_others(folder, force=force)
            _refuse_foreign(folder)
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


def _refuse_foreign(folder: Path) -> None:
    """Refuse to write to a folder in which a file of a result's name is not one that dso wrote."""
    checks = {RUN: _is_run, SUMMARY: _is_summary, MODEL: _is_marked, REPORT: _is_marked, PLAN: _is_marked}
    checks |= {SMOOTHED: _is_smoothed}
    for name, ours in checks.items():
        path = folder / name
        if (path.exists() or path.is_symlink()) and not ours(path):
            raise DsoError(
                f"{path}: dso did not write this file and does not replace it; move it to another folder, or choose another "
                "--out."
            )


def _is_run(path: Path) -> bool:
    try:
        return run_schema(path) == SCHEMA
    except DsoError as error:
        # Damaged: it may have been anything.
        raise DsoError(
            f"{error} dso does not replace it: move it to another folder, or choose another --out."
        ) from error


def _is_summary(path: Path) -> bool:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("command") in _COMMANDS and "version" in found


def _is_smoothed(path: Path) -> bool:
    try:
        return label_of(path, "smoothed_by") == SMOOTHED_BY
    except DsoError:
        return False


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return MARK.encode() in stream.read(_MARKED_BYTES)
    except OSError:
        return False


def refuse_inputs(folder: Path, files: Iterable[str | Path]) -> None:
    """Refuse to write a result over one of the files that the run reads.

    Raises:
      DsoError: one of `files` is in `folder` under the name of a result.
    """
    results = {(folder / name).resolve() for name in _RESULTS}
    figures = (folder / FIGURES).resolve()
    for file in files:
        path = Path(file).resolve()
        if path in results or figures in path.parents:
            raise DsoError(
                f"{file}: the run reads this file and would replace it with a result in --out {folder}; choose another folder "
                "for the result, or move the file."
            )


def _sweep(folder: Path) -> None:
    """Remove what a killed run left half-written. The lock is held, so nobody is writing these."""
    for name in _RESULTS:
        stem, suffix = Path(name).stem, Path(name).suffix
        for left in folder.glob(f".{stem}-????????{suffix}"):
            with contextlib.suppress(OSError):
                left.unlink()


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
    for name in (SUMMARY, REPORT, MODEL, SMOOTHED, PLAN):
        (folder / name).unlink(missing_ok=True)


def write_model(folder: Path, mjcf: str, name: str = MODEL) -> str:
    """Write model.xml, or another `name`, with the mark that it may be replaced by a later run, and its meshes beside it.

    Returns its text.
    """
    text = f"<!-- {MARK} -->\n{write_bundled(folder, mjcf)}"
    write_text(folder / name, text)
    return text


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
