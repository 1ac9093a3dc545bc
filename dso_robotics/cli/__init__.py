"""The `dso` command: one module a subcommand; this one parses, dispatches and turns errors into exit status 2."""

import argparse
import sys
from collections.abc import Sequence

from dso_robotics import __version__
from dso_robotics.errors import DsoError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from dso_robotics.cli import check, convert, fetch, identify, inspect, parameters, simulate

    top = argparse.ArgumentParser(
        prog="dso",
        description="Dynamical System Optimization for robots: identify, design and estimate by gradient descent on MuJoCo.",
        epilog="`dso COMMAND --help` explains each command with an example.",
    )
    top.add_argument("--version", action="version", version=f"dso {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (identify, simulate, inspect, convert, fetch, parameters, check):
        module.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 on success, 2 on bad input, 130 when interrupted."""
    try:
        args = parser().parse_args(argv)
        return int(args.run(args) or 0)
    except DsoError as error:
        print(f"dso: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dso: interrupted; a run in progress can be taken up with --resume.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
