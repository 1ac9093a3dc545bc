"""The log file: its contents, how it is checked and read, and how it is written atomically."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dso_robotics.data.archive import write_text
from dso_robotics.data.atomic import atomic_file, memory_file
from dso_robotics.data.hdf5 import PREFIX, RANKS, SCHEMA, SCHEMA_VERSION, read_contents
from dso_robotics.data.problems import problems
from dso_robotics.data.rollout import Rollout, duplicates, listed, nearest
from dso_robotics.errors import DsoError

__all__ = ["Log", "Rollout", "merge_logs", "problems", "read_log", "write_log"]

# Bytes of an array that is stored as it is.
_SMALL = 256


@dataclass(frozen=True, eq=False)
class Log:
    """Recordings of one mechanism and their origin.

    path: file that the log was read from; "" if it was not read from a file.
    source: where the data come from, free text.
    licence: free text.
    rollouts: the recordings.
    attributes: other numbers and texts of the file, such as the true parameters of a synthetic log.
    """

    path: str
    source: str
    licence: str
    rollouts: tuple[Rollout, ...]
    attributes: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        if not self.rollouts:
            raise DsoError("the log has no rollouts; record or convert at least one.")
        if repeated := duplicates(self.names):
            raise DsoError(f"several rollouts are called {repeated[0]!r}; names must differ.")
        # Rollouts with the same channels in another order are reordered like the first.
        first, *rest = self.rollouts
        object.__setattr__(self, "rollouts", (first, *(rollout.ordered_like(first) for rollout in rest)))

    def __repr__(self) -> str:
        head = f"Log: {len(self.rollouts)} rollout(s), {sum(len(one.time) for one in self.rollouts):,} samples"
        shown = [
            f"{one.name} ({one.time[-1] - one.time[0]:.4g} s)" if len(one.time) else one.name
            for one in self.rollouts[:12]
        ]
        more = f" and {len(self.rollouts) - 12} more" if self.rollouts[12:] else ""
        channels = repr(self.rollouts[0]).splitlines()[1:]
        return "\n".join([head, f"  rollouts    {', '.join(shown)}{more}", *channels, f"  source      {self.source}"])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rollouts, in order."""
        return tuple(rollout.name for rollout in self.rollouts)

    @property
    def label(self) -> str:
        """Name of this log in messages: its path, or `log` if it has none."""
        return self.path or "log"

    def __getitem__(self, name: str) -> Rollout:
        """The rollout called `name`. Raises DsoError listing the valid names when there is none."""
        for rollout in self.rollouts:
            if rollout.name == name:
                return rollout
        raise DsoError(
            f"{self.label}: has no rollout {name!r}.{nearest(name, self.names)} Its rollouts: {listed(self.names)}."
        )


def merge_logs(logs: Sequence[Log]) -> Log:
    """One log with the rollouts of all `logs`. A name that occurs in several becomes `<file stem>:<name>`.

    Raises DsoError when two logs are the same file: its samples would count twice.
    """
    if len(logs) == 1:
        return logs[0]
    files = [Path(log.path).resolve() for log in logs if log.path]
    twice = [str(file) for file in files if files.count(file) > 1]
    if twice:
        raise DsoError(f"{twice[0]}: this log is given twice, so its samples would count twice; give it once.")
    repeated = set(duplicates(name for log in logs for name in log.names))
    stems = [Path(log.label).stem for log in logs]
    # Logs with the same file name in different folders get a number.
    tags = [f"{stem}-{stems[:i].count(stem) + 1}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]
    rollouts = [
        replace(r, name=f"{tag}:{r.name}") if r.name in repeated else r
        for log, tag in zip(logs, tags, strict=True)
        for r in log.rollouts
    ]
    return Log(
        ", ".join(log.label for log in logs),
        "; ".join(dict.fromkeys(log.source for log in logs)),
        "; ".join(dict.fromkeys(log.licence for log in logs)),
        tuple(rollouts),
    )


def read_log(path: "str | Path | Log") -> Log:
    """Read and check a log file; a `Log` is returned as it is.

    The shapes and types of a rollout are checked before its data are read. Raises DsoError for a file that is missing, damaged,
    of another kind or version, or inconsistent. The message names the file, the thing and the cure.
    """
    if isinstance(path, Log):
        return path
    attributes, rollouts = read_contents(Path(path))
    source = str(attributes.pop("source", "not stated"))
    licence = str(attributes.pop("licence", "not stated"))
    return Log(str(path), source, licence, rollouts, MappingProxyType(attributes))


def write_log(
    path: str | Path, log: Log, *, dtype: Any = np.float64, beside: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> None:
    """Write `log` to `path` atomically, replacing an existing file.

    Arrays are gzip-compressed. `dtype=np.float32` halves their size (time stays float64). The bytes depend on the arguments
    only. `beside` has further arrays by rollout and name, which readers of logs pass over.
    Raises DsoError when the folder is not writable.
    """
    with atomic_file(path) as temporary, memory_file(temporary) as file:
        texts = {"schema": SCHEMA, "source": log.source, "licence": log.licence}
        for key, value in {**log.attributes, "schema_version": SCHEMA_VERSION, **texts}.items():
            if isinstance(value, str):
                write_text(file, key, value)
            else:
                file.attrs[key] = value
        for rollout in log.rollouts:
            group = file.create_group(f"rollouts/{rollout.name}")
            arrays = {kind: getattr(rollout, kind) for kind in RANKS} | dict((beside or {}).get(rollout.name, {}))
            for kind, values in arrays.items():
                if values is None:
                    continue
                stored = values if kind == "time" else values.astype(dtype)
                packed = {"compression": "gzip", "shuffle": True, "fletcher32": True, "track_times": False}
                # A chunk of a few numbers would take a hundred times their bytes.
                plain = stored.nbytes <= _SMALL
                dataset = group.create_dataset(kind, data=stored, **({"track_times": False} if plain else packed))
                if kind in PREFIX:
                    write_text(dataset, "names", getattr(rollout, f"{PREFIX[kind]}_names"))
                    write_text(dataset, "units", getattr(rollout, f"{PREFIX[kind]}_units"))
