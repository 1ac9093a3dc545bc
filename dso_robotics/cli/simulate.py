"""`dso simulate`: records a synthetic log."""

import argparse
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError

_EPILOG = """\
examples:
  dso simulate arm.xml --out arm.h5 --excite multisine --amplitude 1.5 --seconds 5 --rollouts 4 --seed 1
  dso simulate arm.xml --out arm.h5 --excite steps --sensor-noise 0.002 --sensor-noise gyro=0.05 --quantum enc=0.00038
  dso simulate arm.xml --out replay.h5 --controls measured.h5
  dso simulate pendulum.xml --out swing.h5 --excite none --spread-qpos 1.5

SD, X and STEP are one number for all channels, or NAME=number for one channel; repeat the option for several.
Actuators and sensors must have names in the model; these become the log's channels.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a synthetic log from a model",
        description="Simulate a mechanism and record it like a real one: with noise on the actions, and with delayed, "
        "noisy, quantised sensors.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="MJCF or URDF file")
    parser.add_argument("--out", required=True, metavar="LOG.h5", help="the log to write")
    what = parser.add_argument_group("controls").add_mutually_exclusive_group()
    what.add_argument(
        "--controls",
        metavar="FILE",
        help="play back a log, or a table (CSV, NPZ, ...) with time and a column per actuator",
    )
    what.add_argument(
        "--excite",
        default="multisine",
        choices=("multisine", "chirp", "steps", "none"),
        help="excitation signal (default: %(default)s)",
    )
    group = parser.add_argument_group("excitation")
    group.add_argument(
        "--amplitude", action="append", default=[], metavar="X", help="±limit of the controls (default: the ctrlrange)"
    )
    group.add_argument("--top", type=float, default=2.0, metavar="HZ", help="highest frequency (default: %(default)s)")
    group.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="length of a rollout (default: %(default)s)"
    )
    group.add_argument("--rollouts", type=int, default=1, metavar="N", help="number of rollouts (default: %(default)s)")
    group.add_argument("--spread-qpos", type=float, default=0.0, metavar="X", help="random start, ±X rad or m")
    group.add_argument("--spread-qvel", type=float, default=0.0, metavar="X", help="random start, ±X rad/s or m/s")
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--every", type=int, default=1, metavar="N", help="one sample per N steps of the model (default: 1)"
    )
    group.add_argument(
        "--action-noise", action="append", default=[], metavar="SD", help="standard deviation, not in the log"
    )
    group.add_argument("--sensor-noise", action="append", default=[], metavar="SD", help="standard deviation")
    group.add_argument("--quantum", action="append", default=[], metavar="STEP", help="resolution of a sensor")
    group.add_argument("--delay", type=int, default=0, metavar="N", help="age of sensor values, in samples")
    group.add_argument("--keep-state", action="store_true", help="record the exact qpos and qvel too")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: %(default)s)")
    group.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Simulate and write; returns 0. Raises DsoError for a bad model, bad options, or a simulation that diverges."""
    import numpy as np

    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.data.controls import excitations, recorded_controls
    from dso_robotics.data.log import write_log
    from dso_robotics.data.record import Flaws, record
    from dso_robotics.physics.model import load

    refuse_existing(args.out, args.force)
    if args.rollouts < 1 or args.every < 1 or args.seed < 0:
        raise DsoError("--rollouts and --every must be at least 1 and --seed at least 0; give larger numbers.")
    flaws = Flaws(
        action_noise=_by_name("--action-noise", args.action_noise),
        sensor_noise=_by_name("--sensor-noise", args.sensor_noise),
        quantum=_by_name("--quantum", args.quantum),
        delay=args.delay,
    )
    amplitude = _by_name("--amplitude", args.amplitude) or None
    model = load(args.model).mj
    rng = np.random.default_rng(args.seed)
    if args.controls:
        controls = recorded_controls(model, args.controls, args.every)
    else:
        controls = excitations(
            model,
            rng,
            args.excite,
            seconds=args.seconds,
            rollouts=args.rollouts,
            every=args.every,
            amplitude=amplitude,
            top=args.top,
        )
    moved = f"controls of {Path(args.controls).name}" if args.controls else f"excitation {args.excite}"
    log = record(
        model,
        rng,
        controls,
        every=args.every,
        flaws=flaws,
        spread_qpos=args.spread_qpos,
        spread_qvel=args.spread_qvel,
        keep_state=args.keep_state,
        source=f"simulated from {Path(args.model).name} with {moved}, seed {args.seed}",
    )
    write_log(args.out, log)
    print(f"{args.out}: {len(log.rollouts)} rollout(s); `dso inspect {args.out}` shows its contents")
    return 0


def _by_name(option: str, texts: list[str]) -> dict[str, float]:
    values = {}
    # "*" first, so that a number for all channels does not overwrite one for a single channel.
    for text in sorted(texts, key=lambda text: "=" in text):
        name, _, number = text.rpartition("=")
        try:
            values[name or "*"] = float(number)
        except ValueError as error:
            raise DsoError(f"{option} {text!r}: write a number, or NAME=number for one channel.") from error
    return values
