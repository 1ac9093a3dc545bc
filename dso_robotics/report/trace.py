"""One rollout and its prediction, read from a run file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# With more gaps than this between samples, dots are drawn instead of a line.
_SPARSE = 0.3


@dataclass(frozen=True, eq=False)
class Trace:
    """A rollout and its prediction.

    part: "train" or "hold_out".
    name: name of the rollout.
    time: (T,) [s].
    measured: (T, C), NaN where not measured.
    predicted: (T, C), NaN for samples outside every window.
    starts: (W,) [s], starts of the windows.
    """

    part: str
    name: str
    time: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    starts: np.ndarray

    @property
    def interval(self) -> float:
        """Median time between samples [s]."""
        return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 1.0

    @property
    def window(self) -> np.ndarray:
        """Index (T,) of the window each sample belongs to; -1 before the first."""
        return np.searchsorted(np.sort(self.starts) - self.interval / 2, self.time, "right") - 1

    @property
    def residual(self) -> np.ndarray:
        """Predicted minus measured (T, C), NaN where a window starts because the two are set equal there."""
        residual = self.predicted - self.measured
        if len(residual):
            residual[np.diff(self.window, prepend=-1) != 0] = np.nan
        return residual

    @property
    def rmse(self) -> np.ndarray:
        """Root mean square residual by channel (C,), over all samples; NaN where there are none."""
        residual = self.residual
        count = np.isfinite(residual).sum(0)
        return np.sqrt(np.nansum(residual**2, 0) / np.where(count, count, np.nan))

    def sparse(self, channel: int) -> bool:
        """Whether the channel was measured so rarely that dots show it better than a line."""
        seen = np.isfinite(self.measured[:, channel])
        return bool(seen.any() and np.mean(~seen[seen.argmax() :]) > _SPARSE)


def read_traces(tree: Mapping[str, Any], order: Mapping[str, Sequence[str]]) -> list[Trace]:
    """The traces of a run file, held-out ones first. In each part, names listed in `order` are in that order."""
    found = []
    for part in ("hold_out", "train"):
        mine = tree.get(part, {})
        names = [name for name in order.get(part, ()) if name in mine]
        for name in [*names, *(name for name in mine if name not in names)]:
            entry = mine[name]
            columns = (np.asarray(entry[key], float) for key in ("time", "measured", "predicted", "starts"))
            found.append(Trace(part, name, *columns))
    return found
