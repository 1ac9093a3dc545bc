"""Change attributes of an XML file and leave every other byte as it is: comments, order, spaces, quotes."""

import dataclasses
import re
import xml.parsers.expat
from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

from dso_robotics.errors import DsoError

_ATTRIBUTE = re.compile(rb"\s([^\s=\"'<>/]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_BOM16 = (b"\xff\xfe", b"\xfe\xff")


@dataclasses.dataclass(eq=False)
class Element:
    """An element of the file. begin, end: the bytes of its start tag, from < to behind >."""

    tag: str
    attributes: dict[str, str]
    begin: int
    end: int
    children: "list[Element]" = dataclasses.field(default_factory=list)

    def all(self, tag: str) -> "list[Element]":
        """Its children called `tag`."""
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> "Element | None":
        """Its first child called `tag`, or None."""
        return next(iter(self.all(tag)), None)

    def walk(self) -> "Iterator[Element]":
        """It and all elements in it, in the order of the file."""
        yield self
        for child in self.children:
            yield from child.walk()


class Markup:
    """The text of an XML file with changes.

    root: its root element. Attributes of elements stay as they were read.

    Raises:
      DsoError: it is no well-formed XML, or of an encoding that is no superset of ASCII.
    """

    def __init__(self, text: bytes, source: str):
        if text.startswith(_BOM16):
            raise DsoError(f"{source}: this file is UTF-16; save it as UTF-8.")
        self._text, self._edits = text, list[tuple[int, int, str]]()
        self._added: dict[Element, list[str]] = {}
        parser, open_ = xml.parsers.expat.ParserCreate(), list[Element]()
        roots: list[Element] = []

        def start(tag: str, attributes: dict[str, str]) -> None:
            begin = parser.CurrentByteIndex
            element = Element(tag, attributes, begin, _end_of_tag(text, begin))
            (open_[-1].children if open_ else roots).append(element)
            open_.append(element)

        parser.StartElementHandler = start
        parser.EndElementHandler = lambda tag: open_.pop() and None
        try:
            parser.Parse(text, True)
        except xml.parsers.expat.ExpatError as error:
            raise DsoError(f"{source}: this is no well-formed XML ({error}); correct the line named.") from error
        self.root = roots[0]

    def set(self, element: Element, attribute: str, value: str) -> None:
        """Give an attribute of `element` a value; once for each attribute."""
        tag = self._text[element.begin : element.end]
        for found in _ATTRIBUTE.finditer(tag):
            if found[1] == attribute.encode():
                begin, end = found.span(2)
                self._edits.append((element.begin + begin + 1, element.begin + end - 1, _quoted(value)))
                return
        at = element.begin + len(re.sub(rb"\s*/?>$", b"", tag))
        self._edits.append((at, at, f' {attribute}="{_quoted(value)}"'))

    def add(self, element: Element, child: str, attributes: Mapping[str, str], inside: str = "") -> None:
        """Put a new element called `child` into `element`, before those in it; `inside` is XML in the new one."""
        shown = "".join(f' {name}="{_quoted(value)}"' for name, value in attributes.items())
        self._added.setdefault(element, []).append(
            f"<{child}{shown}>{inside}</{child}>" if inside else f"<{child}{shown}/>"
        )

    def changed(self) -> bytes:
        """The text with all changes."""
        text, edits = self._text, [*self._edits, *map(self._insertion, self._added)]
        for begin, end, new in sorted(edits, key=lambda edit: edit[:2], reverse=True):
            text = text[:begin] + new.encode("ascii", "xmlcharrefreplace") + text[end:]
        return text

    def _insertion(self, element: Element) -> tuple[int, int, str]:
        own = self._gap(element)
        indent = self._gap(element.children[0]) if element.children else own and f"{own}  "
        new = "".join(f"{indent}{one}" for one in self._added[element])
        if self._text[element.begin : element.end].endswith(b"/>"):
            return element.end - 2, element.end, f">{new}{own}</{element.tag}>"
        return element.end, element.end, new

    def _gap(self, element: Element) -> str:
        """The line break and spaces before an element that begins its line, else nothing."""
        found = re.search(rb"\r?\n[ \t]*$", self._text[: element.begin])
        return found[0].decode() if found else ""


def _end_of_tag(text: bytes, begin: int) -> int:
    """The place behind the > of the tag that begins at `begin`."""
    found = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>", re.DOTALL).match(text, begin)
    assert found is not None  # expat has read it
    return found.end()


def _quoted(value: str) -> str:
    return escape(value, {'"': "&quot;", "'": "&apos;", "\n": "&#10;", "\t": "&#9;"})
