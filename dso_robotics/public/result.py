"""What a run leaves a Python caller with: one shape for identifications, trainings and estimators."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.public.place import Place, copy_result
from dso_robotics.public.wording import arguments, named, speaking_python
from dso_robotics.studies import folder as folders

if TYPE_CHECKING:
    import mujoco


class Report:
    """A report on the disk: `path` opens in any browser, offline; a notebook shows it in place."""

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
    """summary: what summary.json holds. folder: of the run; a temporary one goes when this object does, `save` keeps it."""

    def __init__(self, place: Place, summary: dict[str, Any], names: Mapping[str, str]):
        self._place, self._names = place, dict(names)
        self.summary = summary
        self.folder: Path = place.folder

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Every physical number by name: "value", "low95", "high95" (None where no interval is known), "unit", and more."""
        return {name: {"low95": None, "high95": None, **row} for name, row in self.summary["parameters"].items()}

    @property
    def warnings(self) -> list[str]:
        """What to know before believing the result, each with its cure."""
        return [named(arguments(text), self._names) for text in self.summary["warnings"]]

    @property
    def converged(self) -> bool:
        """Whether the search ended because there was nothing left to gain; of a training, whether the cost fell."""
        return bool(self.summary["converged"])

    def model(self) -> "mujoco.MjModel":
        """The model with the new values, compiled anew: it is the caller's to change."""
        from dso_robotics.physics.model import load

        return load(self.folder / folders.MODEL).mj

    def report(self, *, video: bool = True) -> Report:
        """The report, drawn now if it has not been; with `video`, and where something can draw robots, it shows some motion."""
        path = self.folder / folders.REPORT
        if not path.exists():
            with speaking_python(self._names):
                self._draw(video)
        return Report(path)

    def _draw(self, video: bool) -> None:
        raise NotImplementedError

    def save(self, folder: str | Path, *, force: bool = False, report: bool = True, video: bool = True) -> Path:
        """Copy the whole result to `folder`: summary.json, model.xml, run.h5 and, unless `report` is False, report.html.

        Returns `folder`. With `force` an earlier result in it is replaced, anything else never.

        Raises:
          DsoError: the folder holds something, or cannot be written to.
        """
        if report:
            self.report(video=video)
        with speaking_python():
            target = copy_result(self.folder, folder, force=force)
        self._keep_assets(target)
        return target

    def _keep_assets(self, target: Path) -> None:
        """Meshes that came in memory move with the model that needs them."""
        import shutil

        assets, model = self._place.inputs / "assets", target / folders.MODEL
        if assets.is_dir():
            shutil.copytree(assets, target / "assets", dirs_exist_ok=True)
            text = model.read_text("utf-8").replace(str(assets), str((target / "assets").resolve()))
            folders.write_text(model, text)

    def __repr__(self) -> str:
        return str(self)
