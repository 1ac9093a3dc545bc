"""`dso estimate`: learns a state estimator from logs."""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

from dso_robotics.cli.machines import add_options
from dso_robotics.errors import DsoError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso estimate STUDY.toml --out DIR`."""
    parser = subparsers.add_parser(
        "estimate",
        help="learn a state estimator from recorded logs",
        description=(
            "Learn a state estimator: MuJoCo predicts, and a corrector corrects the prediction by the difference between "
            "measured and predicted sensor readings. Corrector, sensor biases and scales, noise and physics are optimised "
            "together, to predict each measurement as well as possible from the earlier ones; no ground truth is needed. The "
            "results in DIR are summary.json, report.html, model.xml and run.h5, with --smooth also smoothed.h5; "
            "`dso_robotics.robot.estimator.Estimator.load(DIR)` loads the estimator."
        ),
        epilog=(
            'STUDY.toml: model = "arm.xml", logs = ["arm.h5"], hold_out = "03", corrector = "kalman" (or "gain", '
            '"linear", "mlp", "recurrent"), free = ["joint/*/damping"], window = 1.0. docs/studies.md lists every key.'
        ),
    )
    parser.add_argument("study", metavar="STUDY.toml", nargs="?", help="model, logs and what to learn")
    parser.add_argument("--out", metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted run in DIR; `--resume --out DIR` is enough"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier result in DIR")
    parser.add_argument(
        "--smooth",
        action="store_true",
        help="also find the most probable motion given all readings, as a log with the state, DIR/smoothed.h5",
    )
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument(
        "--figures", action="store_true", help="the report's charts also as PNG files in DIR/figures, some seconds more"
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Learn an estimator and print its prediction errors."""
    from dso_robotics.cli import plain
    from dso_robotics.cli.inspect import foretold
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.report.table import estimation_table
    from dso_robotics.studies.estimate import estimate
    from dso_robotics.studies.estimate_contact import read_channels, without_notes
    from dso_robotics.studies.estimate_study import EstimateStudy
    from dso_robotics.studies.folder import SMOOTHED
    from dso_robotics.studies.run import stored_study

    if not args.out:
        raise DsoError("no folder was given for the result; name one with --out DIR.")
    if args.study:
        study = EstimateStudy.read(args.study)
    elif args.resume:
        study = stored_study(args.out, "estimate", EstimateStudy, {})
    else:
        raise DsoError("no study was given; name a STUDY.toml, or continue an interrupted run with --resume --out DIR.")
    if args.smooth:
        study = dataclasses.replace(study, smooth=True)
    prepare_jax()
    silence_mujoco()
    if not args.no_report:
        from dso_robotics.report.estimate import write_report as draw

        write_report = functools.partial(draw, figures=args.figures)
    else:
        write_report = None

    read = None if study.sensors is None else read_channels(study.contact, study.sensors)
    for text in without_notes(study.contact, foretold(study.model, study.logs, read)):
        print(plain(f"note: {text}"), file=sys.stderr)
    options = {"resume": args.resume, "force": args.force, "report": write_report}
    summary = estimate(study, args.out, **options)
    for line in estimation_table(summary):
        print(plain(line))
    if (Path(args.out) / SMOOTHED).is_file():
        print(plain(f"\nsmoothed motion: {args.out}/smoothed.h5"))
    print(plain(f"\nresult: {args.out}/{'summary.json' if args.no_report else 'report.html'}"))
    return 0
