"""How the commands show progress: `--progress`, `--quiet` and `--tensorboard`, the same for all."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

# The ways of `progress.show.chosen`, which is imported late.
WAYS = ("auto", "lines", "json", "none")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    group = parser.add_argument_group("progress")
    group.add_argument(
        "--progress",
        choices=WAYS,
        default="auto",
        help="what stderr shows of work over two seconds: a line that changes on a terminal and lines elsewhere (auto, the "
        "default), always lines, JSON lines for programs (docs/progress.md), or nothing",
    )
    group.add_argument("--quiet", action="store_true", help="the same as --progress none; warnings and errors remain")
    group.add_argument(
        "--tensorboard", metavar="FOLDER", help="also write cost, rate and other numbers there, for TensorBoard"
    )


@contextlib.contextmanager
def displayed(args: argparse.Namespace) -> Iterator[None]:
    """Within the context the progress of the command is shown as its options ask."""
    from dso_robotics.progress.show import chosen, showing

    way = "none" if args.quiet else args.progress
    also: list[Any] = []
    if args.tensorboard:
        from dso_robotics.progress.tensorboard import TensorBoard

        also.append(TensorBoard(args.tensorboard))
    try:
        with showing(chosen(way, sys.stderr), *also, name=args.subcommand):
            yield
    finally:
        for one in also:
            one.close()


def told_end(args: argparse.Namespace, status: int) -> None:
    """The last line of `--progress json`: the exit status."""
    if getattr(args, "progress", "") == "json" and not args.quiet:
        print(json.dumps({"event": "exit", "status": status}), file=sys.stderr, flush=True)
