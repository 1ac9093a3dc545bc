"""Ties between consecutive windows: each starts where the previous one ends, up to a jump of a known or learned scale.

e_b = (predicted end of window b) - (start state of window b+1). This is a difference in the tangent space of the state, and
it is normal with standard deviation s. With infinite s the windows are independent, each with its own start state. With
s = 0 they form one long window. In between, this is multiple shooting with process noise at the window boundaries.
"""

import numpy as np

from dso_robotics.core.method.tridiagonal import Tridiagonal
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.physics.state import Tangent

# The setting that means the scale is estimated.
LEARNED = "learned"
# Below this scale the tie is so stiff that the search converges slowly, and the result equals that of one long window.
LEAST_JUMP = 0.01
# Largest learned scale, in units of the standard deviation of the start state given its window alone.
_MOST = 1e3
# Relative to the size of a window's Hessian. Keeps the variance of unobserved unknowns finite.
_RIDGE = 1e-12


class Continuity:
    """The jumps between consecutive windows, and their scale.

    setting: the scale, or "learned". The unit is one standard deviation of a start state given its window alone (the median
      over a recording's windows, by component of the state). "learned" is one scale by component, common to all
      recordings, at the maximum of the likelihood with the start states integrated out.
    scale: (R, k), set at the first linearisation unless given; ValueError if one that is given is no such scale.
    tied: (B,) windows that have a next window.
    """

    def __init__(self, windows: Windows, tangent: Tangent, setting: float | str, *, scale: np.ndarray | None = None):
        self.windows, self.tangent, self.setting = windows, tangent, setting
        self.tied = np.isfinite(windows.handover)
        self.scale, self._given = scale, scale is not None
        shape = (len(windows.rollouts), tangent.size)
        if scale is not None and (np.shape(scale) != shape or not np.all(np.asarray(scale) > 0)):
            raise ValueError(f"the scale of the jumps is not of shape {shape} and positive")
        if not self.tied.any():
            raise DsoError(
                "--continuity: no window follows another without a gap, so there is nothing to tie; give a shorter --window, "
                "or leave --continuity out."
            )

    @property
    def learned(self) -> bool:
        """Whether the scale is estimated."""
        return self.setting == LEARNED

    def _of_windows(self) -> np.ndarray:
        assert self.scale is not None
        return self.scale[self.windows.rollout]

    def jump(self, end: np.ndarray, start: np.ndarray) -> np.ndarray:
        """e (B, k) from predicted ends and start states (B, nq+nv+na); zero where there is no next window."""
        e = np.zeros((len(start), self.tangent.size))
        rows = np.flatnonzero(self.tied)
        e[rows] = self.tangent.difference(start[rows + 1], end[rows])
        return e

    def residual(self, end: np.ndarray, start: np.ndarray) -> np.ndarray:
        """`jump` divided by its scale (B, k)."""
        return self.jump(end, start) / self._of_windows()

    def linearize(
        self, end: np.ndarray, start: np.ndarray, by_z: np.ndarray, by_x: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`residual` with derivatives by z, by the window's own start and by the next start, from those of the ends."""
        here, there = self._slopes(end, start)
        weight = np.where(self.tied[:, None], 1 / self._of_windows(), 0.0)[..., None]
        mine = np.where(self.tied[:, None, None], by_z, 0.0), np.where(self.tied[:, None, None], by_x, 0.0)
        return self.residual(end, start), weight * (here @ mine[0]), weight * (here @ mine[1]), weight * there

    def _slopes(self, end: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (B, k, k) of `jump` by the end's tangent and by the next start's."""
        k = self.tangent.size
        here = np.tile(np.eye(k), (len(start), 1, 1))
        if self.tangent.flat:
            return here, -here
        there, h, rows = -here, 1e-6, np.flatnonzero(self.tied)
        e = self.jump(end, start)[rows]
        for j in range(k):
            change = np.tile(h * np.eye(k)[j], (len(rows), 1))
            moved = self.tangent.move(end[rows], change)
            here[rows, :, j] = (self.tangent.difference(start[rows + 1], moved) - e) / h
            moved = self.tangent.move(start[rows + 1], change)
            there[rows, :, j] = (self.tangent.difference(moved, end[rows]) - e) / h
        return here, there

    def begin(self, own: np.ndarray, start: np.ndarray) -> None:
        """Set the scale from the windows' own Hessians (B, k, k) of their start states (B, nq+nv+na), unless it is known."""
        if self.scale is None:
            self.scale = self._unit(own, start) * (1.0 if self.learned else float(self.setting))

    def reweight(self, latest: tuple[np.ndarray, np.ndarray] | None, end: np.ndarray, start: np.ndarray) -> float:
        """Update the scale and return its relative change.

        `latest` holds two arrays (B, k, k) of the latest linearisation: the windows' Hessians from their own sensors, and the
        derivatives of the ends' tangents by the starts'. A given scale is kept once, so that a resumed search can use it.
        """
        assert self.scale is not None
        if self._given or latest is None:
            self._given = False
            return 0.0
        own, by_x = latest
        unit = self._unit(own, start)
        if not self.learned:
            new = unit * float(self.setting)
            change = float(np.max(np.abs(new / self.scale - 1)))
            self.scale = new
            return change
        open_, squares = self._open(own, by_x, end, start), self.jump(end, start)[self.tied] ** 2
        # MacKay's fixed point (1992): a jump counts to the extent that the data determine it, not the scale itself.
        known = np.clip(1 - open_[self.tied] / self._of_windows()[self.tied] ** 2, 1e-6, 1.0).sum(0)
        middle = np.exp(np.log(unit).mean(0))
        new = np.clip(np.sqrt(squares.sum(0) / known), LEAST_JUMP * middle, _MOST * middle)
        # A scale that the data barely determine need not have converged.
        change = float(np.max(np.abs(new / self.scale - 1) * known / self.tied.sum()))
        self.scale = np.tile(new, (len(self.scale), 1))
        return change

    def _unit(self, own: np.ndarray, start: np.ndarray) -> np.ndarray:
        """One standard deviation (R, k) of a start state given its window alone, for each recording."""
        deviation = np.sqrt(np.einsum("bii->bi", np.linalg.inv(_ridged(own))))
        # A component that a window does not observe is limited to the range of the motion.
        reach = self.tangent.difference(start[:1], start)
        reach = np.maximum(np.abs(reach - np.median(reach, axis=0)).max(0), 1e-9)
        recordings = range(len(self.windows.rollouts))
        middle = [np.median(deviation[self.windows.rollout == r], axis=0) for r in recordings]
        return np.minimum(np.array(middle), reach)

    def _open(self, own: np.ndarray, by_x: np.ndarray, end: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Variance (B, k) of each jump given the data, at the current scale."""
        here, there = self._slopes(end, start)
        weight = np.where(self.tied[:, None], self._of_windows() ** -2, 0.0)[..., None]
        a = here @ np.where(self.tied[:, None, None], by_x, 0.0)
        diagonal = _ridged(own) + np.swapaxes(a, 1, 2) @ (weight * a)
        diagonal[1:] += (np.swapaxes(there, 1, 2) @ (weight * there))[:-1]
        at, between = Tridiagonal(diagonal, np.swapaxes(a, 1, 2) @ (weight * there)).inverse()
        after = np.concatenate([at[1:], np.zeros_like(at[:1])])
        cross = np.einsum("bij,bjk,bik->bi", a, between, there)
        both = np.einsum("bij,bjk,bik->bi", a, at, a) + np.einsum("bij,bjk,bik->bi", there, after, there)
        return np.where(self.tied[:, None], both + 2 * cross, 0.0)

    def log_scale(self) -> float:
        """Sum of the logarithms of the scales of all jumps."""
        return float(np.log(self._of_windows()[self.tied]).sum())


def _ridged(own: np.ndarray) -> np.ndarray:
    size = np.maximum(np.einsum("bii->bi", own), _RIDGE * max(float(own.max(initial=0.0)), 1e-300))
    return own + _RIDGE * size[..., None] * np.eye(own.shape[-1])
