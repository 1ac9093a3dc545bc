"""One control step of a model on C MuJoCo, for many states at once, and its derivatives by state, control and numbers."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import model_with, set_fields, without_reset
from dso_robotics.physics.sensitivity import Slopes, window_slopes
from dso_robotics.robot.replay import Moves, Seen
from dso_robotics.robot.watch import Watch
from dso_robotics.robot.window_difference import Bench, Change, WindowDifference, sound, states, write

# The constraint solver must find the same minimum at both ends of a difference.
_TOLERANCE = 1e-12
_STAGE = mujoco.mjtStage
# Fewer states than this are simulated by one thread: to wake the others takes longer.
_MANY = 256


class CSteps:
    """Steps of `watch.model`, whose fields are functions of numbers z (nz,), and what the watch reads.

    A state is (nq+nv+na,). What is not finite in it counts as zero, and has no derivative.
    """

    def __init__(
        self,
        watch: Watch,
        substeps: int,
        fields: Callable[[np.ndarray], Mapping[str, Any]],
        difference: tuple[np.ndarray, np.ndarray],
        *,
        threads: int = 0,
    ):
        """fields: at numbers (nz,). difference: for each number the step of differences, and whether a field depends on it.

        threads: 0: as many as serve. The result is the same for any number.
        """
        self._watch, self._substeps, self._fields_at, self._difference = watch, substeps, fields, difference
        self._model, self._threads = without_reset(watch.model), threads
        # Compiled code may call from several threads, and the engines below are shared.
        self.lock = threading.Lock()
        # Engines that stay, by the change of their numbers, and these numbers (N, nz).
        self._kept: dict[Change, tuple[batch.Batch, np.ndarray]] = {}

    def engine(self, numbers: np.ndarray) -> batch.Batch:
        """A new engine for N states, with the numbers (N, nz) of each."""
        count = len(numbers)
        if count and not _differ(numbers):
            # One model for all: its constants are derived once.
            made = batch.Batch(model_with(self._model, self._fields_at(numbers[0])), count, self._among(count))
        else:
            made = batch.Batch(self._model, count, self._among(count))
            each = [self._fields_at(row) for row in numbers]
            fields = {name: np.stack([np.asarray(one[name]) for one in each]) for name in (each[0] if each else {})}
            set_fields(made, self._model, fields)
        made.reset(stage=_STAGE.mjSTAGE_NONE)
        return made

    def ready(self, numbers: np.ndarray, change: Change = None) -> batch.Batch:
        """As `engine`, with one of the numbers changed. One that fits is used again."""
        kept = self._kept.get(change)
        if kept is None or not np.array_equal(kept[1], numbers):
            moved = numbers.copy()
            if change is not None:
                moved[:, change[0]] += change[1]
            kept = self._kept[change] = self.engine(moved), numbers.copy()
        return kept[0]

    def step(
        self, engine: batch.Batch, state: np.ndarray, ctrl: np.ndarray, warmstart: Any = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The states (N, nx) after a control step from `state` under `ctrl` (N, nu), and the solver's warm start then."""
        write(engine, self.body(state, warmstart))
        engine.bind("ctrl")[:] = ctrl
        engine.step(nstep=self._substeps)
        return states(engine), engine.bind("qacc_warmstart").copy()

    def read(self, engine: batch.Batch, state: np.ndarray, ctrl: np.ndarray, warmstart: Any = 0.0) -> np.ndarray:
        """What is read in states (N, nx) under controls (N, nu), (N, w)."""
        write(engine, self.body(state, warmstart))
        engine.bind("ctrl")[:] = ctrl
        return self._watch.reading(engine)

    def seen(self, numbers: np.ndarray, state: np.ndarray, ctrl: np.ndarray, *, centred: bool = False) -> Seen:
        """What is read in states (N, nx) under controls (N, nu), with derivatives."""
        value, by_numbers = self._by_numbers(numbers, centred).seen(self.body(state), ctrl)
        slopes = self._slopes(numbers, state[:, None], 0.0, ctrl[:, None], centred)
        parts: Any = value, slopes.sensor_state[:, 0], slopes.sensor_ctrl[:, 0], by_numbers
        return Seen(*parts)

    def moves(
        self,
        numbers: np.ndarray,
        state: np.ndarray,
        warmstart: Any,
        ctrl: np.ndarray,
        read: tuple[np.ndarray | None, np.ndarray],
        *,
        centred: bool = False,
    ) -> tuple[Moves, Seen]:
        """The derivatives of N steps, and of what is read before them.

        state: (N, 2, nx) before and after. warmstart: of the solver, (N, 2, nv) or 0. ctrl: (N, 2, nu), the control that led
        to each. read: (N, w) what was read in each; the first may be None.
        """
        ends = self.body(state, warmstart)
        slopes: Any = self._slopes(numbers, state, warmstart, ctrl, centred)
        moved, shown = self._by_numbers(numbers, centred).moves(ends, ctrl, sound(state), reads=read[0] is not None)
        seen: Any = [
            Seen(value, slopes.sensor_state[:, end], slopes.sensor_ctrl[:, end], shown[:, end])  # type: ignore
            for end, value in enumerate(read)
        ]
        after = self._split(state[:, 1], warmstart if np.ndim(warmstart) == 0 else warmstart[:, 1])
        by: Any = slopes.state[:, 0], slopes.ctrl[:, 0], moved[:, 0]
        return Moves(after, by[0], by[1], by[2], seen[1]), seen[0]

    def body(self, state: np.ndarray, warmstart: Any = 0.0) -> physics.State:
        """States (..., nx), to be simulated."""
        return self._split(np.where(np.isfinite(state), state, 0.0), warmstart)

    def _split(self, state: np.ndarray, warmstart: Any) -> physics.State:
        nq, nv = self._model.nq, self._model.nv
        parts: Any = state[..., :nq], state[..., nq : nq + nv], state[..., nq + nv :]
        warm, time = np.broadcast_to(warmstart, parts[1].shape), np.zeros(state.shape[:-1])
        return physics.State(*parts, warmstart=warm, time=time)  # type: ignore

    def _slopes(self, numbers: np.ndarray, ends: np.ndarray, warmstart: Any, ctrl: np.ndarray, centred: bool) -> Slopes:
        """Derivatives along windows (N, ends, nx) of one or no step, by state and control."""
        engine = self.ready(numbers)
        models = [engine.get_model(e) for e in range(len(numbers) if _differ(numbers) else 1)]
        for model in models:
            model.opt.tolerance = _TOLERANCE
        warm = np.broadcast_to(warmstart, (*ends.shape[:2], self._model.nv))
        more: dict[str, Any] = {"sensors": self._watch.columns, "forces": self._watch.accelerations}
        more |= {"sound": sound(ends), "substeps": self._substeps, "centred": centred}
        more["threads"] = self._among(len(ends))
        return window_slopes(models, ends, warm, ctrl, **more)

    def _by_numbers(self, numbers: np.ndarray, centred: bool) -> WindowDifference:
        """Differences by the numbers."""

        def engines(changes: Sequence[Change]) -> list[batch.Batch]:
            return [self.ready(numbers, change) for change in changes]

        bench = Bench(self._model, self._substeps, engines, self._watch.reading, self._watch.size)
        return WindowDifference(bench, *self._difference, centred=centred)

    def _among(self, count: int) -> int:
        """Threads for `count` states, 0: one for each processor."""
        return self._threads or int(count < _MANY)


def _differ(numbers: np.ndarray) -> bool:
    """Whether rows (N, nz) are not all the same."""
    return bool(np.any(numbers != numbers[:1]))
