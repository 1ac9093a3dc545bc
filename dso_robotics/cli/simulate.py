"""`dso simulate`: records a synthetic log, of an excitation or of a trained policy."""

import argparse
import sys
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError

_EPILOG = """\
examples:
  dso simulate arm.xml --out arm.h5 --excite multisine --amplitude 1.5 --seconds 5 --rollouts 4 --seed 1
  dso simulate arm.xml --out arm.h5 --excite steps --sensor-noise 0.002 --sensor-noise gyro=0.05 --quantum enc=0.00038
  dso simulate arm.xml --out replay.h5 --controls measured.h5
  dso simulate pendulum.xml --out swing.h5 --excite none --spread-qpos 1.5
  dso simulate --policy result --out played.h5 --rollouts 4 --sensor-noise 0.002
  dso simulate real_arm.xml --policy result --out real.h5 --start shoulder=0.3 --start elbow=-0.2

SD, X and STEP are one number for all channels, or NAME=number for one channel; repeat the option for several.
Actuators and sensors must have names in the model; these become the log's channels.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command to `subparsers`, as argparse's add_subparsers returns them."""
    parser = subparsers.add_parser(
        "simulate",
        help="record a synthetic log from a model",
        description="Simulate a mechanism and record it like a real one: with noise on the actions, and with delayed, "
        "noisy, quantised sensors. With --policy, a trained policy and its estimator drive it, from starts as the study draws "
        "them; they read what the sensors show.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="MJCF or URDF file; with --policy, another robot than its"
    )
    parser.add_argument("--model", dest="other", metavar="MODEL", help="the same, by name")
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
    what.add_argument("--policy", metavar="DIR", help="a policy drives: the folder of `dso train` or `dso design`")
    parser.add_argument("--keyframe", metavar="NAME", help="start at a keyframe of the model, at rest")
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="JOINT=X",
        help="start there, in rad or m (default: the study's starts)",
    )
    group.add_argument(
        "--task", action="append", default=[], metavar="NAME=X", help="a task number (default: as the study draws it)"
    )
    group = parser.add_argument_group("excitation")
    group.add_argument(
        "--amplitude", action="append", default=[], metavar="X", help="±limit of the controls (default: the ctrlrange)"
    )
    group.add_argument("--top", type=float, default=2.0, metavar="HZ", help="highest frequency (default: %(default)s)")
    group.add_argument(
        "--seconds", type=float, metavar="S", help="length of a rollout (default: 5; of a policy, the study's episode)"
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
    from dso_robotics.data.record import Flaws, record
    from dso_robotics.physics.model import keyframe_position, load

    if args.model is not None and args.other is not None:
        raise DsoError(f"the model was given twice, as {args.model} and by --model {args.other}; give it once.")
    args.model = args.model if args.other is None else args.other
    _refuse_mixed(args)
    refuse_existing(args.out, args.force)
    if args.rollouts < 1 or args.every < 1 or args.seed < 0:
        raise DsoError("--rollouts and --every must be at least 1 and --seed at least 0; give larger numbers.")
    flaws = Flaws(
        action_noise=_by_name("--action-noise", args.action_noise),
        sensor_noise=_by_name("--sensor-noise", args.sensor_noise),
        quantum=_by_name("--quantum", args.quantum),
        delay=args.delay,
    )
    if args.policy:
        log = _played(args, flaws)
        _write(args.out, log)
        print(f"{args.out}: {len(log.rollouts)} rollout(s); `dso inspect {args.out}` shows its contents")
        return 0
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
            seconds=5.0 if args.seconds is None else args.seconds,
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
        qpos=None if args.keyframe is None else keyframe_position(model, args.keyframe),
        keep_state=args.keep_state,
        source=f"simulated from {Path(str(args.model)).name} with {moved}, seed {args.seed}",
    )
    _write(args.out, log)
    print(f"{args.out}: {len(log.rollouts)} rollout(s); `dso inspect {args.out}` shows its contents")
    return 0


def _write(out: str, log: Any) -> None:
    from dso_robotics.data.log import write_log
    from dso_robotics.progress.phase import phase

    with phase("writing"):
        write_log(out, log)


def _refuse_mixed(args: argparse.Namespace) -> None:
    """Refuse options that have no effect with the others."""
    if args.policy:
        given = {"--amplitude": args.amplitude, "--top": args.top != 2.0, "--every": args.every != 1}
        if wrong := [option for option, value in given.items() if value]:
            raise DsoError(
                f"{wrong[0]} is for excitations, and --policy records one sample a control step; leave it out."
            )
        return
    if args.model is None:
        raise DsoError("there is no robot to simulate; name a model file, or a trained policy with --policy DIR.")
    given = {"--start": args.start, "--task": args.task}
    if wrong := [option for option, value in given.items() if value]:
        raise DsoError(f"{wrong[0]} is for a trained policy; give --policy DIR too.")


def _played(args: argparse.Namespace, flaws: Any) -> Any:
    """The log of a policy."""
    from dso_robotics.physics.model import load
    from dso_robotics.robot.policy_log import play_policy
    from dso_robotics.robot.policy_loop import unheeded

    for told in unheeded(args.policy):
        print(told, file=sys.stderr)
    return play_policy(
        args.policy,
        None if args.model is None else load(args.model),
        flaws,
        rollouts=args.rollouts,
        seed=args.seed,
        seconds=args.seconds,
        position=_by_name("--start", args.start),
        keyframe=args.keyframe,
        spread_qpos=args.spread_qpos,
        spread_qvel=args.spread_qvel,
        task=_by_name("--task", args.task),
        keep_state=args.keep_state,
    )


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
