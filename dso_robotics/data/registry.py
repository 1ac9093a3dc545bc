"""Real recordings by name: the source of each, its licence, and how it is converted to a log."""

import hashlib
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dso_robotics.data.assets import asset
from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.convert import convert_table
from dso_robotics.data.download import download
from dso_robotics.data.log import Log
from dso_robotics.data.recordings import convert_recording
from dso_robotics.data.rollout import Rollout, listed, nearest
from dso_robotics.errors import DsoError


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of a recording.

    rollout: its name in the log.
    local: its name in `$DSO_DATA/<recording>/raw`.
    url: its upstream address.
    sha256: hash of the upstream bytes, "" if unknown.
    sha256_reduced: hash of the bytes after `reduce_csv`.
    """

    rollout: str
    local: str
    url: str
    sha256: str
    sha256_reduced: str


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One entry of the registry: what was recorded, by whom, and the mapping of columns to channels.

    time, ctrl, sensors: mapping of a plain table.
    columns: columns that are kept when a plain table is reduced, before it is checked and converted.
    digits: significant digits of a reduced table.
    converter: function of `data.recordings` for a file that is not a plain table.
    folder: name of the recording's folder in `$DSO_DATA`, if it is not `name`.
    """

    name: str
    title: str
    licence: str
    citation: str
    source: str
    files: tuple[Source, ...]
    time: str = "time"
    ctrl: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    digits: int = 0
    converter: str = ""
    folder: str = ""


def registry() -> dict[str, Recording]:
    """All registered recordings, by name."""
    with asset("datasets/registry.toml").open("rb") as stream:
        entries = tomllib.load(stream)
    return {name: _recording(name, entry) for name, entry in entries.items()}


def fetch(name: str, *, progress: Callable[[str], None] | None = None, patience: float = 8.0) -> Log:
    """The recording `name` as a log.

    Its files are read from `$DSO_DATA/<name>/raw` if that folder exists; otherwise they are downloaded to the user's cache.
    Every file is checked against its SHA-256. `progress` receives a line of text per file. A download fails after `patience`
    seconds without a byte. Raises DsoError for an unknown name (listing the known ones), a file that is missing or differs,
    and a failed download (the message explains DSO_DATA).
    """
    known = registry()
    if name not in known:
        raise DsoError(
            f"recording {name!r}: there is no recording of that name.{nearest(name, tuple(known))} Known: "
            f"{listed(tuple(known))}."
        )
    recording = known[name]
    folder = _local_folder(recording.folder or name)
    if folder is None:
        folder = _download(recording, progress or (lambda text: None), patience)
    else:
        for source in recording.files:
            _check_local(folder / source.local, source, recording)
    rollouts: list[Rollout] = []
    attributes: dict[str, float | str] = {}
    for source in recording.files:
        path = folder / source.local
        if recording.converter:
            converted, facts = convert_recording(recording.converter, path, source.rollout)
            attributes |= facts
        else:
            columns = recording.ctrl, recording.sensors
            converted = convert_table(path, *columns, time=recording.time, name=source.rollout).rollouts
        rollouts += converted
    credit = f"{recording.source}; {recording.citation}"
    return Log("", credit, recording.licence, tuple(rollouts), attributes)


def reduce_csv(content: bytes, columns: tuple[str, ...], digits: int) -> bytes:
    """CSV text with only `columns`, every number with `digits` significant digits, lines ended by \\n.

    Reducing a reduced file gives the same bytes. So its SHA-256 identifies the measured numbers, whether they come from the
    full-precision upstream file or from a reduced copy. Raises ValueError when a column is missing.
    """
    lines = content.decode().splitlines()
    head = lines[0].split(",")
    keep = [head.index(column) for column in columns]
    rows = [",".join(columns)]
    for line in lines[1:]:
        cells = line.split(",")
        rows.append(",".join(f"{float(cells[k]):.{digits}g}" for k in keep))
    return ("\n".join(rows) + "\n").encode()


def _recording(name: str, entry: dict[str, Any]) -> Recording:
    files = tuple(
        Source(
            rollout=file["rollout"],
            local=file["local"],
            url=entry["url"].format(commit=file.get("commit", entry["commit"]), path=file["path"]),
            sha256=file.get("sha256", ""),
            sha256_reduced=file.get("sha256_reduced", ""),
        )
        for file in entry["files"]
    )
    reduction = entry.get("reduction", {})
    return Recording(
        name=name,
        title=entry["title"],
        licence=entry["licence"],
        citation=entry["citation"],
        source=entry["source"].format(commit=entry["commit"]),
        files=files,
        time=entry.get("time", "time"),
        ctrl=tuple(entry.get("ctrl", ())),
        sensors=tuple(entry.get("sensors", ())),
        columns=tuple(reduction.get("columns", ())),
        digits=reduction.get("digits", 0),
        converter=entry.get("converter", ""),
        folder=entry.get("folder", ""),
    )


def _local_folder(name: str) -> Path | None:
    root = os.environ.get("DSO_DATA")
    folder = Path(root) / name / "raw" if root else None
    return folder if folder is not None and folder.is_dir() else None


def _check_local(path: Path, source: Source, recording: Recording) -> None:
    if not path.is_file():
        raise DsoError(
            f"{path}: this file of {recording.name} is missing from the folder in DSO_DATA; complete the folder, or "
            "unset DSO_DATA to download the recording."
        )
    if not _verified(path.read_bytes(), source, recording):
        raise DsoError(
            f"{path}: its content differs from the registered one (SHA-256 "
            f"{source.sha256_reduced or source.sha256}); restore the file, or unset DSO_DATA to download the recording."
        )


def _verified(content: bytes, source: Source, recording: Recording) -> bytes | None:
    """The content to convert, if it is the registered one: the upstream bytes, or the reduced bytes."""
    digest = hashlib.sha256(content).hexdigest()
    if source.sha256 and digest == source.sha256:
        return content if not source.sha256_reduced else reduce_csv(content, recording.columns, recording.digits)
    if not source.sha256_reduced:
        return None
    if digest == source.sha256_reduced:
        return content
    try:
        reduced = reduce_csv(content, recording.columns, recording.digits)
    except (ValueError, IndexError):
        return None
    return reduced if hashlib.sha256(reduced).hexdigest() == source.sha256_reduced else None


def _download(recording: Recording, progress: Callable[[str], None], patience: float) -> Path:
    import pooch

    folder = Path(pooch.os_cache("dso-robotics")) / recording.name
    wanted = [source for source in recording.files if not _cached(folder / source.local, source, recording)]
    if not wanted:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DsoError(f"{folder}: the cache cannot be created ({error.strerror}); {_WAY_ROUND}") from error
    for number, source in enumerate(wanted, 1):
        progress(f"{recording.name}: downloading {source.local} ({number} of {len(wanted)})")
        content = download(source.url, patience=patience, way_round=_WAY_ROUND)
        verified = _verified(content, source, recording)
        if verified is None:
            raise DsoError(
                f"{source.url}: the downloaded file differs from the registered file (SHA-256 "
                f"{source.sha256 or source.sha256_reduced + ' after reduction'}), so it is not used; {_WAY_ROUND}"
            )
        # The cache contains the reduced bytes, so the log is the same to the last digit whatever the source of the file.
        with atomic_file(folder / source.local) as temporary:
            temporary.write_bytes(verified)
    return folder


def _cached(path: Path, source: Source, recording: Recording) -> bool:
    return path.is_file() and _verified(path.read_bytes(), source, recording) is not None


_WAY_ROUND = (
    "try again with a network, or put the files into a folder <name>/raw under the folder that the environment "
    "variable DSO_DATA names."
)
