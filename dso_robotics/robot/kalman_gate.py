"""The gates of a Kalman filter: which sensors' readings are taken for wild, and when the filter itself is taken for lost.

In training a reading is wild if a wide distribution explains it better than the filter does. At run time it is wild if its
squared innovation exceeds a chi-squared quantile.
"""

from collections.abc import Sequence

import numpy as np

from dso_robotics.data.foot_contact import ContactReadings, FootContact
from dso_robotics.robot.innovation_gate import chi_squared_quantile

# After this many wild readings of a sensor in a row the estimate is taken for lost.
_PATIENCE = 10


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


class Patience:
    """Counts wild readings in a row, for B filters of S sensors.

    After 10 wild readings of a sensor in a row the filter is lost: it should start anew around its estimate, once. A sensor
    that stays wild may be broken, so it makes the filter start anew again only after 10 likely readings in a row.
    """

    def __init__(self, filters: int, sensors: int):
        self._wild, self._likely = np.zeros((filters, sensors), int), np.zeros((filters, sensors), int)
        self._armed = np.ones((filters, sensors), bool)
        # Whether nothing is being counted, so that an update without a wild reading changes nothing.
        self.calm = True

    def lost(self, wild: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Whether each filter (B,) is lost, given which sensors (B, S) were measured now and which of them were wild."""
        likely = measured & ~wild
        self._wild = np.where(wild, self._wild + 1, np.where(measured, 0, self._wild))
        self._likely = np.where(likely, self._likely + 1, np.where(measured, 0, self._likely))
        self._armed |= self._likely >= _PATIENCE
        found = (self._wild >= _PATIENCE) & self._armed
        self._armed &= ~found
        self._wild = np.where(found, 0, self._wild)
        self.calm = bool(self._armed.all()) and not self._wild.any()
        return np.asarray(found.any(-1))


class TrainingGate:
    """The gate of B filters in training.

    sensors: id of the sensor of each channel, (ny,).
    scale: spread of wild readings by channel, (ny,). share: of readings that are wild.
    feet: for each channel the foot whose velocity it is, if any. One that slips does not make the filter start anew.
    """

    def __init__(
        self, filters: int, sensors: np.ndarray, scale: np.ndarray, share: float, feet: Sequence[FootContact | None]
    ):
        self._members = [np.flatnonzero(sensors == s) for s in dict.fromkeys(sensors.tolist())]
        mine = [feet[here[0]] for here in self._members]
        self._scale, self._foot = scale, np.array([foot is not None for foot in mine])
        self._shares = [share if foot is None else 1 - foot.gate for foot in mine]
        self._patience = Patience(filters, len(self._members))

    def update(
        self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Channels (B, ny) that pass, what the others cost (B,), and which filters (B,) are lost.

        innovation: (B, ny). spread: its covariance, (B, ny, ny). seen: measured channels, (B, ny).
        """
        passed, penalty, wild, measured = seen.copy(), np.zeros(len(seen)), [], []
        feet, told = np.zeros(seen.shape[1], bool), False
        for here, foot in zip(self._members, self._foot, strict=True):
            feet[here] = foot
        order = np.argsort(self._foot, kind="stable")
        for i in order:
            here, share, foot = self._members[i], self._shares[i], self._foot[i]
            mine = seen[:, here]
            if foot and not told:
                told = True
                innovation, spread = beside(np.where(seen, innovation, 0.0), spread, passed & ~feet)
            e = np.where(mine, innovation[:, here], 0.0)
            if len(here) == 1:
                s = np.where(mine[:, 0], spread[:, here[0], here[0]], 1.0)
                inside = 0.5 * (e[:, 0] ** 2 / s + np.log(s))
            else:
                s = np.where(mine[:, :, None] & mine[:, None, :], spread[:, here[:, None], here], np.eye(len(here)))
                inside = 0.5 * (np.sum(e * np.linalg.solve(s, e[..., None])[..., 0], -1) + np.linalg.slogdet(s)[1])
            each = 0.5 * (e / self._scale[here]) ** 2 + np.log(self._scale[here])
            outside = np.sum(np.where(mine, each, 0.0), -1) - (np.log(share) if share else -np.inf)
            bad = mine.any(-1) & (outside < inside)
            passed[:, here] &= ~bad[:, None]
            penalty += np.where(bad, outside, 0.0)
            wild.append(bad)
            measured.append(mine.any(-1))
        bad, seen_ = np.stack(wild, -1), np.stack(measured, -1)
        return passed, penalty, self._patience.lost(bad & ~self._foot[order], seen_)


class RuntimeGate:
    """The gate of one filter at run time.

    share: of right readings that pass, such as 0.9999. sensors: name of the sensor of each channel, (ny,).
    contacts: with feet; they have shares of their own, and one that slips does not make the filter start anew.
    """

    def __init__(self, share: float, sensors: Sequence[str], contacts: ContactReadings | None = None):
        self.names = tuple(dict.fromkeys(sensors))
        self._members = [np.flatnonzero([name == s for s in sensors]) for name in self.names]
        own = [np.nan] * len(sensors) if contacts is None else contacts.share.tolist()
        self.foot = np.array([bool(np.isfinite(own[here[0]])) for here in self._members])
        self._feet = np.isfinite(own)
        self._slipping = np.array([own[here[0]] < 1 for here in self._members])
        self.limits = [
            quantiles(own[here[0]] if foot else share, len(here))
            for here, foot in zip(self._members, self.foot, strict=True)
        ]
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = dict.fromkeys(self.names, 0)
        self._patience = Patience(1, len(self.names))

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

    def count(self, wild: list[bool], seen: np.ndarray) -> bool:
        """Count the readings of an update, and return whether the filter is lost."""
        if self._patience.calm and not any(wild):
            return False
        for name, bad in zip(self.names, wild, strict=True):
            self.counts[name] += bad
        return bool(self._patience.lost(np.array([wild]) & ~self.foot, self._measured(seen)[None])[0])
