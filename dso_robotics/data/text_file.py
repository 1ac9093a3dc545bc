"""The lines of a text file, one after the other: a log of an hour is larger as text than the memory that there is."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dso_robotics.errors import DsoError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b]")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class TextFile:
    """A text file whose encoding is known.

    encoding, errors: as `open` takes them.
    end: bytes before a character that is torn off and before zero bytes, with which some loggers fill a file up.
    """

    path: Path
    encoding: str
    errors: str
    end: int

    def lines(self) -> Iterator[str]:
        """The lines with a newline at their end, where the file has one. A line ends with \\r\\n, \\n or \\r."""
        with self._opened() as text:
            for i, line in enumerate(text):
                yield line.lstrip("\ufeff") if i == 0 else line

    def read(self) -> str:
        """The whole text."""
        with self._opened() as text:
            return text.read().lstrip("\ufeff")

    @contextmanager
    def _opened(self) -> Iterator[io.TextIOWrapper]:
        with self.path.open("rb") as file:
            yield io.TextIOWrapper(io.BufferedReader(_Head(file, self.end), _CHUNK), self.encoding, self.errors)


class _Head(io.RawIOBase):
    """The first `end` bytes of a file."""

    def __init__(self, file: io.BufferedReader, end: int):
        self._file, self._end = file, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        found = self._file.read(max(min(len(view), self._end - self._file.tell()), 0))
        view[: len(found)] = found
        return len(found)


def text_file(path: Path, encoding: str = "") -> TextFile:
    """A text file; its encoding is found out unless given. Raises DsoError when it is no text."""
    try:
        with path.open("rb") as file:
            head, end = file.read(2000), file.seek(0, io.SEEK_END)
            found = encoding or next((name for mark, name in _BOMS if head.startswith(mark)), "") or _wide(head)
            width = 4 if "32" in found else 2 if "16" in found else 1
            end = _without_zeros(file, end // width * width, width)
            return _checked(file, TextFile(path, found, "strict", end))
    except OSError as error:
        raise DsoError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error


def _checked(file: io.BufferedReader, text: TextFile) -> TextFile:
    """The text file, read once; the encoding of one that has none."""
    said, path, end = text.encoding, text.path, text.end
    try:
        torn = _refuse_control(file, text if said else TextFile(path, "utf-8", "strict", end))
        return TextFile(path, said or "utf-8", "strict", end - torn)
    except (UnicodeError, LookupError) as error:
        if said:
            raise DsoError(f"{path}: is not {said} text ({error}); give the right one with --encoding.") from error
    old = TextFile(path, "cp1252", "replace", end)
    _refuse_control(file, old)
    return old


def _refuse_control(file: io.BufferedReader, text: TextFile) -> int:
    """Decode all, and refuse what is no text. The number of bytes at the end that are the beginning of a character of UTF-8."""
    file.seek(0)
    decoder, left = codecs.getincrementaldecoder(text.encoding)(text.errors), text.end
    while left > 0:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            break
        left -= len(chunk)
        if _CONTROL.search(decoder.decode(chunk)):
            raise DsoError(
                f"{text.path}: is no text file, nor one of the other kinds that can be read (NPZ, NPY, JSON, MAT, HDF5); "
                "export it as CSV, or name its encoding with --encoding."
            )
    held = len(decoder.getstate()[0]) if text.encoding == "utf-8" else 0
    if held and held < text.end:
        return held
    decoder.decode(b"", final=True)
    return 0


def _without_zeros(file: io.BufferedReader, end: int, width: int) -> int:
    """The end of a file without the zero characters of `width` bytes there."""
    while end > 0:
        begin = max(end - _CHUNK, 0)
        file.seek(begin)
        chunk = file.read(end - begin)
        kept = -(-len(chunk.rstrip(b"\0")) // width) * width
        if kept:
            return begin + min(kept, len(chunk))
        end = begin
    return 0


def _wide(head: bytes) -> str:
    """UTF-16 without a mark, as its zero bytes show; "" if it is not."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < 0.3 * len(head) or min(even, odd) > 0.05 * len(head):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"
