"""The study of a corrector of given form: gain, linear, mlp, recurrent or a user's own, by least squares or Adam."""

from typing import Any

import numpy as np

from dso_robotics.core import hosts
from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.errors import DsoError
from dso_robotics.extras import require_mjx
from dso_robotics.progress.phase import tell
from dso_robotics.robot import estimator_start, filter_data
from dso_robotics.robot.corrector import EstimatorTheta
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.learned import Learned
from dso_robotics.studies import estimate_score as score
from dso_robotics.studies import estimate_trust as trust
from dso_robotics.studies.estimate_outcome import Asked, Outcome
from dso_robotics.studies.estimate_search import Search, by_adam, by_gauss_newton
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.run import EVERY

# With more numbers than this, one reverse pass through MJX is cheaper than one finite difference for each number.
_MANY = 500
# In each period, the number of samples that the corrector sees for each hidden sample.
_VISIBLE = 4


def refuse_impossible(study: EstimateStudy, windows: filter_data.FilterWindows, source: str) -> None:
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


def _engine(study: EstimateStudy, vector: EstimatorTheta) -> tuple[str, str]:
    if study.engine == "mjx" or (study.engine == "auto" and vector.size > _MANY):
        why = "asked for" if study.engine == "mjx" else f"{vector.size} numbers, more than {_MANY}"
        require_mjx(f"this study (engine 'mjx': {why})")
        return "mjx", f"{why}: Adam on reverse-mode derivatives through MJX"
    hosts.refuse_sharing("C MuJoCo")
    why = "asked for" if study.engine == "mujoco" else f"{vector.size} numbers, at most {_MANY}"
    return "mujoco", f"{why}: Gauss-Newton on finite differences of C MuJoCo, nothing to compile"


def learn(asked: Asked, kind: str) -> Outcome:
    """Learn the corrector `kind`."""
    study, physics, whole = asked.study, asked.physics, asked.whole
    refuse_impossible(study, asked.windows, asked.source)
    given, apart = filter_data.set_apart(asked.windows, study.validation, asked.source)
    channels, interval = given.channels, given.interval

    def tell_start(tried: int) -> None:
        tell("start gains tried", tried, unit="start")

    tell_start(0)
    vector, scales = estimator_start.begin(kind, study.units, given, physics, seed=study.seed, tell=tell_start)
    given = estimator_start.disturbed(given, physics, seed=study.seed)
    lead, visible = pattern(given.measured.shape[1], study.ahead)
    weighed: dict[str, Any] = {"warm_up": asked.warm_up, "lead": lead}
    weighed |= {"robust": study.robust, "supervised": study.supervised}
    problem = WindowedEstimation(CFilter(vector, scales, given, visible=visible), **weighed)
    judge = None
    if apart is not None:
        judge = WindowedEstimation(CFilter(vector, scales, apart, visible=visible), **weighed), apart.start
    engine, reason = _engine(study, vector)
    # Iterations of Adam are short. Writing each one would take longer than computing it.
    file = asked.begin(every=EVERY if engine == "mjx" else 0.0)
    search = Search(
        study, vector, scales, given, problem, asked.warm_up, lead, visible, asked.robot.source, file, judge
    )
    found = by_gauss_newton(search) if engine == "mujoco" else by_adam(search)
    file.write("searched")
    tell("evaluating", 0, sum(found.cost.values()))
    settled = trust.settle(search, found, whole)
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
        substeps=given.substeps,
        gate=study.gate or 0.0,
    )
    named = zip(channels.sensor_names, found.sigma[0], channels.sensor_units, strict=True)
    return Outcome(
        settled=settled,
        whole=asked.whole,
        fits=fits,
        std={part: sigma * np.exp(f.features @ spread.T) for part, f in fits.items()},
        consistency=trust.consistency(fits, sigma, spread, problem.degrees, factor),
        learned=learned,
        engine=(engine, reason),
        numbers=vector.corrector.size,
        physical=z,
        where=slice(len(vector.weights), vector.size),
        theta=vector.by_name(found.z) | {"noise": found.sigma},
        windows={"train": len(given), "validation": 0 if apart is None else len(apart)},
        summary={
            "noise": {
                name: {"value": float(value), "unit": unit}
                | ({} if problem.degrees is None else {"degrees": float(problem.degrees[c])})
                for c, (name, value, unit) in enumerate(named)
            },
            "noise_ahead": {
                n: [float(s) for s in row] for n, row in zip(channels.sensor_names, found.sigma.T, strict=True)
            },
        },
    )
