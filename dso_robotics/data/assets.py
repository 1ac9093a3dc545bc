"""Paths of the shipped files (models and datasets), in a checkout or in an installed wheel."""

from pathlib import Path

from dso_robotics.errors import DsoError

_PACKAGE = Path(__file__).resolve().parent.parent
# In a wheel the folders are inside the package (see pyproject.toml); in a checkout they are at the top level.
_ROOTS = (_PACKAGE / "assets", _PACKAGE.parent)
_FOLDERS = ("datasets", "models")


def asset(relative: str) -> Path:
    """Path of a shipped file, for instance `asset("models/two_joint_arm.xml")`.

    `relative` is written with forward slashes and starts with `datasets/` or `models/`.
    Raises DsoError, which lists the folders searched, when there is no such file.
    """
    parts = relative.split("/")
    if parts[0] not in _FOLDERS or ".." in parts:
        raise DsoError(
            f"asset {relative!r}: the path of a shipped file starts with {' or '.join(_FOLDERS)}; give a path "
            "such as 'datasets/registry.toml'."
        )
    for root in _ROOTS:
        candidate = root.joinpath(*parts)
        if candidate.exists():
            return candidate
    looked = " and ".join(str(root) for root in _ROOTS)
    raise DsoError(
        f"asset {relative!r} is not in this installation (searched {looked}); reinstall the package, or run from a "
        "complete checkout."
    )
