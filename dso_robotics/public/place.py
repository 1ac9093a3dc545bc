"""The folder of a run: the caller's folder, or a temporary one that is deleted with the result."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.studies import folder as folders


class Place:
    """The folders of a run.

    folder: the folder of the run.
    inputs: a folder for models and logs that were passed as objects. It exists as long as this object.
    """

    def __init__(self, out: "str | os.PathLike[str] | None"):
        root = Path(tempfile.mkdtemp(prefix="dso-"))
        self.inputs = root / "inputs"
        self.inputs.mkdir()
        self.folder = root / "result" if out is None else Path(out)
        self.remove = weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        """Remove all that is temporary, once; without a call, when nobody holds this object any more or Python ends."""


def copy_result(source: Path, target: str | Path, *, force: bool) -> Path:
    """Copy the result folder `source` to `target`. summary.json is copied last, because it marks a complete result.

    Raises:
      DsoError: `target` is not empty (with `force`: it has files that dso did not write), is a file, or is not writable.
    """
    if not (source / folders.SUMMARY).is_file():
        raise DsoError(f"{source}: the result is not there any more, so it cannot be copied.")
    if Path(target).exists() and Path(target).resolve() == source.resolve():
        return Path(target)
    with folders.claim(target, resume=False, force=force) as folder:
        folders.clear(folder)
        try:
            for item in sorted(source.iterdir(), key=lambda path: path.name == folders.SUMMARY):
                if item.is_dir():
                    shutil.copytree(item, folder / item.name, dirs_exist_ok=True)
                else:
                    shutil.copyfile(item, folder / item.name)
        except OSError as error:
            (folder / folders.SUMMARY).unlink(missing_ok=True)
            raise DsoError(
                f"{folder}: writing failed ({error.strerror}); make room there, or choose another."
            ) from error
    return folder
