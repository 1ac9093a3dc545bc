"""The run file `run.h5`: theta in named blocks, its history, optimiser state, cost terms, study, model. No pickle."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dso_robotics.data.atomic import atomic_file, memory_file
from dso_robotics.errors import DsoError

SCHEMA, SCHEMA_VERSION = "dso-run", 1

Tree = Mapping[str, Any]


def write_run(
    path: Path, tree: Tree, study: Mapping[str, Any], mjcf: str, *, ready: Callable[[], object] = lambda: None
) -> None:
    """Write a run file atomically.

    tree: nested mappings of arrays, numbers and strings.
    study: the resolved study, stored as JSON.
    mjcf: text of the model before the run. With it the file alone is enough to resume and to redraw the report.
    ready: called when the whole file is on the disk, just before it replaces the old one.
    """
    with atomic_file(path) as temporary:
        with memory_file(temporary) as file:
            file.attrs.update(schema=SCHEMA, schema_version=SCHEMA_VERSION)
            file["study"] = json.dumps(study)
            file["model"] = mjcf
            _write(file, tree)
        ready()


def read_run(path: str | Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The tree (groups as dictionaries, datasets as arrays or strings), the study and the model's MJCF of a run file.

    Raises:
      DsoError: the file is missing, damaged, or not a run file of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise DsoError(f"{path}: there is no run file here; give the --out folder of a dso command.")
    try:
        with h5py.File(path, "r") as file:
            schema, version = file.attrs.get("schema"), file.attrs.get("schema_version")
            if schema != SCHEMA or version != SCHEMA_VERSION:
                raise DsoError(
                    f"{path}: schema {schema!r} version {version!r} is not {SCHEMA!r} version {SCHEMA_VERSION}; "
                    "this is not a run file of this version of dso, so run the study again."
                )
            tree = _read(file)
            return tree, json.loads(tree.pop("study")), tree.pop("model")
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DsoError(f"{path}: the run file is damaged ({error}); run the study again without --resume.") from error


def _write(group: h5py.Group, tree: Tree) -> None:
    for name, value in tree.items():
        # A slash would nest groups, so a slash in a parameter path becomes a division sign.
        key = name.replace("/", "∕")
        if isinstance(value, Mapping):
            _write(group.create_group(key), value)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], str):
            group.create_dataset(key, data=list(value), dtype=h5py.string_dtype())
        else:
            group[key] = value


def _read(group: h5py.Group) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, item in group.items():
        name = key.replace("∕", "/")
        if isinstance(item, h5py.Group):
            tree[name] = _read(item)
        elif isinstance(item, h5py.Dataset):
            value = item[()]
            if isinstance(value, bytes):
                value = value.decode()
            elif h5py.check_string_dtype(item.dtype) is not None and isinstance(value, np.ndarray):
                value = [v.decode() if isinstance(v, bytes) else v for v in value]
            tree[name] = value
    return tree
