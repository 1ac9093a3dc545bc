"""The gates of a Kalman filter: which sensors' readings are taken for wild, and when the filter itself is taken for lost.

In training a reading is wild if a wide distribution explains it better than the filter does. At run time it is wild if its
squared innovation exceeds a chi-squared quantile.

Where biases are states, a filter whose readings do not fit may have a bias that jumped, which the random walk of its model does
not hold for possible. Single readings need not be wild then: innovations are a little too large for long. A cumulative sum
finds that (Page 1954, "Continuous inspection schemes").
"""

import enum
from collections.abc import Sequence

import numpy as np

from dso_robotics.data.foot_contact import ContactReadings, FootContact
from dso_robotics.robot.innovation_gate import chi_squared_quantile

# After this many wild readings of a sensor in a row the estimate is taken for lost.
_PATIENCE = 10
# The innovations of a sensor are too large where so many times the predicted covariance explains them by so many nats better.
_WIDER, _NATS = 9.0, 30.0
# How long ago [s] a bias may have jumped that has misled the state since.
LATELY = 1.0


def quantiles(share: float, most: int) -> np.ndarray:
    """What the square of 0, 1, ... `most` whitened numbers stays below in a `share` of all cases, (most + 1,)."""
    if share >= 1:
        return np.full(most + 1, np.inf)
    return np.array([np.inf, *(chi_squared_quantile(share, k) for k in range(1, most + 1))])


