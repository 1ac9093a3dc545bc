"""`dso convert`: makes a log from tables of any usual kind, or corrects a log."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    from dso_robotics.data.convert import Converted

_EPILOG = """\
examples:
  dso convert run1.csv run2.csv --out arm.h5 \\
      --ctrl tau1=motor_current*0.091:N*m --sensor shoulder_pos=enc1*0.000383:rad --sensor shoulder_vel=vel1:rad/s
  dso convert bench.npz --out bench.h5 --rate 1000 --ctrl motor=u[0] --sensor angle=q[0]:rad
  dso convert demos.hdf5 --out demos.h5 --rate 20 --ctrl tau1=actions[0] --sensor q=obs/joint_pos[0]
  dso convert bag.csv --out arm.h5 --time sec+nanosec*1e-9 --ctrl tau1=effort --sensor q=position --hold-ctrl --trim
  dso convert run.mcap --out arm.h5 --ctrl tau1=/cmd/data[0] --sensor 'q=/joint_states/position[elbow]:rad'
  dso convert my_dataset/ --out demos.h5 --ctrl action[0] --sensor 'q=observation.state[0]'
  dso convert old.h5 --out new.h5 --scale angle=0.0174533:rad --unwrap angle

A mapping is channel=column[*factor][+offset][:unit]; `column` alone keeps its name. The channel has the name of the
actuator or sensor in the model; component i of a sensor with several is called name[i]. A column is called by its name;
name#2 is the second of that name, #3 the third column. Columns may be added: sec+nanosec*1e-9. Every file becomes a
rollout with the name of the file; a file of groups, such as demos, becomes one for each. Empty cells of sensors mean
"not measured". A unit that the file states is converted to that of the mapping, unless the mapping gives a factor.
Angles are not unwrapped, unless --unwrap CHANNEL asks for it.

