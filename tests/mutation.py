"""Does a test notice? Each mutation of mutations.toml breaks one line of a copy of the package, and its tests must then fail.

    python tests/mutation.py [WORD ...]

runs those whose file or name holds a WORD, all by default, prints the ones that no test noticed and exits with status 1
where there are any. It takes a few seconds a mutation on a quiet machine and is not part of the test run.
"""

import compileall
import contextlib
import importlib
import os
import pathlib
import py_compile
import shutil
import sys
import tempfile
import tomllib
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Loaded once; every test runs in a fork of this process.
_LOADED = (
    "numpy",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.stats",
    "mujoco",
    "h5py",
    "jax",
    "equinox",
    "optax",
    "lineax",
)


class Mutation(NamedTuple):
    """A line of `file` (below dso_robotics/) with `old` replaced by `new`; each of `tests` (below tests/) must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read() -> list[Mutation]:
    """The mutations of mutations.toml."""
    rows = tomllib.loads((ROOT / "tests" / "mutations.toml").read_text())["mutation"]
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def fails(folder: pathlib.Path, *tests: str) -> bool:
    """Whether any of the tests fails with the package in `folder`; one that cannot be found is an error."""
    told = folder / "told.txt"
    child = os.fork()
    if not child:
        with told.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            os.chdir(folder)
            sys.path[:] = [
                str(folder),
                *(place for place in sys.path if pathlib.Path(place).resolve() != ROOT / "tests"),
            ]
            os._exit(pytest.main(["-x", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise SystemExit(f"{tests}: pytest ended with status {code}.\n{told.read_text()[-2000:]}")
    return code == 1


def survivors(mutations: list[Mutation]) -> list[str]:
    """What no test noticed, a line each."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part in ("dso_robotics", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("models", "datasets", "docs", "pyproject.toml"):
            (folder / part).symlink_to(ROOT / part)
        # By hash: a line may be replaced within the second in which the file was written.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "dso_robotics", quiet=2, invalidation_mode=by_hash)
        sys.dont_write_bytecode = True
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        for module in _LOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        for test in sorted({test for mutation in mutations for test in mutation.tests}):
            if fails(folder, test):
                raise SystemExit(
                    f"{test} fails without any mutation; mend it first.\n{(folder / 'told.txt').read_text()[-3000:]}"
                )
        for mutation in mutations:
            path = folder / "dso_robotics" / mutation.file
            text = path.read_text()
            if text.count(mutation.old) != 1:
                raise SystemExit(f"{mutation.name}: {mutation.file} holds the text {text.count(mutation.old)} times.")
            path.write_text(text.replace(mutation.old, mutation.new))
            for test in mutation.tests:
                noticed = fails(folder, test)
                print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutation.name}  ({test})", flush=True)
                if not noticed:
                    found.append(f"{mutation.name}: {test}")
            path.write_text(text)
    return found


def main(words: list[str]) -> int:
    """Run the chosen mutations; the number of survivors, at most 1, is the status."""
    chosen = [m for m in read() if not words or any(word in m.name or word in m.file for word in words)]
    left = survivors(chosen)
    print(f"{len(chosen)} mutations, {len(left)} survivors" + "".join(f"\n  {line}" for line in left))
    return min(len(left), 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
