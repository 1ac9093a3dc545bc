"""The HDF5 layout of a log. The reader checks every declared size before it allocates memory."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.archive import Archive, open_archive
from dso_robotics.data.limits import allowed_bytes, refuse_oversized
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError

SCHEMA = "dso-log"
SCHEMA_VERSION = 1
RANKS = {"time": 1, "ctrl": 2, "sensordata": 2, "qpos": 2, "qvel": 2}
"""Datasets of a rollout and their number of axes."""
PREFIX = {"ctrl": "ctrl", "sensordata": "sensor"}
"""Datasets whose channels have names and units, and the prefix of Rollout's fields for them."""
Contents = tuple[dict[str, float | str], tuple[Rollout, ...]]
_MAX_CHANNELS = 10_000


def read_contents(path: Path) -> Contents:
    """Attributes of the file and its rollouts, checked. Every fault raises a DsoError that names `path`."""
    cure = "copy or record it again; `dso convert` makes a log from text, JSON, NPZ, MAT, HDF5, Parquet and bags"
    with open_archive(path, "log file", cure) as archive:
        return _read(archive, path)


def _read(archive: Archive, path: Path) -> Contents:
    file = archive.file
    _check_schema(archive, path)
    rollouts = _group(archive, file, "rollouts", path, "the file has no group 'rollouts'")
    names = tuple(rollouts)
    if not names:
        raise DsoError(f"{path}: the log has no rollouts; record or convert at least one.")
    claimed, allowed, read = 0, allowed_bytes(path), []
    for name in names:
        group = _group(archive, rollouts, name, path, f"rollout {name!r} is not a group")
        found = _datasets(archive, group, path, name)
        claimed += sum(_claim(dataset, shape) for dataset, shape in found.values())
        # Inside the loop, so that the message names the rollout that is too large.
        if claimed > allowed:
            refuse_oversized(claimed, path, f"the data up to rollout {name!r}")
        fields: dict[str, Any] = {}
        for kind, (dataset, shape) in found.items():
            if kind in PREFIX:
                where = f"{path}: rollout {name!r}, {kind}"
                fields[f"{PREFIX[kind]}_names"] = _texts(archive, dataset, shape[1], "names", where, required=True)
                fields[f"{PREFIX[kind]}_units"] = _texts(archive, dataset, shape[1], "units", where, required=False)
            fields[kind] = archive.values(dataset)
        try:
            read.append(Rollout(name=name, **fields))
        except DsoError as error:
            raise DsoError(f"{path}: {error}") from error
    keys = dict.fromkeys((*file.attrs, "source", "licence", "plan"))
    attributes = {key: archive.label(file, key) for key in keys if key not in ("schema", "schema_version")}
    return {key: value for key, value in attributes.items() if value is not None}, tuple(read)


def _check_schema(archive: Archive, path: Path) -> None:
    schema = archive.label(archive.file, "schema")
    if schema != SCHEMA:
        said = "has no attribute 'schema'" if schema is None else f"has the schema {schema!r}"
        raise DsoError(
            f"{path}: {said}, expected {SCHEMA!r}, so it is some other HDF5 file; convert its data with "
            "`dso convert`, or set the attribute if the file has the layout of a log."
        )
    version = archive.label(archive.file, "schema_version")
    if version != SCHEMA_VERSION:
        said = "has no schema_version" if version is None else f"has schema_version {version!r}"
        raise DsoError(
            f"{path}: {said}; this release reads version {SCHEMA_VERSION}. Install a release that reads the file's "
            "version, or record it again."
        )


def _group(archive: Archive, parent: h5py.Group, name: str, path: Path, complaint: str) -> h5py.Group:
    # Soft and external links could lead to other files; a log is one self-contained file.
    child = archive.child(parent, name)
    if not isinstance(child, h5py.Group):
        raise DsoError(f"{path}: {complaint}; the data of a log are in /rollouts/<name>/time, ctrl, sensordata.")
    return child


def _datasets(
    archive: Archive, group: h5py.Group, path: Path, name: str
) -> dict[str, tuple[h5py.Dataset, tuple[int, ...]]]:
    """The datasets of a rollout and their shapes."""
    where = f"{path}: rollout {name!r}"
    found, present = {}, set(group)
    for kind, rank in RANKS.items():
        if kind not in present:
            continue
        dataset = archive.child(group, kind)
        if not isinstance(dataset, h5py.Dataset):
            raise DsoError(f"{where}, {kind}: is not a dataset stored in this file; store the numbers themselves.")
        dtype, shape = dataset.dtype, dataset.shape
        if dtype.kind not in "fiu":
            raise DsoError(f"{where}, {kind}: has values of type {dtype}, not real numbers; store floats.")
        if shape is None or len(shape) != rank:
            expected = "(samples,)" if rank == 1 else "(samples, channels)"
            raise DsoError(f"{where}, {kind}: has shape {shape}, expected {expected}; reshape it.")
        if rank == 2 and shape[1] > _MAX_CHANNELS:
            raise DsoError(
                f"{where}, {kind}: declares {shape[1]:,} channels, more than {_MAX_CHANNELS:,}; samples are "
                "the first axis and channels the second, so transpose it."
            )
        found[kind] = dataset, shape
    if "time" not in found:
        raise DsoError(f"{where}: has no dataset 'time'; every sample needs a time stamp in seconds.")
    samples = found["time"][1][0]
    for kind, (_, shape) in found.items():
        if shape[0] != samples:
            raise DsoError(
                f"{where}, {kind}: has {shape[0]:,} samples but time has {samples:,}; each sample needs one "
                "time stamp, so cut or record both to the same length."
            )
    return found


def _claim(dataset: h5py.Dataset, shape: tuple[int, ...]) -> int:
    """Bytes of memory for the dataset as float64. At least one chunk counts, because a chunk is always unpacked whole."""
    return 8 * max(math.prod(map(int, shape)), math.prod(map(int, dataset.chunks or ())))


def _texts(
    archive: Archive, dataset: h5py.Dataset, count: int, key: str, where: str, *, required: bool
) -> tuple[str, ...]:
    values = archive.attribute(dataset, key)
    if values is None and not archive.has_attribute(dataset, key):
        if required:
            raise DsoError(f"{where}: has no attribute {key!r}; give the {count} name(s) of its channels.")
        return ("",) * count
    if values is None:
        raise DsoError(f"{where}: the attribute {key!r} is empty; give the {count} name(s) or unit(s) of its channels.")
    if isinstance(values, np.ndarray):
        values = values.tolist()
    texts = values if isinstance(values, list) else [values]
    if len(texts) != count:
        raise DsoError(
            f"{where}: has {count} channel(s) but {len(texts)} entries in the attribute {key!r}; give one for each channel."
        )
    if not all(isinstance(text, str) for text in texts):
        raise DsoError(f"{where}: the attribute {key!r} does not contain text; store strings.")
    return tuple(texts)
