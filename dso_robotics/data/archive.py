"""The one guarded way into an HDF5 file: logs, run files, estimators and policies are all opened here.

A file is bytes from somewhere, so nothing of it is believed. Its checksum is compared before HDF5 sees the file. Links to other
files, data stored outside, unknown filters and objects are refused, and sizes are bounded before memory is taken. Texts of
variable length are in HDF5's global heap, where one wrong byte makes the library spin for ever or crash. We write no such
texts; those of other writers are read by another process that can be ended (`old_text`).
"""

import contextlib
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.apart import NoAnswer, read_apart
from dso_robotics.data.limits import allowed_bytes, refuse_oversized
from dso_robotics.errors import DsoError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# The checksum of all that stands before it. HDF5 ignores what follows its own end of file, and cuts it off when another
# program opens the file to change it, so a file that was changed on purpose has no checksum and is not called damaged.
_SEAL = b"\ndso-sha256 "
_SEALED = re.compile(re.escape(_SEAL) + rb"([0-9a-f]{64})\n\Z")
_SEAL_BYTES = len(_SEAL) + 65
# deflate, shuffle, fletcher32, szip, nbit, scaleoffset, lzf: others would load a plug-in.
_FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))
# Seconds for the other process that reads old texts, and of its computing at least; each MiB of the file adds one, up to 5.
_DEADLINE, _LEAST_COMPUTING, _PROGRAM = 30.0, 3, Path(__file__).with_name("old_text.py")
# Files whose texts HDF5 was not able to read, by path, size and time, and why: they are not tried twice.
_UNREADABLE: dict[tuple[str, int, int], str] = {}
_ESCAPE = "surrogateescape"
_MAX_DEPTH, _MAX_ITEMS = 32, 1_000_000
# HDF5 keeps an attribute in the header of its object, which has 64 KiB.
_ATTRIBUTE_BYTES, _TEXTS = 60_000, "texts"
_FAULTS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    SystemError,
)


def seal(image: bytes) -> bytes:
    """The bytes of an HDF5 file with their SHA-256 behind them."""
    return image + _SEAL + hashlib.sha256(image).hexdigest().encode() + b"\n"


def fixed_text(text: str | Sequence[str]) -> np.ndarray:
    """A text or texts as UTF-8 of fixed length, which HDF5 stores without its global heap."""
    # A file name may hold bytes that are no UTF-8, which Python shows as lone surrogates.
    coded = text.encode(errors=_ESCAPE) if isinstance(text, str) else [entry.encode(errors=_ESCAPE) for entry in text]
    longest = len(coded) if isinstance(coded, bytes) else max(map(len, coded), default=0)
    return np.array(coded, dtype=h5py.string_dtype("utf-8", max(longest, 1)))


def write_text(item: h5py.Group | h5py.Dataset, key: str, text: str | Sequence[str]) -> None:
    """Write an attribute that is a text or a list of texts; what is too long for an attribute is a dataset in `/texts`."""
    coded = fixed_text(text)
    if coded.nbytes <= _ATTRIBUTE_BYTES:
        item.attrs[key] = coded
    else:
        packed = {"compression": "gzip"} if coded.shape else {}
        item.file.create_dataset(f"{_TEXTS}/{_long_name(item, key)}", data=coded, **packed)


def _long_name(item: h5py.Group | h5py.Dataset, key: str) -> str:
    return f"{item.name}.{key}".replace("/", "∕")


@contextlib.contextmanager
def open_archive(path: Path, kind: str, cure: str) -> Iterator["Archive"]:
    """Open an HDF5 file for reading.

    kind: what the file should be, such as "log file", for messages.
    cure: what to do about a damaged one, such as "copy or record it again".

    Raises:
      DsoError: there is no such file, it is no HDF5 file, its checksum is wrong, or what is done with it shows damage.
    """
    _check_bytes(path, kind, cure)
    try:
        with h5py.File(path, "r") as file:
            yield Archive(path, file, cure)
    except DsoError:
        raise
    except _FAULTS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DsoError(f"{path}: is damaged and cannot be read as a {kind} ({reason}); {cure}.") from error


