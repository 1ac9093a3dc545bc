"""Derivatives of simulated windows by the numbers of a mechanism: one more simulation of each window for each number."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import mujoco
import numpy as np
from mujoco import batch

from dso_robotics.physics import step as physics
from dso_robotics.physics.state import Tangent

Change = tuple[int, float] | None
"""(i, h): the number i is larger by h. None: all are as they are."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Simulations of a model whose fields depend on numbers z (nz,).

    substeps: steps of the model in a control step.
    engines: engines, reset, of N simulations for each of P changes; one after the other they have all (P N).
    reading: what is read in an engine's states, (its simulations, width).
    """

    model: mujoco.MjModel
    substeps: int
    engines: Callable[[Sequence[Change]], list[batch.Batch]]
    reading: Callable[[batch.Batch], np.ndarray]
    width: int


class WindowDifference:
    """Derivatives of steps and readings by numbers z (nz,)."""

    def __init__(self, bench: Bench, step: np.ndarray, moves: np.ndarray, *, centred: bool = False):
        """step: of the differences, (nz,). moves: (nz,) False for numbers that change nothing that is simulated."""
        self._bench, self._h, self._centred = bench, step, centred
        self._at = [int(i) for i in np.flatnonzero(moves)]
        sides = (1.0, -1.0) if centred else (1.0,)
        self._changes: list[Change] = [None, *((i, side * float(step[i])) for side in sides for i in self._at)]

    def seen(self, body: physics.State, ctrl: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is read in states (N, ...) under controls (N, nu): values (N, w) and derivatives (N, w, nz)."""
        bench, count = self._bench, len(ctrl)
        slope = np.zeros((count, bench.width, len(self._h)))
        if not bench.width:
            return np.zeros((count, 0)), slope
        rows = self._of_each(bench.engines(self._changes), body, ctrl, bench.reading)
        slope[..., self._at] = self._by_number(rows, lambda low, high: high - low)
        return rows[0], np.where(np.isfinite(slope), slope, 0.0)

    def moves(
        self, body: physics.State, ctrl: np.ndarray, sound: np.ndarray, *, reads: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by z of steps (N, T, k, nz) and of what is read in the T+1 states (N, T+1, w, nz).

        reads: whether what is read in the first state is wanted.
        """
        bench, (count, ends) = self._bench, sound.shape
        tangent, w, nz = Tangent(bench.model), bench.width, len(self._h)
        moved, shown = np.zeros((count, ends - 1, tangent.size, nz)), np.zeros((count, ends, w, nz))
        if not self._at:
            return moved, shown
        engines = bench.engines(self._changes)

        def stepped(engine: batch.Batch) -> np.ndarray:
            engine.step(nstep=bench.substeps)
            return states(engine)

        for t in range(ends):
            here = jax.tree.map(lambda leaf, t=t: np.where(np.isfinite(leaf[:, t]), leaf[:, t], 0.0), body)
            if w and (t or reads):
                rows = self._of_each(engines, here, ctrl[:, t], bench.reading)
                slope = self._by_number(rows, lambda low, high: high - low)
                shown[:, t][..., self._at] = np.where(sound[:, t, None, None], slope, 0.0)
            if t + 1 < ends:
                after = self._of_each(engines, here, ctrl[:, t + 1], stepped)
                slope = self._by_number(after, tangent.difference)
                moved[:, t][..., self._at] = np.where(sound[:, t + 1, None, None], slope, 0.0)
        return moved, shown

    def _of_each(
        self, engines: list[batch.Batch], body: physics.State, ctrl: np.ndarray, what: Callable[..., np.ndarray]
    ) -> np.ndarray:
        """What follows from states (N, ...) and controls (N, nu) in all simulations, (P, N, ...)."""
        found = []
        for engine in engines:
            many = engine.nsim // max(len(ctrl), 1)
            write(engine, jax.tree.map(lambda leaf, many=many: np.tile(leaf, (many, *(1,) * (leaf.ndim - 1))), body))
            engine.bind("ctrl")[:] = np.tile(ctrl, (many, 1))
            found.append(what(engine))
        rows = np.concatenate(found)
        return rows.reshape(len(self._changes), len(ctrl), *rows.shape[1:])

    def _by_number(self, rows: np.ndarray, difference: Callable[..., np.ndarray]) -> np.ndarray:
        """Derivatives (N, w, numbers) from the outcomes (P, N, ...) of all changes."""
        many = len(self._at)
        high, low = rows[1 : 1 + many], rows[1 + many :] if self._centred else rows[:1]
        width = self._h[self._at] * (2 if self._centred else 1)
        low = np.broadcast_to(low, high.shape)
        return np.moveaxis(difference(low, high), 0, -1) / width


def write(engine: batch.Batch, body: physics.State) -> None:
    """Set the states (E, ...) of an engine."""
    engine.bind("qpos")[:], engine.bind("qvel")[:] = body.qpos, body.qvel
    engine.bind("qacc_warmstart")[:] = body.warmstart
    if engine.model.na:
        engine.bind("act")[:] = body.act


def states(engine: batch.Batch) -> np.ndarray:
    """The states (E, nq+nv+na) of an engine."""
    act = [engine.bind("act")] if engine.model.na else []
    return np.concatenate([engine.bind("qpos"), engine.bind("qvel"), *act], -1)


def sound(state: np.ndarray) -> np.ndarray:
    """Whether states (N, ends, nq+nv+na) are finite and within MuJoCo's limit, like all before them."""
    return np.logical_and.accumulate(np.all(np.abs(state) <= mujoco.mjMAXVAL, axis=-1), axis=1)
