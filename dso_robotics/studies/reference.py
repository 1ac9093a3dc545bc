"""The page of all keys, docs/studies.md, from the dataclasses: `python -m dso_robotics.studies.reference > docs/studies.md`."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from dso_robotics.costs.kind import COSTS, MotionCost
from dso_robotics.physics.design.map import DESIGN_MAPS
from dso_robotics.studies.declaration import Free
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.excite_study import ExciteStudy
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.table import Table, keys, words
from dso_robotics.table.wording import is_table, toml

_HEAD = """\
# Study files

Every key of the study files of `dso identify --study FILE.toml`, `dso train`, `dso design`, `dso estimate` and
`dso excite`. The command `python -m dso_robotics.studies.reference` makes this page. In Python the same names are arguments
of `IdentifyStudy`, `TrainStudy`, `EstimateStudy` and `ExciteStudy`. Paths of files are relative to the study file. An empty
default is none.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD, *_study("`dso identify`", IdentifyStudy), *_table("`free`", Free)]
    parts += [*_study("`dso train`, `dso design`", TrainStudy), *_costs(), *_maps()]
    parts += _study("`dso estimate`", EstimateStudy)
    return "\n".join([*parts, *_study("`dso excite`", ExciteStudy)]).rstrip() + "\n"


def _study(title: str, cls: type[Table]) -> Iterator[str]:
    yield f"## {title}\n\n{_told(cls)}\n"
    yield from _rows(cls, [name for name in keys(cls) if _section(cls, name) is None])
    for name in keys(cls):
        section, several = _section(cls, name) or (None, False)
        if section is not None and section.kinds is None:
            yield from _table(f"`[{name}{'.NAME' if several else ''}]`", section)


def _table(title: str, cls: type[Table]) -> Iterator[str]:
    yield f"### {title}\n\n{_told(cls)}\n"
    yield from _rows(cls, list(keys(cls)))


def _costs() -> Iterator[str]:
    yield "### `[cost.NAME]`\n\nEvery cost has `kind`, `weight` and, of the motion, `when`; without a rollout, `fade`.\n"
    yield from _rows(COSTS["square"], ["weight", "when"])
    yield from _rows(COSTS["prior"], ["fade"])
    common = ("weight", "when", "fade")
    for name, cls in sorted(COSTS.items(), key=lambda pair: not issubclass(pair[1], MotionCost)):
        rollout = "" if issubclass(cls, MotionCost) else " Needs no rollout."
        yield f'#### `kind = "{name}"`\n\n{_told(cls)}{rollout}\n'
        yield from _rows(cls, [one for one in keys(cls) if one not in common])
        for one in keys(cls):
            if (part := _section(cls, one)) is not None:
                yield f"Each of `{one}` is a table:\n"
                yield from _rows(part[0], list(keys(part[0])))


def _maps() -> Iterator[str]:
    yield "### What `[design.NAME]` designs\n\n| kind | is |\n| --- | --- |"
    yield from (f"| `{name}` | {_told(cls)} |" for name, cls in DESIGN_MAPS.items())
    yield ""


def _rows(cls: type[Table], names: list[str]) -> Iterator[str]:
    if not names:
        return
    yield "| key | is | type | default | unit | example |\n| --- | --- | --- | --- | --- | --- |"
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for name in names:
        note, default = keys(cls)[name], fields[name].default
        required = default is dataclasses.MISSING and fields[name].default_factory is dataclasses.MISSING
        shown = "must be given" if required else "" if default in (None, (), dataclasses.MISSING) else _code(default)
        example = f"`{name} = {toml(note.example)}`" if note.example is not None else ""
        yield f"| `{name}` | {note.doc} | {words(cls, name)} | {shown} | {note.unit} | {example} |"
    yield ""


def _section(cls: type[Table], name: str) -> tuple[type[Table], bool] | None:
    """The table that a key is, and whether there are several with names."""
    kind = get_type_hints(cls)[name]
    for one in (kind, *get_args(kind)):
        if is_table(one):
            return one, len(get_args(kind)) == 2 and type(None) not in get_args(kind)
    return None


def _code(value: Any) -> str:
    return "infinite" if value == float("inf") else f"`{toml(value)}`"


def _told(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    print(page(), end="")