def _check_bytes(path: Path, kind: str, cure: str) -> None:
    found = None
    try:
        if path.is_dir():
            raise DsoError(f"{path}: is a folder, not a {kind}; give the .h5 file in it.")
        if path.exists() and not path.is_file():
            raise DsoError(f"{path}: is a device or a pipe, not a {kind}; give the name of a file.")
        with path.open("rb") as stream:
            head = stream.read(len(_SIGNATURE))
            size = stream.seek(0, 2)
            stream.seek(max(size - _SEAL_BYTES, 0))
            tail = stream.read()
            if head == _SIGNATURE and (found := _SEALED.search(tail)):
                _compare(path, stream, size - _SEAL_BYTES, found[1].decode(), cure)
    except FileNotFoundError as error:
        raise DsoError(f"{path}: there is no such {kind}; check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DsoError(f"{path}: cannot be opened ({reason}); check its name and permissions.") from error
    if not head:
        raise DsoError(f"{path}: the file is empty; {cure}.")
    if head != _SIGNATURE:
        raise DsoError(f"{path}: is not an HDF5 file, so it is damaged or no {kind}; check the path, or {cure}.")
    if not found and _SEAL[:8] in tail:
        raise DsoError(f"{path}: is damaged: it is truncated, the end of its checksum is missing; {cure}.")


def _compare(path: Path, stream: Any, size: int, stored: str, cure: str) -> None:
    stream.seek(0)
    digest, left = hashlib.sha256(), size
    while left > 0 and (block := stream.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    if digest.hexdigest() != stored:
        raise DsoError(f"{path}: is damaged: its bytes do not have the checksum that was written with them; {cure}.")


class Archive:
    """An open HDF5 file.

    path: the file.
    file: its root group. Read attributes with `attribute` and datasets with `values`.
    """

    def __init__(self, path: Path, file: h5py.File, cure: str):
        self.path, self.file, self._cure = path, file, cure
        self._old: dict[tuple[str, str | None], Any] | None = None
        self._claimed, self._allowed = 0, allowed_bytes(path)

    def child(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
        """The group or dataset `name`; None if there is none, or if it is a link that may lead out of the file."""
        # Of h5py's low level: a log may hold a hundred thousand objects, and every call of the high one costs.
        links, key = group.id.links, name.encode(errors=_ESCAPE)
        if not links.exists(key) or links.get_info(key).type != h5py.h5l.TYPE_HARD:
            return None
        opened = h5py.h5o.open(group.id, key)
        if isinstance(opened, h5py.h5g.GroupID):
            return h5py.Group(opened)
        return h5py.Dataset(opened) if isinstance(opened, h5py.h5d.DatasetID) else None

    def has_attribute(self, item: h5py.Group | h5py.Dataset, key: str) -> bool:
        """Whether `item` has the attribute `key`, however long it is."""
        return h5py.h5a.exists(item.id, key.encode(errors=_ESCAPE)) or self._long(item, key) is not None

    def attribute(self, item: h5py.Group | h5py.Dataset, key: str) -> Any:
        """An attribute: a number, a text, or an array or list of these. None if it is absent or empty.

        Raises:
          ValueError: it is of another type.
        """
        coded = key.encode(errors=_ESCAPE)
        if not h5py.h5a.exists(item.id, coded):
            stored = self._long(item, key)
            return None if stored is None else self.values(stored)
        handle = h5py.h5a.open(item.id, coded)
        shape, dtype = handle.shape, handle.dtype
        if shape is None:
            return None
        if _is_old_text(dtype):
            return self._text(item, key)
        _check_type(dtype, f"attribute {key!r}")
        if dtype.kind != "S" or dtype.shape:
            return _plain(item.attrs[key])
        texts = np.zeros(shape, dtype)
        handle.read(texts)
        return _plain(texts if shape else texts[()])

    def label(self, item: h5py.Group | h5py.Dataset, key: str) -> str | int | float | None:
        """An attribute that is one text or one number; None if it is absent or anything else, such as a longer array."""
        coded = key.encode(errors=_ESCAPE)
        if h5py.h5a.exists(item.id, coded) and math.prod(map(int, h5py.h5a.open(item.id, coded).shape or ())) != 1:
            return None
        value = self.attribute(item, key)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, np.ndarray | np.generic) and value.size == 1:
            value = value.reshape(()).item()
        return value if isinstance(value, str | int | float) else None

    def values(self, dataset: h5py.Dataset) -> Any:
        """All values of a dataset: an array, a text, or a list of texts (nested as its axes).

        Raises:
          DsoError: they are not in this file, or would need more memory than a file of this size may.
          ValueError: they are neither numbers nor text.
        """
        self.claim(dataset)
        dtype = dataset.dtype
        if _is_old_text(dtype):
            return self._text(dataset, None)
        _check_type(dtype, "a dataset")
        return _plain(dataset[()])

    def claim(self, dataset: h5py.Dataset) -> None:
        """Check where a dataset is stored and what it and all before it need.

        Raises:
          DsoError: it is stored elsewhere, needs a plug-in, or is too large.
        """
        shape = dataset.shape
        if shape is None:
            return
        made = dataset.id.get_create_plist()
        layout = made.get_layout()
        if made.get_external_count() or layout == h5py.h5d.VIRTUAL:
            raise DsoError(
                f"{self.path}: {dataset.name}: is not a dataset stored in this file; store the numbers themselves."
            )
        unknown = {int(made.get_filter(i)[0]) for i in range(made.get_nfilters())} - _FILTERS
        if unknown:
            raise DsoError(
                f"{self.path}: {dataset.name}: is packed with HDF5 filter {min(unknown)}, which needs a plug-in; use gzip."
            )
        # A chunk is always unpacked whole.
        chunk = made.get_chunk() if layout == h5py.h5d.CHUNKED else ()
        self._claimed += dataset.dtype.itemsize * max(math.prod(map(int, shape)), math.prod(map(int, chunk)))
        if self._claimed > self._allowed:
            refuse_oversized(self._claimed, self.path, f"the data up to {dataset.name}")

    def tree(self) -> dict[str, Any]:
        """All groups as nested dictionaries and all datasets as values.

        Raises:
          DsoError: an object is no group or dataset of this file, or there are too many.
        """
        return self._branch(self.file, 0, [0])

    def _branch(self, group: h5py.Group, depth: int, count: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in map(str, group):
            count[0] += 1
            if depth > _MAX_DEPTH or count[0] > _MAX_ITEMS:
                raise DsoError(
                    f"{self.path}: has over {_MAX_ITEMS:,} objects or groups {_MAX_DEPTH} deep; {self._cure}."
                )
            item = self.child(group, name)
            if item is None:
                raise DsoError(
                    f"{self.path}: {group.name}: {name!r} is a link or no data, which no file of dso holds; {self._cure}."
                )
            found[name] = self._branch(item, depth + 1, count) if isinstance(item, h5py.Group) else self.values(item)
        return found

    def _long(self, item: h5py.Group | h5py.Dataset, key: str) -> h5py.Dataset | None:
        texts = self.child(self.file, _TEXTS)
        stored = self.child(texts, _long_name(item, key)) if isinstance(texts, h5py.Group) else None
        return stored if isinstance(stored, h5py.Dataset) else None

    def _text(self, item: h5py.Group | h5py.Dataset, key: str | None) -> Any:
        if self._old is None:
            self._old = _old_texts(self.path, self._cure)
        return self._old[(str(item.name), key)]


def _is_old_text(dtype: np.dtype) -> bool:
    found = h5py.check_string_dtype(dtype) if dtype.kind == "O" else None
    return found is not None and found.length is None


def _check_type(dtype: np.dtype, what: str) -> None:
    if dtype.kind not in "biufcS" or dtype.hasobject:
        raise ValueError(f"{what} has values of type {dtype}, neither numbers nor text")


def _plain(value: Any) -> Any:
    """Bytes as text; other values as they are."""
    if isinstance(value, bytes):
        return value.decode(errors=_ESCAPE)
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return _decoded(value.tolist())
    return value


def _decoded(value: Any) -> Any:
    return [_decoded(entry) for entry in value] if isinstance(value, list) else value.decode(errors=_ESCAPE)


def _old_texts(path: Path, cure: str) -> dict[tuple[str, str | None], Any]:
    """Every text of variable length in the file by object and attribute, read by another process within a deadline."""
    stat = path.stat()
    known = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    try:
        if known in _UNREADABLE:
            raise NoAnswer(_UNREADABLE[known])
        computing = min(_LEAST_COMPUTING + stat.st_size // 2**20, 5)
        found = read_apart(_PROGRAM, path, str(computing), library="HDF5", seconds=_DEADLINE)
    except NoAnswer as error:
        _UNREADABLE[known] = str(error)
        raise DsoError(f"{path}: is damaged: its texts cannot be read ({error}); {cure}.") from error
    return {(name, key): value for name, key, value in found}
