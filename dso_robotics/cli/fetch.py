"""`dso fetch`: writes a real recording of the registry as a log."""

import argparse
import sys
from typing import Any

_EPILOG = """\
examples:
  dso fetch                                         list the recordings and their licences
  dso fetch dfki_double_pendulum_A0 --out arm.h5

Files are downloaded once from their authors' repository, at a pinned commit, to your cache folder, and checked against
their SHA-256. Without a network, put the files in NAME/raw in a folder and set DSO_DATA to that folder.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "fetch",
        help="get a real recording as a log; without a name, list them",
        description="Get a recording of a real mechanism and write it as a log, with its source and licence.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="the recording; without it, the list is printed")
    parser.add_argument("--out", metavar="LOG.h5", help="the log to write (default: NAME.h5)")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Fetch and write, or list; returns 0. Raises DsoError when a file is unavailable or differs from the registered "
    "one."""
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.registry import fetch, registry

    if args.name is None:
        for name, recording in registry().items():
            print(f"{name}\n  {recording.title}\n  licence {recording.licence}; {recording.source}\n")
        print("`dso fetch NAME --out LOG.h5` writes one as a log.")
        return 0
    from dso_robotics.data.log import write_log

    out = args.out or f"{args.name}.h5"
    refuse_existing(out, args.force)
    log = fetch(args.name, progress=lambda text: print(text, file=sys.stderr))
    write_log(out, log)
    print(f"{out}: {len(log.rollouts)} rollouts, licence {log.licence}; `dso inspect {out}` shows its contents")
    return 0
