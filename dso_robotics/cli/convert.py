"""`dso convert`: makes a log from CSV or NPZ files, or corrects the units of a log."""

import argparse
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError

_EPILOG = """\
examples:
  dso convert run1.csv run2.csv --out arm.h5 \\
      --ctrl tau1=motor_current*0.091:N*m --sensor shoulder_pos=enc1*0.000383:rad --sensor shoulder_vel=vel1:rad/s
  dso convert bench.npz --out bench.h5 --rate 1000 --ctrl motor=u[0] --sensor angle=q[0]:rad
  dso convert old.h5 --out new.h5 --scale angle=0.0174533:rad

A mapping is channel=column[*scale][+offset][:unit]; `column` alone keeps its name. The channel has the name of the
actuator or sensor in the model; component i of a sensor with several is called name[i]. Every file becomes a rollout
with the name of the file. Empty cells of sensors mean "not measured". Angles are not unwrapped.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "convert",
        help="make a log from CSV or NPZ files",
        description="Make a log from tables: give the column and the unit of each actuator and sensor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="CSV (first line: column names), NPZ, or a log (.h5)")
    parser.add_argument("--out", required=True, metavar="LOG.h5", help="the log to write")
    parser.add_argument("--ctrl", action="append", default=[], metavar="MAPPING", help="a control; repeat for each")
    parser.add_argument("--sensor", action="append", default=[], metavar="MAPPING", help="a sensor channel; repeat")
    parser.add_argument(
        "--time", default="time", metavar="MAPPING", help="column in seconds (default: time), or ms*0.001"
    )
    parser.add_argument("--rate", type=float, metavar="HZ", help="samples per second, for files without a time column")
    parser.add_argument(
        "--split-gap", type=float, metavar="SECONDS", help="begin a new rollout after a pause longer than this"
    )
    parser.add_argument("--hold-ctrl", action="store_true", help="fill empty cells of controls with the previous value")
    parser.add_argument("--scale", action="append", default=[], metavar="CHANNEL=FACTOR[:UNIT]", help="change a unit")
    parser.add_argument("--source", default="", metavar="TEXT", help="where the data come from, stored in the log")
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the data, stored in the log")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Convert and write; returns 0. Raises DsoError naming the file, the column and the line."""
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.convert import convert_table, rescale
    from dso_robotics.data.log import Log, merge_logs, read_log, write_log

    refuse_existing(args.out, args.force)
    scales = dict(_scale(text) for text in args.scale)
    logs = []
    for file in args.files:
        if Path(file).suffix.lower() in (".h5", ".hdf5"):
            logs.append(read_log(file))
            continue
        rollouts = convert_table(
            file,
            args.ctrl,
            args.sensor,
            time=args.time,
            rate=args.rate,
            split_gap=args.split_gap,
            hold_ctrl=args.hold_ctrl,
        )
        logs.append(
            Log(file, args.source or f"converted from {Path(file).name}", args.licence or "not stated", rollouts)
        )
    log = merge_logs(logs)
    if scales:
        log = rescale(log, scales)
    if args.source or args.licence:
        log = Log(log.path, args.source or log.source, args.licence or log.licence, log.rollouts, log.attributes)
    write_log(args.out, log)
    print(f"{args.out}: {len(log.rollouts)} rollout(s); `dso inspect {args.out}` shows its contents")
    return 0


def _scale(text: str) -> tuple[str, tuple[float, str]]:
    channel, _, rest = text.partition("=")
    factor, _, unit = rest.partition(":")
    try:
        return channel.strip(), (float(factor), unit.strip())
    except ValueError as error:
        raise DsoError(f"--scale {text!r}: write CHANNEL=FACTOR[:UNIT], for example angle=0.0174533:rad.") from error
