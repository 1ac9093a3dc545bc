"""Docstrings for mkdocstrings: lines `name: text` that name arguments or fields become a list."""

import re
from typing import Any

import griffe

from website.links import without_code

_LINE = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?P<sign> \([^)]*\))?: (?P<text>.*)$")


class Arguments(griffe.Extension):
    """The house's docstrings name an argument and say what it is, in a line of its own."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package: all members are known then."""
        todo: list[Any] = [pkg]
        while todo:
            obj = todo.pop()
            if obj.docstring is not None:
                obj.docstring.value = listed(obj.docstring.value, _names(obj))
            todo += [member for member in obj.members.values() if not member.is_alias]


def listed(text: str, names: set[str]) -> str:
    """`text` with its lines of `names` as a list; what is indented below a line belongs to it."""
    code = without_code(text)
    # E[f](x) is no link, and N*m no emphasis.
    text = re.sub(r"\](?=\()|\*", lambda found: found[0] if code[found.start()] == " " else f"\\{found[0]}", text)
    lines, inside = [], False
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and all(name in names for name in found["names"].split(", ")):
            if not inside and lines and lines[-1].strip():
                lines.append("")
            inside = True
            marked = ", ".join(f"`{name}`" for name in found["names"].split(", "))
            lines.append(f"- {marked}{found['sign'] or ''}: {found['text']}")
        elif inside and line.strip() and not line.startswith("  "):
            lines += ["", line]
            inside = False
        else:
            inside = inside and bool(line.strip())
            lines.append(line)
    return "\n".join(lines)


def _names(obj: Any) -> set[str]:
    if not obj.is_function and not obj.is_class:
        return set()
    if obj.is_function:
        return {parameter.name for parameter in obj.parameters}
    return {*obj.members, *(p.name for m in obj.members.values() if m.is_function for p in m.parameters)}
