"""Whether a training of episodes had come to rest when it ended, from the looks at episodes on the way."""

import numpy as np

# The last part of the iterations may gain this share of the whole improvement.
_LAST, _GAIN = 0.2, 0.05


def settled(iteration: np.ndarray, cost: np.ndarray, first: float, iterations: int) -> str:
    """Empty if a training came to rest, else what speaks against it.

    iteration, cost: of each look (L,). first: the cost before the training. iterations: that were done.

    It came to rest if it lowered the cost, and if the last fifth of the iterations brought at most a twentieth of that.
    """
    known = np.isfinite(cost)
    iteration, cost = np.asarray(iteration)[known], np.asarray(cost, float)[known]
    best = float(cost.min()) if len(cost) else np.inf
    if not best < first:
        return "no look at an episode found a lower cost than before the training"
    early = cost[iteration <= (1 - _LAST) * iterations]
    before = min(float(early.min()), first) if len(early) else first
    share = (before - best) / (first - best)
    if share <= _GAIN:
        return ""
    return (
        f"the last fifth of the iterations brought {100 * share:.0f}% of the improvement, so more `iterations` may lower the "
        "cost further"
    )
