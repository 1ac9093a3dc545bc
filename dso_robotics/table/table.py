"""Tables of keys: a frozen dataclass whose fields are the keys of a TOML table and the arguments of a call, checked alike.

    @dataclasses.dataclass(frozen=True)
    class Start(Table):
        spread: float = key("standard deviation of what episodes start from", 0.0, within="[0, inf)", unit="rad, m")

Annotations give types: int, float, bool, str, tuples, unions, `File`, `Range`, another table for a section, and
`Mapping[str, X]` for named ones. This file alone says what is wrong with a value: place, key, what was expected, and a line
that would do.
"""

import contextlib
import dataclasses
import functools
import numbers
import os
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dso_robotics.errors import DsoError, nearest
from dso_robotics.registry import Registry
from dso_robotics.table.key import File, Key
from dso_robotics.table.wording import A_TABLE, bare, in_words, is_table, toml, within_bounds

_FREE = dataclasses.MISSING

T = TypeVar("T", bound="Table")


class Table:
    """Base of dataclasses that are tables.

    kinds: set in a class that stands for a family: the key `kind` chooses the class from this registry. refused: texts for
    kinds and keys that a user may expect and that there are not. notes: keys that a dataclass it extends declares as plain
    fields; what neither has a note nor is made by `key` is no key.
    """

    kinds: ClassVar[Registry[Any] | None] = None
    refused: ClassVar[Mapping[str, str]] = {}
    notes: ClassVar[Mapping[str, Key]] = {}

    def __post_init__(self) -> None:
        settle(self)
        try:
            self.check()
        except DsoError as error:
            raise _Unfit(getattr(self, "source", type(self).__name__), str(error)) from error

    def check(self) -> None:
        """Raise DsoError for values that do not go together; keys in its text stand in backquotes."""

    def as_dict(self) -> dict[str, Any]:
        """What was given, as JSON holds it: keys at their default are left out."""
        found = {k: v for k in keys(type(self)) if (v := getattr(self, k)) != _default(type(self), k)}
        return self._kind() | {k: _plain(v) for k, v in found.items()}

    def files(self) -> dict[str, str]:
        """The files that it names, by key."""
        hints = _hints(type(self))
        named = {k: getattr(self, k) for k in keys(type(self)) if File in (hints[k], *get_args(hints[k]))}
        return {k: v for k, v in named.items() if isinstance(v, str)}

    def _kind(self) -> dict[str, str]:
        return {} if self.kinds is None else {"kind": next(k for k, c in self.kinds.items() if c is type(self))}


class Study(Table):
    """A table that is a whole study file. command: the `dso` command it belongs to, where there is one only."""

    command: ClassVar[str] = ""

    @classmethod
    def read(
        cls: type[T], path: str | Path | None = None, options: Mapping[str, Any] | None = None, **changes: Any
    ) -> T:
        """The study in a TOML file, with `changes` in it; `options` are changes that messages call --NAME.

        Raises:
          DsoError: the file is missing or no TOML, or a key or value is none of this study.
        """
        places = [(changes, _Place(f"{cls.__name__}: ")), (options or {}, _Place(option=True))]
        if path is not None:
            places.insert(0, (_toml(Path(path), cls), _Place(f"{path}: ", folder=Path(path).parent)))
        values: dict[str, Any] = {}
        for given, place in places:
            values |= _values(cls, given, place)
        more = {"source": str(path)} if path is not None and "source" in _fields(cls) else {}
        return _built(cls, values, next((p for given, p in places if given or p.folder), _Place()), options or {}, more)

    def changed(self: T, options: Mapping[str, Any]) -> T:
        """The study with other values, from options on the command line."""
        values = {k: getattr(self, k) for k in keys(type(self))} | _values(type(self), options, _Place(option=True))
        more = {"source": source} if (source := getattr(self, "source", None)) else {}
        return _built(type(self), values, _Place(), options, more)

    @classmethod
    def from_dict(cls: type[T], stored: Mapping[str, Any]) -> T:
        """The study that `as_dict` made this of, after a way through JSON.

        Raises:
          DsoError: it is none of this study.
        """
        more = {k: v for k, v in stored.items() if k == "source" and k in _fields(cls)}
        given = {k: v for k, v in stored.items() if k not in ("source", "command")}
        place = _Place("the study that was stored: ")
        return _built(cls, _values(cls, given, place), place, {}, more)

    def as_dict(self) -> dict[str, Any]:
        """The study as JSON-ready values, as stored in the run file: all its keys, and of its sections what was given."""
        named = {"command": self.command} if self.command else {}
        more = {k: getattr(self, k) for k in _fields(type(self)) if k == "source"}
        return named | {k: _plain(getattr(self, k)) for k in keys(type(self))} | more


