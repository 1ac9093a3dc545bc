"""`dso export`: writes a result to a file of another program."""

import argparse
import sys
from typing import Any

from dso_robotics.errors import DsoError

_EPILOG = """\
examples:
  dso export                                        list the formats and their options
  dso export result --to csv                        parameters with intervals, result/parameters.csv
  dso export result --to latex --out table.tex
  dso export result --to urdf --set file=arm.urdf   a copy of arm.urdf with the new values
  dso export result --onnx --c                      a policy as ONNX and as C header
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso export DIR --to FORMAT`."""
    parser = subparsers.add_parser(
        "export",
        help="write a result to a file of another program; without a folder, list the formats",
        description="Write the result of a finished run to a file of another program. What the file cannot hold is told.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", help="folder of a finished run")
    parser.add_argument(
        "--to", action="append", metavar="FORMAT", help="format of the file; `dso export` lists them; may be repeated"
    )
    for name in ("onnx", "c", "urdf"):
        parser.add_argument(f"--{name}", action="append_const", const=name, dest="to", help=f"the same as --to {name}")
    parser.add_argument("--out", metavar="FILE", help="file to write (default: in DIR, under the format's own name)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        dest="options",
        help="an option of the format; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files, or list the formats; returns 0."""
    from dso_robotics.cli import plain
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.report.export.finished import read_finished
    from dso_robotics.report.export.format import FORMATS, write_export

    if args.folder is None and args.to is None:
        print(_formats())
        return 0
    if args.folder is None or args.to is None:
        missing = "DIR, the folder of a finished run" if args.folder is None else f"--to, one of {', '.join(FORMATS)}"
        raise DsoError(f"dso export: give {missing}.")
    silence_mujoco()
    options, wanted = dict(map(_option, args.options)), list(dict.fromkeys(args.to))
    if len(wanted) > 1 and (args.out or options):
        raise DsoError(
            f"dso export: --out and --set are of one format, and {', '.join(wanted)} were given; give one at a time."
        )
    result = read_finished(args.folder)
    for name in wanted:
        paths, notes = write_export(name, result, args.out, options=options, force=args.force)
        for note in notes:
            print(plain(f"note: {note}"), file=sys.stderr)
        for path in paths:
            print(plain(str(path)))
    return 0


def _option(text: str) -> tuple[str, Any]:
    """Name and value of OPTION=VALUE; a value that is no TOML is a text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise DsoError(f"--set {text}: write OPTION=VALUE; `dso export` lists the options of each format.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return name.strip(), value


def _formats() -> str:
    """Every format: what it is, whose results it takes, and its options."""
    from dso_robotics.report.export.format import FORMATS
    from dso_robotics.table import keys, words

    lines = []
    for name, form in sorted(FORMATS.items()):
        lines.append(f"{name:8} {form.about} (results of {', '.join(form.commands)})")
        lines += [f"{'':8}   {option}: {note.doc}; {words(form, option)}" for option, note in keys(form).items()]
    return "\n".join([*lines, "", "`dso export DIR --to FORMAT` writes one; --set OPTION=VALUE sets an option."])
