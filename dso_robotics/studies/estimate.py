"""Learn a state estimator: model + logs + corrector -> chain (99) and its likelihood -> a search -> result."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics import __version__
from dso_robotics.data.log import Log, merge_logs, problems, read_log
from dso_robotics.data.match import Channels, fitted
from dso_robotics.data.split import hold_out, trained
from dso_robotics.errors import DsoError
from dso_robotics.parameters.signals import nominal
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load, without_delays
from dso_robotics.progress.phase import tell
from dso_robotics.progress.report import Progress
from dso_robotics.robot import filter_data, filter_times, strapdown
from dso_robotics.robot.corrector import CORRECTORS
from dso_robotics.studies import estimate_contact, estimate_gain, estimate_interval, estimate_kalman
from dso_robotics.studies import estimate_score as score
from dso_robotics.studies import estimate_smooth as smooth
from dso_robotics.studies import estimate_trust as trust
from dso_robotics.studies.estimate_outcome import Asked, Outcome
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.run import Session, session

# Why a search is the one that it is.
_SEARCHES = {
    "fisher_scoring": "a Kalman filter's likelihood has an expected information, and few numbers",
    "gauss_newton": "few numbers: their derivatives are finite differences of C MuJoCo",
    "adam": "too many numbers for finite differences: reverse mode through MJX",
}


def estimate(
    study: EstimateStudy,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Path], object] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Run `study` and return the summary. Writes model.xml, run.h5, the output of `report`, and summary.json to `out`.

    With `resume`, an interrupted search in `out` continues and ends with the same numbers.

    Raises DsoError if something is wrong with the model, the logs or the study (before any file is written), or if the
    filter diverges at the start.
    """
    with session(out, resume=resume, force=force, progress=progress) as here:
        return _estimate(study, here, report)


def _estimate(study: EstimateStudy, here: Session, report: Callable[[Path], object] | None) -> dict[str, Any]:
    tell("reading")
    plain, merged = load(study.model), merge_logs([read_log(path) for path in study.logs])
    if study.strapdown is not None:
        strapdown.refuse_unknown(study.strapdown, (one.path for one in study.free))
        plain, merged = strapdown.strapped(plain, study.strapdown), strapdown.driven(merged, study.strapdown)
    robot = estimate_contact.with_velocities(study.contact, plain)
    physics = _physics(study, robot)
    recorded, left_out = fitted(merged, plain.mj, needed=trained(merged, study.hold_out))
    log = estimate_contact.with_zeros(study.contact, recorded, merged, robot.mj)
    left_out = estimate_contact.without_notes(study.contact, left_out)
    channels = estimate_contact.channels(
        study.contact, log, robot.mj, study.sensors, strapped=study.strapdown is not None
    )
    split = hold_out(log, study.hold_out)
    timestep = study.timestep or float(robot.mj.opt.timestep)
    kind, why = _corrector(study, physics)
    if CORRECTORS[kind].linearises:
        interval, substeps = filter_times.usual_interval(log.rollouts, timestep)
        log = _when_taken(log, channels, physics)
        split = hold_out(log, study.hold_out)
    else:
        interval, substeps = filter_data.common_interval(log.rollouts, timestep, log.label)
    cut: dict[str, Any] = {"interval": interval, "substeps": substeps, "source": log.label}
    cut |= {"recorded_start": study.supervised > 0, "any_time": CORRECTORS[kind].linearises}
    windows = filter_data.cut_windows(split.train, channels, robot.mj, seconds=study.window, **cut)
    parts = {"train": split.train, "hold_out": split.hold_out}
    whole = {
        name: filter_data.cut_windows(part, channels, robot.mj, seconds=None, **cut)
        for name, part in parts.items()
        if part
    }

    to_mjcf(robot, physics.fields(physics.initial))  # fail before the search if a parameter cannot be written back
    warm_up = round(study.warm_up * (windows.measured.shape[1] - 1))
    asked = Asked(study, here, robot, physics, windows, whole, warm_up, log.label)
    learn = estimate_kalman.learn if CORRECTORS[kind].linearises else estimate_gain.learn
    outcome = learn(asked, kind)
    settled, fits = outcome.settled, outcome.fits
    found = settled.found
    doubts = trust.distrust(settled, outcome.consistency, channels.sensor_names)
    doubts += [
        f"The filter diverged in {f.diverged} {part} run(s), whose errors are left out."
        for part, f in fits.items()
        if f.diverged
    ]
    doubts += outcome.doubts
    doubts += estimate_contact.on_the_ground(study.contact, doubts, strapped=study.strapdown is not None)
    fit = {"train": {}, "hold_out": {}} | {n: score.table(channels, f, outcome.std[n]) for n, f in fits.items()}
    named = channels.sensor_names
    stability = trust.stability_table(settled, outcome.whole)
    summary: dict[str, Any] = {
        "command": "estimate",
        "version": __version__,
        "engine": outcome.engine[0],
        "engine_reason": outcome.engine[1],
        "seed": study.seed,
        "seconds": {"total": 0.0, "compile": found.compile_seconds},
        "method": {"name": found.method, "reason": _SEARCHES[found.method]},
        "status": found.status,
        "converged": found.converged and not doubts,
        "message": found.message,
        "evaluations": found.evaluations,
        "corrector": {"kind": kind, "reason": why, "numbers": outcome.numbers},
        "parameters": estimate_interval.table(physics, outcome.physical, found.known, outcome.where),
        **outcome.summary,
        "cost": {"total": sum(found.cost.values()), "terms": found.cost},
        "fit": fit,
        "stability": stability,
        "consistency": {
            part: entry | {"worst_channel": None if (c := entry["worst_channel"]) is None else named[c]}
            for part, entry in outcome.consistency.items()
        },
        "state": {name: score.state_table(f) for name, f in fits.items()},
        "interval": interval,
        "windows": {
            "seconds": study.window,
            **outcome.windows,
            "rollouts": {k: [r.name for r in v] for k, v in parts.items()},
        },
        "doubts": doubts,
        "warnings": [
            *left_out, *problems(recorded if study.contact else log, estimate_contact.read_channels(study.contact, named)),
            *doubts, *outcome.notes,
            *trust.short_windows(stability["train"], outcome.consistency["train"], study.window, study.warm_up),
            *_warnings(outcome, fit, physics, doubts),
        ],
    }  # fmt: skip
    traces = {name: score.traces(robot.mj, f, outcome.whole[name], outcome.std[name]) for name, f in fits.items()}
    for part, runs in smooth.traces(outcome.smoothed, robot.mj).items():
        for name, columns in runs.items():
            n = len(traces[part][name]["time"])
            traces[part][name] |= {key: values[:n] for key, values in columns.items()}
    if outcome.smoothed:
        summary["warnings"] += smooth.write(here.folder, recorded, log, outcome.smoothed, robot.mj)
    groups: dict[str, Any] = {"theta": outcome.theta, "history": found.history, "traces": traces}
    if settled.stable:
        groups["estimator"] = outcome.learned.as_dict()
    here.finish(summary, to_mjcf(robot, physics.written(outcome.physical)), report, groups)
    return summary