def keys(cls: type[Table]) -> dict[str, Key]:
    """The keys of a table by name."""
    notes = {name: field.metadata.get("key", cls.notes.get(name)) for name, field in _fields(cls).items()}
    return {name: note for name, note in notes.items() if note is not None}


def settle(table: Table) -> None:
    """Put values of the right types into a new table, for its `__post_init__`."""
    cls = type(table)
    place = _Place(f"{getattr(table, 'source', cls.__name__)}: ")
    for name in keys(cls):
        value = getattr(table, name)
        if value is not _default(cls, name):
            object.__setattr__(table, name, _value(cls, name, value, place))


def make(cls: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """A table of the values given; `where` begins what is said of them."""
    return _made(cls, given, _Place(where))


def entries(value: Any) -> list[Any]:
    """A list of what may be one thing or several: a text, a table and a path are one thing."""
    if isinstance(value, str | Mapping | os.PathLike) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def words(cls: type[Table], name: str) -> str:
    """What a key expects: its type, bounds and choices in words."""
    note = keys(cls)[name]
    if note.words:
        return note.words
    if note.choices is not None:
        several = "several of" if get_origin(_hints(cls)[name]) is tuple else "one of"
        return f"{several} {', '.join(note.choices)}"
    return " or ".join(dict.fromkeys(in_words(_hints(cls)[name], note.within)))


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a value stands: the file or class, the table in it, and whether it is an option of the command line."""

    source: str = ""
    table: str = ""
    folder: Path | None = None
    option: bool = False

    def inside(self, name: str) -> "_Place":
        return dataclasses.replace(self, table=f"{self.table}.{bare(name)}" if self.table else name)

    def __str__(self) -> str:
        return f"{self.source}[{self.table}] " if self.table else self.source

    def told(self, name: str) -> str:
        if self.option:
            return name.upper() if name in ("model", "logs") else f"--{name.replace('_', '-')}"
        return f"{self}{name}"

    def wrong(self, name: str, value: Any, expected: str, example: Any) -> DsoError:
        shown = repr(value)
        shown = f"{shown[:60]}{'...' if len(shown) > 60 else ''}"
        if self.option:
            return DsoError(f"{self.told(name)} {value}: expected {expected}; write {self.told(name)} {example}.")
        cure = example if expected == A_TABLE else f"{name} = {toml(example)}"
        return DsoError(f"{self.told(name)} = {shown}: expected {expected}; write {cure}.")


class _Misfit(Exception):
    """A value is not what its key expects; of an entry of a mapping, its kind, place and value."""

    def __init__(self, kind: Any = None, place: _Place | None = None, value: Any = None):
        self.kind, self.place, self.value = kind, place, value


class _Unfit(DsoError):
    """Values of a table that do not go together; `text` is without the table's name."""

    def __init__(self, name: str, text: str):
        self.text = text
        super().__init__(f"{name}: {text.replace('`', '')}")


def _toml(path: Path, cls: type[Table]) -> dict[str, Any]:
    if not path.is_file():
        raise DsoError(f"{path}: there is no such study file; give a TOML file with keys {', '.join(keys(cls))}.")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except RecursionError:
        raise DsoError(f"{path}: not a study file: its brackets nest too deep.") from None
    except ValueError as error:
        raise DsoError(f"{path}: not a TOML file ({str(error)[:200]}); mend the line named.") from error


def _made(cls: type[T], given: Mapping[str, Any], place: _Place, name: str | None = None) -> T:
    if "kinds" in vars(cls):
        cls, given = _of_kind(cls, given, place)
    named = [n for n, field in _fields(cls).items() if "name" in field.metadata]
    return _built(cls, _values(cls, given, place), place, {}, {n: name for n in named})


def _of_kind(cls: type[T], given: Mapping[str, Any], place: _Place) -> tuple[type[T], Mapping[str, Any]]:
    assert cls.kinds is not None
    for word in map(str, (given.get("kind"), *given)):
        if word in cls.refused:
            raise DsoError(f"{place}{cls.refused[word]}")
    if "kind" not in given:
        raise DsoError(f"{place}'kind' is missing; it is one of {', '.join(cls.kinds)}.")
    try:
        return cls.kinds[str(given["kind"])], {k: v for k, v in given.items() if k != "kind"}
    except DsoError as error:
        raise DsoError(f"{place}{error}") from error


def _values(cls: type[Table], given: Mapping[str, Any], place: _Place) -> dict[str, Any]:
    """The keys given with values of the right types."""
    known = keys(cls)
    for name in given:
        if name not in known:
            raise DsoError(f"{place}unknown key '{name}'; it takes {nearest(str(name), known, len(known)) or 'none'}.")
    return {name: _value(cls, name, value, place) for name, value in given.items()}


def _built(cls: type[T], values: dict[str, Any], place: _Place, options: Iterable[str], more: Mapping[str, Any]) -> T:
    for name, note in keys(cls).items():
        if name not in values and _default(cls, name) is _FREE:
            raise DsoError(f"{place}'{name}' is missing; write {name} = {toml(note.example)}.")
    try:
        return cls(**values, **more)
    except DsoError as error:
        text = getattr(error, "text", str(error))
        for name in options:
            text = text.replace(f"`{name}`", _Place(option=True).told(name))
        raise DsoError(f"{place}{text.replace('`', '')}") from error


def _value(cls: type[Table], name: str, value: Any, place: _Place) -> Any:
    """A value of the type that the key has."""
    note, kind, inner = keys(cls)[name], _hints(cls)[name], place.inside(name)
    if value is None and type(None) in get_args(kind):
        return None
    try:
        try:
            found = note.read(value) if note.read is not None else _fit(kind, value, inner)
        except (TypeError, ValueError) as error:
            raise _Misfit from error
        if not all(within_bounds(number, note.within) for number in _numbers(found)):
            raise _Misfit
        if note.choices is not None and not all(choice in note.choices for choice in entries(found)):
            raise _Misfit
        return found
    except _Misfit as misfit:
        sample = note.example if note.example is not None else _default(cls, name)
        if misfit.place is None:
            if words(cls, name) == A_TABLE:
                sample = f"[{inner.table}] on a line of its own, and its keys below"
            raise place.wrong(name, value, words(cls, name), sample) from misfit
        outer, _, last = misfit.place.table.rpartition(".")
        if is_table(misfit.kind):
            sample = f"[{misfit.place.table}] on a line of its own, and its keys below"
        elif isinstance(sample, Mapping) and sample:
            sample = next(iter(sample.values()))
        expected = " or ".join(in_words(misfit.kind, note.within))
        where = _Place(f"{place.source}{outer}.")
        raise where.wrong(last, misfit.value, expected, sample) from misfit
    except DsoError as error:
        raise error if note.read is None else DsoError(f"{place.told(name)}: {error}") from error


def _fit(kind: Any, value: Any, place: _Place) -> Any:
    """`value` as a `kind`; `place` is what a table in it is called."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        if not isinstance(value, str) or value not in args:
            raise _Misfit
        return value
    if origin is Annotated:
        return _file(value, place) if args[1] == "file" else _range(value, place)
    if origin in (Union, types.UnionType):
        for one in args:
            with contextlib.suppress(_Misfit):
                return _fit(one, value, place)
        raise _Misfit
    if origin is tuple:
        return _tuple(args, value, place)
    if origin is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _Misfit
        return {name: _entry(args[1], name, entry, place.inside(name)) for name, entry in value.items()}
    if is_table(kind) and isinstance(value, Mapping):
        return _made(kind, value, place)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a number of NumPy or JAX
    if isinstance(value, bool) and kind is not bool:
        raise _Misfit
    if kind is float and isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            raise _Misfit from None
    if kind is int and isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, kind):
        raise _Misfit
    return value


def _entry(kind: Any, name: str, value: Any, place: _Place) -> Any:
    try:
        if is_table(kind) and isinstance(value, Mapping):
            return _made(kind, value, place, name)
        return _fit(kind, value, place)
    except _Misfit as misfit:
        raise misfit if misfit.place else _Misfit(kind, place, value) from misfit


def _tuple(kinds: tuple[Any, ...], value: Any, place: _Place) -> tuple[Any, ...]:
    if isinstance(value, numbers.Number) or value is None:
        raise _Misfit
    given = entries(value)
    if kinds[-1] is not Ellipsis and len(kinds) != len(given):
        raise _Misfit
    each = kinds if kinds[-1] is not Ellipsis else kinds[:1] * len(given)
    return tuple(_fit(kind, entry, place) for kind, entry in zip(each, given, strict=True))


def _file(value: Any, place: _Place) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _Misfit
    if not str(value) or "\0" in str(value):
        raise DsoError(f"{place.source}{value!r}: no file can have this name; give the path of one.")
    return str(value if place.folder is None else place.folder / value)


def _range(value: Any, place: _Place) -> tuple[float, ...]:
    low, high = _tuple((float, float), value, place)
    if not low <= high:
        raise _Misfit
    return low, high


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in a value, which have bounds; those of tables have their own."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, tuple | Mapping):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(entry)


def _plain(value: Any) -> Any:
    """A value as JSON holds it; an object that is no value is called what messages call it."""
    if isinstance(value, Table):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, str | int | float):
        return value
    label = getattr(value, "label", getattr(value, "source", None))
    if label is None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return label or type(value).__name__


@functools.cache
def _fields(cls: type) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls)}


@functools.cache
def _hints(cls: type[Table]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name] if note.kind is None else note.kind for name, note in keys(cls).items()}


def _default(cls: type[Table], name: str) -> Any:
    field = _fields(cls)[name]
    return field.default if field.default_factory is _FREE else field.default_factory()
