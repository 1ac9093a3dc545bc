"""What a format of `dso export` is. Each is one file in `formats/` with a class that registers itself.

    @FORMATS.register("csv")
    @dataclasses.dataclass(frozen=True)
    class Csv(Format):
        commands = ("identify", "design")
        filename = "parameters.csv"
        about = "the parameters as a table"

        def export(self, result, name):
            return Export({name: "path,value\\n..."})

Options of a format are its fields, made by `key` as those of a study; `dso export DIR --to csv --set OPTION=VALUE` sets them.
The files of `formats/` are imported together, so a package that only one format needs is imported inside `export`.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dso_robotics.data.atomic import atomic_file, refuse_existing
from dso_robotics.errors import DsoError
from dso_robotics.progress.phase import phase
from dso_robotics.registry import Registry
from dso_robotics.report.export.finished import Finished
from dso_robotics.studies import folder as folders
from dso_robotics.table import Table, make

FORMATS: "Registry[type[Format]]" = Registry("format", "dso_robotics.report.export.formats")


@dataclasses.dataclass(frozen=True)
class Export:
    """The contents of exported files.

    files: text or bytes by file name, the main file first; names are without a folder.
    notes: what the format could not hold and what the reader has to know, one sentence or more each.
    """

    files: Mapping[str, str | bytes]
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Format(Table, abc.ABC):
    """A kind of file that a result can be written to.

    commands: the commands whose results it takes.
    filename: the name of its main file, if the user gives none.
    about: what it is, in a few words.
    """

    commands: ClassVar[tuple[str, ...]]
    filename: ClassVar[str]
    about: ClassVar[str]

    @abc.abstractmethod
    def export(self, result: Finished, name: str) -> Export:
        """The files of `result`; `name` is that of the main file, and others take their stem from it.

        Raises:
          DsoError: the result has nothing that the format could hold.
        """


def make_format(name: str, result: Finished, options: Mapping[str, Any]) -> Format:
    """The format called `name` with its `options`.

    Raises:
      DsoError: there is no such format, it does not take results of this command, or an option is none of it.
    """
    kind = FORMATS[name]
    if result.command not in kind.commands:
        fitting = ", ".join(n for n, f in FORMATS.items() if result.command in f.commands) or "none"
        made = " and ".join(f"`dso {command}`" for command in kind.commands)
        raise DsoError(
            f"{result.folder}: this is a result of `dso {result.command}`; --to {name} takes results of {made}. For this "
            f"result: {fitting}."
        )
    return make(kind, options, f"--to {name}: ")


def write_export(
    name: str,
    result: Finished,
    out: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
) -> tuple[list[Path], list[str]]:
    """Write `result` in the format called `name`; returns the files written, the main one first, and notes.

    out: the main file; None is the format's own name in the result's folder. Other files are put beside it.
    force: replace files of these names.

    Raises:
      DsoError: see `make_format` and `Format.export`; or a file exists, belongs to the result, or was read by the run.
    """
    form = make_format(name, result, options or {})
    path = result.folder / form.filename if out is None else Path(out)
    if not path.name or path.is_dir():
        raise DsoError(f"--out {out}: this is a folder; name a file, such as {path / form.filename}.")
    with phase(f"export to {name}"):
        export = form.export(result, path.name)
    paths = [path.parent / file for file in export.files]
    kept = [result.folder / file for file in (folders.SUMMARY, folders.RUN, folders.MODEL, folders.REPORT)]
    kept += [*result.inputs.values(), *(Path(file) for file in form.files().values())]
    places = {one.resolve() for one in kept}
    for one in paths:
        if one.resolve() in places:
            raise DsoError(f"--out {one}: the run or the export reads this file; choose another name.")
        refuse_existing(one, force)
    for one, content in zip(paths, export.files.values(), strict=True):
        with atomic_file(one) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    return paths, list(export.notes)
