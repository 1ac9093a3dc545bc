"""A study as text for a report: a line for each key, tables below, files without their folders."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Keys whose values are files or folders.
_FILES = ("model", "logs", "log", "file", "init", "from", "source")


def study_text(study: Mapping[str, Any]) -> str:
    """Lines KEY = VALUE of what is given, then each table under its [NAME]."""
    given = {key: value for key, value in study.items() if key != "command" and value not in (None, [], (), {})}
    tables = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    lines = [
        f"{key} = {words(file_name(value) if key in _FILES else value)}"
        for key, value in given.items()
        if key not in tables
    ]
    for name, table in tables.items():
        if all(isinstance(entry, Mapping) for entry in table.values()):
            lines += [text for key, entry in table.items() for text in _section(f"{name}.{key}", entry)]
        else:
            lines += _section(name, table)
    return "\n".join(lines)


def _section(name: str, table: Mapping[str, Any]) -> list[str]:
    inner = study_text(table)
    return ["", f"[{name}]", *inner.splitlines()] if inner else []


def file_name(value: Any) -> Any:
    """A path without its folder, or several."""
    if isinstance(value, str):
        return re.split(r"[/\\]", value)[-1]
    return [file_name(each) for each in value] if isinstance(value, Sequence) else value


def words(value: Any) -> str:
    """A value of a study in plain words."""
    if isinstance(value, Mapping):
        head = [str(value["path"])] if "path" in value else []
        return ", ".join(head + [f"{k} {words(v)}" for k, v in value.items() if k != "path" and v is not None])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
