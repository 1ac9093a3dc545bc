"""C99 source text: constants of a header, and the fixed code of the package."""

import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np


def number(value: float) -> str:
    """A double in C, in full precision."""
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
    text = repr(float(value))
    return text if any(c in text for c in ".en") else f"{text}.0"


def defined(prefix: str, values: dict[str, Any]) -> str:
    """One #define for each number, of upper-case names."""
    return "\n".join(f"#define {prefix}_{name} {_constant(value)}" for name, value in values.items())


def doubles(name: str, values: Any) -> str:
    """A constant array of doubles; of one zero if there are none, because C has no empty arrays."""
    return _array("double", name, [number(v) for v in np.ravel(values)] or ["0.0"])


def integers(name: str, values: Any) -> str:
    """A constant array of integers."""
    return _array("int", name, [str(int(v)) for v in np.ravel(values)] or ["0"])


def strings(name: str, values: Sequence[str]) -> str:
    """A constant array of texts."""
    return _array("char *const", name, [text(v) for v in values] or ['""'])


def text(value: str) -> str:
    """A string literal of UTF-8; all but plain characters as octal escapes, which end after three digits."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in value.encode())
    return '"' + "".join(plain) + '"'


def comment(value: str) -> str:
    """Text inside a comment."""
    return value.replace("*/", "* /").replace("/*", "/ *")


def fixed(name: str) -> str:
    """A file of the package's own C code."""
    return resources.files("dso_robotics.robot").joinpath("c", name).read_text("utf-8")


def _constant(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool | int | np.integer) else number(value)


def _array(kind: str, name: str, items: Sequence[str]) -> str:
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > 112:
            lines.append(line)
            line = ""
        line += f"{item}, "
    lines.append(line.rstrip(", "))
    body = "\n  ".join(part.rstrip() for part in lines)
    return f"static const {kind} {name}[{len(items)}] = {{\n  {body}\n}};"
