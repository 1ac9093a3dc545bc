"""A learned Kalman filter at run time, on C MuJoCo and NumPy.

`KalmanEstimator` is what `Estimator.load` returns for the corrector "kalman". Its covariance moves with the state, with what is
measured and with the time between updates. It starts from a wide prior.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.deployed_model import as_number
from dso_robotics.robot.estimator import Estimate, Estimator
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_cloud import Cloud, Clouds
from dso_robotics.robot.kalman_gate import Restart, RuntimeGate
from dso_robotics.robot.kalman_tracker import Belief, KalmanTracker, Told
from dso_robotics.robot.learned import LONGEST, Learned

# Share of right readings that pass the gate, where the study names none.
GATE = 0.99999
# Readings up to this old [s] can be taken in late, and up to this many updates are kept for it.
_HORIZON, _KEPT = 0.5, 1000
# Times closer than this [s] are the same.
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class _Event:
    """An update in the past: the belief before it, its control, length [s], readings, and time at its end [s]."""

    before: Cloud
    ctrl: np.ndarray
    seconds: float
    measured: np.ndarray
    time: float


class KalmanEstimator(Estimator):
    """See the module.

    A filter with feet measures `readings`: its sensors, and what tells that feet stand (a touch sensor, a force, 0 and 1). Its
    channels `names` hold the velocities of the feet, which read zero while they stand.

    prompt: (ny,), channels that tell of position and velocity alone, and so correct a start.
    dropped: number of late readings that were older than `horizon` [s], and were left out.
    """

    def __init__(self, model: mujoco.MjModel, learned: Learned):
        super().__init__(model, learned)
        noise = Noise(**{name: np.asarray(value) for name, value in self._weights.items()})
        sensors = [model.sensor(i).name for i in self._ids]
        self._chi = RuntimeGate(learned.gate or GATE, sensors, learned.contacts, noise.drift > 0)
        self._tracker = KalmanTracker(model, self._space, learned, noise, self._chi)
        self._clouds = Clouds(model, self._space, self._tracker)
        self._late = learned.delay > 0
        self.prompt = np.array([model.sensor_needstage[i] <= 2 for i in self._ids]) & ~self._late
        self.horizon = max(_HORIZON, 1.5 * self._oldest)
        self._events: deque[_Event] = deque(maxlen=_KEPT)
        self._now, self.dropped = 0.0, 0
        # What the last update made the filter give up.
        self._restart = Restart.NONE

    @property
    def noise(self) -> Noise:
        """The learned noises."""
        return self._tracker.noise

    @property
    def gate(self) -> RuntimeGate:
        """The gate that judges readings."""
        return self._chi

    @property
    def belief(self) -> Belief:
        """State, biases and covariance (K, K) after the last update."""
        return self._clouds.summary(self._cloud)

    @property
    def space(self) -> Space:
        """Moves and differences of states."""
        return self._space

    @property
    def widest(self) -> np.ndarray:
        """Deviations (K,) that the covariance never exceeds: beyond them nothing is known."""
        return self._tracker.widest

    @property
    def gated(self) -> dict[str, int]:
        """By sensor, how many of its readings were too unlikely and were left out since `reset`."""
        return dict(self._chi.counts)

    def reset(
        self,
        qpos: Sequence[float] | np.ndarray | None = None,
        qvel: Sequence[float] | np.ndarray | None = None,
        act: Sequence[float] | np.ndarray | None = None,
        *,
        measurement: Sequence[float] | np.ndarray | Mapping[str, float] | None = None,
    ) -> Estimate:
        """Start around a state; see `Estimator.reset`. The filter takes it for a guess, which may be far off.

        Position and velocity readings in `measurement` correct the guess.
        """
        first = super().reset(qpos, qvel, act, measurement=measurement)
        self._chi.reset()
        self._events.clear()
        self._now, self.dropped = 0.0, 0
        self._cloud = self._clouds.begun(self._state, np.zeros(len(self.names)))
        told = Told(first.predicted, first.innovation, self._tracker.noise.sensor)
        if measurement is not None:
            y = np.where(self.prompt, self._measurement(measurement), np.nan)
            self._cloud, told, _ = self._clouds.corrected(self._cloud, y, np.zeros(self.model.nu))
        return self._told(told)

    def update(
        self,
        ctrl: Sequence[float] | np.ndarray | Mapping[str, float],
        measurement: Sequence[float] | np.ndarray | Mapping[str, float],
        dt: float | None = None,
    ) -> Estimate:
        """Estimate the state `dt` later.

        ctrl: control, constant during `dt`.
        measurement: readings at the end of `dt`. A NaN, or a name left out of a mapping, is a missing measurement. A sensor
          with a learned delay shows what was that long ago.
        dt: time [s], any up to an hour; None for the usual interval. After more than 2000 time steps nothing is known of the
          state: the filter starts anew around the last one.

        A sensor's reading that is too unlikely (`gate`) is left out. After ten in a row the filter starts anew around its
        estimate, once. Where a bias drifts it first takes a bias for one that jumped, and starts anew after ten more.

        Raises DsoError for a wrong size or name, a control that is not finite, an infinite measurement, a dt that is not
        positive or too long, and a prediction that diverges. The state is then unchanged.
        """
        if not self._ready:
            raise DsoError("the estimator has no state yet; call reset() first.")
        u = self._vector("ctrl", self._named(ctrl, self.ctrl_names, "ctrl"), self.model.nu)
        y = self._measurement(measurement)
        seconds = self.interval if dt is None else self._seconds(dt)
        now = np.where(self._late, np.nan, y)
        before, after = self._cloud, self._clouds.predicted(self._cloud, u, seconds)
        cloud, told, wild = self._clouds.corrected(after, now, u)
        self._restart = restart = self._chi.count(wild, np.isfinite(now), told.nats)
        if restart is not Restart.NONE:
            best = after.best
            again = restart is Restart.ALL
            cloud = self._clouds.begun(best.state, best.offset) if again else self._clouds.forgetful(after, restart)
            cloud, told, _ = self._clouds.corrected(cloud, now, u)
        self._now += seconds
        self._events.append(_Event(before, u, seconds, now, self._now))
        while self._events[0].time < self._now - self.horizon:
            self._events.popleft()
        self._cloud = cloud
        for c in np.flatnonzero(self._late & np.isfinite(y)):
            alone = np.full(len(y), np.nan)
            alone[c] = y[c]
            self._take_in(alone, float(self.learned.delay[c]))
        return self._told(told)

    def late(self, measurement: Sequence[float] | np.ndarray | Mapping[str, float], age: float) -> Estimate:
        """Take in readings that were taken `age` seconds before the present of the filter, and estimate the present anew.

        The filter goes back to that time and repeats its updates since. Late readings may come in any order. Those older than
        `horizon` are left out and counted in `dropped`.

        Raises DsoError as `update` does, and for a negative age.
        """
        if not self._ready:
            raise DsoError("the estimator has no state yet; call reset() first.")
        age = as_number("age", age)
        if age < 0:
            raise DsoError(f"age = {age:g} s lies in the future; give how long ago the reading was taken.")
        return self._told(self._take_in(self._measurement(measurement), age))

    def _take_in(self, y: np.ndarray, age: float) -> Told:
        """Insert readings of `age` seconds ago and repeat what came after them; what the filter then said of these readings."""
        nothing = np.full(len(y), np.nan)
        told, when = Told(nothing, nothing, nothing), self._now - age
        first = self._events[0].time - self._events[0].seconds if self._events else self._now
        if when < first - _SAME or not self._events:
            self.dropped += 1
            return told
        events = [event for event in self._events if event.time <= when + _SAME]
        later = [event for event in self._events if event.time > when + _SAME]
        cloud, u = (later[0].before, later[0].ctrl) if later else (self._cloud, self._events[-1].ctrl)
        share = when - (later[0].time - later[0].seconds) if later else 0.0
        again = [(event.ctrl, event.seconds, event.measured, event.time) for event in later]
        # At the time of an update, an update of no length; else the update in whose interval it lies is split there.
        again = [(u, share, y, when), *again] if share <= _SAME else [
            (u, share, y, when), (u, later[0].seconds - share, later[0].measured, later[0].time), *again[1:]
        ]  # fmt: skip
        for ctrl, seconds, measured, time in again:
            events.append(_Event(cloud, ctrl, seconds, measured, time))
            if seconds > _SAME:
                cloud = self._clouds.predicted(cloud, ctrl, seconds)
            cloud, said, wild = self._clouds.corrected(cloud, measured, ctrl)
            if measured is y:
                told = said
                self._chi.count(wild, np.isfinite(y))
        self._events, self._cloud = deque(events, maxlen=_KEPT), cloud
        return told

    def _seconds(self, dt: float) -> float:
        seconds = as_number("dt", dt)
        if not 0 < seconds <= LONGEST:
            raise DsoError(
                f"dt = {seconds:g} s; give a time above 0 and up to {LONGEST:g} s, or reset() after such a pause."
            )
        return seconds

    def _told(self, told: Told) -> Estimate:
        nq, nv = self._space.nq, self._space.nv
        belief = self._clouds.summary(self._cloud)
        self._state = state = belief.state
        return Estimate(
            state[:nq].copy(),
            state[nq : nq + nv].copy(),
            state[nq + nv :].copy(),
            told.predicted,
            told.innovation,
            told.std,
            belief.covariance[: 2 * nv, : 2 * nv].copy(),
            belief.offset.copy(),
        )
