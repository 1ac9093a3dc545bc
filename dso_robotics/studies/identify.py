"""Identify physical parameters from logs: logs + model + declarations -> chain and cost -> Gauss-Newton -> result."""

import dataclasses
import json
import os
import tempfile
import warnings as warnings_of_python
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics import __version__
from dso_robotics.core import hosts
from dso_robotics.core.covariance import Uncertainty, uncertainty
from dso_robotics.core.likelihood import Normal, Student
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.continuity import Continuity
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log, merge_logs, problems, read_log, write_log
from dso_robotics.data.match import Channels, fitted, match_channels
from dso_robotics.data.split import hold_out, trained
from dso_robotics.data.windows import Windows, cut
from dso_robotics.errors import DsoError
from dso_robotics.extras import require_mjx
from dso_robotics.parameters.gains import NO_GAINS
from dso_robotics.parameters.servo import fit_servos
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load
from dso_robotics.physics.state import Tangent
from dso_robotics.progress.phase import phase, tell
from dso_robotics.progress.report import Progress
from dso_robotics.robot import start
from dso_robotics.robot.controller import controlled
from dso_robotics.robot.prediction import CPrediction, Prediction
from dso_robotics.studies import calibration, masked, torque_fit
from dso_robotics.studies import summary as summaries
from dso_robotics.studies.base_parameters import base_parameters
from dso_robotics.studies.checkpoint import Reading
from dso_robotics.studies.choice import choose, chosen_study, stored_choice
from dso_robotics.studies.doubts import doubts
from dso_robotics.studies.estimated import split_free
from dso_robotics.studies.estimated import table as estimated
from dso_robotics.studies.evaluate import Evaluation, evaluate, scoring_windows
from dso_robotics.studies.folder import RUN
from dso_robotics.studies.motion_search import history, search_motion
from dso_robotics.studies.network import chosen_joints, learn
from dso_robotics.studies.posterior import Posterior
from dso_robotics.studies.posterior_check import checked
from dso_robotics.studies.race import cheap
from dso_robotics.studies.race import stored as stored_race
from dso_robotics.studies.race import told as told_race
from dso_robotics.studies.residual import own_residual
from dso_robotics.studies.run import Session, session
from dso_robotics.studies.samplers import chosen
from dso_robotics.studies.scan import lower, scan, scanned
from dso_robotics.studies.starts import best_start, draw
from dso_robotics.studies.study import CHOICES, IdentifyStudy


@dataclasses.dataclass(frozen=True, eq=False)
class Identified:
    """The results of an identification. `summary` is the content of summary.json; the rest is for reports and further use."""

    study: IdentifyStudy
    robot: Robot
    vector: ParameterVector
    channels: Channels
    solution: Solution
    uncertainty: Uncertainty
    problem: WindowedIdentification
    sigma: np.ndarray
    evaluations: dict[str, Evaluation]
    scored: dict[str, Windows]
    summary: dict[str, Any]
    posterior: Posterior | None = None


def identify(
    study: IdentifyStudy,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Path], object] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Identified:
    """Run `study` and write model.xml, run.h5, the output of `report`, and summary.json to `out`.

    `report` is usually `dso_robotics.report.identify.write_report`. `progress` is called with every report, by
    default whoever listens already (`progress.phase.listening`).

    Raises:
      DsoError: something is wrong with the model, the logs, the declarations or the folder (raised before any file is
        written); or the model diverges at the start values.
    """
    with session(out, resume=resume, force=force, progress=progress) as here:
        return _identify(study, here, report)


