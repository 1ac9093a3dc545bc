"""What is known before a plan: values, information and noise, from an earlier result, from priors, or from the model."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np

from dso_robotics.costs.information import covariance
from dso_robotics.data.match import sensor_channels
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import Declaration, matches
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import Robot
from dso_robotics.studies.choice import chosen_study
from dso_robotics.studies.excite_study import ExciteStudy
from dso_robotics.studies.run import model_sha256
from dso_robotics.studies.study import IdentifyStudy

# The name that the runs of a plan have for numbers that belong to one recording.
PLAN = "plan"
_LOG = re.compile(r"^log/[^/]+/")
# Largest standard deviation of a drawn value, in sizes: a number that nobody knows is not drawn from an endless interval.
_WIDEST = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class Earlier:
    """A finished identification: its study, theta by block, and covariance (n, n) of coordinates `names`.

    noise: scale by channel. doubtful: whether it has doubts of its own. model: SHA-256 of the model that it was begun with.
    """

    folder: Path
    study: IdentifyStudy
    theta: dict[str, np.ndarray]
    names: list[str]
    covariance: np.ndarray
    noise: dict[str, float]
    doubtful: bool
    model: str


def read_earlier(folder: str | Path) -> Earlier:
    """The result of `dso identify` in a folder.

    Raises:
      DsoError: there is none, it has not finished, or it cannot be planned for.
    """
    path = Path(folder) / "run.h5"
    tree, study, _ = read_run(path)
    if study.get("command") != "identify":
        raise DsoError(
            f"{folder}: this is a result of `dso {study.get('command', '?')}`, and a plan needs one of `dso identify`; give "
            "that, or leave it out and name --free PATH."
        )
    if tree.get("status") != "finished":
        raise DsoError(f"{folder}: this run has not finished; `dso identify --resume --out {folder}` continues it.")
    try:
        asked, choice = IdentifyStudy.from_dict(study), tree.get("choice")
        asked = chosen_study(asked, json.loads(choice["outcome"])) if choice else asked
        theta = {name: np.asarray(value, float) for name, value in tree["theta"].items()}
        names, spread = [str(name) for name in tree["names"]], np.asarray(tree["covariance"], float)
        summary, model = json.loads(tree["summary"]), str(tree["inputs"]["model"]["sha256"])
        if spread.shape != (len(names), len(names)) or not np.isfinite(spread).all():
            raise ValueError(f"no covariance of {len(names)} numbers")
        if not all(np.isfinite(value).all() for value in theta.values()):
            raise ValueError("a value that is no number")
        noise = {str(name): float(entry["value"]) for name, entry in summary["noise"].items() if entry["value"]}
        doubtful = bool(summary.get("doubts"))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DsoError(f"{path}: the result in it is damaged ({error}); run `dso identify` again.") from error
    for name, why in (("controller", "controls that were not recorded"), ("network", "a learned torque")):
        if getattr(asked, name):
            raise DsoError(
                f"{folder}: this result has {why}, which a plan cannot simulate; identify without [{name}] first."
            )
    return Earlier(Path(folder), asked, theta, names, spread, noise, doubtful, model)


def declared(study: ExciteStudy, earlier: Earlier | None) -> tuple[Declaration, ...]:
    """What is free: what the earlier result freed, and the study's. A number of one recording becomes one of each new run."""
    old = [] if earlier is None else list(earlier.study.free)
    mine = {d.path for d in study.free}
    every: dict[str, Declaration] = {}
    for d in [*(d for d in old if d.path not in mine), *study.free]:
        path = _LOG.sub("log/*/", d.path)
        every.setdefault(path, dataclasses.replace(d, path=path))
    return tuple(every.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of the coordinates that all runs share.

    draws: (K, n), values of all coordinates; the first is the estimate.
    information: (g, g), of the shared coordinates over their `size` (g,).
    shared: (n,), whether a coordinate is shared; the others belong to one run.
    told: (g,), whether anything is known of a coordinate, so that it has an interval before.
    """

    draws: np.ndarray
    information: np.ndarray
    shared: np.ndarray
    size: np.ndarray
    told: np.ndarray


def known(vector: ParameterVector, earlier: Earlier | None, robot: Robot, *, draws: int, seed: int) -> Known:
    """What an earlier result knows of a vector's coordinates, and the vector's priors of the others.

    Raises:
      DsoError: the result is of another model, in which full inertias mean other bodies.
    """
    names, z = vector.coordinate_names, np.array(vector.initial)
    shared = np.array([owner == "" for owner in vector.owner])
    prior = vector.prior_slope(z)
    prior = prior.T @ prior
    rows: list[int] = []
    if earlier is not None:
        inertial = any(p.factor is not None for p in vector.parameters)
        if inertial and earlier.model != model_sha256(robot.mj):
            raise DsoError(
                f"{robot.source}: {earlier.folder} was begun with another model, and its full inertias are relative to the "
                "bodies of that; give the model file that `dso identify` was given, not the model.xml that it wrote."
            )
        for p, here in vector.places():
            if p.path in earlier.theta and earlier.theta[p.path].size == p.size:
                z[here] = np.clip(earlier.theta[p.path].ravel(), p.low, p.high)
        rows = [i for i, name in enumerate(names) if shared[i] and name in earlier.names]
        others = [i for i in range(len(names)) if i not in rows]
        prior[rows, :] = prior[:, rows] = 0.0
        assert len(rows) + len(others) == len(names)
    size = np.maximum(vector.scale, np.abs(z))
    whole = prior * np.outer(size, size)
    if rows:
        assert earlier is not None
        at = [earlier.names.index(names[i]) for i in rows]
        mine = earlier.covariance[np.ix_(at, at)] / np.outer(size[rows], size[rows])
        values, vectors = np.linalg.eigh((mine + mine.T) / 2)
        whole[np.ix_(rows, rows)] += (vectors / np.maximum(values, 1e-18)) @ vectors.T
    information = whole[np.ix_(shared, shared)]
    told = np.diag(information) > 0
    points = [z]
    spread = covariance(whole)
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.minimum(np.maximum(values, 0.0), _WIDEST**2))
    # What nothing is known of stays at its value, rather than anywhere.
    root = root * (np.diag(whole) > 0)[:, None]
    rng = np.random.default_rng(seed)
    for _ in range(draws - 1 if (np.diag(whole) > 0).any() else 0):
        change = np.clip(rng.standard_normal(len(z)), -2.0, 2.0)
        margin = 1e-3 * vector.scale
        # Nothing else is drawn than what a search could find, without the bounds themselves.
        low = np.where(z > vector.low + margin, vector.low + margin, vector.low)
        high = np.where(z < vector.high - margin, vector.high - margin, vector.high)
        points.append(np.clip(z + size * (root @ change), low, high))
    return Known(np.array(points), information, shared, size[shared], told)


def recorded_channels(study: ExciteStudy, earlier: Earlier | None, robot: Robot) -> tuple[str, ...]:
    """The channels that a run will have.

    Raises:
      DsoError: the model has no sensors, or none of a name.
    """
    every = sensor_channels(robot.mj)
    if not every:
        raise DsoError(
            f"{robot.source}: the model has no sensors, so no recording of it can tell anything; add a <sensor> for each "
            "channel that the robot records."
        )
    if study.sensors:
        chosen = []
        for pattern in study.sensors:
            mine = [name for name in every if matches(name, pattern) or matches(name.split("[")[0], pattern)]
            if not mine:
                raise DsoError(
                    f"--sensors {pattern}: the model has no such channel; it has {nearest(pattern, every, 8)}."
                )
            chosen += mine
        return tuple(name for name in every if name in chosen)
    if earlier is not None:
        mine = tuple(name for name in every if name in earlier.noise)
        if mine:
            return mine
    return tuple(every)


def noise_scales(study: ExciteStudy, earlier: Earlier | None, robot: Robot, channels: tuple[str, ...]) -> np.ndarray:
    """Noise scale (C,) of each channel: the study's, the result's, or the model's.

    Raises:
      DsoError: a name is no channel, or the noise of a channel is not known.
    """
    every = sensor_channels(robot.mj)
    old = {} if earlier is None else earlier.noise
    sigma = np.full(len(channels), np.nan)
    for c, name in enumerate(channels):
        own = float(robot.mj.sensor_noise[every[name][0]])
        sigma[c] = old.get(name, own if own > 0 else np.nan)
    for pattern in sorted(study.noise, key=lambda text: (text != "*", "[" in text)):
        mine = [c for c, name in enumerate(channels) if pattern in (name, name.split("[")[0]) or matches(name, pattern)]
        if not mine:
            raise DsoError(
                f"--noise {pattern}: there is no such channel; those recorded are {nearest(pattern, channels, 8)}."
            )
        sigma[mine] = study.noise[pattern]
    for name, value in zip(channels, sigma, strict=True):
        if not (np.isfinite(value) and value > 0):
            raise DsoError(
                f"the noise of channel '{name}' is not known, and how much a motion tells depends on it; give its standard "
                f"deviation with --noise {name}=NUMBER ('*=NUMBER' for all), or the RESULT of an earlier `dso identify`."
            )
    return sigma


def window_of(study: ExciteStudy, earlier: Earlier | None) -> float:
    """Length of the windows [s], as the runs will be identified."""
    if study.window is not None:
        return study.window
    if earlier is None:
        return 0.5
    return 0.5 if not earlier.study.window else (math.inf if math.isinf(earlier.study.window) else earlier.study.window)
