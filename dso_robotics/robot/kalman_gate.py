"""The gates of a Kalman filter: which sensors' readings are taken for wild, and when the filter itself is taken for lost.

In training a reading is wild if a wide distribution explains it better than the filter does. At run time it is wild if its
squared innovation exceeds a chi-squared quantile.
"""

from collections.abc import Sequence

import numpy as np

from dso_robotics.robot.innovation_gate import chi_squared_quantile

# After this many wild readings of a sensor in a row the estimate is taken for lost.
_PATIENCE = 10


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
    """

    def __init__(self, filters: int, sensors: np.ndarray, scale: np.ndarray, share: float):
        self._members = [np.flatnonzero(sensors == s) for s in dict.fromkeys(sensors.tolist())]
        self._scale, self._share = scale, share
        self._patience = Patience(filters, len(self._members))

    def update(
        self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Channels (B, ny) that pass, what the others cost (B,), and which filters (B,) are lost.

        innovation: (B, ny). spread: its covariance, (B, ny, ny). seen: measured channels, (B, ny).
        """
        passed, penalty, wild, measured = seen.copy(), np.zeros(len(seen)), [], []
        for here in self._members:
            mine = seen[:, here]
            e = np.where(mine, innovation[:, here], 0.0)
            if len(here) == 1:
                s = np.where(mine[:, 0], spread[:, here[0], here[0]], 1.0)
                inside = 0.5 * (e[:, 0] ** 2 / s + np.log(s))
            else:
                s = np.where(mine[:, :, None] & mine[:, None, :], spread[:, here[:, None], here], np.eye(len(here)))
                inside = 0.5 * (np.sum(e * np.linalg.solve(s, e[..., None])[..., 0], -1) + np.linalg.slogdet(s)[1])
            each = 0.5 * (e / self._scale[here]) ** 2 + np.log(self._scale[here])
            outside = np.sum(np.where(mine, each, 0.0), -1) - np.log(self._share)
            bad = mine.any(-1) & (outside < inside)
            passed[:, here] &= ~bad[:, None]
            penalty += np.where(bad, outside, 0.0)
            wild.append(bad)
            measured.append(mine.any(-1))
        return passed, penalty, self._patience.lost(np.stack(wild, -1), np.stack(measured, -1))


class RuntimeGate:
    """The gate of one filter at run time.

    share: of right readings that pass, such as 0.9999. sensors: name of the sensor of each channel, (ny,).
    """

    def __init__(self, share: float, sensors: Sequence[str]):
        self.names = tuple(dict.fromkeys(sensors))
        self._members = [np.flatnonzero([name == s for s in sensors]) for name in self.names]
        self._limits = np.array([np.inf, *(chi_squared_quantile(share, k) for k in range(1, len(sensors) + 1))])
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.counts = dict.fromkeys(self.names, 0)
        self._patience = Patience(1, len(self.names))

    def wild(self, innovation: np.ndarray, spread: np.ndarray, seen: np.ndarray) -> list[bool]:
        """Whether each sensor's reading is wild, given innovations (ny,), their covariance (ny, ny) and which were measured."""
        found = []
        for here in self._members:
            mine = here[seen[here]]
            if len(mine) == 1:
                c = mine[0]
                found.append(bool(innovation[c] ** 2 > self._limits[1] * spread[c, c]))
            elif len(mine):
                e = innovation[mine]
                found.append(bool(e @ np.linalg.solve(spread[mine[:, None], mine], e) > self._limits[len(mine)]))
            else:
                found.append(False)
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
        measured = np.array([[bool(seen[here].any()) for here in self._members]])
        return bool(self._patience.lost(np.array([wild]), measured)[0])
