"""`dso train`: optimises a policy, and what the study frees of the mechanism, for any sum of costs."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

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

docs/policies.md lists every key, cost and quantity. The results in DIR are summary.json, report.html, model.xml and run.h5.
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
        help="compare the study's gradient with C MuJoCo, block by block, and stop",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the study's seed")
    parser.add_argument(
        "--resume", action="store_true", help="continue the interrupted run in DIR; `--resume --out DIR` is enough"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier result in DIR")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument("--no-video", action="store_true", help="no film in the report")
    parser.set_defaults(run=run, command=command)


def run(args: argparse.Namespace) -> int:
    """Train and print the result; returns 0."""
    import dataclasses
    import functools

    from dso_robotics.cli import interrupted, plain
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.extras import require_mjx

    require_mjx(f"`dso {args.command}`")
    study = _study(args)
    if args.seed is not None:
        if args.seed < 0:
            raise DsoError(f"--seed {args.seed}: give a whole number of at least 0.")
        study = dataclasses.replace(study, seed=args.seed)
    prepare_jax()
    silence_mujoco()
    if args.check_gradients:
        from dso_robotics.studies.gradient_check import check_gradients
        from dso_robotics.studies.train_build import build

        for block in check_gradients(build(study)):
            print(
                f"{block.block}: derivative {block.exact:.8g}, by differences of C MuJoCo {block.difference:.8g}, "
                f"relative error {block.error:.1e} (C's own differences agree to {block.kink:.1e})"
            )
        return 0
    from dso_robotics.report.train import write_report
    from dso_robotics.studies.design import design
    from dso_robotics.studies.run import Progress
    from dso_robotics.studies.train import train

    def tell(news: Progress) -> None:
        if news.stage != "training":
            return
        print(
            f"iteration {news.iteration}, {news.steps:,} steps: training cost {news.cost:.4g} a step, "
            f"episode on C MuJoCo {news.episode_cost:.5g}, {news.seconds:.0f} s",
            file=sys.stderr,
        )

    work = design if args.command == "design" else train
    draw = None if args.no_report else functools.partial(write_report, video=not args.no_video)
    try:
        found = work(study, args.out, resume=args.resume, force=args.force, report=draw, progress=tell)
    except KeyboardInterrupt:
        return interrupted(args.command, args.out)
    print(plain("\n".join(table(found.summary))))
    print(plain(f"\nresult: {args.out}/{'summary.json' if args.no_report else 'report.html'}"))
    return 0


def _study(args: argparse.Namespace) -> "TrainStudy":
    """The study from the file, or from the run file when a run is resumed without a study file."""
    from dso_robotics.studies.run import stored_study
    from dso_robotics.studies.train_study import TrainStudy, read_train_study

    if not args.out and not args.check_gradients:
        raise DsoError("no folder was given for the result; name one with --out DIR.")
    if args.study:
        return read_train_study(args.study)
    if not args.resume:
        raise DsoError(f"no study was given; write `dso {args.command} STUDY.toml --out DIR`.")
    return stored_study(args.out, args.command, TrainStudy)


def table(summary: dict[str, Any]) -> list[str]:
    """Lines printed at the end."""
    cost, seconds = summary["cost"], summary["seconds"]
    lines = [
        summary["message"],
        f"steps of the environment: {summary['environment_steps']:,}; {seconds['total']:.1f} s, "
        f"of which {seconds['compile']:.1f} s compiling",
        f"at a quarter of the time step: {cost['quarter_timestep']:.4g}",
        "cost by term: " + ", ".join(f"{name} {value:.4g}" for name, value in cost["terms"].items()),
    ]
    for name, row in summary["parameters"].items():
        bound = "  at bound" if row["at_bound"] else ""
        lines.append(f"{name}: {row['initial']:.4g} -> {row['value']:.4g} {row['unit']}{bound}")
    return lines + [f"warning: {text}" for text in summary["warnings"]]
