"""The identified numbers in a copy of the user's URDF."""

import dataclasses
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.physics.urdf import Urdf
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.report.export.identified import identified
from dso_robotics.report.export.urdf_check import compare, compiled
from dso_robotics.report.export.urdf_writer import UrdfWriter
from dso_robotics.table import File, key


@FORMATS.register("urdf")
@dataclasses.dataclass(frozen=True)
class UrdfCopy(Format):
    """A copy of a URDF in which only the attributes of identified numbers differ. Links and joints are found by name."""

    commands = ("identify", "estimate")
    filename = "model.urdf"
    about = "a copy of your URDF with the identified numbers"

    file: File | None = key("the URDF; none: the model of the run, if that is one", None, example="robot.urdf")

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        path = _original(self.file, result)
        writer = UrdfWriter(Urdf(path.read_bytes(), str(path)), result.robot)
        writer.write(identified(result))
        text, notes = writer.urdf.text(), writer.notes
        if not writer.written:
            raise DsoError(
                f"{path}: none of the identified numbers has a place in this URDF. {' '.join(notes)} Give the URDF of this "
                f"model with --set file=FILE."
            )
        made, whole = compiled(text, path)
        if not whole:
            notes.append("The result was checked without its meshes, which MuJoCo does not find.")
        notes += compare(writer, made, path)
        return Export({name: text}, notes)


def _original(file: str | None, result: Finished) -> Path:
    path = Path(file) if file is not None else result.inputs.get("model", Path(str(result.study.get("model", ""))))
    if file is None and path.suffix.lower() != ".urdf":
        raise DsoError(
            f"{result.folder}: the model of this run is {path.name or 'not a file'}, which is no URDF; name the URDF to copy "
            "with --set file=FILE. Its links and joints must have the names of the model's bodies and joints."
        )
    if not path.is_file():
        raise DsoError(f"{path}: there is no such URDF; name the one to copy with --set file=FILE.")
    return path
