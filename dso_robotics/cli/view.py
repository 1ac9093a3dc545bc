"""`dso view`: replays the motion of a result."""

import argparse
import re

from dso_robotics.errors import DsoError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `dso view DIR`."""
    parser = subparsers.add_parser(
        "view",
        help="replay a result: a recording as predicted or estimated, or a trained policy's episode",
        description=(
            "Replay a result in MuJoCo's viewer, or write it to a video file. An identification shows a recording: "
            "the motion predicted open loop by the model with its new values, window after window, and the measured "
            "motion as a grey ghost. An estimator shows a recording as its filter estimates it from the readings, and "
            "the true motion as a grey ghost, or else the smoothed one. A training shows an episode of the trained "
            "policy on C MuJoCo. A design shows the same; if the design changed the shape of the mechanism, the "
            "initial mechanism is a grey ghost in the same joint positions, its loops closed if it has any."
        ),
        epilog="examples: dso view result --video arm.webp; dso view result --live. Without --video a window opens.",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder of a result of `dso identify`, `estimate`, `train` or `design`"
    )
    parser.add_argument(
        "--run",
        dest="recording",
        metavar="NAME",
        help="recording to replay (default: the first held out); for a training, `trained` (the default) or `untrained`",
    )
    parser.add_argument(
        "--beside", metavar="DIR2", help="another training or design; its episode is the grey ghost instead"
    )
    parser.add_argument(
        "--video",
        metavar="FILE",
        help="write FILE instead: .webp, .gif, .apng, or with ffmpeg .mp4, .webm, .mkv, .mov",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="play a trained policy in the window, over and over: push the robot (double click, then Ctrl and drag); Space "
        "pauses, Backspace restarts, Enter starts elsewhere, arrows change task numbers",
    )
    parser.add_argument("--model", metavar="MODEL", help="with --live: another robot than that of the training")
    parser.add_argument("--span", metavar="FROM:TO", help="only these seconds of the recording's clock")
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="FACTOR", help="0.25 shows it four times slower (1)"
    )
    parser.add_argument("--size", default="640x480", metavar="WIDTHxHEIGHT", help="pixels of the video (640x480)")
    parser.add_argument("--camera", default="", metavar="NAME", help="a camera of the model (else one from the side)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Open the viewer or write the video."""
    from dso_robotics.cli import plain
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.data.atomic import refuse_existing
    from dso_robotics.report.film import Film
    from dso_robotics.report.replay import read_replay

    size, (begin, end) = _size(args.size), _span(args.span)
    if not 0.001 <= args.speed <= 1000:
        raise DsoError(f"--speed {args.speed:g}: give a factor between 0.001 and 1000, such as 0.5.")
    if args.live:
        return _live(args)
    if args.model:
        raise DsoError("--model is the robot that a policy plays live; give --live too.")
    if args.video:
        refuse_existing(args.video, args.force)
    silence_mujoco()
    replay = read_replay(args.folder, args.recording)
    if args.beside:
        replay = replay.beside(read_replay(args.beside))
    film = Film(size=size, speed=args.speed, begin=begin, end=end, camera=args.camera, legend=replay.legend)
    print(plain(replay.caption), flush=True)
    if args.video:
        film.shoot(replay, args.video)
        print(plain(f"video: {args.video}"))
    else:
        from dso_robotics.report.viewer import show

        show(replay, film)
    return 0


def _live(args: argparse.Namespace) -> int:
    """Play the policy in a window until it is closed."""
    from dso_robotics.cli.mujoco_setup import silence_mujoco
    from dso_robotics.physics.model import load
    from dso_robotics.report.live import play_live
    from dso_robotics.report.viewer import launcher
    from dso_robotics.robot.policy_loop import PolicyLoop, unheeded

    wrong = {"--video": args.video, "--run": args.recording, "--beside": args.beside, "--span": args.span}
    if given := [option for option, value in wrong.items() if value]:
        raise DsoError(f"{given[0]} is of a replay, and --live plays the policy anew; leave one of them out.")
    launch = launcher()
    silence_mujoco()
    loop = PolicyLoop(args.folder, None if args.model is None else load(args.model), named=False)
    print("\n".join([*unheeded(args.folder), KEYS]), flush=True)
    play_live(loop, launch=launch, speed=args.speed, camera=args.camera)
    return 0


KEYS = (
    "Double click a body and drag with Ctrl to push it. Space: pause. Backspace: restart. Enter: another start. Left and "
    "right: choose a task number; up and down: change it."
)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if not match:
        raise DsoError(f"--size {text}: write WIDTHxHEIGHT in pixels, such as 640x480.")
    # Video formats need even numbers.
    width, height = (int(n) // 2 * 2 for n in match.groups())
    return width, height


def _span(text: str | None) -> tuple[float | None, float | None]:
    if text is None:
        return None, None
    match = re.fullmatch(r"(-?\d*\.?\d*):(-?\d*\.?\d*)", text)
    try:
        begin, end = (float(part) if part else None for part in match.groups()) if match else (1.0, 0.0)
    except ValueError:
        begin, end = 1.0, 0.0
    if begin is not None and end is not None and not begin < end:
        raise DsoError(
            f"--span {text}: write FROM:TO in seconds with FROM below TO, such as 2:5; one of them may be left out."
        )
    return begin, end