Files may be text (CSV and its relatives: any separator, comments, a preamble, a row of units, decimal commas, UTF-8,
UTF-16 or cp1252), JSON and JSON lines, NPZ and NPY, MAT, HDF5, or logs. With pip install 'dso-robotics[logs]': bags of
ROS 1, folders of ROS 2 bags, MCAP files. With 'dso-robotics[parquet]': Parquet files, folders of them, LeRobot data sets.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "convert",
        help="make a log from CSV, JSON, NPZ, MAT, HDF5 or Parquet files, or bags",
        description="Make a log from tables: give the column and the unit of each actuator and sensor.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="tables of the kinds below, or logs (.h5)")
    parser.add_argument("--out", required=True, metavar="LOG.h5", help="the log to write")
    many: dict[str, Any] = {"action": "append", "default": [], "metavar": "MAPPING"}
    parser.add_argument("--ctrl", **many, help="a control; repeat for each")
    parser.add_argument("--sensor", **many, help="a sensor channel; repeat")
    parser.add_argument(
        "--qpos", **many, help="a joint's recorded position, JOINT=column or JOINT[i]=column; needs --model"
    )
    parser.add_argument("--qvel", **many, help="the same for velocities")
    parser.add_argument(
        "--model", metavar="MODEL", help="the model that says the order of the joints of --qpos and --qvel"
    )
    parser.add_argument(
        "--time",
        default="time",
        metavar="MAPPING",
        help="column in seconds (default: time), or ms*0.001, t:ms, sec+nanosec*1e-9; dates and times of day are known",
    )
    parser.add_argument("--rate", type=float, metavar="HZ", help="samples per second, for files without a time column")
    parser.add_argument("--resample", type=float, metavar="HZ", help="put the samples on a fixed rate")
    text = parser.add_argument_group("text files, where what is found out is not right")
    text.add_argument(
        "--no-header", action="store_true", help="no line names the columns: they are called 1, 2, 3, ..."
    )
    text.add_argument("--header-line", type=int, metavar="N", help="number of the line that names the columns")
    text.add_argument("--delimiter", default="", metavar="CHAR", help="between the cells: a character, tab or blank")
    text.add_argument("--decimal", default="", metavar="CHAR", help="the decimal sign, . or ,")
    text.add_argument("--encoding", default="", metavar="NAME", help="such as utf-16 or cp1252")
    order = parser.add_argument_group("samples that are not in order")
    order.add_argument("--sort", action="store_true", help="put the samples in the order of their times")
    order.add_argument("--drop-repeats", action="store_true", help="keep the first of samples with the same time")
    order.add_argument(
        "--trim",
        action="store_true",
        help="leave out samples without a time, and before and after all controls are known",
    )
    order.add_argument("--split-restarts", action="store_true", help="begin a new rollout where time begins again")
    order.add_argument(
        "--split-gap", type=float, metavar="SECONDS", help="begin a new rollout after a pause longer than this"
    )
    order.add_argument("--hold-ctrl", action="store_true", help="fill empty cells of controls with the previous value")
    parser.add_argument("--scale", action="append", default=[], metavar="CHANNEL=FACTOR[:UNIT]", help="change a unit")
    parser.add_argument(
        "--unwrap", action="append", default=[], metavar="CHANNEL", help="take full turns out of an angle"
    )
    parser.add_argument("--source", default="", metavar="TEXT", help="where the data come from, stored in the log")
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the data, stored in the log")
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Convert and write; returns 0. Raises DsoError naming the file, the column and the line."""
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.convert import convert_table, rescale, unwrap
    from dso_robotics.data.dialect import Dialect
    from dso_robotics.data.formats import is_log_file
    from dso_robotics.data.log import Log, merge_logs, read_log, write_log
    from dso_robotics.data.order import Repair
    from dso_robotics.data.resample import resample
    from dso_robotics.progress.phase import each, phase

    refuse_existing(args.out, args.force)
    scales = dict(_scale(text) for text in args.scale)
    given = [kind for kind in ("delimiter", "decimal", "encoding") if getattr(args, kind)]
    dialect = Dialect(
        header=not args.no_header, header_line=args.header_line, **{kind: getattr(args, kind) for kind in given}
    )
    repair = Repair(
        sort=args.sort,
        drop_repeats=args.drop_repeats,
        trim=args.trim,
        split_gap=args.split_gap,
        split_restarts=args.split_restarts,
        hold_ctrl=args.hold_ctrl,
    )
    model = None
    if args.model:
        from dso_robotics.physics.model import load

        model = load(args.model).mj
    mapped = args.ctrl or args.sensor or args.qpos or args.qvel
    if mapped and all(is_log_file(file) for file in args.files):
        raise DsoError(
            f"{args.files[0]}: is a log already, and --ctrl and --sensor map columns of tables; change its units with --scale."
        )
    logs, done = [], {}
    for file in each(args.files, "reading", "file"):
        if is_log_file(file):
            logs.append(_resampled(read_log(file), args.resample, resample))
            continue
        done[file] = convert_table(
            file,
            args.ctrl,
            args.sensor,
            qpos=args.qpos,
            qvel=args.qvel,
            model=model,
            time=args.time,
            rate=args.rate,
            dialect=dialect,
            repair=repair,
            resample_rate=args.resample,
        )
        origin = args.source or f"converted from {Path(file).name}"
        logs.append(Log(file, origin, args.licence or "not stated", done[file].rollouts))
    log = merge_logs(logs)
    if scales:
        log = rescale(log, scales)
    if args.unwrap:
        log = unwrap(log, args.unwrap)
    if args.source or args.licence:
        log = Log(log.path, args.source or log.source, args.licence or log.licence, log.rollouts, log.attributes)
    with phase("writing"):
        write_log(args.out, log)
    for line in _told(done):
        print(line)
    print(f"{args.out}: {len(log.rollouts)} rollout(s); `dso inspect {args.out}` shows its contents")
    return 0


def _resampled(log: Any, rate: float | None, resample: Any) -> Any:
    if rate is None:
        return log
    if not rate > 0:
        raise DsoError(f"--resample {rate:g}: give a positive number of samples per second.")
    return replace(log, rollouts=tuple(resample(rollout, 1 / rate) for rollout in log.rollouts))


def _told(done: "dict[str, Converted]") -> list[str]:
    """What became of each column: a table for files alike, and the notes of each file."""
    from dso_robotics.cli.inspect import aligned

    lines, shown = [], set[tuple[Any, ...]]()
    for file, converted in done.items():
        kind = (tuple((use.column, use.channel, use.scale) for use in converted.uses), converted.unused)
        if kind not in shown:
            shown.add(kind)
            rows = [("column", "in file", "", "channel", "kind", "unit", "factor", "smallest", "largest")]
            rows += [
                (
                    use.column,
                    use.unit or "-",
                    "->",
                    use.channel,
                    use.kind,
                    use.becomes or "?",
                    f"{use.scale:.6g}",
                    f"{use.low:.4g}",
                    f"{use.high:.4g}",
                )
                for use in converted.uses
            ]
            lines += [f"{file}:", *(f"  {line}" for line in aligned(rows, left=(0, 1, 2, 3, 4, 5)))]
            lines.append(f"  not used: {_some(converted.unused)}")
        lines += [f"  {file}: {note}" if len(done) > 1 else f"  note: {note}" for note in converted.notes]
    return [*lines, ""] if lines else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (f", ... ({len(names)} in all)" if len(names) > 40 else "") if names else "no column"


def _scale(text: str) -> tuple[str, tuple[float, str]]:
    channel, _, rest = text.partition("=")
    factor, _, unit = rest.partition(":")
    try:
        return channel.strip(), (float(factor), unit.strip())
    except ValueError as error:
        raise DsoError(f"--scale {text!r}: write CHANNEL=FACTOR[:UNIT], for example angle=0.0174533:rad.") from error