def beside(innovation: np.ndarray, spread: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of innovations (..., ny) of covariance `spread` (..., ny, ny) once the channels `known` (..., ny) are known.

    A foot moves with its leg. Its velocity is judged after the leg's own readings of the same moment.
    """
    both = known[..., :, None] & known[..., None, :]
    cross = np.where(known[..., :, None], spread, 0.0)
    share = np.linalg.solve(np.where(both, spread, np.eye(spread.shape[-1])), cross)
    turned = np.swapaxes(share, -1, -2)
    return innovation - (turned @ np.where(known, innovation, 0.0)[..., None])[..., 0], spread - turned @ cross


class Restart(enum.IntEnum):
    """What the readings of an update tell a filter to give up.

    NOW: its biases, one of which jumps. LATELY: its biases, one of which has jumped and has misled the state since.
    ALL: its state and its biases, around the estimate of both.
    """

    NONE = 0
    NOW = 1
    LATELY = 2
    ALL = 3


class Patience:
    """Counts wild readings in a row, for B filters of S sensors.

    After 10 wild readings of a sensor in a row the filter is lost: it should start anew around its estimate, once. A sensor
    that stays wild may be broken, so it makes the filter start anew again only after 10 likely readings in a row.

    drifting: sensors (S,) that have a bias for a state; None for none. Where there is one, a jump of a bias explains wild
    readings as well as a robot that is elsewhere, and leaves more of what is known. So the filter first gives up its biases:
    that of a wild sensor jumps, or else another has misled the state. It starts anew if 10 more readings in a row are wild.
    """

    def __init__(self, filters: int, sensors: int, drifting: np.ndarray | None = None):
        self._wild, self._likely = np.zeros((filters, sensors), int), np.zeros((filters, sensors), int)
        own = np.zeros(sensors, bool) if drifting is None else np.asarray(drifting, bool)
        self._first = np.where(own, Restart.NOW, Restart.LATELY)
        # Restarts that a sensor may still cause.
        self._most = 2 if own.any() else 1
        self._left = np.full((filters, sensors), self._most)
        # Whether nothing is being counted, so that an update without a wild reading changes nothing.
        self.calm = True

    def lost(self, wild: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """The `Restart` of each filter, (B,), given which sensors (B, S) were measured now and which of them were wild."""
        likely = measured & ~wild
        self._wild = np.where(wild, self._wild + 1, np.where(measured, 0, self._wild))
        self._likely = np.where(likely, self._likely + 1, np.where(measured, 0, self._likely))
        self._left = np.where(self._likely >= _PATIENCE, self._most, self._left)
        found = (self._wild >= _PATIENCE) & (self._left > 0)
        restart = np.where(found, np.where(self._left > 1, self._first, Restart.ALL), Restart.NONE)
        self._left = self._left - found
        self._wild = np.where(found, 0, self._wild)
        self.calm = bool((self._left == self._most).all()) and not self._wild.any()
        return np.asarray(restart.max(-1))


class Surprise:
    """Finds sensors whose innovations are too large for long, though no single reading is wild, for B filters of S sensors.

    By sensor, the sum of what each reading tells for a covariance nine times as large, which is never below 0. Where it exceeds
    30 nats, a bias has jumped and has misled the state.
    """

    def __init__(self, filters: int, sensors: int):
        self._nats = np.zeros((filters, sensors))

    def misled(self, nats: np.ndarray) -> np.ndarray:
        """Whether a bias misled each filter, (B,), given what `wider` says of each sensor, (B, S)."""
        self._nats = np.maximum(self._nats + nats, 0.0)
        found = self._nats > _NATS
        self._nats[found] = 0.0
        return np.asarray(found.any(-1))


def wider(square: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """What readings of so many `channels` tell for a covariance nine times as large [nat].

    square: their squared innovations over the covariance.
    """
    return 0.5 * ((1 - 1 / _WIDER) * square - channels * np.log(_WIDER))


class TrainingGate:
    """The gate of B filters in training.

    sensors: id of the sensor of each channel, (ny,).
    scale: spread of wild readings by channel, (ny,). share: of readings that are wild.
    feet: for each channel the foot whose velocity it is, if any. One that slips does not make the filter start anew.
    drifting: channels that have a bias for a state, (ny,).
    """

    def __init__(
        self,
        filters: int,
        sensors: np.ndarray,
        scale: np.ndarray,
        share: float,
        feet: Sequence[FootContact | None],
        drifting: np.ndarray,
    ):
        self._members = [np.flatnonzero(sensors == s) for s in dict.fromkeys(sensors.tolist())]
        mine = [feet[here[0]] for here in self._members]
        self._scale, self._foot = scale, np.array([foot is not None for foot in mine])
        self._shares = [share if foot is None else 1 - foot.gate for foot in mine]
        self._order = np.argsort(self._foot, kind="stable")
        own = np.array([drifting[self._members[i]].any() for i in self._order])
        self._patience = Patience(filters, len(self._members), own)
        self._surprise = Surprise(filters, len(self._members))
        self._drifting = bool(own.any())

    def update(
        self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Channels (B, ny) that pass, what the others and jumps of biases cost (B,), and the `Restart` of each filter, (B,).

        innovation: (B, ny). spread: its covariance, (B, ny, ny). seen: measured channels, (B, ny).
        """
        passed, penalty, wild, measured = seen.copy(), np.zeros(len(seen)), [], []
        nats = np.zeros((len(seen), len(self._members)))
        feet, told = np.zeros(seen.shape[1], bool), False
        for here, foot in zip(self._members, self._foot, strict=True):
            feet[here] = foot
        for n, i in enumerate(self._order):
            here, share, foot = self._members[i], self._shares[i], self._foot[i]
            mine = seen[:, here]
            if foot and not told:
                told = True
                innovation, spread = beside(np.where(seen, innovation, 0.0), spread, passed & ~feet)
            e = np.where(mine, innovation[:, here], 0.0)
            if len(here) == 1:
                s = np.where(mine[:, 0], spread[:, here[0], here[0]], 1.0)
                square, volume = e[:, 0] ** 2 / s, np.log(s)
            else:
                s = np.where(mine[:, :, None] & mine[:, None, :], spread[:, here[:, None], here], np.eye(len(here)))
                square, volume = np.sum(e * np.linalg.solve(s, e[..., None])[..., 0], -1), np.linalg.slogdet(s)[1]
            inside = 0.5 * (square + volume)
            each = 0.5 * (e / self._scale[here]) ** 2 + np.log(self._scale[here])
            outside = np.sum(np.where(mine, each, 0.0), -1) - (np.log(share) if share else -np.inf)
            bad = mine.any(-1) & (outside < inside)
            passed[:, here] &= ~bad[:, None]
            penalty += np.where(bad, outside, 0.0)
            nats[:, n] = np.where(bad | foot, 0.0, wider(square, mine.sum(-1)))
            wild.append(bad)
            measured.append(mine.any(-1))
        bad, seen_ = np.stack(wild, -1), np.stack(measured, -1)
        restart = self._patience.lost(bad & ~self._foot[self._order], seen_)
        if self._drifting:
            misled = self._surprise.misled(nats)
            # What the readings told for a jump is what it costs: a filter may not buy likelihood by jumps.
            penalty += np.where(misled, _NATS, 0.0)
            restart = np.maximum(restart, np.where(misled, Restart.LATELY, Restart.NONE))
        return passed, penalty, restart


class RuntimeGate:
    """The gate of one filter at run time.

    share: of right readings that pass, such as 0.9999. sensors: name of the sensor of each channel, (ny,).
    contacts: with feet; they have shares of their own, and one that slips does not make the filter start anew.
    drifting: channels that have a bias for a state, (ny,); None for none.
    """

    def __init__(
        self,
        share: float,
        sensors: Sequence[str],
        contacts: ContactReadings | None = None,
        drifting: np.ndarray | None = None,
    ):
        self.names = tuple(dict.fromkeys(sensors))
        self._members = [np.flatnonzero([name == s for s in sensors]) for name in self.names]
        own = [np.nan] * len(sensors) if contacts is None else contacts.share.tolist()
        self.foot = np.array([bool(np.isfinite(own[here[0]])) for here in self._members])
        self._feet = np.isfinite(own)
        drifts = np.zeros(len(sensors), bool) if drifting is None else drifting
        self._drifting = np.array([drifts[here].any() for here in self._members])
        self._slipping = np.array([own[here[0]] < 1 for here in self._members])
        self.limits = [
            quantiles(own[here[0]] if foot else share, len(here))
            for here, foot in zip(self._members, self.foot, strict=True)
        ]
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = dict.fromkeys(self.names, 0)
        self._patience = Patience(1, len(self.names), self._drifting)
        self._surprise = Surprise(1, len(self.names))

    def surprise(self, innovation: np.ndarray, spread: np.ndarray, let: np.ndarray) -> np.ndarray:
        """By sensor, what `wider` says of the channels `let` (ny,); 0 for feet and where there is none, (S,)."""
        found, many = np.zeros((2, len(self.names)))
        for i, (here, foot) in enumerate(zip(self._members, self.foot, strict=True)):
            mine = here[let[here]]
            if len(mine) == 1 and not foot:
                c = mine[0]
                found[i], many[i] = innovation[c] ** 2 / spread[c, c], 1
            elif len(mine) and not foot:
                e = innovation[mine]
                found[i], many[i] = e @ np.linalg.solve(spread[mine[:, None], mine], e), len(mine)
        return wider(found, many)

    def wild(self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray) -> list[bool]:
        """Whether each sensor's reading is wild, given innovations (ny,), their covariance (ny, ny) and which were measured."""
        found = self._judged(innovation, spread, seen, feet=False)
        if self.foot.any():
            known = self.without(seen, found) & ~self._feet
            beside_ = beside(np.where(seen, innovation, 0.0), spread, known)
            # Where a reading is wild, it may be the leg's, and how the foot moves is not known.
            slips = self._judged(*beside_, seen, feet=True) if not any(found) else self._measured(seen) & self._slipping
            found = [a or bool(b) for a, b in zip(found, slips, strict=True)]
        return found

    def _measured(self, seen: np.ndarray) -> np.ndarray:
        return np.array([bool(seen[here].any()) for here in self._members])

    def _judged(self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray, *, feet: bool) -> list[bool]:
        found = []
        for here, limits, foot in zip(self._members, self.limits, self.foot, strict=True):
            mine = here[seen[here]]
            if foot != feet or not len(mine):
                found.append(False)
            elif len(mine) == 1:
                c = mine[0]
                found.append(bool(innovation[c] ** 2 > limits[1] * spread[c, c]))
            else:
                e = innovation[mine]
                found.append(bool(e @ np.linalg.solve(spread[mine[:, None], mine], e) > limits[len(mine)]))
        return found

    def without(self, seen: np.ndarray, wild: list[bool]) -> np.ndarray:
        """`seen` (ny,) without the channels of wild sensors."""
        if not any(wild):
            return seen
        seen = seen.copy()
        for here, bad in zip(self._members, wild, strict=True):
            if bad:
                seen[here] = False
        return seen

    def count(self, wild: list[bool], seen: np.ndarray, nats: np.ndarray | None = None) -> Restart:
        """Count the readings of an update, and return what the filter is to give up.

        nats: see `surprise`; None where no bias drifts.
        """
        misled = nats is not None and bool(self._surprise.misled(nats[None])[0])
        least = Restart.LATELY if misled else Restart.NONE
        if self._patience.calm and not any(wild):
            return least
        for name, bad in zip(self.names, wild, strict=True):
            self.counts[name] += bad
        found = self._patience.lost(np.array([wild]) & ~self.foot, self._measured(seen)[None])[0]
        return max(least, Restart(int(found)))
