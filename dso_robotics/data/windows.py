"""Rollouts cut into windows of one length: the rectangular arrays that simulation in batches wants.

A window starts at a recorded sample and is simulated on the model's own time grid from there. Samples keep their recorded
times: a prediction is interpolated to them, a measurement is never moved, so logs need not be uniform and sensors may be
slower than the model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError

# A last, shorter window is kept when it is at least this fraction of a full one.
_SHORTEST = 0.25
# A window of fewer samples says nothing beyond its own start; with fewer than _FEW it says little.
_FEWEST, _FEW = 3, 10
# Windows meet when the next one begins within so many sample intervals after one has ended.
_MEETING = 3.0
# Time steps in a window: beyond, memory runs out before a search would end.
_LONGEST = 1e5
# Recorded times are trusted to this fraction of a time step when they are placed on the grid.
_ROUND = 1e-6


@dataclass(frozen=True, eq=False)
class Drive:
    """What controllers make of the recorded signals, for G numbers of theirs.

    values: (B, P+T, G) the signal that each number multiplies, the P steps before a window first; share: (G, nu) one in the
    column of the actuator whose control it is part of.
    """

    values: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """B windows of T grid steps with at most S samples of C channels.

    ctrl: (B, T, nu) held during each step, in the model's actuator order; past: (B, P, nu) the same for the P steps before.
    step: (B, S) grid step at or before each sample; share: (B, S) in [0, 1), how far the sample is towards the next step.
    measured: (B, S, C), NaN where nothing was measured and behind a window's last sample.
    sample: (B, S) index of each sample in its rollout, -1 behind the last.
    rollout: (B,) index into `rollouts`; time: (B,) start time in the rollout's clock [s].
    drive: of the actuators whose control was not recorded but follows from what was.
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
        """How long the longest of the rollouts lasts [s]."""
        return max(float(r.time[-1] - r.time[0]) for r in self.rollouts)

    @property
    def single(self) -> bool:
        """Whether every sample is a window of its own."""
        return self.sample.shape[1] == 1

    @property
    def handover(self) -> np.ndarray:
        """Where on its grid each window (B,) meets the start of the next one of its rollout [steps]; NaN where none follows."""
        place = np.full(len(self), np.nan)
        follows = self.rollout[1:] == self.rollout[:-1]
        place[:-1][follows] = np.diff(self.time)[follows] / self.timestep
        near = np.round(place)
        place = np.where(np.abs(place - near) < _ROUND, near, place)
        return np.where((place >= 1) & (place <= self.ctrl.shape[1]), place, np.nan)

    def complete(self) -> "Windows | None":
        """Only the windows that end before their rollout does, so none is cut short; None when there is none."""
        last = np.array([len(self.rollouts[i].time) - 1 for i in self.rollout])
        keep = self.sample.max(1) < last
        return self.only(keep) if keep.any() else None

    def only(self, keep: np.ndarray) -> "Windows":
        """The windows where `keep` (B,) is True."""
        names = ("ctrl", "past", "step", "share", "measured", "sample", "rollout", "time")
        drive = self.drive and replace(self.drive, values=self.drive.values[keep])
        return replace(self, **{name: getattr(self, name)[keep] for name in names}, drive=drive)

    def doubts(self) -> list[str]:
        """Sentences about windows that hold too little to learn much from; empty when all is well."""
        if self.single:
            return []
        found, counts = [], np.isfinite(self.measured).sum(1)
        samples = int(np.median((self.sample >= 0).sum(1)))
        if samples < _FEW:
            found.append(
                f"A window holds only {samples} samples, so little is left to judge the noise by; give a longer --window, and "
                f"check that time is in seconds{_suspected(self.rollouts)}."
            )
        for name, count in zip(self.channels.sensor_names, counts.T, strict=True):
            bare = int((count < _FEWEST).sum())
            if bare > 0.1 * len(self):
                found.append(
                    f"Sensor channel {name!r} was measured fewer than {_FEWEST} times in {bare} of {len(self)} windows, which "
                    "learn nothing from it; give a longer --window."
                )
        return found

    def at_samples(self, sensordata: np.ndarray, delay: np.ndarray | None = None) -> np.ndarray:
        """Channels at the sample times, (..., B, S, C), from sensordata on the grid (..., B, T, nsensordata).

        With `delay` (..., B, nsensor) [s] a channel shows what its sensor read that long ago, by linear interpolation.
        """
        rows, samples = np.arange(len(self))[:, None], self.step.shape[1]
        every = np.array_equal(self.channels.sensor_addresses, np.arange(sensordata.shape[-1]))
        wanted = sensordata if every else sensordata[..., self.channels.sensor_addresses]
        if delay is None and not self.share.any():
            # Samples on the grid need no interpolation, and one at every step not even a gather: most of the memory traffic.
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
    """Cut `rollouts` into windows of `seconds`, each starting `overlap` (a fraction below 1) before the last one ends.

    `timestep` [s] is the model's; `source` and `option` name the log and the option in messages. Windows know the controls of
    the `past` [s] before them; before the log, the first control is taken to have been held. The first `settle` [s] of a
    window are simulated and not compared, and windows are that much longer: a late sensor shows there what happened before
    the window. With `meet` windows are long enough to reach the first sample of the next one, but for gaps. Windows of fewer
    than three samples, such as those before a gap, are left out. With `seconds` infinite every rollout is one window; with 0
    every sample is, and nothing is simulated. Raises DsoError when the window is shorter than two steps, when every rollout
    is shorter than a window, or when windows hold too few samples because time is hardly in seconds.
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
            f"{source}: a window of {seconds:g} s holds fewer than {_FEWEST} samples, because the samples are {interval:.4g} s "
            f"apart{_suspected(rollouts)}; `dso convert --time COLUMN*FACTOR` makes seconds of another unit, and a log that is "
            f"really so slow needs {option} {10 * interval:.2g} or more."
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
    """Which unit time seems to be in, as the end of a sentence; nothing when seconds are plausible."""
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
