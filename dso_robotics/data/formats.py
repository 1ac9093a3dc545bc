"""Which kind of file a table is in, as its first bytes say, and its reader."""

from collections.abc import Sequence
from pathlib import Path

from dso_robotics.data.dialect import Dialect
from dso_robotics.data.foreign_hdf5 import is_log, read_hdf5
from dso_robotics.data.json_table import read_json
from dso_robotics.data.matlab import read_mat
from dso_robotics.data.parquet import is_dataset, read_parquet
from dso_robotics.data.saved_arrays import read_npy, read_npz
from dso_robotics.data.table import Table
from dso_robotics.data.text import read_text
from dso_robotics.data.topics import read_topics
from dso_robotics.data.tree import tables
from dso_robotics.errors import DsoError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = "is a Python pickle, which is never opened because it can run code; save the arrays with numpy.savez"
# First bytes of files that are told apart only to say what to do with them.
_OTHERS = (
    (b"\x1f\x8b", "is packed with gzip; unpack it first (gunzip)"),
    (b"BZh", "is packed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "is packed with xz; unpack it first"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook; save the sheet as CSV"),
    (b"#ROSBAG V1.", "is a ROS bag of version 1; `rosbag fix` makes one of version 2 of it"),
    (b"ULog", "is a PX4 log; write its topics as CSV with ulog2csv"),
    *((bytes((0x80, version)), _PICKLE) for version in (2, 3, 4, 5)),
)


def is_log_file(path: str | Path) -> bool:
    """Whether a file is a log of this toolkit, not a table to convert; a file that is missing or damaged is one by its name."""
    path = Path(path)
    if path.is_file() and _head(path).startswith(_HDF5):
        return is_log(path)
    return path.suffix.lower() in (".h5", ".hdf5") and not (path.is_file() and _head(path)[:6] == b"MATLAB")


def read_tables(
    path: str | Path,
    dialect: Dialect | None = None,
    *,
    wanted: Sequence[str] = (),
    time: str | None = None,
    ctrl: Sequence[str] = (),
) -> tuple[Table, ...]:
    """The tables of a file: one, or one for each rollout that it holds.

    dialect: what the user says about a text file.
    wanted, time: the mappings whose columns decide which groups of the file are rollouts; see `tree.tables`.
    ctrl: those of `wanted` that are controls, which are held from one message of a bag to the next; see `topics.read_topics`.
    Raises DsoError for a file that is missing, empty, damaged or of no known kind. Parsing a column raises it for a cell that
    is not a number.
    """
    path, dialect = Path(path), dialect or Dialect()
    if not path.exists():
        raise DsoError(f"{path}: there is no such file; check the path.")
    others = [text for text in (*wanted, time) if text and text not in ctrl]
    if path.is_dir() and (path / "metadata.yaml").is_file():
        return read_topics(path, ctrl, others)
    if path.is_dir():
        if is_dataset(path) or any(path.rglob("*.parquet")):
            return read_parquet(path, wanted, time)
        raise DsoError(
            f"{path}: is a folder, but no ROS 2 bag (it has no metadata.yaml) and no Parquet data set; give the files in it."
        )
    head = _head(path)
    if head.startswith(b"SQLite format 3") and (path.parent / "metadata.yaml").is_file():
        return read_topics(path.parent, ctrl, others)
    if head.startswith(b"SQLite format 3"):
        raise DsoError(
            f"{path}: is a database; if it is a ROS 2 bag, give the folder with its metadata.yaml, which "
            "`ros2 bag reindex` makes."
        )
    if head.startswith((b"\x89MCAP", b"#ROSBAG V2")):
        return read_topics(path, ctrl, others)
    if head.startswith(b"PAR1"):
        return read_parquet(path, wanted, time)
    for mark, what in _OTHERS:
        if head.startswith(mark):
            raise DsoError(f"{path}: {what}.")
    if head.startswith(b"PK") or path.suffix.lower() == ".npz":
        leaves, others = read_npz(path)
    elif head.startswith(b"\x93NUMPY"):
        leaves, others = read_npy(path)
    elif head.startswith(_HDF5) or head[512:].startswith(_HDF5):
        leaves, others = read_hdf5(path)
    elif head.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        leaves, others = read_mat(path)
    elif _is_json(path, head):
        leaves, notes = read_json(path, dialect.encoding)
        found = tables(path, leaves, wanted, time, {})
        return tuple(_noted(table, notes) for table in found)
    else:
        return (read_text(path, dialect),)
    return tables(path, leaves, wanted, time, others)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(1024)
    except OSError as error:
        raise DsoError(f"{path}: cannot be opened ({error.strerror}); check its permissions.") from error


def _is_json(path: Path, head: bytes) -> bool:
    """A bracket may begin a preamble too, so a file of another name must go on as JSON does."""
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        return True
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith((b"{", b"[{", b"[[")) or (text.startswith(b"[") and text[1:].lstrip()[:1] in (b"{", b"["))


def _noted(table: Table, notes: Sequence[str]) -> Table:
    return Table(table.path, table.names, table._parse, table.rollout, table.units, tuple(notes), table.refused)
