"""Where the files live that ship beside the code: models and datasets, in a checkout or in an installed wheel."""

from pathlib import Path

from dso_robotics.errors import DsoError

_PACKAGE = Path(__file__).resolve().parent.parent
# A wheel carries the folders inside the package (see pyproject.toml); a checkout keeps them at its top level.
_ROOTS = (_PACKAGE / "assets", _PACKAGE.parent)
_FOLDERS = ("datasets", "models")


def asset(relative: str) -> Path:
    """Path of a shipped file, for instance `asset("models/two_joint_arm.xml")`.

    `relative` is written with forward slashes and starts with `datasets/` or `models/`.
    Raises DsoError, listing the folders looked in, when there is no such file.
    """
    parts = relative.split("/")
    if parts[0] not in _FOLDERS or ".." in parts:
        raise DsoError(
            f"asset {relative!r}: shipped files are named by a path that starts with {' or '.join(_FOLDERS)}, "
            "such as 'datasets/registry.toml'."
        )
    for root in _ROOTS:
        candidate = root.joinpath(*parts)
        if candidate.exists():
            return candidate
    looked = " and ".join(str(root) for root in _ROOTS)
    raise DsoError(
        f"asset {relative!r} is not in this installation (looked in {looked}); reinstall the package, or run from a "
        "complete checkout."
    )
