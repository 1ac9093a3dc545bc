"""Numbers of a robot drawn from what `dso identify` found: `[randomise] from = "result"` of a training."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.core.covariance import ENDLESS, Z95
from dso_robotics.core.truncated import truncated_normal
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.path import Declaration, noise_named
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.inertia import COORDINATES
from dso_robotics.physics.model import Robot
from dso_robotics.robot.context import Cloud, Draw
from dso_robotics.robot.mechanism import is_of_sensors
from dso_robotics.studies import folder as folders
from dso_robotics.studies.posterior import NARROW
from dso_robotics.studies.train_study import TrainStudy

# Draws of the jackknife's normal.
_COUNT = 500


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnResult:
    """Draws of the numbers of one result.

    folder: of the result.
    names: the coordinates (r,).
    rows: (M, r) draws of equal weight.
    middle: (r,) their medians.
    factors: the nominal body (4, 4) of each full inertia by its path.
    by: "posterior" or "jackknife".
    notes: what a reader should know.
    """

    folder: Path
    names: tuple[str, ...]
    rows: np.ndarray
    middle: np.ndarray
    factors: Mapping[str, np.ndarray]
    by: str
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The numbers and full inertias, in order."""
        return tuple(dict.fromkeys(self._path(name) for name in self.names))

    def _path(self, name: str) -> str:
        return next((path for path in self.factors if name.startswith(f"{path}[")), name)

    def columns(self, path: str) -> list[int]:
        """The coordinates of a path."""
        return [i for i, name in enumerate(self.names) if self._path(name) == path]

    def only(self, paths: Sequence[str], *notes: str) -> "DrawnResult":
        """The draws of some numbers alone, with more notes."""
        kept = [i for path in paths for i in self.columns(path)]
        return dataclasses.replace(
            self,
            names=tuple(self.names[i] for i in kept),
            rows=self.rows[:, kept],
            middle=self.middle[kept],
            factors={path: factor for path, factor in self.factors.items() if path in paths},
            notes=(*self.notes, *notes),
        )

    def declarations(self) -> list[Declaration]:
        """Each number with its median as start value, and the least and largest draw as bounds."""
        found = []
        for path in self.paths:
            if path in self.factors:
                found.append(Declaration(path))
                continue
            (column,) = self.columns(path)
            low, high, middle = (
                float(v) for v in (self.rows[:, column].min(), self.rows[:, column].max(), self.middle[column])
            )
            if not low < high:
                low, high = middle, middle + 1e-9 * max(abs(middle), 1e-9)
            found.append(Declaration(path, init=middle, low=low, high=high))
        return found

    def placed_in(self, vector: ParameterVector) -> ParameterVector:
        """`vector` whose full inertias are relative to the nominal bodies of the result, and start at their medians."""
        blocks = []
        for p in vector.parameters:
            if p.path in self.factors:
                middle = self.middle[self.columns(p.path)]
                p = dataclasses.replace(p, factor=self.factors[p.path], initial=middle)
            blocks.append(p)
        return dataclasses.replace(vector, blocks=tuple(blocks))

    def cloud(self, draws: Sequence[Draw]) -> tuple[tuple[Draw, ...], Cloud]:
        """The draws of a context, with those of the result spanning its rows, and the rows with their places among them."""
        names = [draw.name for draw in draws]
        places = tuple(names.index(name) for name in self.names)
        found = list(draws)
        for place, name, column in zip(places, self.names, self.rows.T, strict=True):
            found[place] = Draw(name, float(column.min()), float(column.max()))
        return tuple(found), Cloud(self.rows, places)


