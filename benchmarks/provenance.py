"""How a result came about: the commands that made a file of benchmarks/results, beside its numbers."""

import json
import pathlib
import shlex
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNKNOWN = "older parts: not kept"


def command() -> str:
    """The command of this process, as it is typed in the checkout."""
    words = ["python", *sys.orig_argv[1:]]
    return shlex.join(word.replace(f"{ROOT}/", "") for word in words)


def begun(path: pathlib.Path, new: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `path` holds, or `new`, for more results; "command" has the commands of all its parts, that of this process too.

    A file whose older parts have no command says so.
    """
    results = json.loads(path.read_text()) if path.exists() else dict(new or {})
    known = [part for part in results.get("command", UNKNOWN if path.exists() else "").split("; ") if part]
    if command() not in known:
        known.append(command())
    return {"command": "; ".join(known)} | {name: value for name, value in results.items() if name != "command"}


def write_table(page: pathlib.Path, script: str, table: str) -> None:
    """Put a table between the marks that `page` has for a script of benchmarks, and leave the rest of the page."""
    mark, end = f"<!-- measured: benchmarks/{script} -->", "<!-- end -->"
    head, _, rest = page.read_text().partition(mark)
    page.write_text(f"{head}{mark}\n\n{table}\n\n{end}{rest.partition(end)[2]}")
