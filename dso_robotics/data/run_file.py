"""The run file `run.h5`: theta in named blocks, its history, optimiser state, cost terms, study, model. No pickle."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py

from dso_robotics.data.archive import fixed_text, open_archive, write_text
from dso_robotics.data.atomic import atomic_file, memory_file
from dso_robotics.errors import DsoError

SCHEMA, SCHEMA_VERSION = "dso-run", 1

TEXTS = ("status", "summary", "model_digest")
GROUPS = (
    "inputs",
    "state",
    "records",
    "spent",
    "earlier",
    "best",
    "theta",
    "scaling",
    "estimator",
    "policy",
    "motions",
    "traces",
    "interval",
    "posterior",
)
"""What is of one type in a run file of every command, where it has it; `read_run` checks it."""

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
            write_text(file, "schema", SCHEMA)
            file.attrs["schema_version"] = SCHEMA_VERSION
            _write(file, {"study": json.dumps(study), "model": mjcf})
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
    again = "run the study again without --resume"
    with open_archive(path, "run file", again) as archive:
        schema, version = (archive.label(archive.file, key) for key in ("schema", "schema_version"))
        if schema != SCHEMA or version != SCHEMA_VERSION:
            raise DsoError(
                f"{path}: schema {schema!r} version {version!r} is not {SCHEMA!r} version {SCHEMA_VERSION}; "
                "this is not a run file of this version of dso, so run the study again."
            )
        tree = _named(archive.tree())
        study, mjcf = json.loads(tree.pop("study")), tree.pop("model")
    if not isinstance(study, dict) or not isinstance(mjcf, str):
        raise DsoError(f"{path}: the run file is damaged (its study is no table, or its model is no text); {again}.")
    for name in TEXTS:
        if not isinstance(tree.get(name, ""), str):
            raise DsoError(f"{path}: the run file is damaged (its {name} is no text); {again}.")
    for name in GROUPS:
        if not isinstance(tree.get(name, {}), dict):
            raise DsoError(f"{path}: the run file is damaged (its {name} is no group); {again}.")
    return tree, study, mjcf


def run_schema(path: Path) -> Any:
    """The schema that an HDF5 file states, None if it states none. Raises DsoError when it is damaged."""
    return label_of(path, "schema")


def label_of(path: Path, key: str) -> Any:
    """An attribute of an HDF5 file, None if it has none of this name. Raises DsoError when it is damaged."""
    with open_archive(path, "run file", "move it away") as archive:
        return archive.label(archive.file, key)


def _write(group: h5py.Group, tree: Tree) -> None:
    for name, value in tree.items():
        # A slash would nest groups, so a slash in a parameter path becomes a division sign.
        key = name.replace("/", "∕")
        if isinstance(value, Mapping):
            _write(group.create_group(key), value)
        elif isinstance(value, str) or (isinstance(value, list | tuple) and value and isinstance(value[0], str)):
            group[key] = fixed_text(value)
        else:
            group[key] = value


def _named(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The names that were written: see `_write`."""
    return {key.replace("∕", "/"): _named(value) if isinstance(value, dict) else value for key, value in tree.items()}
