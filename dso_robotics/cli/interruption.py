"""Ctrl-C and SIGTERM: a command ends at once, and tells how its run goes on."""

import argparse
import contextlib
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from dso_robotics.errors import DsoError

_INTERRUPTED, _TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise `Terminated`, so that files are closed and removed as after Ctrl-C."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:
        # Only the main thread may set a handler.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def status_of(error: KeyboardInterrupt) -> int:
    """The exit status after an interrupt, as shells have it."""
    return _TERMINATED if isinstance(error, Terminated) else _INTERRUPTED


def how_to_resume(args: argparse.Namespace | None) -> str:
    """A sentence with the command that resumes the interrupted run, if it can be resumed."""
    if args is None or not getattr(args, "out", None) or not hasattr(args, "resume"):
        return "interrupted."
    out = Path(args.out)
    if not (out / "run.h5").exists() or (out / "summary.json").exists():
        return "interrupted; nothing of this run was saved yet."
    words = ["dso", args.subcommand, *_named_again(args, out), "--resume", "--out", str(out)]
    return f"interrupted; `{shlex.join(words)}` continues the run."


def _named_again(args: argparse.Namespace, out: Path) -> list[str]:
    """What a run that uses a Python file needs besides its folder."""
    from dso_robotics.data.run_file import read_run
    from dso_robotics.studies.code import code_files

    try:
        study = read_run(out / "run.h5")[1]
    except DsoError:
        return []
    if not any(code_files(study)):
        return []
    if study.get("residual"):
        return ["--residual", str(study["residual"])]
    seed = [] if getattr(args, "seed", None) is None else ["--seed", str(args.seed)]
    return [*([args.study] if getattr(args, "study", None) else []), *seed]
