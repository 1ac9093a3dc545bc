"""`dso identify`: fits physical parameters to logs."""

import argparse
import functools
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.cli.machines import add_options
from dso_robotics.cli.window_length import window_length
from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    from dso_robotics.studies.study import IdentifyStudy


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso identify MODEL LOG [LOG ...] --free PATH --out DIR`."""
    parser = subparsers.add_parser(
        "identify",
        help="fit physical parameters to recorded logs, with uncertainty",
        description=(
            "Fit physical parameters of a MuJoCo model to recorded logs. The logs are cut into windows. Each window is "
            "predicted open loop from its start state. The parameters, the noise scale of every channel and the start states "
            "are estimated by maximum likelihood. The results in DIR are summary.json, report.html, model.xml (the model with "
            "the new values) and run.h5."
        ),
        epilog=(
            "example: dso identify arm.xml arm.h5 --free 'joint/*/damping=0.1@0:2' --free body/upper/inertia "
            "--hold-out 03,05 --out result. `dso parameters MODEL` lists every PATH."
        ),
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="MJCF or URDF file; its sensors and actuators are the channels"
    )
    parser.add_argument(
        "logs", nargs="*", metavar="LOG", help="log files (HDF5; `dso convert` makes them from CSV and others)"
    )
    parser.add_argument(
        "--free",
        action="append",
        default=[],
        metavar="PATH[=INIT][@LOW:HIGH]",
        help="what to identify, with start value and bounds; may be repeated; PATH may contain * and ?",
    )
    parser.add_argument(
        "--actuator",
        action="append",
        default=[],
        metavar="SERVO[=ACTUATOR]",
        help="this actuator (default: each; may contain * and ?) is a servo of the library, such as xl330: its published "
        "armature, friction and damping are freed, as start values and priors; may be repeated",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--hold-out",
        metavar="NAME[,NAME]|FRACTION",
        help="rollouts to predict but not to fit, or their share (0 to 1)",
    )
    parser.add_argument(
        "--engine", metavar="auto|mujoco|mjx", help="simulator and derivatives; auto (default) explains its choice"
    )
    parser.add_argument(
        "--window",
        type=window_length,
        metavar="SECONDS|full|0",
        help="length of the windows fitted open loop (0.5); full: each rollout is one window; 0: no simulation, to calibrate "
        "sensors each sample is compared with its recorded state",
    )
    parser.add_argument(
        "--fit",
        choices=("motion", "torque"),
        help="what is compared: the simulated motion (default), or the torques of inverse dynamics, in seconds also for six "
        "full inertias; for logs of every joint and control",
    )
    parser.add_argument(
        "--score-window", type=window_length, metavar="SECONDS|full", help="length of the windows scored (as --window)"
    )
    parser.add_argument("--robust", action="store_true", help="assume heavy-tailed errors, so that outliers count less")
    parser.add_argument(
        "--continuity",
        type=_jump,
        metavar="SCALE|learned",
        help="tie each window's end to the start of the next. The scale of the jumps is SCALE standard deviations of a start "
        "state estimated from its window alone, or is learned (off)",
    )
    parser.add_argument(
        "--starts", type=int, metavar="N", help="try N random starts around the given one; continue with the best (1)"
    )
    parser.add_argument(
        "--choose",
        metavar="window|friction|window,friction",
        help="choose the window length, the law of friction at the joints, or both, by cross-validation over the fitted runs",
    )
    parser.add_argument(
        "--warm-start", action="store_true", help="also try a start from a regression on inverse dynamics"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of the random starts and of a network's first weights (0)"
    )
    parser.add_argument(
        "--posterior",
        action="store_true",
        help="also draw samples of the numbers given the logs (docs/posterior.md), and check the prediction's bands, drift "
        "between recordings, and what each recording changes",
    )
    parser.add_argument(
        "--sampler",
        metavar="auto|laplace|nuts",
        help="how samples are drawn: laplace for few numbers, nuts on --engine mjx (auto: by the engine)",
    )
    parser.add_argument("--draws", type=int, metavar="N", help="number of samples (500)")
    parser.add_argument(
        "--residual",
        metavar="FILE.py:FUNCTION",
        help="a Python function of the free numbers whose result, over its deviation, the search makes small too",
    )
    parser.add_argument("--study", metavar="FILE.toml", help="read any of these from a file; flags override it")
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted run in DIR; `--resume --out DIR` is enough"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier result in DIR")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument(
        "--video", action="store_true", help="a film of some seconds in the report, which takes as long"
    )
    parser.add_argument(
        "--figures", action="store_true", help="the report's charts also as PNG files in DIR/figures, some seconds more"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def _jump(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def run(args: argparse.Namespace) -> int:
    """Identify and print the table."""
    from dso_robotics.cli import plain
    from dso_robotics.cli.inspect import foretold
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.report.table import identification_table
    from dso_robotics.studies.identify import identify

    study = _study(args)
    prepare_jax()
    silence_mujoco()
    write_report = None
    if not args.no_report:
        from dso_robotics.report.identify import write_report as draw

        write_report = functools.partial(draw, video=args.video, figures=args.figures)
    for text in foretold(study.model, study.logs):
        print(plain(f"note: {text}"), file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _note
        result = identify(study, args.out, resume=args.resume, force=args.force, report=write_report)
    print(plain(identification_table(result.summary)))
    print(plain(f"\nresult: {args.out}/{'summary.json' if args.no_report else 'report.html'}"))
    return 0


def _note(message: Warning | str, *_: Any) -> None:
    """Print a warning that comes before the search."""
    from dso_robotics.cli import plain

    print(plain(f"note: {message}"), file=sys.stderr)


def _study(args: argparse.Namespace) -> "IdentifyStudy":
    """The study of the options, the study file and, when it is resumed without either, the run file; sets `args.out`."""
    from dso_robotics.studies.run import stored_study
    from dso_robotics.studies.study import IdentifyStudy

    if args.resume and not args.out and args.model and not args.logs:
        # `dso identify --resume DIR`
        args.out, args.model = args.model, None
    if not args.out:
        raise DsoError("no folder was given for the result; name one with --out DIR.")
    if args.study and args.model and Path(args.model).suffix.lower() in (".h5", ".hdf5"):
        # With the model in the study file, what stands first is a log.
        args.model, args.logs = None, [args.model, *args.logs]
    names = {field.name for field in fields(IdentifyStudy)}
    # Zero is an answer; an option that is not there is None, False or an empty list.
    options = {k: v for k, v in vars(args).items() if k in names and v is not None and v is not False and v != []}
    if args.resume and not args.study and not args.model:
        return stored_study(args.out, "identify", IdentifyStudy, options)
    if not args.study and not args.model:
        raise DsoError("no model was given; name an MJCF or URDF file, or a study file with --study.")
    return IdentifyStudy.read(args.study, options)
