"""`dso` in a forked process, to which things happen: it is killed at a moment, its disk is full, it may write nowhere."""

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_LONGEST = 600


@dataclasses.dataclass(frozen=True)
class Mishap:
    """What happens to a process.

    after: it is killed after so many seconds. file: it is killed when it puts its n-th file in place, before that or, with
    `put`, after. full: the disk is full from its n-th file on; `room`: but for so many bytes of each file. bare: it is root
    without the right to write where the mode of a folder forbids it.
    """

    after: float = 0.0
    file: int = 0
    put: bool = False
    full: int = 0
    room: int = 0
    bare: bool = False


@dataclasses.dataclass(frozen=True)
class End:
    """How a process ended. killed: by its mishap. status: 2 where it was refused. seconds: how long it ran. said: its words."""

    killed: bool
    status: int
    seconds: float
    said: str


def run(argv: Sequence[str], folder: Path, mishap: Mishap | None = None) -> End:
    """Run `dso` in `folder`.

    The process is forked, so that it need not import what this one has. Where JAX has computed here, whose threads a fork
    would lose, it begins anew.
    """
    fork = not getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
    began = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(argv, folder, writer, mishap or Mishap(), fork)
    os.close(writer)
    said = b""
    while block := os.read(reader, 1 << 16):
        said += block
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        killed, code = number in (signal.SIGALRM, signal.SIGKILL), -number
    else:
        killed, code = False, os.WEXITSTATUS(status)
    return End(killed, code, time.monotonic() - began, said.decode(errors="replace"))


def _child(argv: Sequence[str], folder: Path, writer: int, mishap: Mishap, fork: bool) -> None:
    status = 1
    try:
        os.chdir(folder)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        if not fork:
            asked = json.dumps([list(argv), dataclasses.asdict(mishap)])
            place = {"PYTHONPATH": str(Path(__file__).parents[2])}
            os.execve(sys.executable, [sys.executable, "-m", "tests.studies.processes", asked], os.environ | place)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        status = _run(argv, mishap)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(argv: Sequence[str], mishap: Mishap) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (_LONGEST, _LONGEST))
    _prepare(mishap)
    from dso_robotics.cli import main

    return main(argv)


def _prepare(mishap: Mishap) -> None:
    replace, make, counts = os.replace, tempfile.mkstemp, {"put": 0, "made": 0}

    def counted_replace(source, target, **more):
        counts["put"] += 1
        if counts["put"] == mishap.file and not mishap.put:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **more)
        if counts["put"] == mishap.file:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_make(*args, **more):
        counts["made"] += 1
        if counts["made"] == mishap.full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (mishap.room, mishap.room))
        return make(*args, **more)

    os.replace, tempfile.mkstemp = counted_replace, counted_make
    if mishap.after:
        # Nobody handles this signal, so the kernel ends the process as by SIGKILL.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, mishap.after)
    if mishap.bare and os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    given, happens = json.loads(sys.argv[1])
    sys.exit(_run(given, Mishap(**happens)))
