"""Keeps a training's run.h5 up to date, and takes a killed training up again where the file left it, to the last bit."""

import dataclasses
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.robot.observation import Scaling
from dso_robotics.studies import folder as folders
from dso_robotics.studies.checkpoint import model_sha256
from dso_robotics.studies.short_horizon import Learner
from dso_robotics.studies.train_build import Task
from dso_robotics.studies.train_study import TrainStudy

COLUMNS = ("iteration", "steps", "training_cost", "episode_cost", "seconds", "gradient_norm", "blown")
_EVERY = 20.0  # [s] between two writings, so that a killed run loses less than a minute
_AGAIN = "run the study again without --resume"


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a training would end with: theta and scaling after `iteration` iterations, and the episode's cost at that look."""

    iteration: int
    cost: float
    theta: np.ndarray
    scaling: Scaling


class TrainCheckpoint:
    """The run file of one training.

    rows: the history so far, one tuple a look: `COLUMNS`, then the terms of the cost. best: of these looks, if the task keeps
    it. seconds: what earlier sittings took.
    Raises DsoError when a run to resume was begun with another study, model or file, has finished, or is damaged.
    """

    def __init__(self, folder: Path, task: Task, *, resume: bool):
        self.path, self._task, self._new = folder / folders.RUN, task, not resume
        self._study, self._inputs = _resolved(task.study), _inputs(task)
        self._mjcf = task.robot.spec.to_xml() if task.robot.spec is not None else ""
        self._stored: dict[str, np.ndarray] = {}
        self._began = self._saved = time.perf_counter()
        self.rows: list[tuple] = []
        self.best: Kept | None = None
        self.seconds = 0.0
        if resume:
            self._take_up(folder)

    def _take_up(self, folder: Path) -> None:
        tree, stored, _ = read_run(self.path)
        if "learner" not in tree:
            raise DsoError(f"{self.path}: this is no run of `dso train` or `dso design`; name the folder of one.")
        if (folder / folders.SUMMARY).exists():
            raise DsoError(f"{self.path}: this run has finished already; its result is in {folder}.")
        changed = [key for key in self._study if _placeless(stored.get(key)) != _placeless(self._study[key])]
        changed = [key for key in changed if key not in ("model", "source")]
        if changed:
            raise DsoError(
                f"{self.path}: --resume needs the study that was begun, but {', '.join(changed)} differ(s); "
                f"`--resume --out {folder}` alone takes the study from the run file."
            )
        try:
            for name, digest in self._inputs.items():
                if tree["inputs"][name] != digest:
                    what = "model" if name == "model" else "file of " + name
                    raise DsoError(
                        f"{self.path}: the {what} has changed since the run was begun; put back what it was begun with, or "
                        "choose another --out for a new run."
                    )
            self._stored, self.seconds = tree["learner"], float(tree["seconds"])
            history = tree["history"]
            names = [*COLUMNS, *(f"term {name}" for name in self._task.price.names)]
            self.rows = list(zip(*(history[name].tolist() for name in names), strict=True))
            if "best" in tree:
                self.best = _kept(tree["best"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DsoError(f"{self.path}: the run file is damaged ({error}); {_AGAIN}.") from error

    def begin(self, learner: Learner) -> Learner:
        """The learner to go on with: the given first one, or the stored one.

        Both pass through plain numbers, so that a run taken up compiles to the same program as one that was never killed.
        """
        numbers = self._stored or _numbers(learner)
        paths = jax.tree_util.tree_leaves_with_path(eqx.filter(_plain(learner), eqx.is_array))
        leaves = []
        for path, leaf in paths:
            found = numbers.get(_name(path))
            if found is None or np.shape(found) != leaf.shape or np.asarray(found).dtype != leaf.dtype:
                raise DsoError(f"{self.path}: its '{_name(path)}' does not fit the study; {_AGAIN}.")
            leaves.append(jnp.asarray(found))
        arrays, rest = eqx.partition(_plain(learner), eqx.is_array)
        filled = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)
        return eqx.tree_at(lambda one: one.key, filled, jax.random.wrap_key_data(filled.key))

    def due(self) -> bool:
        """Whether the file has become old."""
        return time.perf_counter() - self._saved > _EVERY

    def save(self, learner: Learner, *, finished: dict[str, Any] | None = None) -> None:
        """Write the theta to end with by block, the history and the method's whole state; a new run's first, over an old one.

        finished: what else the file of a finished run holds: the command and the episodes that a replay shows.
        """
        ending = self.best or Kept(int(learner.iteration), math.nan, np.asarray(learner.theta), learner.scaling)
        split = self._task.chain.layout.split(ending.theta)
        tree = {
            "theta": {name: np.asarray(value) for name, value in split.items()},
            "scaling": {"mean": np.asarray(ending.scaling.mean), "spread": np.asarray(ending.scaling.spread)},
            "history": self.history(),
            "learner": _numbers(learner),
            "inputs": self._inputs,
            "seconds": self.seconds + time.perf_counter() - self._began,
        }
        if self.best is not None:
            scaling = {name: np.asarray(value) for name, value in vars(ending.scaling).items()}
            tree["best"] = {
                "iteration": ending.iteration,
                "cost": ending.cost,
                "theta": ending.theta,
                "scaling": scaling,
            }
        if finished is not None:
            tree |= {"status": "finished", **finished}
        write_run(self.path, tree, self._study, self._mjcf, ready=self._ready)
        self._saved = time.perf_counter()

    def _ready(self) -> None:
        if self._new:
            folders.clear(self.path.parent)
            self._new = False

    def history(self) -> dict[str, np.ndarray]:
        """Every column of `rows` by name."""
        names = [*COLUMNS, *(f"term {name}" for name in self._task.price.names)]
        table = np.array(self.rows, float).reshape(-1, len(names))
        return {name: table[:, k] for k, name in enumerate(names)}


def _kept(stored: dict[str, Any]) -> Kept:
    scaling = Scaling(**{name: jnp.asarray(value) for name, value in stored["scaling"].items()})
    return Kept(int(stored["iteration"]), float(stored["cost"]), np.asarray(stored["theta"]), scaling)


def _plain(learner: Learner) -> Any:
    """The learner with its random key as numbers."""
    return eqx.tree_at(lambda one: one.key, learner, jax.random.key_data(learner.key))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _numbers(learner: Learner) -> dict[str, np.ndarray]:
    """Every array of the learner by its place in it: theta, optimiser.mu, critic.layers.0.weight, key, ..."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(_plain(learner), eqx.is_array))
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _files(study: TrainStudy) -> dict[str, str]:
    """Every file that the costs read, by where the study names it."""
    return {f"[cost.{name}]": file for name, cost in study.cost.items() for file in cost.files().values()}


def _inputs(task: Task) -> dict[str, str]:
    """SHA-256 of the compiled model, meshes included, and of each file of the costs."""
    digests = {where: hashlib.sha256(Path(file).read_bytes()).hexdigest() for where, file in _files(task.study).items()}
    return {"model": model_sha256(task.robot.mj)} | digests


def _resolved(study: TrainStudy) -> dict[str, Any]:
    """The study as JSON holds it, its files by absolute paths."""
    stored = json.loads(json.dumps(study.as_dict(), default=str))
    stored["model"] = str(Path(study.model).resolve())
    for table in stored["cost"].values():
        for key in ("log", "file"):
            if key in table:
                table[key] = str(Path(table[key]).resolve())
    return stored


def _placeless(value: Any) -> Any:
    """A part of a stored study without the places of files: what they hold is compared, not where they lie."""
    if not isinstance(value, dict):
        return value
    return {key: _placeless(entry) for key, entry in value.items() if key not in ("log", "file")}


def stored_train_study(folder: str | Path) -> TrainStudy:
    """The study of the training in `folder`, its files where they lay when it was begun.

    Raises:
      DsoError: there is no run file, it is damaged, or it is none of a training.
    """
    path = Path(folder) / folders.RUN
    if not path.is_file():
        raise DsoError(f"--resume: {folder} has no {folders.RUN} to go on from; leave --resume out to start a new run.")
    tree, stored, _ = read_run(path)
    if "learner" not in tree:
        raise DsoError(f"{path}: this is no run of `dso train` or `dso design`; name the folder of one.")
    try:
        return TrainStudy.from_dict(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise DsoError(f"{path}: the run file is damaged ({error}); {_AGAIN}.") from error
