"""Cuts rollouts into windows of one length: rectangular arrays for simulation in batches.

A window starts at a recorded sample and is simulated from there with the model's time step. Samples keep their recorded
times, and predictions are interpolated to them. So logs need not be uniform, and sensors may be slower than the model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.quaternion import facing
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError

# A shorter last window is kept if it is at least this fraction of a full one.
_SHORTEST = 0.25
# A window with fewer samples contains no information beyond its start state; with fewer than _FEW it contains little.
_FEWEST, _FEW = 3, 10
# Windows meet if the next one begins at most this many sample intervals after the end of the one before.
_MEETING = 3.0
# Most time steps in a window: with more, memory runs out before a search ends.
_LONGEST = 1e5
# Accuracy of recorded times, as a fraction of a time step, when they are placed on the grid.
_ROUND = 1e-6


@dataclass(frozen=True, eq=False)
class Drive:
    """Controls that controllers compute from the recorded signals, for their G parameters.

    values: (B, P+T, G), the signal that each parameter multiplies; the P steps before a window come first.
    share: (G, nu), 1 in the column of the actuator whose control contains the term.
    """

    values: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """B windows of T grid steps with at most S samples of C channels.

    rollouts: the rollouts that were cut.
    channels: how channels correspond to the model.
    timestep: time step of the grid [s].
    ctrl: (B, T, nu), held during each step, in the model's actuator order.
    past: (B, P, nu), the same for the P steps before the window.
    step: (B, S), grid step at or before each sample.
    share: (B, S) in [0, 1), position of the sample between this step and the next.
    measured: (B, S, C), NaN where nothing was measured and after a window's last sample.
    sample: (B, S), index of each sample in its rollout, -1 after the last.
    rollout: (B,), index into `rollouts`.
    time: (B,), start time in the rollout's clock [s].
    drive: of the actuators whose control was not recorded but is computed from recorded signals.
    """

    rollouts: tuple[Rollout, ...]
    channels: Channels
    timestep: float
    ctrl: np.ndarray
    past: np.ndarray
    step: np.ndarray
    share: np.ndarray
    measured: np.ndarray
    sample: np.ndarray
    rollout: np.ndarray
    time: np.ndarray
    drive: Drive | None = None

    def __len__(self) -> int:
        return len(self.time)

    @property
    def longest(self) -> float:
        """Duration of the longest rollout [s]."""
        return max(float(r.time[-1] - r.time[0]) for r in self.rollouts)

    @property
    def single(self) -> bool:
        """Whether every window has one sample only."""
        return self.sample.shape[1] == 1

    @property
    def handover(self) -> np.ndarray:
        """Grid step (B,) at which each window meets the start of the next one of its rollout; NaN if none follows."""
        place = np.full(len(self), np.nan)
        follows = self.rollout[1:] == self.rollout[:-1]
        place[:-1][follows] = np.diff(self.time)[follows] / self.timestep
        near = np.round(place)
        place = np.where(np.abs(place - near) < _ROUND, near, place)
        return np.where((place >= 1) & (place <= self.ctrl.shape[1]), place, np.nan)

    def complete(self) -> "Windows | None":
        """The windows that end before their rollout ends, so that none is shortened; None if there are none."""
        last = np.array([len(self.rollouts[i].time) - 1 for i in self.rollout])
        keep = self.sample.max(1) < last
        return self.only(keep) if keep.any() else None

    def only(self, keep: np.ndarray) -> "Windows":
        """The windows where `keep` (B,) is True."""
        names = ("ctrl", "past", "step", "share", "measured", "sample", "rollout", "time")
        drive = self.drive and replace(self.drive, values=self.drive.values[keep])
        return replace(self, **{name: getattr(self, name)[keep] for name in names}, drive=drive)

    def warnings(self) -> list[str]:
        """Warnings about windows with too few samples; empty if there are none."""
        if self.single:
            return []
        found, counts = [], np.isfinite(self.measured).sum(1)
        samples = int(np.median((self.sample >= 0).sum(1)))
        if samples < _FEW:
            found.append(
                f"A window has only {samples} samples, too few to estimate the noise well; give a longer --window, and "
                f"check that time is in seconds{_suspected(self.rollouts)}."
            )
        for name, count in zip(self.channels.sensor_names, counts.T, strict=True):
            bare = int((count < _FEWEST).sum())
            if bare > 0.1 * len(self):
                found.append(
                    f"Sensor channel {name!r} was measured fewer than {_FEWEST} times in {bare} of {len(self)} windows, so it "
                    "gives no information there; give a longer --window."
                )
        return found

    def at_samples(self, sensordata: np.ndarray, delay: np.ndarray | None = None) -> np.ndarray:
        """Channels at the sample times, (..., B, S, C), from sensordata on the grid (..., B, T, nsensordata).

        With `delay` (..., B, nsensor) [s] a channel is the sensor's reading that long before, by linear interpolation.
        A quaternion has the sign with which it faces the measured one.
        """
        found = self._at_samples(sensordata, delay)
        places = self.channels.quaternions
        return found * facing(found, self.measured[..., : found.shape[-2], :], places) if places else found

    def _at_samples(self, sensordata: np.ndarray, delay: np.ndarray | None) -> np.ndarray:
        rows, samples = np.arange(len(self))[:, None], self.step.shape[1]
        every = np.array_equal(self.channels.sensor_addresses, np.arange(sensordata.shape[-1]))
        wanted = sensordata if every else sensordata[..., self.channels.sensor_addresses]
        if delay is None and not self.share.any():
            # Samples on the grid need no interpolation. With one at every step there is no gather either, which saves most of
            # the memory traffic.
            aligned = ((self.step == np.arange(samples)) | (self.sample < 0)).all() and samples <= wanted.shape[-2]
            return wanted[..., :samples, :] if aligned else wanted[..., rows, self.step, :]
        if delay is None:
            share = self.share[..., None]
            before = wanted[..., rows, self.step, :]
            after = wanted[..., rows, np.minimum(self.step + 1, wanted.shape[-2] - 1), :]
            return np.where(share > 0, before * (1 - share) + after * share, before)
        late = delay[..., None, self.channels.sensor_ids] / self.timestep
        place = np.maximum((self.step + self.share)[..., None] - late, 0.0)
        step = np.minimum(np.floor(place).astype(int), wanted.shape[-2] - 1)
        share = place - step
        before = np.take_along_axis(wanted, step, -2)
        after = np.take_along_axis(wanted, np.minimum(step + 1, wanted.shape[-2] - 1), -2)
        return before + share * (after - before)


def cut(
    rollouts: Sequence[Rollout],
    channels: Channels,
    *,
    timestep: float,
    seconds: float,
    overlap: float = 0.0,
    past: float = 0.0,
    settle: float = 0.0,
    meet: bool = False,
    source: str = "log",
    option: str = "--window",
) -> Windows:
    """Cut `rollouts` into windows of `seconds`.

    seconds: length of a window [s]. If infinite, every rollout is one window. If 0, every sample is a window, and nothing is
      simulated.
    overlap: fraction of a window, below 1, by which the next one starts before this one ends.
    timestep: time step of the model [s].
    source, option: the log and the option, for messages.
    past: time before a window for which its controls are included [s]. Before the log, the first control is used.
    settle: time at the start of a window that is simulated but not compared [s]. Windows are longer by it. During this time
      a late sensor reads what happened before the window.
    meet: windows are long enough to reach the first sample of the next one, except at gaps.

    Windows with fewer than three samples, such as those before a gap, are left out. Raises DsoError when the window is
    shorter than two steps, when every rollout is shorter than a window, or when windows have too few samples, probably
    because time is not in seconds.
    """
    spans = [float(r.time[-1] - r.time[0]) for r in rollouts]
    if full := np.isinf(seconds):
        seconds = max(spans, default=0.0)
    if seconds < 2 * timestep and seconds != 0:
        raise DsoError(
            f"{source}: a window of {seconds:g} s is shorter than two of the model's time steps ({timestep:g} s); "
            f"give a longer one with {option} SECONDS."
        )
    if seconds / timestep > _LONGEST:
        raise DsoError(
            f"{source}: a window of {seconds:g} s has more than {_LONGEST:,.0f} time steps of {timestep:g} s, and the longest "
            f"rollout lasts {max(spans, default=0.0):.4g} s; give a shorter one with {option} SECONDS, or the model a "
            "larger timestep."
        )
    steps = int(np.ceil((seconds + settle) / timestep - _ROUND)) + 1
    history = int(np.ceil(past / timestep - _ROUND)) + 1 if past else 0
    if full:
        pieces = [(i, 0, len(r.time)) for i, r in enumerate(rollouts)]
    elif seconds == 0:
        pieces = [(i, a, a + 1) for i, r in enumerate(rollouts) for a in range(len(r.time))]
    else:
        pieces = [(i, a, b) for i, r in enumerate(rollouts) for a, b in _bounds(r.time, seconds, overlap, settle)]
    if not pieces:
        raise DsoError(
            f"{source}: the longest rollout lasts {max(spans, default=0.0):.4g} s, which is shorter than {_SHORTEST:.0%} of a "
            f"window of {seconds:g} s; give a shorter one with {option} SECONDS."
        )
    kept = pieces if seconds == 0 else [(i, a, b) for i, a, b in pieces if b - a >= _FEWEST]
    if 2 * len(kept) < len(pieces):
        interval = _usual(rollouts)
        raise DsoError(
            f"{source}: a window of {seconds:g} s has fewer than {_FEWEST} samples, because the samples are {interval:.4g} s "
            f"apart{_suspected(rollouts)}; `dso convert --time COLUMN*FACTOR` converts another unit to seconds. If the log "
            f"really is so slow, give {option} {10 * interval:.2g} or more."
        )
    pieces = kept
    if meet:
        firsts = itertools.pairwise(pieces)
        apart = [rollouts[i].time[c] - rollouts[i].time[a] for (i, a, _), (j, c, _) in firsts if i == j]
        near = [t for t in apart if t <= seconds + _MEETING * _usual(rollouts)]
        steps = max(steps, int(np.ceil(max(near, default=0.0) / timestep - _ROUND)))
    width = max(b - a for _, a, b in pieces)
    shape = (len(pieces), width)
    step, share, sample = np.zeros(shape, int), np.zeros(shape), np.full(shape, -1)
    measured = np.full((*shape, len(channels.sensor_names)), np.nan)
    ctrl = np.zeros((len(pieces), history + steps, len(channels.ctrl_columns)))
    for w, (i, a, b) in enumerate(pieces):
        rollout, n = rollouts[i], b - a
        place = (rollout.time[a:b] - rollout.time[a]) / timestep
        step[w, :n] = np.minimum(np.floor(place + _ROUND), steps - 1)
        share[w, :n] = np.clip(place - step[w, :n], 0, None)
        share[w, :n][share[w, :n] < _ROUND] = 0.0
        sample[w, :n] = np.arange(a, b)
        if rollout.sensordata is not None:
            measured[w, :n] = rollout.sensordata[a:b]
            measured[w, :n][rollout.time[a:b] - rollout.time[a] < settle - _ROUND * timestep] = np.nan
        if rollout.ctrl is not None:
            grid = rollout.time[a] + timestep * np.arange(-history, steps)
            held = np.searchsorted(rollout.time, grid + _ROUND * timestep, side="right") - 1
            ctrl[w] = rollout.ctrl[np.maximum(held, 0)][:, channels.ctrl_columns]
    return Windows(
        rollouts=tuple(rollouts),
        channels=channels,
        timestep=timestep,
        ctrl=ctrl[:, history:],
        past=ctrl[:, :history],
        step=step,
        share=share,
        measured=measured,
        sample=sample,
        rollout=np.array([i for i, _, _ in pieces]),
        time=np.array([rollouts[i].time[a] for i, a, _ in pieces]),
    )


def _usual(rollouts: Sequence[Rollout]) -> float:
    """Median time between samples [s] over all rollouts."""
    return float(np.median(np.concatenate([np.diff(r.time) for r in rollouts])))


def _suspected(rollouts: Sequence[Rollout]) -> str:
    """The probable unit of time, as the end of a sentence; empty if seconds are plausible."""
    interval = _usual(rollouts)
    if interval < 0.5:
        return ""
    if interval == 1 and all((np.diff(r.time) == 1).all() for r in rollouts):
        return " (time looks like a count of samples)"
    names = [
        name
        for least, name in ((1e5, "nanoseconds"), (1e3, "microseconds"), (0.5, "milliseconds"))
        if interval >= least
    ]
    return f" (time looks like {names[0]})"


def _bounds(time: np.ndarray, seconds: float, overlap: float, settle: float = 0.0) -> list[tuple[int, int]]:
    """Sample ranges [a, b) of the windows of one rollout."""
    found, start = [], 0
    while start < len(time) - 1:
        end = int(np.searchsorted(time, time[start] + (seconds + settle) * (1 - _ROUND)))
        complete = end < len(time)
        if complete or time[end - 1] - time[start] >= _SHORTEST * seconds + settle:
            found.append((start, end))
        if not complete:
            break
        start = max(int(np.searchsorted(time, time[start] + seconds * (1 - overlap - _ROUND))), start + 1)
    return found
