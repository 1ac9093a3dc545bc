"""Types, bounds and values of tables as text and as TOML."""

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

# A larger number is treated as a mistake, and its square would overflow.
_HUGE = 1e100
A_TABLE = "a table"


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{bare(k)} = {toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _interval(within: str) -> tuple[float, float]:
    low, high = (float(end) for end in within[1:-1].split(","))
    return low, high


def within_bounds(value: float, within: str) -> bool:
    """Whether a number lies in an interval such as "[0, 1)"; infinity counts only beside a square bracket."""
    within = within or "(-inf, inf)"
    low, high = _interval(within)
    if value in (low, high):
        return within[0 if value == low else -1] in "[]"
    return low < value < high and abs(value) < _HUGE


def in_words(kind: Any, within: str) -> Iterator[str]:
    """What a type expects, alternatives one by one."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        for one in args:
            yield from in_words(one, within)
    elif origin is Literal:
        yield from args
    elif origin is Annotated:
        yield "a path" if args[1] == "file" else "[LOW, HIGH], two numbers"
    elif origin is tuple and args[-1] is not Ellipsis:
        yield f"a list of {len(args)} numbers"
    elif origin is tuple:
        yield f"a list, each entry {' or '.join(in_words(args[0], within))}"
    elif origin is Mapping:
        yield f"a table of names, each {' or '.join(in_words(args[1], within))}"
    elif kind in (int, float):
        yield _numeric("whole number" if kind is int else "number", within)
    elif kind is not type(None):
        yield {str: "a text", bool: "true or false"}.get(kind) or (A_TABLE if is_table(kind) else kind.__name__)


def _numeric(noun: str, within: str) -> str:
    within = within or "(-inf, inf)"
    low, high = (end.strip() for end in within[1:-1].split(","))
    if (low, high, within[0]) == ("0", "inf", "("):
        return f"a positive {noun}"
    told = [] if low == "-inf" else [f"{'from' if within[0] == '[' else 'above'} {low}"]
    told += [] if high == "inf" else [f"{'to' if told else 'up to'} {'' if within[-1] == ']' else 'below '}{high}"]
    return " ".join([f"a {noun}", *told])


def is_table(kind: Any) -> bool:
    """Whether a type is a `Table`."""
    return isinstance(kind, type) and hasattr(kind, "refused")


def bare(name: str) -> str:
    """A key as TOML writes it."""
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name, ensure_ascii=False)
