"""C programs of tests: compiled by the machine's compiler, fed with numbers, compared with Python."""

import pathlib
import shutil
import subprocess
import sys

import mujoco
import numpy as np
import pytest

_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic-errors", "-O2"]


def compiler():
    """Path of a C compiler; the test is skipped where there is none."""
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no C compiler on this machine")
    return found


def with_mujoco():
    """Flags for MuJoCo's headers and library, which are in its wheel; the test is skipped where they are not."""
    package = pathlib.Path(mujoco.__file__).parent
    libraries = sorted(package.glob("libmujoco.so*"))
    if (
        not sys.platform.startswith("linux")
        or not libraries
        or not (package / "include" / "mujoco" / "mujoco.h").is_file()
    ):
        pytest.skip("this MuJoCo has no headers and shared library for a C program")
    return ["-isystem", str(package / "include"), str(libraries[0]), f"-Wl,-rpath,{package}"]


def run(folder, code, inputs, columns, flags=()):
    """What the C program `code` writes, rows of `columns` doubles, when it reads the rows of `inputs` (T, C)."""
    (folder / "main.c").write_text(code)
    program = folder / "main"
    built = [compiler(), *_FLAGS, f"-I{folder}", str(folder / "main.c"), "-o", str(program), *flags, "-lm"]
    done = subprocess.run(built, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = np.ascontiguousarray(inputs, float).tobytes()
    out = subprocess.run([str(program)], input=given, capture_output=True, check=True, cwd=folder).stdout
    return np.frombuffer(out).reshape(-1, columns)
