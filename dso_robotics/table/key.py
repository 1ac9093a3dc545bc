"""The description of a key besides its type."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Annotated, Any

# The path of a file; one in a study file is relative to its folder.
File = Annotated[str, "file"]
# Two numbers, the lower first.
Range = Annotated[tuple[float, float], "range"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """What a key means.

    doc: its meaning in a few words. example: a value that would do (by default the default). within: an interval such as
    "[0, 1)" that numbers lie in; infinity counts only beside a square bracket. choices: texts to choose from. read: makes the
    value of what was given, in the place of the annotation. words: what is expected, where the type does not say it. kind: the
    type, where the annotation is Any.
    """

    doc: str
    example: Any = None
    unit: str = ""
    within: str = ""
    choices: Iterable[str] | None = None
    read: Callable[[Any], Any] | None = None
    words: str = ""
    kind: Any = None


def key(doc: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A field that is a key of the table; without `default` it must be given. `more` as in `Key`."""
    how: dict[str, Any] = {"default_factory": dict} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**how, metadata={"key": Key(doc=doc, **more)})


def name_key() -> Any:
    """A field that holds the name of a named table, as [controller.NAME]."""
    return dataclasses.field(metadata={"name": True})
