"""The `dso` command, with one module for each subcommand. This module parses, dispatches and maps errors to exit status 2."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from dso_robotics import __version__
from dso_robotics.cli.display import add_options, displayed, told_end
from dso_robotics.cli.interruption import ended_by_sigterm, how_to_resume, status_of
from dso_robotics.cli.machines import joined
from dso_robotics.errors import DsoError, shortened, told
from dso_robotics.extras import needing

# Characters of a message: a paragraph, whatever stands in a file that it quotes.
_LONGEST = 3000


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from dso_robotics.cli import (
        check,
        convert,
        design,
        estimate,
        excite,
        export,
        fetch,
        identify,
        inspect,
        parameters,
        simulate,
        train,
        view,
    )

    top = argparse.ArgumentParser(
        prog="dso",
        description="Dynamical System Optimization for robots: identify, design and estimate by gradient descent on MuJoCo.",
        epilog="`dso COMMAND --help` explains each command with an example.",
    )
    top.add_argument("--version", action="version", version=f"dso {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="subcommand")
    for module in (
        identify,
        train,
        design,
        estimate,
        excite,
        simulate,
        inspect,
        convert,
        fetch,
        parameters,
        check,
        view,
        export,
    ):
        module.add_parser(commands)
    for command in commands.choices.values():
        add_options(command)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 on success, 2 when it cannot be done, 130 or 143 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal cannot show is printed as its number.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        if not sys.warnoptions:
            # Commands print their own warnings; NumPy's warnings about NaN do not help the user.
            warnings.simplefilter("ignore")
        args = argparse.Namespace()
        status = _guarded(argv, args)
        told_end(args, status)
        return status


def _guarded(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    """Run the command with its options in `args`."""
    try:
        with ended_by_sigterm():
            parser().parse_args(argv, args)
            with needing("this command"), joined(args), displayed(args):
                status = int(args.run(args) or 0)
        sys.stdout.flush()
    except DsoError as error:
        return _refused(str(error))
    except KeyboardInterrupt as error:
        print(f"dso: {plain(how_to_resume(args))}", file=sys.stderr)
        return status_of(error)
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _refused(
            f"{where}reading or writing failed ({error.strerror or error}); free some space, or choose another place."
        )
        _drop_output()
        return 2
    except MemoryError:
        return _refused(
            "this needs more memory than there is; give a smaller model, fewer or shorter logs, or smaller studies."
        )
    except Exception as error:
        if os.environ.get("DSO_TRACEBACK"):
            raise
        return _refused(
            f"a fault of dso, not of yours: {told(error)}. Please report it with the command and its files; DSO_TRACEBACK=1 "
            "before the command shows where it happened."
        )
    return status


def _refused(message: str) -> int:
    print(f"dso: {shortened(plain(' '.join(message.splitlines())), _LONGEST)}", file=sys.stderr)
    return 2


def plain(text: str) -> str:
    """`text` with control characters as escapes: a name in a file may contain some, which would confuse a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _drop_output() -> None:
    """Discard further output, because its reader is gone. Otherwise Python would print an error at exit."""
    if sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