def _identify(
    study: IdentifyStudy, here: Session, report: Callable[[Path], object] | None, *, brief: bool = False
) -> Identified:
    """`brief`: search once, look for no doubts, and predict held-out runs alone, from estimated start states."""
    tell("reading")
    begun_with, choice = study, None
    if study.choose:
        choice = here.kept("choice")
        choice = stored_choice(choice, study, here.folder / RUN) if choice else _choice(study)
        study = chosen_study(study, choice)
    robot = load(study.model)
    timestep = float(robot.mj.opt.timestep)
    log = merge_logs([read_log(path) for path in study.logs])
    if not robot.mj.nsensor:
        urdf = " URDF has no place for them, nor for actuators: `mujoco.MjSpec.from_file(FILE).to_xml()` is the same as MJCF."
        raise DsoError(
            f"{robot.source}: the model has no sensors, so nothing of it can be compared with a log; add a <sensor> for each "
            f"channel.{urdf if robot.source.lower().endswith('.urdf') else ''}"
        )
    log, left_out = fitted(log, robot.mj, ctrl=False, needed=trained(log, study.hold_out))
    log, drives = controlled(log, tuple(study.controller.values()), robot.mj)
    log, unused = fitted(log, robot.mj, sensors=False)
    channels = match_channels(log, robot.mj)
    split = hold_out(log, study.hold_out)
    names = [r.name for r in split.train]
    servos = fit_servos(study.actuator, robot, study.free)
    declared = [*study.free, *(one for servo in servos for one in servo.declarations)]
    free, asked = split_free(declared, study.noise, channels, names, log.label)
    vector = pack(free, robot, names, drives.gains if drives else NO_GAINS)
    hidden = masked.refuse(vector, {d.path for d in free}, robot.source)
    meet = study.continuity is not None
    late: Any = {"past": vector.longest("actuator_delay"), "settle": vector.longest("sensor_delay")}
    windows = cut(split.train, channels, timestep=timestep, seconds=study.window, meet=meet, source=log.label, **late)
    parts = {"train": split.train, "hold_out": split.hold_out} if not brief else {"hold_out": split.hold_out}
    score_seconds = study.window if study.score_window is None else study.score_window
    option = "--window" if study.score_window is None else "--score-window"
    for rollout in split.hold_out:
        source = f"{log.label}, rollout {rollout.name}"
        scoring_windows(
            [rollout], channels, timestep=timestep, seconds=score_seconds, source=source, option=option, **late
        )
    scored = {
        name: scoring_windows(
            part,
            channels,
            timestep=timestep,
            seconds=score_seconds,
            source=f"{log.label} ({name})",
            option=option,
            **late,
        )
        for name, part in parts.items()
        if part
    }
    if drives:
        windows, scored = drives.attach(windows), {name: drives.attach(w) for name, w in scored.items()}
    network = study.network
    if network:
        require_mjx("a [network]")
        chosen_joints(robot, network.joints)
        if windows.single:
            raise DsoError(
                "with --window 0 nothing is simulated, so a network has nothing to learn; leave out [network]."
            )
        if vector.local:
            raise DsoError("a network is the same for all recordings; leave out log/NAME/PATH, or [network].")
    if windows.single:
        windows = calibration.prepared(vector, windows, log.label)
        scored = {k: calibration.prepared(vector, v, log.label) if v.single else v for k, v in scored.items()}
    to_mjcf(robot, vector.written(vector.initial))  # fail before the search if a parameter cannot be written back
    files = {f"log {i + 1}": path for i, path in enumerate(study.logs)}
    own = {"residual": study.residual.rpartition(":")[0]} if study.residual else {}
    here.compare(own)
    options: dict[str, Any] = {
        "likelihood": Student() if study.robust else Normal(),
        "noise": asked.noise,
        "extra": own_residual(study.residual, vector) if study.residual else None,
    }
    route = chosen(study.sampler, study.engine) if study.posterior else ""
    prediction, reason = _engine(study.engine, vector, windows, network is not None)
    x = start.guess(windows, vector.mj, vector.signals(vector.initial), robust=study.robust)
    told = masked.warn(vector, windows, x, hidden)
    file = here.begin(begun_with.as_dict(), robot, files | own)
    if choice:
        file.keep(choice={"outcome": json.dumps(choice)})
    if study.continuity:
        with Reading(file.path):
            jumps = file.tree["state"].get("noise.jumps") if file.tree else None
            options["continuity"] = Continuity(windows, Tangent(vector.mj), study.continuity, scale=jumps)
    tried, z, sigma = None, vector.initial, None

    def measured() -> WindowedIdentification:
        return WindowedIdentification(vector, windows, prediction, free_starts=False, **options)

    motion = study.fit == "motion" and not file.tree
    if scanned(vector) and not windows.single and motion:
        with phase("contacts scanned", unit="value") as counted:
            z, sigma, _ = scan(measured, z, x, counted.at)
    if (study.starts > 1 or study.warm_start) and motion:
        points = draw(vector, study.starts, study.seed)
        if scanned(vector):
            points = np.append(points, z[None], axis=0)
        if study.warm_start:
            points = np.insert(points, 1, torque_fit.regress(vector, windows, drives), axis=0)
        z, sigma, tried = best_start(
            measured,
            points,
            x,
            lambda i, cost: tell("starts tried", i + 1, cost, total=len(points), unit="start"),
        )
    simulated = study.fit == "motion"
    if study.fit == "torque":
        tell("forces compared")
        solution, problem = torque_fit.fit(vector, windows, drives, x, measured())
        reason = "only to predict: the forces of inverse dynamics were fitted"
    else:
        alone = brief or study.starts > 1 or study.continuity or network or not cheap(vector, windows)
        beside = None if alone else study.seed
        solution, problem = search_motion(
            file, vector, windows, prediction, (z, x, sigma), robot.source, options, beside=beside
        )
    pieces = calibration.in_pieces(solution, windows) if windows.single else solution
    spread = uncertainty(pieces, vector.scale, redundancy=problem.redundancy if simulated else 1.0)
    tell("evaluating", 0, solution.cost)
    sigma = problem.pooled_sigma()
    evaluations = {
        name: evaluate(vector, solution.z, part, sigma=sigma, robust=study.robust, estimate=brief)
        for name, part in scored.items()
    }
    learned = None
    if network:
        learned = learn(
            network,
            robot,
            windows,
            problem,
            solution,
            scored,
            evaluations,
            robust=study.robust,
            seed=study.seed,
            progress=lambda iteration, cost: tell(
                "network, on recordings watched", iteration, cost, total=network.iterations
            ),
        )
    table = summaries.parameters(vector, solution, spread)
    begun = WindowedIdentification(vector, windows, prediction, **options).pooled_sigma(), x
    left_open = {k: v for k, v in summaries.unseen(vector, table, spread).items() if k not in hidden}
    found = summaries.warnings(vector, solution, spread, evaluations, left_open, simulated=simulated)
    elsewhere = []
    if not (windows.single or brief):
        with phase("contacts scanned again", unit="value") as counted:
            elsewhere = lower(vector, measured, solution.z, solution.x, counted.at)
    raced = stored_race(file.kept("race"), file.path)
    ratios, doubtful, aside = {}, [], []
    if simulated and not windows.single and not brief:
        tell("doubts looked for")
        ratios, doubtful, aside = doubts(
            problem, solution, spread, evaluations, scored, parts, channels, robust=study.robust
        )
    doubtful = [*told_race(raced), *elsewhere, *doubtful]
    found += [*doubtful, *aside]
    unjudged = windows.single or brief
    forces = {} if unjudged else torque_fit.judged(problem, solution, parts, channels, drives)
    found += torque_fit.worse(forces) if study.fit == "motion" else []
    table |= estimated(asked, vector, problem, solution, spread, begun)
    sampled, posterior = None, {}
    if study.posterior and not brief:
        sampled, posterior = checked(study, route, problem, solution, spread, table, scored)
        found += posterior["warnings"]
    # Channels without a unit are listed one by one, each with its assumed unit.
    suspicious = [text for text in problems(log) if not text.startswith("no unit is stated")]
    warnings = calibration.warnings(windows, vector.mj) if windows.single else windows.warnings()
    warnings = [*left_out, *unused, *map(str, servos), *channels.warnings, *suspicious, *warnings]
    warnings += [*(drives.warnings if drives else ()), *told, *found]
    summary = {
        "command": "identify",
        "version": __version__,
        "engine": prediction.name,
        "engine_reason": reason,
        "seed": study.seed,
        "seconds": {"total": 0.0, "compile": float(getattr(prediction, "compile_seconds", 0.0))},
        "method": summaries.METHOD,
        "status": str(solution.status),
        "converged": solution.converged,
        "message": solution.message,
        "evaluations": solution.evaluations,
        "simulated_steps": file.count("steps") + prediction.steps,
        "parameters": table,
        "noise": {
            n: {"value": float(s), "unit": u}
            for n, s, u in zip(channels.sensor_names, sigma, channels.sensor_units, strict=True)
        },
        "cost": {"total": solution.cost, "terms": problem.terms(solution.z, solution.x)},
        "fit": {"train": {}, "hold_out": {}} | {name: summaries.fit(channels, e) for name, e in evaluations.items()},
        "torque": forces,
        "windows": {
            "seconds": min(study.window, windows.longest),
            "score_seconds": min(score_seconds, max(w.longest for w in scored.values())),
            "full": bool(np.isinf(study.window)),
            "train": len(windows),
            "rollouts": {k: [r.name for r in v] for k, v in parts.items()},
            "start": {k: e.start for k, e in evaluations.items()},
        },
        "uncertainty": {"method": spread.method, "windows": spread.blocks, "unseen": list(left_open)},
        "misfit": ratios,
        "doubts": doubtful,
        "warnings": warnings,
    }
    if posterior:
        summary["posterior"] = posterior
    if problem.continuity:
        summary["continuity"] = summaries.continuity(problem.continuity, vector)
    if base := base_parameters(vector, solution, spread):
        summary["base_parameters"] = base
    if choice:
        summary["choice"] = choice
        warnings += [text for what in CHOICES if what in choice for text in choice[what]["warnings"]]
    if raced:
        summary["race"] = raced
    if tried:
        summary["starts"] = tried | ({"warm_start": 1} if study.warm_start else {})
        if tried["chosen"] == 1 and study.warm_start:
            warnings.append(
                "The start came from a regression on inverse dynamics, which led to a lower cost than the given values."
            )
        elif tried["chosen"]:
            warnings.append(
                f"Of {tried['tried']} starts, drawn start {tried['chosen']} led to the lowest cost; the search went on from it."
            )
    if drives:
        summary["controller"] = summaries.controllers(vector, solution.z)
        stood = ", ".join(dict.fromkeys(drives.gains.actuators))
        warnings.append(f"model.xml holds no controller: that of {stood} is in summary.json, with all its gains.")
    if learned:
        summary["network"] = learned[0]
        warnings.append(learned[0]["text"])
    more = sigma, evaluations, scored, summary, sampled
    result = Identified(study, robot, vector, channels, solution, spread, problem, *more)
    problem.release()
    groups = {
        "names": list(vector.coordinate_names),
        "history": history(file, solution),
        "theta": vector.split(solution.z),
        "covariance": spread.covariance,
        "correlation": spread.correlation,
        "interval": summaries.interval_group(vector, solution, spread),
        **({"posterior": sampled.as_dict()} if sampled else {}),
        **({"network": learned[1]} if learned else {}),
        "motions": {part: {m.rollout: m.as_dict() for m in e.motions} for part, e in evaluations.items()},
        "traces": {part: {t.rollout: t.as_dict() for t in e.traces} for part, e in evaluations.items()},
    }
    here.finish(summary, to_mjcf(robot, vector.written(solution.z)), report, groups)
    return result


