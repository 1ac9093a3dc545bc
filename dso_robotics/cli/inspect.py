"""`dso inspect`: shows what is in a log and what is suspicious."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import mujoco

    from dso_robotics.data.log import Log

_EPILOG = """\
examples:
  dso inspect arm.h5 --plot arm.png
  dso inspect arm.h5 --model arm.xml

A log is an HDF5 file with the attributes schema = "dso-log" and schema_version = 1. It contains
  /rollouts/<name>/time        (T,)     seconds, increasing, not necessarily uniform
  /rollouts/<name>/ctrl        (T, nu)  held from one sample to the next; attributes names, units
  /rollouts/<name>/sensordata  (T, ns)  NaN where not measured; attributes names, units
  /rollouts/<name>/qpos, qvel           optional, if the state was recorded
A file that breaks these rules is refused with the reason. Anything else suspicious is listed under "problems".
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what is in a log and what is suspicious",
        description="Show the rollouts and channels of a log, their rates and ranges, and everything that looks "
        "suspicious. Do this before any fit.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="LOG.h5", help="the log to show")
    parser.add_argument(
        "--model", metavar="MODEL", help="also show which channel is which sensor and actuator of the model"
    )
    parser.add_argument("--plot", metavar="FILE.png", help="also draw every channel over time (.png, .svg or .pdf)")
    parser.add_argument("--force", action="store_true", help="replace the plot if the file exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the summary; returns 0, also when there are problems. Raises DsoError for a log that cannot be read."""
    from dso_robotics.cli import plain
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.log import read_log

    if args.plot:
        refuse_existing(args.plot, args.force)
    log = read_log(args.log)
    print(plain(describe(log)))
    if args.model:
        from dso_robotics.physics.model import load

        print(plain("\n" + "\n".join(matching(log, load(args.model).mj))))
    if args.plot:
        from dso_robotics.data.plot import plot_log

        plot_log(log, args.plot)
        print(f"\nplot: {args.plot}")
    return 0


def describe(log: Log) -> str:
    """The summary as text: header, rollouts, channels, problems."""
    from dso_robotics.data.problems import problems
    from dso_robotics.errors import shortened

    span = sum(float(r.time[-1] - r.time[0]) for r in log.rollouts)
    head = [
        log.label,
        textwrap.fill(f"source    {log.source}", 110, initial_indent="  ", subsequent_indent=" " * 12),
        f"  licence   {log.licence}",
        f"  rollouts  {len(log.rollouts)}, {sum(len(r.time) for r in log.rollouts):,} samples, {span:.4g} s in all",
    ]
    if log.attributes:
        width = max(len(key) for key in log.attributes)
        shown = sorted(log.attributes.items())
        values = {key: f"{v:.9g}" if isinstance(v, float) else shortened(str(v)) for key, v in shown}
        head += ["", "attributes", *(f"  {key.ljust(width)}  {value}" for key, value in values.items())]
    found = problems(log)
    wrapped = [textwrap.fill(text, 110, initial_indent="  - ", subsequent_indent="    ") for text in found]
    tail = ["problems", *(wrapped or ["  none found"])]
    return "\n".join([*head, "", *_rollouts(log), "", *_channels(log), "", *tail])


def matching(log: Log, model: mujoco.MjModel) -> list[str]:
    """Lines that say which channel is which actuator or sensor of the model, and what a study would leave out or refuse."""
    from dso_robotics.data.match import actuator_names, fitted, match_channels, sensor_channels, sensor_unit
    from dso_robotics.errors import DsoError
    from dso_robotics.physics.unit import actuator_unit

    actuators, sensors = actuator_names(model), sensor_channels(model)
    expected = {("ctrl", name): actuator_unit(model, i) for i, name in enumerate(actuators)}
    expected |= {("sensor", name): sensor_unit(model, i) for name, (i, _) in sensors.items()}
    logged: dict[tuple[str, str], str] = {}
    for r in log.rollouts:
        logged.update({("ctrl", name): unit for name, unit in zip(r.ctrl_names, r.ctrl_units, strict=True)})
        logged.update({("sensor", name): unit for name, unit in zip(r.sensor_names, r.sensor_units, strict=True)})
    rows = [("channel", "kind", "in the log", "unit", "in the model", "unit")]
    for kind, name in dict.fromkeys([*expected, *logged]):
        rows.append(
            (
                name,
                kind,
                "yes" if (kind, name) in logged else "no",
                logged.get((kind, name)) or "-",
                "yes" if (kind, name) in expected else "no",
                expected.get((kind, name)) or "-",
            )
        )
    try:
        common, notes = fitted(log, model)
        notes = [*notes, *match_channels(common, model).warnings]
        told = "match: a study can use this log with this model"
    except DsoError as error:
        notes, told = [str(error)], "match: a study would refuse this log with this model"
    wrapped = [textwrap.fill(text, 110, initial_indent="  - ", subsequent_indent="    ") for text in notes]
    return [*aligned(rows, left=(0, 1, 2, 3, 4, 5)), "", told, *wrapped]


def foretold(model: str, logs: Sequence[str], sensors: Collection[str] | None = None) -> list[str]:
    """What is suspicious in logs, and what of them does not fit the model, told before a study runs; at most 20 sentences.

    sensors: those that the study reads, as for `problems`; all if None.
    What makes a study impossible is left to the study.
    """
    from dso_robotics.data.log import merge_logs, read_log
    from dso_robotics.data.match import fitted
    from dso_robotics.data.problems import problems
    from dso_robotics.errors import DsoError
    from dso_robotics.physics.model import load

    try:
        log = merge_logs([read_log(path) for path in logs])
        found = [*fitted(log, load(model).mj)[1], *problems(log, sensors)]
    except DsoError:
        return []
    more = [f"and {len(found) - 20} more; `dso inspect` shows all."] if len(found) > 20 else []
    return [*found[:20], *more]


def _rollouts(log: Log) -> list[str]:
    import numpy as np

    from dso_robotics.data.problems import irregular_share, median_interval

    rows = [("rollout", "samples", "start s", "length s", "rate Hz", "irregular", "longest gap s", "holds")]
    for r in log.rollouts:
        held = [kind for kind in ("ctrl", "sensordata", "qpos", "qvel") if getattr(r, kind) is not None]
        rows.append(
            (
                r.name,
                f"{len(r.time)}",
                f"{r.time[0]:.4g}",
                f"{r.time[-1] - r.time[0]:.4g}",
                f"{1 / median_interval(r):.4g}",
                f"{irregular_share(r):.0%}",
                f"{np.diff(r.time).max():.3g}",
                ", ".join(held),
            )
        )
    return aligned(rows, left=(0, 7))


def _channels(log: Log) -> list[str]:
    import numpy as np

    rows: list[tuple[str, ...]] = [
        ("channel", "kind", "unit", "smallest", "mean", "largest", "std", "not measured", "rollouts")
    ]
    for kind, prefix in (("ctrl", "ctrl"), ("sensordata", "sensor")):
        columns: dict[str, list[Any]] = {}
        units: dict[str, str] = {}
        for r in log.rollouts:
            for i, name in enumerate(getattr(r, f"{prefix}_names")):
                columns.setdefault(name, []).append(getattr(r, kind)[:, i])
                units.setdefault(name, getattr(r, f"{prefix}_units")[i])
        for name, parts in columns.items():
            values = np.concatenate(parts)
            measured = values[~np.isnan(values)]
            if not len(measured):
                rows.append((name, prefix, units[name] or "?", "-", "-", "-", "-", "100.0%", "none"))
                continue
            statistics = (measured.min(), measured.mean(), measured.max(), measured.std())
            share = np.isnan(values).mean()
            rows.append(
                (
                    name,
                    prefix,
                    units[name] or "?",
                    *(f"{x:.4g}" for x in statistics),
                    f"{share:.1%}" if share else "-",
                    "all" if len(parts) == len(log.rollouts) else f"{len(parts)} of {len(log.rollouts)}",
                )
            )
    return aligned(rows, left=(0, 1, 2, 8))


def aligned(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Lines of a table whose first row names the columns; the columns `left` begin at their left edge."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines
