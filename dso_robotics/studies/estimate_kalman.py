"""The study of a Kalman filter: noises and physics by the likelihood of its innovations, and what became of it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from dso_robotics.core import hosts
from dso_robotics.core.descent import Moment, descend
from dso_robotics.core.method.least_squares import Record, StartError
from dso_robotics.core.method.scoring import FisherScoring
from dso_robotics.costs.innovation_likelihood import InnovationLikelihood
from dso_robotics.data.foot_contact import ContactReadings
from dso_robotics.data.match import Channels
from dso_robotics.data.split import PART_NAMES
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import nearest
from dso_robotics.progress.phase import tell
from dso_robotics.robot import kalman_heading, kalman_start, strapdown
from dso_robotics.robot.corrector import Scales
from dso_robotics.robot.error_growth import ErrorGrowth, log_radius
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.robot.kalman_filter import KalmanFilter, KalmanRun
from dso_robotics.robot.kalman_theta import KalmanTheta, groups
from dso_robotics.robot.learned import Learned
from dso_robotics.studies import estimate_score as score
from dso_robotics.studies import estimate_smooth as smooth
from dso_robotics.studies import estimate_trust as trust
from dso_robotics.studies.checkpoint import columns
from dso_robotics.studies.estimate_interval import of_likelihood
from dso_robotics.studies.estimate_outcome import Asked, Outcome
from dso_robotics.studies.estimate_search import Found
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.run import Session
from dso_robotics.studies.search import search

# Updates that the search looks at, at most: noises are few numbers, and more readings hardly tell more.
_UPDATES = 20_000
# Steps from each start that is tried.
_TRIED = 3
# A sensor of whose readings more than this share are taken for wild is told.
_MANY_WILD = 0.05


def without(study: EstimateStudy, physics: ParameterVector) -> list[str]:
    """What the study asks for and a Kalman filter does not do."""
    asked = {
        "supervised": study.supervised > 0,
        "ahead": study.ahead > 1,
        "covariance": study.covariance,
        "validation": study.validation > 0,
        "robust": study.robust is not None,
        'engine = "mjx"': study.engine == "mjx",
    }
    found = [name for name, wanted in asked.items() if wanted]
    found += [p.path for p in physics.parameters if any(slot.field == "sensor_delay" for slot in p.slots)]
    return found


def drifting(study: EstimateStudy, channels: Channels) -> tuple[int, ...]:
    """The channels whose bias is a state. Raises DsoError for a name that is no sensor."""
    found: list[int] = []
    for name in study.drift:
        mine = [c for c, channel in enumerate(channels.sensor_names) if name in (channel, channel.split("[")[0])]
        if not mine:
            known = tuple(dict.fromkeys(channel.split("[")[0] for channel in channels.sensor_names))
            raise DsoError(f"drift: no sensor is called {name!r}; the estimator has {nearest(name, known, 8)}.")
        turned = {c for places in channels.quaternions for c in places}
        if turned & set(mine):
            raise DsoError(f"drift: {name!r} is a quaternion, whose bias is no number to add; leave it out.")
        found += mine
    return tuple(found)


def begun(
    here: Session, given: FilterWindows, physics: ParameterVector, which: tuple[int, ...], warm_up: int
) -> tuple[KalmanTheta, np.ndarray, FilterWindows]:
    """The theta, the point to start from, and the windows that the search looks at."""
    updates = given.measured.shape[1] - 1
    most = max(_UPDATES // updates, 1)
    if len(given) > most:
        given = given.pick(np.unique(np.linspace(0, len(given) - 1, most).astype(int)))

    def improve(chain: KalmanFilter, cost: float) -> tuple[float, np.ndarray]:
        theta = chain.theta
        if not np.isfinite(cost):
            return cost, theta.initial
        method = FisherScoring(InnovationLikelihood(chain), low=theta.low, high=theta.high)
        result = descend(method, method.init(None, theta.initial), iterations=_TRIED)
        return result.state.local.cost, result.state.z

    def tried(count: int) -> None:
        tell("start noises tried", count, unit="start")

    return *kalman_start.begin(given, physics, which, warm_up=warm_up, improve=improve, tell=tried), given


def searched(
    study: EstimateStudy,
    here: Session,
    theta: KalmanTheta,
    start: np.ndarray,
    given: FilterWindows,
    warm_up: int,
    source: str,
) -> Found:
    """The minimum of the likelihood, by Fisher scoring from z = start (n,)."""
    assert here.file is not None
    problem = InnovationLikelihood(KalmanFilter(theta, given, warm_up=warm_up))
    method = FisherScoring(problem, low=theta.low, high=theta.high)
    tell("Fisher scoring", total=study.iterations, at_most=True)
    try:
        first = method.init(None, start)
    except StartError:
        raise DsoError(
            f"{source}: the filter diverges at the start values; give start values nearer to the robot's (free = "
            '["PATH=INIT"]), a shorter window or a smaller timestep.'
        ) from None

    def watch(moment: Moment) -> None:
        tell("Fisher scoring", moment.record.iteration, moment.record.cost, total=study.iterations, at_most=True)

    result = search(here.file, method, first, Record, iterations=study.iterations, watch=watch)
    table = columns(result.history)
    z = result.state.z
    return Found(
        z=z,
        sigma=theta.noise(z).sensor[None],
        method="fisher_scoring",
        status=str(result.status),
        converged=result.status == "converged",
        message=result.message,
        evaluations=result.state.evaluations,
        cost=problem.terms(z),
        history={name: table[name] for name in ("iteration", "cost", "z") if name in table},
        known=of_likelihood(theta, problem.chain, z) if theta.physics.size else None,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """The filter over whole runs of one part of the log.

    fit: as of other correctors. std: predicted deviations of the readings, (B, U, ny).
    """

    fit: score.Fit
    std: np.ndarray
    nees: float | None
    growth: ErrorGrowth
    wild: np.ndarray


def judge(theta: KalmanTheta, z: np.ndarray, whole: FilterWindows, warm_up: int) -> Judged:
    """Filter every run of `whole` from its start to its end."""
    run = KalmanFilter(theta, whole).run(z)
    updates = run.predicted.shape[1]
    counted = (np.arange(updates) >= min(warm_up, updates // 2))[None, :, None]
    good = np.isfinite(run.cost)
    kept = counted & good[:, None, None] & run.passed
    measured = np.isfinite(whole.measured[:, 1:])
    fit = score.Fit(
        np.where(_with_quaternions(kept, measured, whole), whole.measured[:, 1:] - run.predicted, np.nan),
        run.predicted,
        np.zeros((*run.predicted.shape[:2], 0)),
        run.states,
        score.state_error(theta.physics.mj, whole, run.states, counted & good[:, None, None]),
        None,
        int((~good).sum()),
        run.deviation,
    )
    square = run.square[np.isfinite(run.square) & counted[..., 0] & good[:, None]]
    sensors = whole.channels.sensor_ids
    wild = np.where(counted & good[:, None, None] & measured, ~_with_quaternions(run.passed, measured, whole), False)
    share = np.array([wild[..., sensors == s].sum() / max(measured[..., sensors == s].sum(), 1) for s in sensors])
    return Judged(fit, run.std, float(np.mean(square)) if len(square) else None, _growth(run, whole, good), share)


def _with_quaternions(passed: np.ndarray, measured: np.ndarray, whole: FilterWindows) -> np.ndarray:
    """`passed` with the fourth channel of each quaternion as its first three."""
    found = passed & measured
    for places in whole.channels.quaternions:
        found[..., places[3]] = found[..., places[0]]
    return found


def _growth(run: KalmanRun, whole: FilterWindows, good: np.ndarray) -> ErrorGrowth:
    growth = np.full(len(whole), np.inf)
    for b in np.flatnonzero(good):
        growth[b] = run.log_size[b] + log_radius([run.transition[b]])
    return ErrorGrowth(growth, np.maximum(whole.seconds.sum(1), 1e-9))


def consistency(judged: Mapping[str, Judged]) -> dict[str, dict[str, Any]]:
    """By part, squared errors over the variances that the filter predicted at each moment; see `trust.consistency`."""
    return {
        part: trust.shares((found.fit.innovation / found.std) ** 2) | {"nees": found.nees}
        for part, found in judged.items()
    }


def learn(asked: Asked, kind: str) -> Outcome:
    """Learn a Kalman filter from the windows of `asked`."""
    hosts.refuse_sharing("a Kalman filter, on C MuJoCo,")
    study, here, physics = asked.study, asked.here, asked.physics
    channels = asked.windows.channels
    which = drifting(study, channels)
    windows, whole = _headed(asked)
    tell("start noises tried", unit="start")
    theta, start, given = begun(here, windows, physics, which, asked.warm_up)
    file = asked.begin()
    found = searched(study, here, theta, start, given, asked.warm_up, asked.robot.source)
    file.write("searched")
    tell("evaluating", 0, sum(found.cost.values()))
    counted = round(study.warm_up * study.window / given.interval)
    judged = {name: judge(theta, found.z, part, counted) for name, part in whole.items()}
    growth = {name: j.growth for name, j in judged.items()}
    stable = all(g.stable for g in growth.values())
    unseen = strapdown.blind(physics.mj, [int(i) for i in channels.sensor_ids])
    if unseen and found.converged:
        found = dataclasses.replace(found, converged=False, message=f"{unseen[0]} tells nothing of the tilt")
    settled = trust.Settled(
        found if stable else dataclasses.replace(found, converged=False), growth, refused=not stable, stable=stable
    )
    made = learned(study, theta, found.z, given, judged["train"])
    ahead = zip(channels.sensor_names, made.sigma, strict=True)
    smoothed: dict[str, smooth.SmoothedRuns] = {}
    for name, part in whole.items() if study.smooth and stable else ():
        words = f"smoothing the {PART_NAMES[name]} runs"
        tell(words, unit="step")
        told = functools.partial(tell, words, unit="step")
        joint = smoothed["train"].joint if smoothed else None
        smoothed[name] = smooth.smoothed(theta, found.z, part, counted, study.gate, told, joint)
    rows = smooth.table(smoothed, channels, physics)
    more = {"smoother": rows} if rows else {}
    return Outcome(
        settled=settled,
        whole=whole,
        fits={name: j.fit for name, j in judged.items()},
        std={name: j.std for name, j in judged.items()},
        consistency=consistency(judged),
        learned=made,
        engine=("mujoco", "a Kalman filter is learned on finite differences of C MuJoCo, nothing to compile"),
        numbers=theta.size - physics.size,
        physical=theta.physical(found.z),
        where=theta.where("physics"),
        theta=theta.by_name(found.z),
        windows={"train": len(given), "validation": 0},
        summary=table(theta, found.z, channels) | {"noise_ahead": {name: [float(s)] for name, s in ahead}} | more,
        notes=(*often_wild(judged, channels, feet=True), *map(_falling, unseen), *smooth.doubts(rows)),
        doubts=tuple(often_wild(judged, channels, feet=False)),
        smoothed=smoothed,
    )


def _headed(asked: Asked) -> tuple[FilterWindows, Mapping[str, FilterWindows]]:
    """Windows and whole runs, from where the heading of a free body is known."""
    windows, whole, physics = asked.windows, asked.whole, asked.physics
    if not kalman_heading.unknown(physics.mj, windows):
        return windows, whole
    tell("heading of the free body")
    sensor = kalman_start.channel_noise(windows)
    strapped = windows.channels.strapped
    prior = kalman_start.start_spread(physics.mj, np.zeros(2 * physics.mj.nv + physics.mj.na), strapped=strapped)
    found = {name: kalman_heading.Headings(part, physics, sensor, prior) for name, part in whole.items()}
    return found["train"].placed(windows), {name: headings.trimmed() for name, headings in found.items()}


def learned(study: EstimateStudy, theta: KalmanTheta, z: np.ndarray, given: FilterWindows, judged: Judged) -> Learned:
    """What the run file stores of the filter."""
    physics, addresses = theta.physics, given.channels.sensor_addresses
    scale, bias = physics.sensors(theta.physical(z), addresses)
    late = physics.late(theta.physical(z), addresses)
    std = np.sqrt(np.nanmean(np.where(np.isfinite(judged.std), judged.std, np.nan) ** 2, axis=(0, 1)))
    ny, width = len(scale), given.start.shape[1]
    scales = Scales(std, np.ones(theta.corrector.k), np.zeros(width), np.ones(width))
    return Learned(
        corrector=theta.corrector,
        weights=theta.weights(z),
        scales=scales,
        scale=scale,
        bias=bias,
        delay=np.zeros(ny) if late is None else late,
        sigma=std,
        spread=np.zeros((ny, 0)),
        covariance=None,
        names=given.channels.sensor_names,
        addresses=addresses,
        interval=given.interval,
        substeps=given.substeps,
        gate=study.gate or 0.0,
        contacts=ContactReadings.of(given.channels.sensor_names, given.channels.feet) if given.channels.feet else None,
    )


def table(theta: KalmanTheta, z: np.ndarray, channels: Channels) -> dict[str, Any]:
    """The learned noises for the summary: "noise" of the sensors, "process" and "drift"."""
    noise = theta.noise(z)
    named = zip(channels.sensor_names, noise.sensor, channels.sensor_units, strict=True)
    found: dict[str, Any] = {"noise": {name: {"value": float(v), "unit": unit} for name, v, unit in named}}
    found["process"] = {
        g.name: {"value": float(noise.process[g.members[0]]), "unit": g.unit} for g in groups(theta.physics.mj)
    }
    found["drift"] = {
        channels.sensor_names[c]: {"value": float(noise.drift[c]), "unit": f"{channels.sensor_units[c]}/sqrt(s)"}
        for c in noise.drifting
    }
    return found


def _falling(name: str) -> str:
    return (
        f"{name}: the body falls freely in the model, so this accelerometer reads the same in every orientation there and "
        f'tells nothing of the tilt; write strapdown = "{name}" and a [contact.NAME] without channel (docs/estimators.md), or '
        "do not trust the orientation."
    )


def often_wild(judged: Mapping[str, Judged], channels: Channels, *, feet: bool) -> list[str]:
    """Warnings on sensors, or on feet, that are often taken for wild.

    Innovations that are left out do not count in NIS, so a filter with many of them looks better than it is. Feet slip.
    """
    found = judged.get("hold_out", judged["train"])
    foot = np.array([one is not None for one in channels.footed])
    which = np.flatnonzero((found.wild > _MANY_WILD) & (foot == feet))
    many = {channels.sensor_names[c].split("[")[0]: found.wild[c] for c in which}
    return [
        f"{name}: {100 * share:.0f}% of its readings were taken for wild and left out; see what is wrong with the "
        "sensor, or with the model's."
        for name, share in many.items()
    ]
