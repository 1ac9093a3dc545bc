"""Bands of the prediction on recordings: what the numbers, the start state and the noise add, and whether the bands hold.

A window's first samples place the robot; the rest is predicted from there, with numbers drawn from the posterior. A band is the
mean of the predictions and 1.96 standard deviations to both sides.
"""

import dataclasses
from typing import Any

import numpy as np

from dso_robotics.core.covariance import Z95
from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings, StartError
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.state import Tangent
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction

# Share of a window's samples that place the robot, and the fewest.
_LEAD, _FEWEST = 0.25, 4
# Draws of the numbers, and the most windows that are predicted.
_DRAWS, _WINDOWS = 60, 40
# Bands that hold so little are too narrow, if it is more than chance.
_TOO_FEW, _CHANCE = 0.9, 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Bands:
    """Bands of W windows with S samples of C channels; NaN before the robot is placed and where nothing was measured.

    time: (W, S) [s] in the recording's clock; recording: (W,) names.
    measured, mean: (W, S, C).
    by_numbers, by_start, by_noise: (W, S, C) standard deviations of the three parts.
    lost: share of the predictions that diverged.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    recording: tuple[str, ...]
    time: np.ndarray
    measured: np.ndarray
    mean: np.ndarray
    by_numbers: np.ndarray
    by_start: np.ndarray
    by_noise: np.ndarray
    lost: float

    @property
    def half(self) -> np.ndarray:
        """Half-width (W, S, C) of the 95% bands."""
        return Z95 * np.sqrt(self.by_numbers**2 + self.by_start**2 + self.by_noise**2)

    @property
    def inside(self) -> np.ndarray:
        """Whether each sample (W, S, C) lies in its band: 1, 0, or NaN."""
        away = np.abs(self.measured - self.mean)
        return np.where(np.isfinite(away), (away <= self.half).astype(float), np.nan)

    def as_dict(self) -> dict[str, Any]:
        """By channel: coverage [%], its standard error over windows, half-width, and each part's share of the variance [%]."""
        found = {}
        for c, (name, unit) in enumerate(zip(self.channels, self.units, strict=True)):
            seen = np.isfinite(self.inside[..., c])
            if not seen.any():
                continue
            per = np.array(
                [row[mine].mean() for row, mine in zip(self.inside[..., c], seen, strict=True) if mine.any()]
            )
            parts = [np.mean(part[..., c][seen] ** 2) for part in (self.by_numbers, self.by_start, self.by_noise)]
            whole = max(sum(parts), 1e-300)
            found[name] = {
                "covered_percent": float(100 * self.inside[..., c][seen].mean()),
                "error_percent": float(100 * per.std() / np.sqrt(max(len(per), 1))),
                "half_width": float(np.sqrt(np.mean(self.half[..., c][seen] ** 2))),
                "unit": unit,
                **dict(
                    zip(
                        ("numbers_percent", "start_percent", "noise_percent"),
                        [100 * p / whole for p in parts],
                        strict=True,
                    )
                ),
            }
        return found


