"""What becomes of an input: a value or a DsoError within limits is right, and everything else is a fault.

Inputs are read in batches by a forked process, so that a crash or a hang ends that process only.
"""

import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from dso_robotics.errors import DsoError

Files = Mapping[str, bytes]
"""An input: the content of each file by its name below the folder in which it is read."""
_PACKAGE = str(Path(__file__).parents[2] / "dso_robotics")
_MEMORY = 3 << 30
_LONGEST_MESSAGE = 4000


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of files of others.

    seeds: makes valid inputs by name. read: reads the input in the working folder; returns names of the files that it wrote.
    damages: functions that damage the content of a file, by the end of its name; `""` stands for all others.
    fixed: makes the files that stay as they are. batch: inputs for each process. new: inputs of a short test.
    computing: seconds of computing that no small input may need.
    deadline: seconds after which the process that reads it is ended.
    """

    seeds: Callable[[Path], dict[str, Files]]
    read: Callable[[], Sequence[str]]
    damages: Mapping[str, Sequence[Callable[[random.Random, bytes], bytes]]]
    fixed: Callable[[], Files] = dict
    batch: int = 40
    new: int = 20
    computing: float = 15.0
    deadline: float = 90.0

    def pool(self) -> dict[str, Files]:
        """The valid inputs. Reads one of them here, so that the processes to come need not import what it needs."""
        with tempfile.TemporaryDirectory(prefix="dso-seeds-") as name:
            found = self.seeds(Path(name))
            before = Path.cwd()
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(DsoError):
                    _laid_out({**self.fixed(), **next(iter(found.values()))}, Path(name, "first"))
                    self.read()
            finally:
                os.chdir(before)
        return found

    def damaged(self, rng: random.Random, files: Files) -> Files:
        """The input with one of its files damaged."""
        name = rng.choice([name for name in files if name not in self.fixed()])
        ways = next(ways for end, ways in self.damages.items() if name.endswith(end))
        content = rng.choice(ways)(rng, files[name])
        return {**files, name: content[: 1 << 20]}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """fault: what is wrong, None if nothing is. lines: lines of the package that the reading ran, for the first time."""

    files: Files
    fault: str | None
    lines: tuple[str, ...] = ()


def judge(target: Target, inputs: Sequence[Files | Callable[[], Files]], seen: set[str] | None = None) -> list[Verdict]:
    """A verdict on each input, or on what a function makes. `seen`: lines that are known; None does not look for lines."""
    verdicts: list[Verdict] = []
    while len(verdicts) < len(inputs):
        begin = len(verdicts)
        verdicts += _batch(target, inputs[begin : begin + target.batch], seen)
        for verdict in verdicts[begin:] if seen is not None else ():
            seen.update(verdict.lines)
    return verdicts


def _batch(target: Target, inputs: Sequence[Any], seen: set[str] | None) -> list[Verdict]:
    """Verdicts on the first inputs, at least one: after a crash or a hang the rest is left to another process."""
    with tempfile.TemporaryDirectory(prefix="dso-fuzz-", ignore_cleanup_errors=True) as name:
        work = Path(name)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(target, inputs, seen, work, writer)
        os.close(writer)
        told, why = _listen(reader, child, target.deadline)
        found = []
        for i in range(len(inputs)):
            kept = work / f"{i}.zip"
            if not kept.exists():
                # The input could not be made: no reader is to blame.
                found += [Verdict({}, None)] if i == len(found) and (why or not told) else []
                break
            verdict = Verdict(unpacked(kept.read_bytes()), *told.get(i, (why or "the process ended in mid-read", ())))
            found.append(verdict)
            if i not in told:
                break
        return found


def _listen(reader: int, child: int, deadline: float) -> tuple[dict[int, tuple[str | None, tuple[str, ...]]], str]:
    """What the child says of each input, and why it did not come to its end."""
    told: dict[int, tuple[str | None, tuple[str, ...]]] = {}
    pending, why = b"", ""
    while True:
        if not select.select([reader], [], [], deadline)[0]:
            why = f"hangs: no end within {deadline:g} s"
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)
            break
        block = os.read(reader, 1 << 16)
        if not block:
            break
        *lines, pending = (pending + block).split(b"\n")
        for line in lines:
            index, fault, ran = json.loads(line)
            told[index] = fault, tuple(ran)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if not why and os.WIFSIGNALED(status):
        why = f"crashes: signal {os.WTERMSIG(status)}"
    elif not why and os.WEXITSTATUS(status):
        why = f"ends the process with status {os.WEXITSTATUS(status)}"
    return told, why


def _child(target: Target, inputs: Sequence[Any], seen: set[str] | None, work: Path, writer: int) -> None:
    status = 1
    try:
        os.setsid()
        faulthandler.disable()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["DSO_TRACEBACK"] = "1"
        tempfile.tempdir = str(work / "temporary")
        (work / "temporary").mkdir()
        for i, given in enumerate(inputs):
            files = given() if callable(given) else given
            (work / f"{i}.new").write_bytes(packed(files))
            (work / f"{i}.new").rename(work / f"{i}.zip")
            ran: set[str] = set()
            fault = _read(target, {**target.fixed(), **files}, work, ran if seen is not None else None)
            os.write(writer, json.dumps([i, fault, sorted(ran - (seen or set()))]).encode() + b"\n")
        status = 0
    finally:
        os._exit(status)


def _laid_out(files: Files, folder: Path) -> None:
    """Write the files to `folder`, and work in it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    os.chdir(folder)


def _read(target: Target, files: Files, work: Path, ran: set[str] | None) -> str | None:
    folder = work / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    _laid_out(files, folder)
    began, wrote = _computed(), []
    try:
        with _lines(ran):
            wrote = list(target.read())
    except DsoError as error:
        if len(str(error)) > _LONGEST_MESSAGE:
            return f"a message of {len(str(error))} characters: {str(error)[:300]}"
        if not str(error).strip():
            return "an error without a message"
    except BaseException as error:
        return "".join(traceback.format_exception(error, limit=-12))[-4000:]
    if _computed() - began > target.computing:
        return f"takes {_computed() - began:.0f} s of computing"
    left = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - set(files) - set(wrote)
    left |= {p.name for p in (work / "temporary").iterdir()}
    if left:
        return f"leaves behind {', '.join(sorted(left))}"
    changed = [n for n, content in files.items() if n not in wrote and (folder / n).read_bytes() != content]
    return f"changes {', '.join(changed)}" if changed else None


def _computed() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def _lines(ran: set[str] | None) -> Iterator[None]:
    """Collect the lines of the package that run."""
    if ran is None:
        yield
        return
    found: dict[Any, set[int]] = {}

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        found[frame.f_code].add(frame.f_lineno)
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        found.setdefault(frame.f_code, set())
        return on_line

    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(None)
        for code, lines in found.items():
            short = code.co_filename[len(_PACKAGE) :]
            ran.update(f"{short}:{line}" for line in lines)


def packed(files: Files) -> bytes:
    """An input as the bytes of a ZIP archive, always the same for the same input."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def unpacked(content: bytes) -> Files:
    """The input in a ZIP archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
