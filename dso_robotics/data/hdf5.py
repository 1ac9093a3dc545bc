"""The HDF5 layout of a log. The reader checks every declared size before it allocates memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError

SCHEMA = "dso-log"
SCHEMA_VERSION = 1
RANKS = {"time": 1, "ctrl": 2, "sensordata": 2, "qpos": 2, "qvel": 2}
"""Datasets of a rollout and their number of axes."""
PREFIX = {"ctrl": "ctrl", "sensordata": "sensor"}
"""Datasets whose channels have names and units, and the prefix of Rollout's fields for them."""
Contents = tuple[dict[str, float | str], tuple[Rollout, ...]]
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_CHANNELS = 10_000


def read_contents(path: Path) -> Contents:
    """Attributes of the file and its rollouts, checked. Every fault raises a DsoError that names `path`."""
    _check_signature(path)
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except DsoError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fault = "is truncated" if "truncated" in reason else "is damaged"
        raise DsoError(f"{path}: {fault} and cannot be read as HDF5 ({reason}); copy or record it again.") from error


def _check_signature(path: Path) -> None:
    if path.is_dir():
        raise DsoError(f"{path}: is a folder, not a log file; give the .h5 file in it.")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_SIGNATURE))
    except FileNotFoundError as error:
        raise DsoError(f"{path}: there is no such log file; check the path.") from error
    except OSError as error:
        raise DsoError(f"{path}: cannot be opened ({error.strerror}); check its permissions.") from error
    if not head:
        raise DsoError(f"{path}: the file is empty; copy or record it again.")
    if head != _SIGNATURE:
        raise DsoError(
            f"{path}: is not an HDF5 file; a log is one (see `dso inspect --help`), and `dso convert` makes one "
            "from CSV or NPZ."
        )


def _read(file: h5py.File, path: Path) -> Contents:
    _check_schema(file, path)
    rollouts = _group(file, "rollouts", path, "the file has no group 'rollouts'")
    names = tuple(rollouts)
    if not names:
        raise DsoError(f"{path}: the log has no rollouts; record or convert at least one.")
    found: dict[str, dict[str, h5py.Dataset]] = {}
    claimed = 0
    for name in names:
        group = _group(rollouts, name, path, f"rollout {name!r} is not a group")
        found[name] = _datasets(group, path, name)
        claimed += sum(_claim(dataset) for dataset in found[name].values())
        # Inside the loop, so that the message names the rollout that is too large.
        refuse_oversized(claimed, path, f"the data up to rollout {name!r}")
    read = []
    for name in names:
        fields: dict[str, Any] = {}
        for kind, dataset in found[name].items():
            if kind in PREFIX:
                where = f"{path}: rollout {name!r}, {kind}"
                fields[f"{PREFIX[kind]}_names"] = _texts(dataset, "names", where, required=True)
                fields[f"{PREFIX[kind]}_units"] = _texts(dataset, "units", where, required=False)
            fields[kind] = dataset[()]
        try:
            read.append(Rollout(name=name, **fields))
        except DsoError as error:
            raise DsoError(f"{path}: {error}") from error
    attributes = {key: _scalar(file, key) for key in file.attrs if key not in ("schema", "schema_version")}
    return {key: value for key, value in attributes.items() if value is not None}, tuple(read)


def _check_schema(file: h5py.File, path: Path) -> None:
    schema = _scalar(file, "schema")
    if schema != SCHEMA:
        said = "has no attribute 'schema'" if schema is None else f"has the schema {schema!r}"
        raise DsoError(
            f"{path}: {said}, expected {SCHEMA!r}, so it is some other HDF5 file; convert its data with "
            "`dso convert`, or set the attribute if the file has the layout of a log."
        )
    version = _scalar(file, "schema_version")
    if version != SCHEMA_VERSION:
        said = "has no schema_version" if version is None else f"has schema_version {version!r}"
        raise DsoError(
            f"{path}: {said}; this release reads version {SCHEMA_VERSION}. Install a release that reads the file's "
            "version, or record it again."
        )


