"""Python files that a study names. They run with the user's rights, so only the user may name them, and no run file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError


def code_files(study: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every Python file in a stored study: the key that names it, and the file."""
    if isinstance(study, Mapping):
        for name, value in study.items():
            python = name == "file" and study.get("kind") == "python"
            yield from code_files(value, "python" if python else str(name))
    elif isinstance(study, list | tuple):
        for value in study:
            yield from code_files(value, key)
    elif isinstance(study, str) and key == "residual":
        yield key, study.rpartition(":")[0] or study
    elif isinstance(study, str) and (key == "python" or study.lower().endswith(".py")):
        yield key, study


def refuse_unnamed(path: Path, study: Mapping[str, Any], named: Mapping[str, Any], command: str) -> None:
    """Refuse to resume from the run file `path` alone when its study would run Python files.

    A run file may come from somebody else, with the file that it names and with its SHA-256. So the user has to name the file
    again: as one of the values `named`, or in the study file.

    Raises:
      DsoError: the stored study names a Python file, and the user does not.
    """
    for key, file in code_files(study):
        if named.get(key):
            continue
        again = (
            f"dso {command} --resume --residual FILE.py:FUNCTION"
            if key == "residual"
            else f"dso {command} STUDY.toml --resume"
        )
        raise DsoError(
            f"{path}: this run uses the Python file {file}, which would run with your rights, and a run folder may come from "
            f"somebody else; look at the file and, if you trust it, name it again: `{again} --out {path.parent}`. "
            "In Python, give the study again."
        )