def bands(
    problem: WindowedIdentification,
    z: np.ndarray,
    sigma: np.ndarray,
    windows: Windows,
    *,
    robust: bool = False,
    seed: int = 0,
) -> Bands | None:
    """Bands on `windows` by draws of the numbers z (N, n) and the noise scales (N, R, C); None if no window is long enough.

    problem: of the fitted windows, whose noise scales place the robot.
    """
    vector, rng = problem.vector, np.random.default_rng(seed)
    windows = _chosen(windows)
    count = (windows.sample >= 0).sum(1)
    lead = np.maximum(np.ceil(_LEAD * count), _FEWEST)
    windows, lead = windows.only(count >= 2 * lead), lead[count >= 2 * lead]
    if not len(windows):
        return None
    place = np.arange(windows.sample.shape[1])[None] < lead[:, None]
    known = dataclasses.replace(windows, measured=np.where(place[..., None], windows.measured, np.nan))
    middle = np.clip(z.mean(0), vector.low, vector.high)
    placed = _placed(problem, vector, known, middle, robust)
    if placed is None:
        return None
    x, private, response = placed
    prediction, tangent = CPrediction(vector, windows), Tangent(vector.mj)
    values, vectors = np.linalg.eigh(private)
    factor = vectors * np.where(values < 1e6, np.sqrt(np.maximum(values, 0.0)), 0.0)[:, None]
    chosen = rng.permutation(len(z))[:_DRAWS]
    shape = windows.measured.shape
    sums, squares, apart, lost = np.zeros(shape), np.zeros(shape), np.zeros(shape), 0
    used, base = np.zeros(len(windows)), prediction.predict(middle, x)
    for m in chosen:
        moved = tangent.move(x, -response @ (z[m] - middle))
        plain = prediction.predict(z[m], moved) - base
        drawn = tangent.move(moved, np.einsum("bij,bj->bi", factor, rng.normal(size=values.shape)))
        whole = prediction.predict(z[m], drawn) - base
        sound = np.all(np.isfinite(plain) & np.isfinite(whole), axis=(1, 2))
        lost += int((~sound).sum())
        plain, whole = (np.where(sound[:, None, None], part, 0.0) for part in (plain, whole))
        sums, squares, apart, used = sums + plain, squares + plain**2, apart + (whole - plain) ** 2, used + sound
    n = np.maximum(used, 1)[:, None, None]
    mean = sums / n
    noise = _noise(sigma[chosen], problem, windows)
    hidden = place[..., None] | ~np.isfinite(windows.measured)
    channels = windows.channels
    numbers = np.sqrt(np.maximum(squares / n - mean**2, 0.0) * n / np.maximum(n - 1, 1))
    parts = [np.where(hidden, np.nan, part) for part in (base + mean, numbers, np.sqrt(apart / n), noise + 0.0 * mean)]
    time = windows.time[:, None] + windows.timestep * (windows.step + windows.share)
    return Bands(
        tuple(channels.sensor_names),
        tuple(channels.sensor_units),
        tuple(windows.rollouts[i].name for i in windows.rollout),
        np.where(windows.sample >= 0, time, np.nan),
        np.where(hidden, np.nan, windows.measured),
        *parts,
        lost=lost / max(len(chosen) * len(windows), 1),
    )


def _chosen(windows: Windows) -> Windows:
    """Some windows that do not overlap, evenly over all."""
    apart = np.concatenate([np.flatnonzero(windows.rollout == i)[::2] for i in range(len(windows.rollouts))])
    if len(apart) > _WINDOWS:
        apart = apart[np.unique(np.linspace(0, len(apart) - 1, _WINDOWS).round().astype(int))]
    return windows.only(np.isin(np.arange(len(windows)), apart))


def _placed(
    problem: WindowedIdentification, vector: ParameterVector, known: Windows, z: np.ndarray, robust: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Start states (W, nx) from the first samples, their covariance (W, k, k), and minus their derivative by z (W, k, n)."""
    x = start.guess(known, vector.mj, vector.signals(z), robust=robust)
    fixed: dict[str, Any] = {"sigma": problem.pooled_sigma(), "learn_noise": False, "likelihood": problem.likelihood}
    if known.single:
        return None
    placing = WindowedIdentification(vector, known, CPrediction(vector, known), **fixed)
    try:
        found = solve(placing, z, x, low=z, high=z, scale=vector.scale, settings=Settings(cost_tolerance=1e-6))
    except StartError:
        return None
    return found.x, found.private, found.response


def _noise(sigma: np.ndarray, problem: WindowedIdentification, windows: Windows) -> np.ndarray:
    """Noise scale (W, 1, C) of each window: of its recording where that was fitted, else of all fitted ones."""
    fitted = [r.name for r in problem.windows.rollouts]
    own = np.sqrt(np.mean(sigma**2, axis=0))
    columns = [problem.windows.channels.sensor_names.index(name) for name in windows.channels.sensor_names]
    rows = [own[fitted.index(r.name)] if r.name in fitted else np.sqrt(np.mean(own**2, 0)) for r in windows.rollouts]
    return np.array(rows)[windows.rollout][:, None, columns]


def told(part: str, found: Bands) -> list[str]:
    """What is wrong with the bands of a part, "hold_out" or "train"; nothing if they hold."""
    where = "held-out" if part == "hold_out" else "fitted"
    short = [
        f"{name} {row['covered_percent']:.0f}%"
        for name, row in found.as_dict().items()
        if row["covered_percent"] < 100 * _TOO_FEW and row["covered_percent"] + _CHANCE * row["error_percent"] < 95.0
    ]
    if not short:
        return []
    return [
        f"The 95% bands of the prediction are too narrow on {where} runs: they hold {', '.join(short)} of the samples. The "
        "posterior takes the model for exact; something that it lacks moves the robot too. Believe the intervals of the table "
        "rather than the posterior, and look at the residuals in the report."
    ]
