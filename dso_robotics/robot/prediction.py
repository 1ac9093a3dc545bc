"""Predicted sensor readings of every window, and their derivatives by the parameters and the start state.

Two engines share one interface. `CPrediction` simulates with C MuJoCo and differentiates by finite differences on threads.
`MjxPrediction` differentiates through MJX; it has its own file because it needs JAX. Both predict the same numbers.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.batch import BatchEngine, Trajectories
from dso_robotics.physics.state import Tangent
from dso_robotics.robot.signals import arriving, commanded, reported

# Finite-difference steps: relative to the parameter's scale, and absolute for start states [m, rad, m/s, rad/s]. Resting
# bodies penetrate each other by micrometres, and dry friction has kinks, so a derivative is valid only for small steps.
_STEP = 1e-7


class Prediction(Protocol):
    """Predictions (B, S, C) for B windows, S sample times and C channels; NaN where the simulation diverged."""

    name: str
    # Number of simulated time steps so far, including those for derivatives.
    steps: int

    def predict(self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None) -> np.ndarray:
        """Sensor readings at parameters z (n,) from start states (B, nq+nv+na). With `only` (indices), only those windows."""
        ...

    def linearize(
        self, z: np.ndarray, start: np.ndarray, *, by_start: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Readings (B, S, C) with derivatives by z (B, S, C, n) and by the start's tangent (B, S, C, k).

        k = 2*nv+na, or 0 if `by_start` is False, because fixed start states need no derivative.
        """
        ...

    def predict_ends(
        self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The result of `predict`, and the states (B, nq+nv+na) at `windows.handover`, NaN where no window follows."""
        ...

    def linearize_ends(self, z: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        """The result of `linearize`, the states of `predict_ends`, and the derivatives of their tangents.

        The derivatives are by z (B, k, n) and by the start's tangent (B, k, k).
        """
        ...


@runtime_checkable
class Several(Protocol):
    """A prediction that simulates all windows from several start states at once."""

    def predict_several(self, z: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Readings (P, B, S, C) from start states (P, B, nq+nv+na)."""
        ...


class CPrediction:
    """The C engine. A linearisation is one batch call with 1 + n + 2*nv + na simulations for each window.

    `engine` may be another C engine of the model, such as one with a friction law.
    """

    name = "mujoco"

    def __init__(
        self, vector: ParameterVector, windows: Windows, *, threads: int = 0, engine: BatchEngine | None = None
    ):
        self.vector, self.windows = vector, windows
        self.tangent = Tangent(vector.mj)
        self.steps = 0
        self._engine = engine or BatchEngine(vector.mj, threads=threads)
        names = [rollout.name for rollout in windows.rollouts]
        self._expansion = vector.expansion(names)
        # Which recordings each coordinate affects, and which coordinates are changed together.
        self._felt = np.array([[owner in ("", name) for owner in vector.owner] for name in names])
        self._together = _groups(vector)

    def predict(self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None) -> np.ndarray:
        """See `Prediction.predict`."""
        return self._at_samples(z[None], start[None], self._chosen(only))[0][0]

    def predict_several(self, z: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """See `Several.predict_several`."""
        return self._at_samples(np.tile(z, (len(starts), 1)), starts, self.windows)[0]

    def predict_ends(
        self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Prediction.predict_ends`."""
        place = self.windows.handover
        y, _, ends = self._at_samples(z[None], start[None], self._chosen(only), place if only is None else place[only])
        return y[0], ends[0]

    def _chosen(self, only: np.ndarray | None) -> Windows:
        return self.windows if only is None or len(only) == len(self.windows) else self.windows.only(only)

    def linearize(
        self, z: np.ndarray, start: np.ndarray, *, by_start: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Prediction.linearize`. Forward differences are used, or backward differences where a bound prevents them.

        Values that belong to one recording do not affect other recordings. They are changed together, so one simulation
        serves all recordings. Where bodies touch, a change can shift the start or end of a contact by one time step. The
        readings then jump. Divided by the small difference step, the jump looks like a very large derivative. Windows with
        contacts are therefore differenced to both sides, and the smaller slope is used where the two disagree.
        """
        y, _, by_z, by_x = self._slopes(z, start, self.tangent.size if by_start else 0, None)[:4]
        return y, by_z, by_x

    def linearize_ends(self, z: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Prediction.linearize_ends`. Uses the same simulations as `linearize`."""
        y, end, *slopes = self._slopes(z, start, self.tangent.size, self.windows.handover)
        return y, *slopes[:2], end, *slopes[2:]

    def _slopes(self, z: np.ndarray, start: np.ndarray, k: int, place: np.ndarray | None) -> list[np.ndarray]:
        """Like `_differences`, but to both sides in windows with contacts."""
        found, touched = self._differences(z, start, self.windows, _STEP, k, place)
        if touched.any():
            only = np.flatnonzero(touched)
            part = None if place is None else place[only]
            other, _ = self._differences(z, start[only], self.windows.only(only), -_STEP, k, part)
            for slope, there in zip(found[2:], other[2:], strict=True):
                slope[only] = _calmer(slope[only], there)
        return found

    def _differences(
        self, z: np.ndarray, start: np.ndarray, windows: Windows, step: float, k: int, place: np.ndarray | None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Readings (B, S, C) and states at `place`, their derivatives by z and k start coordinates, and contact flags (B,).

        Order: readings, states, readings by z, readings by start and, with a `place`, states by z, states by start.
        """
        h = step * self.vector.scale
        h = np.where((z + h > self.vector.high) | (z + h < self.vector.low), -h, h)
        moves = np.zeros((max(self._together, default=-1) + 1, len(z)))
        moves[self._together, np.arange(len(z))] = h
        m = len(moves)
        points = np.tile(z, (1 + m + k, 1))
        points[1 : 1 + m] += moves
        starts = np.tile(start, (1 + m + k, 1, 1))
        if k:
            change = np.broadcast_to(step * np.eye(k)[:, None], (k, len(start), k))
            starts[1 + m :] = self.tangent.move(start[None], change)
        y, touched, end = self._at_samples(points, starts, windows, place)
        apart = [np.moveaxis(y[1:] - y[0], 0, -1)]
        if place is not None:
            apart.append(np.moveaxis(self.tangent.difference(end[0], end[1:]), 0, -1))
        found = [y[0], end[0]]
        for change in apart:
            by_z = change[..., :m][..., self._together] / h
            if self.vector.local:
                felt = self._felt[windows.rollout]
                by_z *= felt.reshape(len(felt), *(1,) * (by_z.ndim - 2), -1)
            found += [by_z, change[..., m:] / step]
        return found, np.any(touched, axis=0)

    def states(self, z: np.ndarray, start: np.ndarray) -> np.ndarray:
        """States (B, S, nq+nv+na) at the grid step at or before each sample; NaN where the simulation diverged."""
        return self.motion(z, start)[0]

    def motion(self, z: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The results of `states` and of `predict`, from one simulation."""
        out, signals = self._simulate(z[None], start[None], self.windows)
        path = np.concatenate([start[:, None], out.state], axis=1)
        readings = self.windows.at_samples(reported(out.sensordata[None], signals), signals.get("sensor_delay"))
        return np.take_along_axis(path, self.windows.step[..., None], axis=1), readings[0]

    def _at_samples(
        self, z: np.ndarray, start: np.ndarray, windows: Windows, place: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Readings (P, B, S, C) of B windows at P points z (P, n) with starts (P, B, nq+nv+na).

        Also returns whether bodies touched (P, B), and the states (P, B, nq+nv+na) at `place` (B,) [steps] or at the
        windows' ends.
        """
        p, b = start.shape[:2]
        out, signals = self._simulate(z, start, windows)
        sensordata = reported(out.sensordata.reshape(p, b, *out.sensordata.shape[1:]), signals)
        state = out.state.reshape(p, b, *out.state.shape[1:])
        end = state[:, :, -1] if place is None else handed_over(state, place)
        return windows.at_samples(sensordata, signals.get("sensor_delay")), out.touched.reshape(p, b), end

    def _simulate(
        self, z: np.ndarray, start: np.ndarray, windows: Windows
    ) -> tuple[Trajectories, dict[str, np.ndarray]]:
        """Run P*B simulations. Also return the signal parameters (P, B, ...) that they used."""
        p, b = start.shape[:2]
        self.steps += p * b * windows.ctrl.shape[1]
        if self.vector.local:
            each = np.einsum("rmn,pn->prm", self._expansion[0], z) + self._expansion[1]
            fields = {k: v[:, windows.rollout] for k, v in self.vector.shared.fields(each).items()}
            signals = {k: v[:, windows.rollout] for k, v in self.vector.shared.signals(each).items()}
        else:
            fields = {k: np.repeat(v[:, None], b, axis=1) for k, v in self.vector.fields(z).items()}
            signals = {k: np.repeat(v[:, None], b, axis=1) for k, v in self.vector.signals(z).items()}
        ctrl, past, drive = windows.ctrl, windows.past, windows.drive
        if drive is not None:
            ctrl, past = commanded(ctrl, past, drive.values, drive.share, signals["controller_gain"])
        if "actuator_delay" in signals:
            ctrl = arriving(ctrl, past, signals["actuator_delay"], windows.timestep)
        ctrl = np.broadcast_to(ctrl, (p, *windows.ctrl.shape))
        out = self._engine.simulate(
            {k: v.reshape(p * b, *v.shape[2:]) for k, v in fields.items()},
            start.reshape(p * b, -1),
            ctrl.reshape(p * b, *ctrl.shape[2:]),
        )
        return out, signals


def _calmer(slope: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean of two one-sided slopes, or the smaller slope where their difference is larger than that slope."""
    smaller = np.where(np.abs(slope) <= np.abs(other), slope, other)
    return np.where(np.abs(slope - other) > np.abs(smaller), smaller, (slope + other) / 2)


def handed_over(states: np.ndarray, place: np.ndarray) -> np.ndarray:
    """States (..., B, nx) at `place` (B,), interpolated linearly between the states after each step (..., B, T, nx).

    `place` NaN gives NaN. Interpolated quaternions do not have unit length, which does not affect their differences.
    """
    known = np.isfinite(place)
    before = np.floor(np.where(known, place, 1.0)).astype(int)
    share = (np.where(known, place, np.nan) - before)[:, None]
    rows = np.arange(len(place))
    first = states[..., rows, before - 1, :]
    last = states[..., rows, np.minimum(before, states.shape[-2] - 1), :]
    return np.where(share > 0, first + share * (last - first), first + 0.0 * share)


def _groups(vector: ParameterVector) -> list[int]:
    """A group number for each coordinate. The recordings' own values of one quantity share a group; others have their own."""
    numbers: dict[str, int] = {}
    quantities = zip(vector.coordinate_names, vector.owner, strict=True)
    return [numbers.setdefault(name.removeprefix(f"log/{owner}/"), len(numbers)) for name, owner in quantities]
