"""`dso excite`: plans the recordings that tell most about free parameters."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from dso_robotics.cli.window_length import window_length
from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    from dso_robotics.studies.excite_study import ExciteStudy

_EPILOG = """\
examples:
  dso excite arm.xml --free 'joint/*/damping' --free 'body/*/mass' --noise '*=0.002' --out plan.h5
  dso excite arm.xml result --out plan.h5 --seconds 20 --speed '*=3' --distance 'hand:table=0.05' --video plan.webp
  dso excite arm.xml result --out plan.h5 --aim halve --runs 5
  dso simulate arm.xml --controls plan.h5 --sensor-noise 0.002 --out played.h5

The first plans with what the model says. The second begins with the values, intervals and noise that `dso identify` found
(RESULT, its folder). NAME may contain * and ?. plan.h5 holds the controls and the expected motion of each run, and plan.csv the
same for a robot. For a servo of position, the control is the reference of its position.
"""

# Options of NAME=NUMBER: the metavariable and the help.
_NUMBERS = {
    "noise": ("CHANNEL=SD", "noise of a channel; by default the RESULT's, or the model's <sensor noise>"),
    "amplitude": ("ACTUATOR=X", "how far a control may go from that of rest (as far as its ctrlrange)"),
    "hold": ("ACTUATOR=X", "this control stays at X: a switch, or a motor that is not to be excited"),
    "speed": ("JOINT=MAX", "largest speed [rad/s, m/s]"),
    "acceleration": ("JOINT=MAX", "largest acceleration [rad/s^2, m/s^2]"),
    "torque": ("ACTUATOR=MAX", "largest force or torque [N, N*m]"),
    "rate": ("ACTUATOR=MAX", "largest change of a control in a second"),
    "power": ("ACTUATOR=MAX", "largest mechanical power [W]"),
    "distance": ("GEOM:GEOM=M", "least distance of two geoms [m]"),
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso excite MODEL [RESULT] --out PLAN.h5`."""
    parser = subparsers.add_parser(
        "excite",
        help="plan what to record next: the motion that tells most about free parameters",
        description=(
            "Search for the controls whose recording would make the intervals of `dso identify` narrowest, within limits of "
            "the robot. The information is that of the same likelihood: noise, delays, biases, friction, contacts, and start "
            "states that are estimated. Prints the intervals before and after, and which numbers stay invisible, and why."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="MJCF or URDF file")
    parser.add_argument("result", nargs="?", metavar="RESULT", help="folder of an earlier `dso identify`")
    parser.add_argument(
        "--out", required=True, metavar="PLAN.h5", help="the plan to write; PLAN.csv is written beside it"
    )
    group = parser.add_argument_group("what to learn")
    group.add_argument(
        "--free",
        action="append",
        default=[],
        metavar="PATH[=INIT][@LOW:HIGH]",
        help="as in `dso identify`; may be repeated",
    )
    group.add_argument(
        "--actuator",
        action="append",
        default=[],
        metavar="SERVO[=ACTUATOR]",
        help="as in `dso identify`: a servo by name",
    )
    group.add_argument(
        "--interest",
        action="append",
        default=[],
        metavar="PATH",
        help="only these intervals count (all); may be repeated",
    )
    group.add_argument(
        "--aim",
        metavar="d|a|e|widest|halve",
        help="what is made small: the volume of all intervals (d), their mean square (a), the longest axis (e), the widest "
        "interval; halve: runs are added until the widest interval is half as wide",
    )
    group.add_argument(
        "--sensors", action="append", default=[], metavar="NAME", help="channels that are recorded (all)"
    )
    group.add_argument(
        "--window", type=window_length, metavar="SECONDS|full", help="window of the later identification (0.5)"
    )
    group.add_argument("--robust", action="store_true", help="the runs will be identified with --robust")
    group = parser.add_argument_group("the runs")
    group.add_argument("--seconds", type=float, metavar="S", help="length of a run (10)")
    group.add_argument("--runs", type=int, metavar="N", help="number of runs; each knows what those before it tell (1)")
    group.add_argument("--every", type=int, metavar="N", help="one sample per N steps of the model (1)")
    group.add_argument(
        "--play",
        metavar="control|reference",
        help="what signals are: what the actuators are sent (control), or positions that the robot's own controller follows",
    )
    group.add_argument("--signal", metavar="fourier|multisine|spline", help="family of signals (fourier)")
    group.add_argument("--top", type=float, metavar="HZ", help="highest frequency (2)")
    group.add_argument("--harmonics", type=int, metavar="N", help="number of frequencies of each signal (6)")
    group.add_argument("--fade", type=float, metavar="S", help="time in which signals begin and end (0.5)")
    group.add_argument("--still", type=float, metavar="S", help="time at rest at the end (0.5)")
    group.add_argument("--end", metavar="rest|any", help="whether a run has to end at rest (rest)")
    group.add_argument("--keyframe", metavar="NAME", help="start at rest at this keyframe of the model")
    group = parser.add_argument_group(
        "limits, by name with wildcards; each may be repeated, `=` and a name may be left out"
    )
    group.add_argument("--position", action="append", default=[], metavar="JOINT=LOW:HIGH", help="range of positions")
    for name, (metavar, text) in _NUMBERS.items():
        group.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=text)
    group.add_argument("--margin", type=float, metavar="M", help="least distance of all pairs that can collide [m] (0)")
    group.add_argument("--touch", action="append", default=[], metavar="GEOM:GEOM", help="these may touch")
    group = parser.add_argument_group("search and output")
    group.add_argument("--draws", type=int, metavar="N", help="values drawn from what is known, to average over (3)")
    group.add_argument("--trials", type=int, metavar="N", help="motions tried for each run (400)")
    group.add_argument("--seed", type=int, metavar="N", help="random seed (0)")
    group.add_argument("--study", metavar="FILE.toml", help="read any of these from a file; options override it")
    group.add_argument("--video", metavar="FILE", help="a film of the first run: .webp, .gif, or with ffmpeg .mp4")
    group.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan, write, and print the table."""
    from dso_robotics.cli import plain
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.report.excite import film_plan, plan_table
    from dso_robotics.report.film import refuse_format
    from dso_robotics.studies.excite import excite
    from dso_robotics.studies.excite_plan import csv_paths, summary, write_plan

    study, out = _study(args), Path(args.out)
    if out.suffix.lower() == ".csv":
        raise DsoError(f"--out {out}: give a name that ends in .h5; the CSV files are written beside it.")
    if not out.parent.is_dir():
        raise DsoError(f"--out {out}: there is no folder {out.parent}; make it, or choose another.")
    for path in (out, *csv_paths(out, study.runs), *([Path(args.video)] if args.video else [])):
        refuse_existing(path, args.force)
    if args.video:
        refuse_format(args.video)
    silence_mujoco()
    plan = excite(study)
    written = write_plan(plan, out)
    print(plain(plan_table(summary(plan))))
    print(plain(f"\nplan: {', '.join(map(str, written))}"))
    if args.video:
        film_plan(plan, args.video)
        print(plain(f"film: {args.video}"))
    return 0


def _study(args: argparse.Namespace) -> "ExciteStudy":
    from dso_robotics.studies.excite_study import ExciteStudy

    names = {field.name for field in fields(ExciteStudy)}
    given = dict(vars(args))
    if args.study and args.model and Path(args.model).is_dir():
        given["model"], given["result"] = None, args.model
    options = {k: v for k, v in given.items() if k in names and v is not None and v is not False and v != []}
    for name in _NUMBERS:
        if name in options:
            options[name] = _by_name(f"--{name}", options[name])
    if "position" in options:
        options["position"] = _ranges(options["position"])
    if not args.study and not args.model:
        raise DsoError("no model was given; name an MJCF or URDF file, or a study file with --study.")
    return ExciteStudy.read(args.study, options)


def _by_name(option: str, texts: list[str]) -> dict[str, float]:
    """Numbers by name; those for all come first, so that they do not replace one for a single name."""
    values = {}
    for text in sorted(texts, key=lambda text: text.rpartition("=")[0] not in ("", "*")):
        name, _, number = text.rpartition("=")
        try:
            values[name or "*"] = float(number)
        except ValueError as error:
            raise DsoError(f"{option} {text}: write NAME=NUMBER, or a number for all.") from error
    return values


def _ranges(texts: list[str]) -> dict[str, tuple[float, float]]:
    values = {}
    for text in sorted(texts, key=lambda text: text.rpartition("=")[0] not in ("", "*")):
        name, _, numbers = text.rpartition("=")
        low, _, high = numbers.partition(":")
        try:
            values[name or "*"] = (float(low), float(high))
        except ValueError as error:
            raise DsoError(f"--position {text}: write JOINT=LOW:HIGH, such as elbow=-1:1.5.") from error
        if not values[name or "*"][0] < values[name or "*"][1]:
            raise DsoError(f"--position {text}: the lower end is not below the upper one; write JOINT=LOW:HIGH.")
    return values
