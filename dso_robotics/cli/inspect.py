"""`dso inspect`: shows what is in a log and what is suspicious."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dso_robotics.data.log import Log

_EPILOG = """\
example:
  dso inspect arm.h5 --plot arm.png

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
    parser.add_argument("--plot", metavar="FILE.png", help="also draw every channel over time (.png, .svg or .pdf)")
    parser.add_argument("--force", action="store_true", help="replace the plot if the file exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the summary; returns 0, also when there are problems. Raises DsoError for a log that cannot be read."""
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.log import read_log

    if args.plot:
        refuse_existing(args.plot, args.force)
    log = read_log(args.log)
    print(describe(log))
    if args.plot:
        from dso_robotics.data.plot import plot_log

        plot_log(log, args.plot)
        print(f"\nplot: {args.plot}")
    return 0


def describe(log: Log) -> str:
    """The summary as text: header, rollouts, channels, problems."""
    from dso_robotics.data.problems import problems

    span = sum(float(r.time[-1] - r.time[0]) for r in log.rollouts)
    head = [
        log.label,
        textwrap.fill(f"source    {log.source}", 110, initial_indent="  ", subsequent_indent=" " * 12),
        f"  licence   {log.licence}",
        f"  rollouts  {len(log.rollouts)}, {sum(len(r.time) for r in log.rollouts):,} samples, {span:.4g} s in all",
    ]
    if log.attributes:
        width = max(len(key) for key in log.attributes)
        values = {key: f"{v:.9g}" if isinstance(v, float) else str(v) for key, v in sorted(log.attributes.items())}
        head += ["", "attributes", *(f"  {key.ljust(width)}  {value}" for key, value in values.items())]
    found = problems(log)
    wrapped = [textwrap.fill(text, 110, initial_indent="  - ", subsequent_indent="    ") for text in found]
    tail = ["problems", *(wrapped or ["  none found"])]
    return "\n".join([*head, "", *_rollouts(log), "", *_channels(log), "", *tail])


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
