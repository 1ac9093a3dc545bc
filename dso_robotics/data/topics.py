"""Topics of a recording as one table: the stamps of one topic are the clock, and the other topics are put on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dso_robotics.data.bag import Recording, open_recording
from dso_robotics.data.limits import allowed_bytes, refuse_oversized
from dso_robotics.data.mapping import parse_column
from dso_robotics.data.message import numbers, stamp
from dso_robotics.data.rollout import Array, listed
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError

# Clocks of header and log that differ by more [s] are different clocks, such as that of a simulation.
_OTHER_CLOCK = 60.0
_SAME_RATE = 0.1


@dataclass(eq=False)
class _Topic:
    """The messages of a topic. logged, stamped: (T,) [ns]. columns: the rows and values of each."""

    logged: list[int] = field(default_factory=list)
    stamped: list[int | None] = field(default_factory=list)
    columns: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    @property
    def headed(self) -> bool:
        return bool(self.stamped) and all(stamp is not None for stamp in self.stamped)


@dataclass(frozen=True, eq=False)
class _Series:
    """A column: its stamps (T,) [ns] and values (T,)."""

    stamps: np.ndarray
    values: Array


def read_topics(path: Path, ctrl: Sequence[str], others: Sequence[str]) -> tuple[Table]:
    """The table of a recording. Its columns are `time` and `/topic/field`; of topics that nothing names one message is read.

    ctrl: mappings of controls, each held from one message to the next. Rows before the first message of any are left out.
    others: mappings of sensors, of the state, and of the time. The stamps of the first are the clock, those of the header where
    there is one.
    Another topic of the same rate is joined by the nearest stamp. Of a slower topic each message is put at the nearest stamp of
    the clock, and between its messages the cell is empty.
    Raises DsoError for a recording that is damaged, and for one without messages.
    """
    with open_recording(path) as recording:
        topics = _read(path, recording, [*ctrl, *others])
    if not topics:
        raise DsoError(f"{path}: has no messages with numbers; its topics: {listed(tuple(recording.topics))}.")
    names = tuple(name for topic in topics.values() for name in topic.columns)
    owner = {name: topic for topic, found in topics.items() for name in found.columns}
    controls, sensors = (_named(texts, names) for texts in (ctrl, others))
    used = {owner[name] for name in (*controls, *sensors)}
    headed, notes = _headed(topics, used)
    series = {name: _series(topics[owner[name]], name, owner[name] in headed) for name in (*sensors, *controls)}
    first = next(iter((*sensors, *controls)), None)
    clock = series[first].stamps if first else np.array(topics[owner[names[0]]].logged, np.int64)
    held = {name: _held(series[name], clock) for name in controls}
    begin = max((series[name].stamps.min() for name in held), default=clock[0])
    kept = clock >= begin
    if not kept.any():
        raise DsoError(
            f"{path}: the first message of a control ({max(held, key=lambda n: series[n].stamps.min())}) comes after the last "
            f"of {first}, so they have no time in common; map topics of one clock."
        )
    if not kept.all():
        notes.append(
            f"{int((~kept).sum())} of {len(kept)} samples come before the first message of a control and are left out"
        )
    joined = {name: _joined(series[name], clock) for name in sensors}
    for name, column in joined.items():
        if not np.isfinite(column).any() and np.isfinite(series[name].values).any():
            raise DsoError(f"{path}: {name} and {first} have no time in common; map topics of one clock.")
    notes += [f"time is the {'header' if owner[first] in headed else 'log'} stamp of {owner[first]}"] if first else []

    def parse(index: int) -> tuple[int, Array]:
        if index == 0:
            origin = int(clock[kept][0])
            return origin, (clock[kept] - origin).astype(np.float64)
        name = names[index - 1]
        # Of a column that is both a control and a sensor, the control must be known at every sample.
        values = held[name] if name in held else joined[name] if name in joined else np.full(len(clock), np.nan)
        return 0, values[kept]

    units = ("ns", *("" for _ in names))
    return (Table(str(path), ("time", *names), parse, units=units, notes=tuple(notes)),)


def _read(path: Path, recording: Recording, wanted: Sequence[str]) -> dict[str, _Topic]:
    """The numbers of the topics that are wanted, and one message of the others, for the names of their columns."""
    asked = {topic for topic in recording.topics if any(_says(text, topic) for text in wanted)}
    topics: dict[str, _Topic] = {}
    count, allowed = 0, allowed_bytes(path)
    for topic in recording.topics.keys() - asked:
        try:
            packet = next(recording.packets({topic}), None)
            if packet:
                _add(topics, topic, packet.stamp, packet.decode())
        except Exception:  # a topic that nobody asked for may be of any kind
            topics.pop(topic, None)
    for packet in recording.packets(asked) if asked else ():
        count += _add(topics, packet.topic, packet.stamp, packet.decode())
        if count * 8 > allowed:
            refuse_oversized(count * 8, path, "the topics that are mapped")
    return {topic: _plain(topics[topic]) for topic in sorted(topics) if topics[topic].columns}


def _says(text: str, topic: str) -> bool:
    return topic.replace("/", ".").strip(".") in text.replace("/", ".")


def _add(topics: dict[str, _Topic], name: str, logged: int, message: object) -> int:
    topic = topics.setdefault(name, _Topic())
    row, count = len(topic.logged), 0
    topic.logged.append(logged)
    topic.stamped.append(stamp(message))
    for key, value in numbers(message):
        rows, values = topic.columns.setdefault(f"{name}/{key}", ([], []))
        rows.append(row)
        values.append(value)
        count += 1
    return count + 1


def _plain(topic: _Topic) -> _Topic:
    """The topic with `data[0]` called `data` where that is all, as columns of arrays are in other files."""
    stems: dict[str, int] = {}
    for name in topic.columns:
        stem = name.rpartition("[")[0]
        stems[stem] = stems.get(stem, 0) + 1
    alone = {f"{stem}[0]": stem for stem, often in stems.items() if stem and often == 1}
    columns = {alone.get(name, name): column for name, column in topic.columns.items()}
    return _Topic(topic.logged, topic.stamped, columns)


def _named(texts: Sequence[str], names: tuple[str, ...]) -> dict[str, None]:
    """The columns of mappings, in order. What a mapping names that there is not is refused later."""
    found: dict[str, None] = {}
    table = Table("", names, lambda index: (0, np.zeros(0)))
    for text in texts:
        try:
            column = parse_column(text, table)
        except DsoError:
            continue
        for name, _ in column.terms:
            if (place := table.find(name)) is not None:
                found[names[place]] = None
    return found


def _headed(topics: dict[str, _Topic], used: set[str]) -> tuple[set[str], list[str]]:
    """The topics whose time is that of the header, and what is to be said about it."""
    headed = {name for name in used if topics[name].headed}
    if not headed or headed == used:
        return headed, []
    apart = [
        abs(float(np.median(np.array(topics[name].stamped, np.int64) - np.array(topics[name].logged, np.int64)))) * 1e-9
        for name in headed
    ]
    if max(apart) < _OTHER_CLOCK:
        return headed, []
    return set(), [
        f"the headers of {', '.join(sorted(headed))} have another clock than the log, and {', '.join(sorted(used - headed))} "
        "have no header, so time is the log stamp of each"
    ]


def _series(topic: _Topic, name: str, headed: bool) -> _Series:
    rows, values = topic.columns[name]
    return _Series(np.array(topic.stamped if headed else topic.logged, np.int64)[rows], np.array(values))


def _held(series: _Series, clock: np.ndarray) -> Array:
    """The value of the last message at or before each stamp, NaN before the first."""
    order = np.argsort(series.stamps, kind="stable")
    places = np.searchsorted(series.stamps[order], clock, side="right") - 1
    return np.where(places < 0, np.nan, series.values[order][np.maximum(places, 0)])


def _joined(series: _Series, clock: np.ndarray) -> Array:
    """The message nearest to each stamp; NaN where none is within half a step of the clock, or a step at the same rate."""
    if np.array_equal(series.stamps, clock):
        return series.values
    order = np.argsort(series.stamps, kind="stable")
    stamps = series.stamps[order]
    after = np.minimum(np.searchsorted(stamps, clock), len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(stamps[after] - clock) < np.abs(clock - stamps[before]), after, before)
    step, own = _step(clock), _step(stamps)
    if step and abs(own - step) <= _SAME_RATE * step:
        return np.where(np.abs(stamps[nearest] - clock) <= step, series.values[order][nearest], np.nan)
    # Each message once: at the stamp of the clock that is nearest to it.
    sorting = np.argsort(clock, kind="stable")
    ticks = clock[sorting]
    right = np.minimum(np.searchsorted(ticks, stamps), len(ticks) - 1)
    left = np.maximum(right - 1, 0)
    place = sorting[np.where(np.abs(ticks[right] - stamps) < np.abs(stamps - ticks[left]), right, left)]
    mine = (place[nearest] == np.arange(len(clock))) & (np.abs(stamps[nearest] - clock) <= max(step, 1))
    return np.where(mine, series.values[order][nearest], np.nan)


def _step(stamps: np.ndarray) -> float:
    return float(np.median(np.abs(np.diff(stamps)))) if len(stamps) > 1 else 0.0
