"""Where a run lies: in the folder that the caller names, or in a temporary one that goes when its result does."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.studies import folder as folders


class Place:
    """folder: of the run. inputs: for models and logs that came as objects; it lasts as long as this object."""

    def __init__(self, out: "str | os.PathLike[str] | None"):
        root = Path(tempfile.mkdtemp(prefix="dso-"))
        self.inputs = root / "inputs"
        self.inputs.mkdir()
        self.folder = root / "result" if out is None else Path(out)
        self.remove = weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        """Remove all that is temporary, once; without a call, when nobody holds this object any more or Python ends."""


def copy_result(source: Path, target: str | Path, *, force: bool) -> Path:
    """Copy the result folder `source` to `target`, summary.json last, so that it looks complete only when it is.

    Raises:
      DsoError: `target` holds something (with `force`: something that dso did not write), is a file, or cannot be written to.
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
