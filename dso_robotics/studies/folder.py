"""The result folder: it looks complete only when it is."""

import json
import math
from pathlib import Path
from typing import Any

from dso_robotics.data.atomic import atomic_file
from dso_robotics.errors import DsoError

SUMMARY, RUN, MODEL, REPORT = "summary.json", "run.h5", "model.xml", "report.html"


def prepare(out: str | Path, *, resume: bool, force: bool) -> Path:
    """Make the folder of a run, or check the one to resume.

    Raises:
      DsoError: it holds something already (and neither `resume` nor `force` was asked for), or there is nothing to resume.
    """
    folder = Path(out)
    try:
        if folder.exists() and not folder.is_dir():
            raise DsoError(f"--out {folder}: this is a file; name a folder.")
    except (OSError, ValueError) as error:
        name = str(folder)[:80]
        raise DsoError(f"--out {name!r}: no folder can have this name ({error.args[-1]}); choose another.") from error
    if resume:
        if not (folder / RUN).is_file():
            raise DsoError(f"--resume: {folder} has no {RUN} to go on from; leave --resume out to start a new run.")
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise DsoError(
                f"--out {folder}: the folder is not empty, and nothing in it is overwritten unasked; choose another name, "
                "--resume to go on with the run in it, or --force to replace its result."
            )
        if not (folder / RUN).is_file() and not (folder / SUMMARY).is_file():
            raise DsoError(f"--out {folder}: --force replaces an earlier result only, and this folder holds none.")
        # The summary goes first: without it nothing takes what is left for a finished run.
        for name in (SUMMARY, REPORT, MODEL, RUN):
            (folder / name).unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DsoError(f"--out {folder}: cannot make this folder ({error.strerror}).") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json, the last file of a run; numbers that are not finite become null, which JSON has and NaN is not."""
    write_text(folder / SUMMARY, json.dumps(_finite(summary), indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
