"""Curricula: numbers of a study that move in stages from an easy value to the study's own while it is trained."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.table import Table, key

# Tables whose numbers may move. Others change what is compiled once, sizes of arrays, or what a result means.
TABLES = ("cost", "terminate", "task", "start", "explore", "randomise")


@dataclasses.dataclass(frozen=True)
class CurriculumTable(Table):
    """A number of the study that begins elsewhere and reaches its own value in stages."""

    number: str = key("its place in the study, with dots, and [k] in a list", example="task.speed.high")
    first: float = key("its value at the beginning", example=0.2)
    until: float = key("share of the iterations after which it has the study's value", 0.5, within="(0, 1]")
    stages: int = key("steps on the way; the step of training is compiled again at each", 5, within="[1, 1000]")

    def value(self, last: float, progress: float) -> float:
        """The number at a share `progress` of the iterations, where the study has `last`."""
        stage = min(math.floor(progress / self.until * self.stages + 1e-9), self.stages)
        return self.first + (last - self.first) * stage / self.stages


def number_at(study: Any, place: str) -> float:
    """The number of a study at a place such as "explore.position.hinge[1]".

    Raises:
      DsoError: there is no number, or a curriculum cannot move it.
    """
    found = study
    for part in _parts(place):
        found = _inside(found, part, place)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise DsoError(f"number = '{place}': {found!r} there is no number.")
    return float(found)


def with_number(study: Any, place: str, number: float) -> Any:
    """The study with another number at a place."""
    return _replaced(study, _parts(place), number, place)


def study_at(study: Any, progress: float) -> Any:
    """The study with the numbers that its curricula give it at a share `progress` of the iterations."""
    found = study
    for table in study.curriculum.values():
        value = table.value(number_at(study, table.number), progress)
        found = with_number(found, table.number, value)
    return found


def check_curricula(study: Any, check: Callable[[Any], object]) -> None:
    """Look at every stage before anything is compiled.

    check: raises DsoError for a study that cannot be meant.

    Raises:
      DsoError: a place holds no number that may move, or a stage is refused.
    """
    for name, table in study.curriculum.items():
        try:
            top = table.number.partition(".")[0].partition("[")[0]
            if top not in TABLES:
                raise DsoError(
                    f"number = '{table.number}': only numbers in [{'], ['.join(TABLES)}] can move while a policy is trained."
                )
            last = number_at(study, table.number)
            for stage in range(table.stages + 1):
                value = table.first + (last - table.first) * stage / table.stages
                check(with_number(study, table.number, value))
        except DsoError as error:
            raise DsoError(f"{study.source}: [curriculum.{name}] {error}") from error


class Curriculum:
    """A training method whose study moves in stages. Its state is that of the study's own method.

    make: a study -> the method of training it.
    final: the method of the study itself.
    """

    def __init__(self, study: Any, iterations: int, make: Callable[[Any], Any], final: Any):
        self._study, self._iterations, self._make, self._final = study, iterations, make, final
        self._moving = [(table, number_at(study, table.number)) for table in study.curriculum.values()]
        self._numbers: tuple[float, ...] = ()
        self._method = final

    def __getattr__(self, name: str) -> Any:
        return getattr(self._final, name)

    def _at(self, iteration: int) -> Any:
        """The method of an iteration. Methods of stages that are over are given up."""
        progress = iteration / self._iterations
        numbers = tuple(table.value(last, progress) for table, last in self._moving)
        if numbers != self._numbers:
            done = all(number == last for number, (_, last) in zip(numbers, self._moving, strict=True))
            self._method = self._final if done else self._make(study_at(self._study, progress))
            self._numbers = numbers
        return self._method

    def init(self, key: Any, theta: Any) -> Any:
        """See `core.descent.Method`: the state at the first stage."""
        return self._at(0).init(key, theta)

    def compile(self, state: Any) -> None:
        """Compile the step of the state's stage."""
        self._at(int(state.iteration)).compile(state)

    def step(self, state: Any) -> tuple[Any, Any]:
        """A step at the state's stage."""
        take = self._at(int(state.iteration)).step
        return take(state)


def _parts(place: str) -> list[str | int]:
    found: list[str | int] = []
    for part in place.split("."):
        match = re.fullmatch(r"(.+?)\[(\d+)\]", part)
        found += [part] if match is None else [match[1], int(match[2])]
    return found


def _inside(value: Any, part: str | int, place: str) -> Any:
    try:
        if isinstance(part, int):
            return value[part] if isinstance(value, tuple | list) else _nothing()
        if isinstance(value, Mapping):
            return value[part]
        return getattr(value, part) if dataclasses.is_dataclass(value) else _nothing()
    except (LookupError, AttributeError):
        raise DsoError(f"number = '{place}': the study has no '{part}' there.") from None


def _nothing() -> Any:
    raise LookupError


def _replaced(value: Any, parts: list[str | int], number: float, place: str) -> Any:
    if not parts:
        if isinstance(value, int) and not isinstance(value, bool):
            raise DsoError(f"number = '{place}' is a whole number, which cannot move in between.")
        return number
    part, rest = parts[0], parts[1:]
    inner = _replaced(_inside(value, part, place), rest, number, place)
    if isinstance(value, tuple | list):
        return tuple(inner if k == part else entry for k, entry in enumerate(value))
    if isinstance(value, Mapping):
        return {**value, part: inner}
    return dataclasses.replace(value, **{str(part): inner})
