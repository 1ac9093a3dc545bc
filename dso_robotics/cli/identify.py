"""`dso identify`: physical parameters from logs."""

import argparse
import sys
from typing import Any

from dso_robotics.errors import DsoError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso identify MODEL LOG [LOG ...] --free PATH --out DIR`."""
    parser = subparsers.add_parser(
        "identify",
        help="fit physical parameters to recorded logs, with uncertainty",
        description=(
            "Fit physical parameters of a MuJoCo model to recorded logs. The logs are cut into windows; each is predicted "
            "open loop from a start state that is estimated too, and the parameters, the noise scale of every channel and "
            "the start states are chosen by maximum likelihood. DIR receives summary.json, report.html, model.xml (the "
            "model with the new values) and run.h5."
        ),
        epilog=(
            "example: dso identify arm.xml arm.h5 --free 'joint/*/damping=0.1@0:2' --free body/upper/inertia "
            "--hold-out 03,05 --out result. `dso parameters MODEL` lists every PATH."
        ),
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="MJCF or URDF file; sensors and actuators name the channels"
    )
    parser.add_argument(
        "logs", nargs="*", metavar="LOG", help="log files (HDF5; `dso convert` makes them from CSV or NPZ)"
    )
    parser.add_argument(
        "--free",
        action="append",
        default=[],
        metavar="PATH[=INIT][@LOW:HIGH]",
        help="what to identify, with start value and bounds; may be repeated, and PATH may hold * and ?",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--hold-out",
        metavar="NAME[,NAME]|FRACTION",
        help="rollouts to predict but not to fit, or how many of them (0 to 1)",
    )
    parser.add_argument(
        "--engine", metavar="auto|mujoco|mjx", help="simulator and derivatives; auto (default) says why"
    )
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of the pieces fitted open loop (0.5)")
    parser.add_argument(
        "--score-window", type=float, metavar="SECONDS", help="length of the pieces scored (as --window)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="recorded with the result (0)")
    parser.add_argument("--study", metavar="FILE.toml", help="read any of these from a file; flags win")
    parser.add_argument("--resume", action="store_true", help="go on with the interrupted run in DIR")
    parser.add_argument("--force", action="store_true", help="replace an earlier result in DIR")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Identify and print the table."""
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.parameters.path import parse
    from dso_robotics.report.identify import write_report
    from dso_robotics.report.table import identification_table
    from dso_robotics.studies.identify import Progress, identify
    from dso_robotics.studies.study import IdentifyStudy, read_study

    keys: dict[str, Any] = read_study(args.study) if args.study else {}
    given = {
        "model": args.model,
        "logs": args.logs or None,
        "free": [parse(text) for text in args.free] or None,
        "hold_out": args.hold_out,
        "engine": args.engine,
        "window": args.window,
        "score_window": args.score_window,
        "seed": args.seed,
    }
    keys |= {key: value for key, value in given.items() if value is not None}
    if "model" not in keys:
        raise DsoError("no model was given; name an MJCF or URDF file, or a study file with --study.")
    study = IdentifyStudy(
        model=keys["model"],
        logs=tuple(keys.get("logs", ())),
        free=tuple(keys.get("free", ())),
        **{key: keys[key] for key in ("hold_out", "engine", "window", "score_window", "seed") if key in keys},
    )
    prepare_jax()
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:

        def tell(news: Progress) -> None:
            line = f"{news.stage}: iteration {news.iteration}, cost {news.cost:,.1f}, {news.seconds:.1f} s"
            if sys.stderr.isatty():
                status.update(line)
            else:
                print(line, file=sys.stderr)

        result = identify(
            study,
            args.out,
            resume=args.resume,
            force=args.force,
            report=None if args.no_report else write_report,
            progress=tell,
        )
    print(identification_table(result.summary))
    print(f"\nresult: {args.out}/{'summary.json' if args.no_report else 'report.html'}")
    return 0
