"""Progress as scalars of TensorBoard."""

import math
from pathlib import Path

from dso_robotics.extras import require
from dso_robotics.progress.report import Progress


class TensorBoard:
    """A listener that writes cost, rate and other numbers of each phase by iteration; `tensorboard --logdir FOLDER` shows them.

    Raises:
      MissingExtra: the package tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path):
        require("tensorboard", "a log for TensorBoard")
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def __call__(self, news: Progress) -> None:
        """Write one report."""
        if news.event != "at":
            return
        numbers = {"cost": news.cost, "episode_cost": news.episode_cost, "rate": news.rate, **news.values}
        for name, value in numbers.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{news.stage}/{name}".replace(" ", "_"), value, news.iteration)

    def close(self) -> None:
        """Write what is not on disk yet."""
        self._writer.close()
