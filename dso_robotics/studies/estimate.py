"""Learn a state estimator: model + logs + corrector -> chain (99) and its likelihood -> Gauss-Newton or Adam -> result."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics import __version__
from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.data.log import merge_logs, problems, read_log
from dso_robotics.data.match import fitted
from dso_robotics.data.split import hold_out, trained
from dso_robotics.errors import DsoError
from dso_robotics.extras import require_mjx
from dso_robotics.parameters.signals import nominal
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load, without_delays
from dso_robotics.robot import estimator_start, filter_data
from dso_robotics.robot.corrector import EstimatorTheta
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.learned import Learned
from dso_robotics.studies import estimate_score as score
from dso_robotics.studies import estimate_trust as trust
from dso_robotics.studies.estimate_search import Found, Search, by_adam, by_gauss_newton
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.run import EVERY, Progress, Session, session

# With more numbers than this, one reverse pass through MJX is cheaper than one finite difference for each number.
_MANY = 500
# In each period, the number of samples that the corrector sees for each hidden sample.
_VISIBLE = 4


def estimate(
    study: EstimateStudy,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Path], object] | None = None,
    progress: Callable[[Progress], None] = lambda news: None,
) -> dict[str, Any]:
    """Run `study` and return the summary. Writes model.xml, run.h5, the output of `report`, and summary.json to `out`.

    With `resume`, an interrupted search in `out` continues and ends with the same numbers.

    Raises DsoError if something is wrong with the model, the logs or the study (before any file is written), or if the
    filter diverges at the start.
    """
    with session(out, resume=resume, force=force, progress=progress) as here:
        return _estimate(study, here, report)


def _estimate(study: EstimateStudy, here: Session, report: Callable[[Path], object] | None) -> dict[str, Any]:
    robot = load(study.model)
    physics = _physics(study, robot)
    log = merge_logs([read_log(path) for path in study.logs])
    log, left_out = fitted(log, robot.mj, needed=trained(log, study.hold_out))
    channels = filter_data.select_channels(log, robot.mj, study.sensors)
    split = hold_out(log, study.hold_out)
    timestep = study.timestep or float(robot.mj.opt.timestep)
    interval, substeps = filter_data.common_interval(log.rollouts, timestep, log.label)
    cut: dict[str, Any] = {"interval": interval, "substeps": substeps, "source": log.label}
    cut["recorded_start"] = study.supervised > 0
    windows = filter_data.cut_windows(split.train, channels, robot.mj, seconds=study.window, **cut)
    _refuse_impossible(study, windows, log.label)
    given, apart = filter_data.set_apart(windows, study.validation, log.label)
    parts = {"train": split.train, "hold_out": split.hold_out}
    whole = {
        name: filter_data.cut_windows(part, channels, robot.mj, seconds=None, **cut)
        for name, part in parts.items()
        if part
    }

    def tell_start(tried: int) -> None:
        here.tell("start gains tried", tried, math.nan)

    tell_start(0)
    vector, scales = estimator_start.begin(
        study.corrector, study.units, given, physics, seed=study.seed, tell=tell_start
    )
    given = estimator_start.disturbed(given, physics, seed=study.seed)
    to_mjcf(robot, physics.fields(physics.initial))  # fail before the search if a parameter cannot be written back
    warm_up = round(study.warm_up * (given.measured.shape[1] - 1))
    lead, visible = pattern(given.measured.shape[1], study.ahead)

    chain = CFilter(vector, scales, given, visible=visible)
    problem = WindowedEstimation(chain, warm_up=warm_up, lead=lead, robust=study.robust, supervised=study.supervised)
    judge = None
    if apart is not None:
        watched = WindowedEstimation(
            CFilter(vector, scales, apart, visible=visible),
            warm_up=warm_up,
            lead=lead,
            robust=study.robust,
            supervised=study.supervised,
        )
        judge = watched, apart.start
    engine, reason = _engine(study, vector)
    files = {f"log {i + 1}": path for i, path in enumerate(study.logs)}
    # Iterations of Adam are short. Writing each one would take longer than computing it.
    every = EVERY if engine == "mjx" else 0.0
    file, tell = here.begin(study.as_dict(), robot, files, every=every), here.tell
    asked = Search(study, vector, scales, given, problem, warm_up, lead, visible, robot.source, file, tell, judge)
    found = by_gauss_newton(asked) if engine == "mujoco" else by_adam(asked)
    file.write("searched")
    tell("evaluating", len(found.history["cost"]), sum(found.cost.values()))
    settled = trust.settle(asked, found, whole)
    found = settled.found
    fits = {
        name: score.judge(vector, scales, part, found.z, round(study.warm_up * study.window / interval))
        for name, part in whole.items()
    }
    spread = np.zeros((len(channels.sensor_names), vector.corrector.nf))
    factor, sigma = problem.coverage_factor(), found.sigma[0]
    if study.covariance:
        sigma, spread = score.learn_spread(fits["train"], sigma, problem.degrees)
    sigma = sigma * factor
    _, z = vector.parts(found.z)
    scale, bias = physics.sensors(z, channels.sensor_addresses)
    late = physics.late(z, channels.sensor_addresses)
    learned = Learned(
        corrector=vector.corrector,
        weights=found.z[: len(vector.weights)],
        scales=scales,
        scale=scale,
        bias=bias,
        sigma=sigma,
        spread=spread,
        delay=np.zeros(len(scale)) if late is None else late,
        covariance=fits["train"].covariance,
        names=channels.sensor_names,
        addresses=channels.sensor_addresses,
        interval=interval,
        substeps=substeps,
        gate=study.gate or 0.0,
    )
    consistency = trust.consistency(fits, sigma, spread, problem.degrees, factor)
    doubts = trust.distrust(settled, consistency, channels.sensor_names)
    doubts += [
        f"The filter diverged in {f.diverged} {part} run(s), whose errors are left out."
        for part, f in fits.items()
        if f.diverged
    ]
    fit = {"train": {}, "hold_out": {}} | {n: score.table(channels, f, sigma, spread) for n, f in fits.items()}
    summary: dict[str, Any] = {
        "command": "estimate",
        "version": __version__,
        "engine": engine,
        "engine_reason": reason,
        "seed": study.seed,
        "seconds": {"total": 0.0, "compile": found.compile_seconds},
        "converged": found.converged and not doubts,
        "message": found.message,
        "evaluations": found.evaluations,
        "corrector": {"kind": study.corrector, "numbers": vector.corrector.size},
        "parameters": _parameters(vector, found.z),
        "noise": {
            n: {"value": float(s), "unit": u}
            | ({} if problem.degrees is None else {"degrees": float(problem.degrees[c])})
            for c, (n, s, u) in enumerate(
                zip(channels.sensor_names, found.sigma[0], channels.sensor_units, strict=True)
            )
        },
        "noise_ahead": {
            n: [float(s) for s in row] for n, row in zip(channels.sensor_names, found.sigma.T, strict=True)
        },
        "cost": {"total": sum(found.cost.values()), "terms": found.cost},
        "fit": fit,
        "stability": trust.stability_table(settled, whole),
        "consistency": {
            part: entry | {"worst_channel": None if (c := entry["worst_channel"]) is None else channels.sensor_names[c]}
            for part, entry in consistency.items()
        },
        "state": {name: score.state_table(f) for name, f in fits.items()},
        "interval": interval,
        "windows": {
            "seconds": study.window,
            "train": len(given),
            "validation": 0 if apart is None else len(apart),
            "rollouts": {k: [r.name for r in v] for k, v in parts.items()},
        },
        "warnings": [*left_out, *problems(log), *doubts, *_warnings(found, fits, fit, vector, doubts)],
    }
    groups: dict[str, Any] = {
        "theta": vector.by_name(found.z) | {"noise": found.sigma},
        "history": found.history,
        "traces": {name: score.traces(f, whole[name]) for name, f in fits.items()},
    }
    if settled.stable:
        groups["estimator"] = learned.as_dict()
    here.finish(summary, to_mjcf(robot, physics.written(z)), report, groups)
    return summary


def pattern(length: int, ahead: int) -> tuple[np.ndarray, np.ndarray]:
    """Which samples (T,) the corrector sees, and how many were hidden before each update (T-1,).

    The second number is 0 for a one-step prediction. Let a be `ahead`. Of every `_VISIBLE`*a + a - 1 samples the last
    a - 1 are hidden. The hidden samples, and the first visible one after them, are predicted two to a samples ahead.
    """
    visible = np.ones(length, bool)
    if ahead > 1:
        period = (_VISIBLE + 1) * ahead - 1
        visible = np.arange(length) % period < _VISIBLE * ahead
    lead = np.zeros(length - 1, int)
    for t in range(1, length - 1):
        lead[t] = 0 if visible[t] else lead[t - 1] + 1
    return lead, visible


def _refuse_impossible(study: EstimateStudy, windows: filter_data.FilterWindows, source: str) -> None:
    """Refuse what the windows cannot give: a state to learn from, and samples to predict far enough ahead."""
    if study.supervised > 0 and not np.isfinite(windows.truth).all(-1).any():
        raise DsoError(
            f"{source}: supervised = {study.supervised:g} asks to learn from the recorded state, and no recording to learn "
            "from holds qpos and qvel; record them, or leave `supervised` out."
        )
    length = windows.measured.shape[1]
    lead, _ = pattern(length, study.ahead)
    warm_up = round(study.warm_up * (length - 1))
    if study.ahead > 1 and lead[warm_up:].max() + 1 < study.ahead:
        needed = (_VISIBLE + 1) * study.ahead * windows.interval
        raise DsoError(
            f"{source}: ahead = {study.ahead} samples are not predicted in a window of {study.window:g} s, which holds "
            f"{length} samples, of which {_VISIBLE * study.ahead} are seen first; write window = {needed:.3g} or more, or "
            f"ahead = {max(length // (_VISIBLE + 1), 1)} or less."
        )


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


def _engine(study: EstimateStudy, vector: EstimatorTheta) -> tuple[str, str]:
    if study.engine == "mjx" or (study.engine == "auto" and vector.size > _MANY):
        why = "asked for" if study.engine == "mjx" else f"{vector.size} numbers, more than {_MANY}"
        require_mjx(f"this study (engine 'mjx': {why})")
        return "mjx", f"{why}: Adam on reverse-mode derivatives through MJX"
    why = "asked for" if study.engine == "mujoco" else f"{vector.size} numbers, at most {_MANY}"
    return "mujoco", f"{why}: Gauss-Newton on finite differences of C MuJoCo, nothing to compile"


def _parameters(vector: EstimatorTheta, z: np.ndarray) -> dict[str, Any]:
    """Physics, sensor biases and sensor scales, as in contract 1. The corrector weights are in run.h5."""
    _, physical = vector.parts(z)
    table: dict[str, Any] = {}
    if vector.physics.size:
        begin = vector.physics.report(vector.physics.initial)
        for label, (value, unit) in vector.physics.report(physical).items():
            table[label] = {"value": float(value), "initial": float(begin[label][0]), "unit": unit}
    return table


def _warnings(
    found: Found, fits: dict[str, score.Fit], fit: dict[str, Any], vector: EstimatorTheta, doubts: list[str]
) -> list[str]:
    texts = []
    # A search that continued past the kept estimator counts as complete.
    if not found.converged and found.kept is None and not doubts:
        texts.append(
            f"The search did not converge: {found.message}. More `iterations` may still improve the estimator."
        )
    if "hold_out" not in fits:
        texts.append(
            "No run was held out, so nothing here tells how the estimator does on motions it was not trained on."
        )
    for name, entry in fit["hold_out"].items():
        if math.isfinite(entry["covered_percent"]) and not 90 <= entry["covered_percent"] <= 99:
            texts.append(
                f"{name}: {entry['covered_percent']:.1f}% of the held-out innovations lie within 1.96 predicted standard "
                "deviations, where 95% should; do not trust its uncertainty."
            )
    if any(slot.field in ("sensor_bias", "sensor_scale") for p in vector.physics.parameters for slot in p.slots):
        texts.append("MJCF has no place for sensor biases and scales, so they are in run.h5 and not in model.xml.")
    return texts
