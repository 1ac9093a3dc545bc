"""`dso train`: optimises a policy, and what the study frees of the mechanism, for any sum of costs."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from dso_robotics.cli.machines import add_options
from dso_robotics.errors import DsoError

if TYPE_CHECKING:
    from dso_robotics.studies.train_study import TrainStudy

_EPILOG = """\
example study (TOML):
  model = "cartpole.xml"
  [policy]
  hidden = [32, 32]
  [start.position]
  hinge = 3.14159
  [cost.upright]
  kind = "square"
  quantity = "joint/hinge/cosine"
  target = 1.0

docs/studies.md lists every key and cost, docs/policies.md every quantity. DIR receives summary.json,
report.html, model.xml and run.h5.
"""


def add_parser(subparsers: Any) -> None:
    """Add `dso train STUDY.toml --out DIR`."""
    add_study_parser(
        subparsers, "train", "train a policy by gradients through the simulator", "Train a policy on a MuJoCo model."
    )


def add_study_parser(subparsers: Any, command: str, summary: str, description: str) -> None:
    """Add a command that runs a training study."""
    parser = subparsers.add_parser(
        command,
        help=summary,
        description=f"{description} The study file names the model, the policy, the costs and where episodes start.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", nargs="?", metavar="STUDY.toml", help="the study")
    parser.add_argument("--out", metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--check-gradients",
        action="store_true",
        help="compare the study's gradient with C MuJoCo, for each block and each cost that moves it, and stop",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the study's seed")
    parser.add_argument(
        "--engine", choices=("auto", "mujoco", "mjx"), help="replaces the study's engine, what simulates"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted run in DIR; `--resume --out DIR` is enough"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help="replaces the study's [training] iterations; with --resume, an interrupted or finished run goes on to N",
    )
    parser.add_argument("--init", metavar="DIR", help="start from the result in DIR; replaces the study's init")
    parser.add_argument("--force", action="store_true", help="replace an earlier result in DIR")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument(
        "--figures", action="store_true", help="the report's charts also as PNG files in DIR/figures, some seconds more"
    )
    parser.add_argument("--no-video", action="store_true", help="no film in the report")
    add_options(parser)
    parser.set_defaults(run=run, command=command)


def run(args: argparse.Namespace) -> int:
    """Train and print what came of it; returns 0."""
    import functools

    from dso_robotics.cli import plain
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.extras import require_mjx

    require_mjx(f"`dso {args.command}`")
    prepare_jax()
    silence_mujoco()
    study = _study(args)
    if args.seed is not None:
        study = study.changed({"seed": args.seed})
    if args.engine is not None:
        study = study.changed({"engine": args.engine})
    if args.init is not None:
        study = study.changed({"init": args.init})
    if args.iterations is not None:
        if args.iterations < 1:
            raise DsoError(f"--iterations {args.iterations}: give a whole number from 1.")
        study = dataclasses.replace(study, training=dataclasses.replace(study.training, iterations=args.iterations))
    if args.check_gradients:
        from dso_robotics.studies.gradient_check import check_gradients
        from dso_robotics.studies.train_build import build

        for block in check_gradients(build(study)):
            print(
                f"{block.block} by {block.source}: derivative {block.exact:.8g}, by differences of C MuJoCo "
                f"{block.difference:.8g}, "
                f"relative error {block.error:.1e} (C's own differences agree to {block.kink:.1e})"
            )
        return 0
    from dso_robotics.report.table import training_table
    from dso_robotics.report.train import write_report
    from dso_robotics.studies.design import design
    from dso_robotics.studies.train import train

    work = design if args.command == "design" else train
    draw = None if args.no_report else functools.partial(write_report, video=not args.no_video, figures=args.figures)
    longer = args.resume and args.iterations is not None
    found = work(study, args.out, resume=args.resume, force=args.force, longer=longer, report=draw)
    print(plain("\n".join(training_table(found.summary))))
    print(plain(f"\nresult: {args.out}/{'summary.json' if args.no_report else 'report.html'}"))
    return 0


def _study(args: argparse.Namespace) -> "TrainStudy":
    """The study of the file or, when a run is resumed without one, of its run file."""
    from dso_robotics.studies.run import stored_study

    if not args.out and not args.check_gradients:
        raise DsoError("no folder was given for the result; name one with --out DIR.")
    from dso_robotics.studies.train_study import TrainStudy

    if args.study:
        return TrainStudy.read(args.study)
    if not args.resume:
        raise DsoError(f"no study was given; write `dso {args.command} STUDY.toml --out DIR`.")
    return stored_study(args.out, args.command, TrainStudy, {})
