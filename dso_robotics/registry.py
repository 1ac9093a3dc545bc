"""Names to things that a study can ask for: kinds of cost, correctors, training methods, parameter families.

Each of these is one file that registers itself. The files of the registry's own package are found and imported when the
registry is first looked into; a user's file registers its own thing in the same way when it is imported.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from dso_robotics.errors import DsoError, nearest

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Things called by name, in the order in which they were registered.

    kind: what one of them is called in messages, such as "cost". package: the dotted name of a package of the registry's own
    files, or None.
    """

    def __init__(self, kind: str, package: str | None = None):
        self.kind = kind
        self._package: str | None = package
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a thing as `name`.

        Raises:
          DsoError: another thing has the name.
        """

        def add(thing: T) -> T:
            other = self._things.get(name)
            if other is not None and not _same(other, thing):
                raise DsoError(f"{self.kind} '{name}': two are called so; give one of them another name.")
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        """The thing called `name`; a DsoError that lists the nearest names where there is none."""
        self._load()
        if name not in self._things:
            raise DsoError(f"there is no {self.kind} '{name}'; did you mean {nearest(str(name), self._things, 4)}?")
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        """Whether a thing is called `name`."""
        self._load()
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        """All names."""
        self._load()
        return iter(self._things)

    def __len__(self) -> int:
        """How many there are."""
        self._load()
        return len(self._things)

    def _load(self) -> None:
        package, self._package = self._package, None
        if package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
                importlib.import_module(module.name)


def _same(one: object, other: object) -> bool:
    """Whether two are the same definition: a file that is imported twice registers twice."""
    places = [(getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)) for thing in (one, other)]
    return one is other or (places[0] == places[1] and None not in places[0])
