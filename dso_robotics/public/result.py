"""The result of a run in Python: one common class for identifications, trainings and estimators."""

import html
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.public.place import Place, copy_result
from dso_robotics.public.wording import arguments, named, speaking_python
from dso_robotics.studies import folder as folders

if TYPE_CHECKING:
    import mujoco


class Report:
    """A report on disk. Any browser opens `path`, offline; a notebook shows the report inline."""

    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Report({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text("utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:80vh;border:1px solid #8886"></iframe>'


class Result:
    """The result of a run.

    summary: the content of summary.json.
    folder: the folder of the run. A temporary folder is deleted with this object; `save` keeps it.
    """

    def __init__(self, place: Place, summary: dict[str, Any], names: Mapping[str, str]):
        self._place, self._names = place, dict(names)
        self.summary = summary
        self.folder: Path = place.folder

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Every physical number by name: "value", "low95", "high95" (None without an interval), "unit", and more."""
        return {name: {"low95": None, "high95": None, **row} for name, row in self.summary["parameters"].items()}

    @property
    def warnings(self) -> list[str]:
        """Warnings to read before using the result, each with a remedy."""
        return [named(arguments(text), self._names) for text in self.summary["warnings"]]

    @property
    def converged(self) -> bool:
        """Whether the search converged; for a training of episodes, whether it lowered their cost and then came to rest."""
        return bool(self.summary["converged"])

    def model(self) -> "mujoco.MjModel":
        """A newly compiled model with the new values. The caller may change it."""
        from dso_robotics.physics.model import load

        return load(self.folder / folders.MODEL).mj

    def report(self, *, video: bool = True) -> Report:
        """The report, written now if it does not exist. With `video`, and if rendering is available, it shows some motion."""
        path = self.folder / folders.REPORT
        if not path.exists():
            with speaking_python(self._names):
                self._draw(video)
        return Report(path)

    def _draw(self, video: bool) -> None:
        raise NotImplementedError

    def save(self, folder: str | Path, *, force: bool = False, report: bool = True, video: bool = True) -> Path:
        """Copy the whole result to `folder`: summary.json, model.xml, run.h5 and, unless `report` is False, report.html.

        Returns `folder`. `force` replaces an earlier result in it, but never other files.

        Raises:
          DsoError: the folder is not empty, or is not writable.
        """
        if report:
            self.report(video=video)
        with speaking_python():
            target = copy_result(self.folder, folder, force=force)
        self._keep_assets(target)
        return target

    def export(self, to: str, out: str | Path | None = None, *, force: bool = False, **options: Any) -> list[Path]:
        """Write the result to a file of another program, such as "csv", "latex", "urdf" or "onnx"; returns the files written.

        `dso export` lists the formats and their `options`. What a format cannot hold is told by a Python warning.

        to: the format. out: the file; by default under the format's own name in `folder`. force: replace an existing file.

        Raises:
          DsoError: there is no such format or option, the format has no place for this result, or the file exists.
        """
        from dso_robotics.report.export.finished import read_finished
        from dso_robotics.report.export.format import write_export

        with speaking_python(self._names):
            paths, notes = write_export(to, read_finished(self.folder), out, options=options, force=force)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return paths

    def _keep_assets(self, target: Path) -> None:
        """Copy meshes that were passed in memory together with the model."""
        import shutil

        assets, model = self._place.inputs / "assets", target / folders.MODEL
        if assets.is_dir():
            shutil.copytree(assets, target / "assets", dirs_exist_ok=True)
            text = model.read_text("utf-8").replace(str(assets), str((target / "assets").resolve()))
            folders.write_text(model, text)

    def __repr__(self) -> str:
        return str(self)