def _choice(study: IdentifyStudy) -> dict[str, Any]:
    """What --choose came to, over the fitted runs alone."""
    whole = merge_logs([read_log(path) for path in study.logs])
    log = dataclasses.replace(whole, rollouts=hold_out(whole, study.hold_out).train)

    def fit(candidate: IdentifyStudy, runs: Log) -> dict[str, Evaluation]:
        with tempfile.TemporaryDirectory() as folder, warnings_of_python.catch_warnings():
            warnings_of_python.simplefilter("ignore")
            place = Path(folder) / "log.h5"
            write_log(place, runs)
            with session(Path(folder) / "out", resume=False, force=False, progress=lambda news: None) as there:
                changed = dataclasses.replace(candidate, logs=(str(place),))
                return _identify(changed, there, None, brief=True).evaluations

    with phase("choices tried", unit="candidate") as tried:
        return choose(study, log, fit, lambda count, error: tried.at(count, values={"error_percent": error}))


def _engine(asked: str, vector: ParameterVector, windows: Windows, network: bool) -> tuple[Prediction, str]:
    """The engine to use, and the reason as text."""
    if asked == "mjx":
        require_mjx("the engine 'mjx'")
        from dso_robotics.robot.prediction_mjx import MjxPrediction

        return MjxPrediction(vector, windows), "asked for: derivatives through MJX, compiled once"
    hosts.refuse_sharing("C MuJoCo")
    steps = (1 + vector.size + 2 * vector.mj.nv + vector.mj.na) * len(windows) * windows.ctrl.shape[1]
    # Measured by benchmarks/engines.py and engine_rule.py: on both engines the cost of least squares grows with each
    # free number.
    why = (
        "asked for"
        if asked == "mujoco"
        else f"{vector.size} free numbers by Gauss-Newton, for which MJX only adds compiling"
    )
    reason = f"{why}: finite differences of C MuJoCo on {os.cpu_count()} threads, {steps:,} steps a linearisation"
    if network:
        reason += "; the network's weights, one gradient for all of them, by an adjoint and first-order steps"
    return CPrediction(vector, windows), reason