def read_drawn(folder: str | Path, *, seed: int = 0) -> DrawnResult:
    """The draws of the result in `folder`: its posterior if it has one that can be used, else the jackknife's normal.

    Raises:
      DsoError: it is no finished result of `dso identify`, is damaged, or has no intervals; or nothing holds a number.
    """
    folder = Path(folder)
    where = f"{folder}"
    if not (folder / folders.RUN).is_file():
        raise DsoError(
            f'{where}: there is no result of dso identify here; name the folder that its --out made, as in from = "result".'
        )
    tree, study, _ = read_run(folder / folders.RUN)
    if study.get("command") != "identify" or tree.get("status") != "finished":
        raise DsoError(
            f"{where}: is no finished result of dso identify, so it has no numbers to draw; name the --out folder of one, or "
            "finish it with --resume."
        )
    interval, cure = tree.get("interval"), "run dso identify again"
    if not interval:
        raise DsoError(f"{where}: this result has no intervals to draw from; {cure} with this version.")
    try:
        names = tuple(map(str, tree["names"]))
        n = len(names)
        centre, estimate, low, high, scale = (
            np.asarray(interval[key], float).reshape(n) for key in ("centre", "estimate", "low", "high", "scale")
        )
        covariance = np.asarray(tree["covariance"], float).reshape(n, n) * (float(interval["quantile"]) / Z95) ** 2
        factors = {str(k): np.asarray(v, float).reshape(4, 4) for k, v in dict(interval.get("factors", {})).items()}
        rows, notes = _stored_posterior(tree.get("posterior"), names, low, high)
        method = str(interval["method"])
        sound = np.isfinite(covariance).all() and np.isfinite([centre, estimate, scale]).all() and np.all(scale > 0)
        if not (n and len(set(names)) == n and sound and np.all(np.diag(covariance) >= 0)):
            raise ValueError("its intervals are not finite numbers")
        if not (np.all(low < high) and np.all((low <= estimate) & (estimate <= high))):
            raise ValueError("its estimates are not within their bounds")
        if any(not set(_coordinates(path)) <= set(names) or not np.isfinite(f).all() for path, f in factors.items()):
            raise ValueError("a full inertia has no coordinates")
    except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise DsoError(f"{folder / folders.RUN}: the run file is damaged ({error}); {cure}.") from error
    std = np.sqrt(np.diag(covariance))
    if rows is not None and method == "jackknife" and np.any(rows.std(0) < NARROW * std):
        narrow = ", ".join(name for name, a, b in zip(names, rows.std(0), std, strict=True) if a < NARROW * b)
        rows, notes = (
            None,
            [
                f"The posterior of {narrow} in {where} is less than half as wide as the jackknife's interval, which covers "
                "errors of the model: the jackknife's normal is drawn."
            ],
        )
    if rows is not None:
        return DrawnResult(folder, names, rows, np.median(rows, axis=0), factors, "posterior", tuple(notes))
    endless = (std > ENDLESS * np.maximum(scale, np.abs(estimate))) & ~(np.isfinite(low) & np.isfinite(high))
    if endless.any():
        named = ", ".join(name for name, bad in zip(names, endless, strict=True) if bad)
        raise DsoError(
            f"{where}: nothing holds {named}, so there is no interval to draw it from; give it a range of its own in "
            "[randomise] after identifying without it, or identify with a prior or bounds."
        )
    rng = np.random.default_rng(seed)
    rows = truncated_normal(rng, centre, covariance, low, high, _COUNT, inside=estimate)
    return DrawnResult(folder, names, rows, np.median(rows, axis=0), factors, "jackknife", tuple(notes))


def drawn_of(study: TrainStudy, robot: Robot) -> DrawnResult:
    """The numbers of the result that a study names which its robot has and nothing else in the study sets.

    Raises:
      DsoError: as `read_drawn`; the robot does not have a number; or no number is left to draw.
    """
    assert study.result is not None
    try:
        found = read_drawn(study.result, seed=study.seed)
        other = [*(d for d in study.free if not noise_named(d.path)), *(Declaration(path) for path in study.ranges)]
        taken = {p.name for p in pack(other, robot).parameters} if other else set()
        kept, aside = [], {}
        for path in found.paths:
            if path.startswith("log/"):
                aside.setdefault("a number of its own in every recording", []).append(path)
            elif path.startswith("controller/") or _late_action(path):
                aside.setdefault("a controller or a late action, which are the policy's own here", []).append(path)
            elif path in taken:
                aside.setdefault("set by free or by a range of its own", []).append(path)
            else:
                (parameter,) = _known(path, robot)
                if is_of_sensors(parameter) and study.sensors is None:
                    aside.setdefault("of a sensor, and the study has no [sensors]", []).append(path)
                else:
                    kept.append(path)
    except DsoError as error:
        raise DsoError(f"{study.source}: [randomise] from: {error}") from error
    notes = [f"Of {study.result} is not drawn: {', '.join(paths)} ({why})." for why, paths in aside.items()]
    if not kept:
        raise DsoError(f"{study.source}: [randomise] from: nothing of the result is left to draw. {' '.join(notes)}")
    how = "its posterior" if found.by == "posterior" else "the normal distribution of its jackknife, within the bounds"
    notes.append(
        f"{', '.join(kept)}: drawn together for every episode from {study.result}, by {how} ({len(found.rows)} draws)."
    )
    return found.only(kept, *notes)


def _known(path: str, robot: Robot) -> tuple[Parameter, ...]:
    try:
        return pack([Declaration(path)], robot).parameters
    except DsoError as error:
        raise DsoError(
            f"the result has {path}, and the model of the study does not: {error} Train with its model.xml."
        ) from error


def _late_action(path: str) -> bool:
    return path.startswith("actuator/") and path.rpartition("/")[2] == "delay"


def _coordinates(path: str) -> list[str]:
    return [f"{path}[{name}]" for name in COORDINATES]


def _stored_posterior(
    group: Any, names: tuple[str, ...], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray | None, list[str]]:
    """The draws (M, n) if they can be used, and a note if there are some that cannot."""
    if not group:
        return None, []
    if not int(group["reliable"]):
        return None, ["The posterior of the result did not mix: the jackknife's normal is drawn."]
    rows = np.asarray(group["z"], float)
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"its posterior has shape {rows.shape}")
    if not np.all((rows >= low) & (rows <= high)):
        raise ValueError("its posterior leaves the bounds")
    return rows, []