def _when_taken(log: Log, channels: Channels, physics: ParameterVector) -> Log:
    """`log` with the readings of late sensors at the times at which they were taken."""
    late = physics.late(physics.initial, channels.sensor_addresses)
    if late is None:
        return log
    rollouts = tuple(filter_times.taken(r, channels.sensor_names, late) for r in log.rollouts)
    return dataclasses.replace(log, rollouts=rollouts)


def _corrector(study: EstimateStudy, physics: ParameterVector) -> tuple[str, str]:
    """The corrector to learn, and why.

    Raises DsoError if the study names a Kalman filter and asks for what it does not do, or the other way round.
    """
    unable = estimate_kalman.without(study, physics)
    if study.corrector is None:
        if unable and not study.drift and not study.smooth and not study.contact and not study.strapdown:
            return "gain", f"a Kalman filter does not do {unable[0]}"
        if not unable:
            return "kalman", "the default"
    kind = study.corrector or "kalman"
    linearises = CORRECTORS[kind].linearises
    if linearises and unable:
        other = 'choose corrector = "gain", "linear", "mlp" or "recurrent"'
        raise DsoError(
            f"corrector {kind!r} does not do {' and '.join(unable)}; leave it out, or "
            f"{'leave smooth out' if study.smooth else other}."
        )
    if study.smooth and not linearises:
        raise DsoError(
            f'corrector {kind!r} has no model of its noise to smooth with; leave smooth out, or choose corrector = "kalman".'
        )
    if study.drift and not linearises:
        raise DsoError(f'corrector {kind!r} has no bias states; leave `drift` out, or choose corrector = "kalman".')
    for name, asked in (("strapdown", study.strapdown), ("[contact]", study.contact)):
        if asked and not linearises:
            raise DsoError(f'corrector {kind!r} does not do {name}; leave it out, or choose corrector = "kalman".')
    return kind, "asked for"


def _physics(study: EstimateStudy, robot: Robot) -> ParameterVector:
    """The blocks of theta that are named by PATH. Actuator delays are refused, because this chain does not model them."""
    delays = {"sensor_delay": nominal(robot.mj, "sensor_delay")}
    physics = pack(study.free, robot) if study.free else ParameterVector((), without_delays(robot).mj, delays)
    late = [p.path for p in physics.parameters if any(slot.field == "actuator_delay" for slot in p.slots)]
    if late or np.any(robot.mj.actuator_delay):
        raise DsoError(
            f"{robot.source}: {late[0] if late else 'an actuator with a delay'}: an estimator knows late sensors and no late "
            "actuators; shift the log's controls by the delay that `dso identify` finds, and leave it out of the model and of "
            "`free`."
        )
    return physics


def _warnings(outcome: Outcome, fit: dict[str, Any], physics: ParameterVector, doubts: list[str]) -> list[str]:
    texts, found = [], outcome.settled.found
    # A search that continued past the kept estimator counts as complete.
    if not found.converged and found.kept is None and not doubts:
        texts.append(
            f"The search did not converge: {found.message}. More `iterations` may still improve the estimator."
        )
    if "hold_out" not in outcome.fits:
        texts.append(
            "No run was held out, so nothing here tells how the estimator does on motions it was not trained on."
        )
    for name, entry in fit["hold_out"].items():
        if math.isfinite(entry["covered_percent"]) and not 90 <= entry["covered_percent"] <= 99:
            texts.append(
                f"{name}: {entry['covered_percent']:.1f}% of the held-out innovations lie within 1.96 predicted standard "
                "deviations, where 95% should; the uncertainty that the estimator claims is too "
                f"{'large' if entry['covered_percent'] > 95 else 'small'}."
            )
    if any(slot.field in ("sensor_bias", "sensor_scale") for p in physics.parameters for slot in p.slots):
        texts.append("MJCF has no place for sensor biases and scales, so they are in run.h5 and not in model.xml.")
    return texts