def _group(parent: h5py.Group, name: str, path: Path, complaint: str) -> h5py.Group:
    link = parent.get(name, getlink=True) if name in parent else None
    # Soft and external links could lead to other files; a log is one self-contained file.
    child = parent[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(child, h5py.Group):
        raise DsoError(f"{path}: {complaint}; the data of a log are in /rollouts/<name>/time, ctrl, sensordata.")
    return child


def _datasets(group: h5py.Group, path: Path, name: str) -> dict[str, h5py.Dataset]:
    where = f"{path}: rollout {name!r}"
    found = {}
    for kind, rank in RANKS.items():
        if kind not in group:
            continue
        link = group.get(kind, getlink=True)
        dataset = group[kind] if isinstance(link, h5py.HardLink) else None
        if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
            raise DsoError(f"{where}, {kind}: is not a dataset stored in this file; store the numbers themselves.")
        if dataset.dtype.kind not in "fiu":
            raise DsoError(f"{where}, {kind}: has values of type {dataset.dtype}, not real numbers; store floats.")
        if dataset.shape is None or len(dataset.shape) != rank:
            expected = "(samples,)" if rank == 1 else "(samples, channels)"
            raise DsoError(f"{where}, {kind}: has shape {dataset.shape}, expected {expected}; reshape it.")
        if rank == 2 and dataset.shape[1] > _MAX_CHANNELS:
            raise DsoError(
                f"{where}, {kind}: declares {dataset.shape[1]:,} channels, more than {_MAX_CHANNELS:,}; samples are "
                "the first axis and channels the second, so transpose it."
            )
        found[kind] = dataset
    if "time" not in found:
        raise DsoError(f"{where}: has no dataset 'time'; every sample needs a time stamp in seconds.")
    samples = found["time"].shape[0]
    for kind, dataset in found.items():
        if dataset.shape[0] != samples:
            raise DsoError(
                f"{where}, {kind}: has {dataset.shape[0]:,} samples but time has {samples:,}; each sample needs one "
                "time stamp, so cut or record both to the same length."
            )
    return found


def _claim(dataset: h5py.Dataset) -> int:
    """Bytes of memory for the dataset as float64. At least one chunk counts, because a chunk is always unpacked whole."""
    sizes = [_product(dataset.shape), _product(dataset.chunks or ())]
    return 8 * max(sizes)


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:  # Python integers: numpy's would overflow on a forged shape
        total *= int(size)
    return total


def _texts(dataset: h5py.Dataset, key: str, where: str, *, required: bool) -> tuple[str, ...]:
    count = dataset.shape[1]
    if key not in dataset.attrs:
        if required:
            raise DsoError(f"{where}: has no attribute {key!r}; give the {count} name(s) of its channels.")
        return ("",) * count
    shape = dataset.attrs.get_id(key).shape
    if shape is None:
        raise DsoError(f"{where}: the attribute {key!r} is empty; give the {count} name(s) or unit(s) of its channels.")
    if shape not in ((count,), ()) or (shape == () and count != 1):
        found = shape[0] if len(shape) == 1 else 1
        raise DsoError(
            f"{where}: has {count} channel(s) but {found} entries in the attribute {key!r}; give one for each channel."
        )
    values = np.asarray(dataset.attrs[key], dtype=object).reshape(-1).tolist()
    texts = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(text, str) for text in texts):
        raise DsoError(f"{where}: the attribute {key!r} does not contain text; store strings.")
    return tuple(texts)


def _scalar(file: h5py.File, key: str) -> float | str | None:
    """An attribute of the file, text or number; None if it is absent or neither."""
    if key not in file.attrs or _product(file.attrs.get_id(key).shape or ()) != 1:
        return None
    value = np.asarray(file.attrs[key]).reshape(()).item()
    if isinstance(value, bytes):
        value = value.decode()
    return value if isinstance(value, str | int | float) else None
