"""Fisher information of runs that are not recorded yet, under the likelihood of `dso identify`, and what it is worth.

The information is that of the windows of `WindowedIdentification`: noise scales are known, and the start state of each window
is estimated from that window, so that it takes its share of the information.
"""

import numpy as np

from dso_robotics.core.method.normal import Normal
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot.prediction import Prediction

AIMS = ("d", "a", "e", "widest", "halve")
# Information of a number that nothing is known about: a standard deviation of this many of its sizes.
UNKNOWN = 100.0


def run_information(
    vector: ParameterVector,
    windows: Windows,
    prediction: Prediction,
    z: np.ndarray,
    start: np.ndarray,
    sigma: np.ndarray,
    runs: int,
) -> np.ndarray:
    """Information (runs, n, n) of each of `runs` rollouts about z (n,), in the units of z, without priors.

    windows: those of all runs, with any measured values where a channel is measured. start: (B, nq+nv+na), the states at their
    beginnings. sigma: (C,) noise scales of the channels. NaN for a run in which a simulation diverges.
    """
    problem = WindowedIdentification(vector, windows, prediction, sigma=sigma, learn_noise=False)
    blocks = Normal(problem, z, start, vector.scale).block_information()
    found = np.zeros((runs, vector.size, vector.size))
    np.add.at(found, windows.rollout, blocks)
    return (found + np.swapaxes(found, 1, 2)) / 2


def without(information: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Information (..., k, k) about the coordinates `keep` (n,), a mask, when the others of (..., n, n) are unknown too."""
    if keep.all():
        return information
    inner, rest = information[..., keep, :][..., keep], information[..., ~keep, :][..., ~keep]
    across = information[..., keep, :][..., ~keep]
    scale = np.einsum("...ii->...i", rest).max(-1, initial=1e-30)[..., None, None]
    solved = np.linalg.solve(rest + 1e-12 * scale * np.eye(rest.shape[-1]), np.swapaxes(across, -1, -2))
    return inner - across @ solved


def covariance(information: np.ndarray) -> np.ndarray:
    """Covariance (..., n, n) of information (..., n, n) in coordinates over their sizes. What nothing shows gets UNKNOWN."""
    values, vectors = np.linalg.eigh((information + np.swapaxes(information, -1, -2)) / 2)
    return (vectors / np.maximum(values, UNKNOWN**-2)[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def score(aim: str, spread: np.ndarray, interest: np.ndarray) -> np.ndarray:
    """Logarithm (...) of a typical standard deviation, in sizes, of a covariance (..., n, n); the lower the better.

    d: geometric mean of the axes of the ellipsoid of confidence. a: root mean square of the standard deviations. e: its longest
    axis. widest, halve: largest standard deviation. interest: the coordinates (n,) that count; the others are unknown too.
    """
    part = spread[..., interest, :][..., interest]
    if aim == "d":
        return np.linalg.slogdet(part)[1] / (2 * part.shape[-1])
    if aim == "a":
        return 0.5 * np.log(np.einsum("...ii->...", part) / part.shape[-1])
    if aim == "e":
        return 0.5 * np.log(np.linalg.eigvalsh(part)[..., -1])
    return 0.5 * np.log(np.einsum("...ii->...i", part).max(-1))
