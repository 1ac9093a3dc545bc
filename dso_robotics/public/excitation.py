"""Plan recordings: a model and what is known in, a plan that shows itself out."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.data.atomic import refuse_existing
from dso_robotics.data.log import Log
from dso_robotics.progress.report import Progress
from dso_robotics.public.computing import computing
from dso_robotics.public.identification import Identification
from dso_robotics.public.inputs import sitting
from dso_robotics.public.place import Place
from dso_robotics.public.progress import following
from dso_robotics.public.sheet import block, html_table
from dso_robotics.public.wording import arguments, named, speaking_python
from dso_robotics.report.excite import film_plan, half_width, plan_table
from dso_robotics.studies.excite import Plan
from dso_robotics.studies.excite import excite as run
from dso_robotics.studies.excite_plan import csv_paths, log_of, summary, write_plan
from dso_robotics.studies.excite_study import ExciteStudy

if TYPE_CHECKING:
    import mujoco

    from dso_robotics.parameters.path import Declaration
    from dso_robotics.physics.model import Robot

Path_ = str | os.PathLike[str]
Limit = float | Mapping[str, float]


class Excitation:
    """The result of `excite`.

    plan: all details, for further use: runs with their controls and expected states, the table.
    summary: expected intervals, runs and notes.
    """

    def __init__(self, place: Place, plan: Plan, names: Mapping[str, str]):
        self._place, self._names, self.plan = place, dict(names), plan
        self.summary = summary(plan)

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Every number by name: "value", "unit", "half_width_before" and "half_width_after" of its 95% interval (None if
        unknown), "visible", and "why_not"."""
        return dict(self.summary["parameters"])

    @property
    def notes(self) -> list[str]:
        """What to read before the plan is used."""
        return [named(arguments(text), self._names) for text in self.summary["notes"]]

    def log(self) -> Log:
        """The plan as a log of controls and expected states, without sensor readings."""
        return log_of(self.plan)

    def save(self, path: Path_, *, force: bool = False) -> Path:
        """Write the plan to `path` (.h5), and a CSV file for each run beside it. `force` replaces existing files.

        Raises:
          DsoError: a file exists or cannot be written.
        """
        out = Path(path)
        with speaking_python():
            for one in (out, *csv_paths(out, len(self.plan.runs))):
                refuse_existing(one, force)
            write_plan(self.plan, out)
        return out

    def film(self, path: Path_, *, run: int = 0) -> Path:
        """Write a film of the expected motion of a run (.webp, .gif, or with ffmpeg .mp4).

        Raises:
          DsoError: the format cannot be written here, or no OpenGL works here.
        """
        with speaking_python():
            film_plan(self.plan, Path(path), index=run)
        return Path(path)

    def __str__(self) -> str:
        return plan_table(self.summary | {"notes": self.notes})

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [("parameter", "value", "95% interval before", "after the plan", "unit", "")]
        for name, p in self.parameters.items():
            ends = half_width(p["half_width_before"]), half_width(p["half_width_after"])
            rows.append(
                (name, f"{p['value']:.4g}", *ends, p["unit"], "" if p["visible"] else f"invisible: {p['why_not']}")
            )
        state = f"{len(self.plan.runs)} run(s) of {self.summary['seconds']:g} s"
        return block("Plan", state, [html_table(rows, "<>>><<")], self.notes)


def excite(
    model: "Path_ | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    result: "Path_ | Identification | None" = None,
    *,
    free: "str | Declaration | Mapping[str, Any] | Sequence[str | Declaration | Mapping[str, Any]] | None" = None,
    actuator: str | Sequence[str] | None = None,
    interest: str | Sequence[str] | None = None,
    noise: Limit | None = None,
    sensors: str | Sequence[str] | None = None,
    aim: str | None = None,
    seconds: float | None = None,
    runs: int | None = None,
    every: int | None = None,
    play: str | None = None,
    signal: str | None = None,
    top: float | None = None,
    harmonics: int | None = None,
    fade: float | None = None,
    still: float | None = None,
    end: str | None = None,
    keyframe: str | None = None,
    amplitude: Limit | None = None,
    hold: Mapping[str, float] | None = None,
    position: Mapping[str, tuple[float, float]] | None = None,
    speed: Limit | None = None,
    acceleration: Limit | None = None,
    torque: Limit | None = None,
    rate: Limit | None = None,
    power: Limit | None = None,
    distance: Mapping[str, float] | None = None,
    margin: float | None = None,
    touch: str | Sequence[str] | None = None,
    window: float | str | None = None,
    robust: bool | None = None,
    draws: int | None = None,
    trials: int | None = None,
    seed: int | None = None,
    study: Path_ | None = None,
    progress: bool | Callable[[Progress], None] = False,
) -> Excitation:
    """Plan the recordings that make the intervals of `identify` narrowest, within limits of the robot.

    The information is that of the same likelihood: noise, delays, biases, friction, contacts, and start states that are
    estimated. With a result the plan begins with its values, intervals and noise, and is averaged over its intervals.

    model: as in `identify`. result: what `identify` returned, or its folder.
    free: as in `identify`; with a result, besides what it freed.
    interest: paths whose intervals count; by default all.
    noise: standard deviation by channel, or one for all.
    aim: "d", "a", "e", "widest" or "halve" (docs/excite.md).
    seconds: length of a run [s]. runs: number of runs. every: model steps per sample.
    amplitude, speed, acceleration, torque, rate, power: limits, one number or one by name with wildcards.
    hold: controls that stay at a value, by actuator. position: (low, high) by joint.
    distance: least distance [m] by "GEOM:GEOM". touch: "GEOM:GEOM" that may touch.
    trials: motions tried for each run.
    progress: True prints a line to stderr for every step of the search; a function receives the same as an object.
    The other arguments are the study file keys of the same name (docs/studies.md).

    Raises:
      DsoError: something is wrong with the model, the result or the options; no motion keeps the limits; the robot collides at
        rest; or no excitation shows a number that was named.
    """
    if study is None and isinstance(model, str | os.PathLike) and Path(model).suffix == ".toml":
        model, study = None, model
    given = {
        "result": os.fspath(result.folder if isinstance(result, Identification) else result) if result else None,
        "actuator": actuator,
        "interest": interest,
        "noise": _by_name(noise),
        "sensors": sensors,
        "aim": aim,
        "seconds": seconds,
        "runs": runs,
        "every": every,
        "play": play,
        "signal": signal,
        "top": top,
        "harmonics": harmonics,
        "fade": fade,
        "still": still,
        "end": end,
        "keyframe": keyframe,
        "amplitude": _by_name(amplitude),
        "hold": hold,
        "position": position,
        "speed": _by_name(speed),
        "acceleration": _by_name(acceleration),
        "torque": _by_name(torque),
        "rate": _by_name(rate),
        "power": _by_name(power),
        "distance": distance,
        "margin": margin,
        "touch": touch,
        "window": window,
        "robust": robust,
        "draws": draws,
        "trials": trials,
        "seed": seed,
    }
    with sitting(None) as (place, inputs):
        asked = inputs.study(ExciteStudy, study, {"model": model, "free": free, **given}, None)
        with computing(jax=False), following(progress):
            plan = run(asked)
    return Excitation(place, plan, inputs.names)


def _by_name(limit: Limit | None) -> Mapping[str, float] | None:
    return limit if limit is None or isinstance(limit, Mapping) else {"*": limit}
