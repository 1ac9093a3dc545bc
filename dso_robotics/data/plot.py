"""A plot of a log: every channel over time, one colour for each rollout."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Array, Rollout
from dso_robotics.errors import DsoError

_MOST_ROLLOUTS = 10
_MOST_CHANNELS = 40
_FORMATS = (".png", ".svg", ".pdf")
_POWER = re.compile(r"\$\\mathdefault\{[-−\d.e+^{} ]*(\\times)?[-−\d.^{} ]*\}\$")


def plot_log(log: Log, path: str | Path) -> None:
    """Draw `log` into the file `path` (PNG, SVG or PDF): a row for each channel, time from each rollout's start [s].

    At most the first ten rollouts and the first forty channels are drawn; the title says how many. Samples that were not
    measured leave gaps. Raises DsoError for another kind of file or a folder that is not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise DsoError(f"{path}: a plot is written as {', '.join(_FORMATS)}; choose one of these endings.")
    # Figure without pyplot, which would choose a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rollouts = log.rollouts[:_MOST_ROLLOUTS]
    channels = _channels(rollouts)
    rows = list(channels.items())[:_MOST_CHANNELS]
    figure = Figure(figsize=(10, 1.3 + 1.35 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0] if rows else []
    for axis, ((kind, name), unit) in zip(axes, rows, strict=True):
        for number, rollout in enumerate(rollouts):
            values = _values(rollout, kind, name)
            if values is None:
                continue
            time = rollout.time - rollout.time[0]
            line = {"color": f"C{number}", "linewidth": 0.8, "label": rollout.name}
            # Dots, because a line needs two adjacent measured samples and sparse channels have none.
            lone = np.isnan(values[1:-1]).mean() > 0.3 if len(values) > 2 else True
            if lone:
                axis.plot(time, values, ".", markersize=2, **line)
            elif kind == "ctrl":
                axis.step(time, values, where="post", **line)
            else:
                axis.plot(time, values, **line)
        axis.set_ylabel(f"{name}\n[{unit or '?'}]", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3, linewidth=0.5)
        axis.margins(x=0.01)
    if len(axes):
        axes[-1].set_xlabel("time from the start of the rollout [s]", fontsize=8)
        lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        look = {"loc": "outside lower center", "ncols": 5, "fontsize": 8, "title_fontsize": 8}
        figure.legend(lines.values(), lines.keys(), title="rollout", **look)
    hidden = [f"{len(rollouts)} of {len(log.rollouts)} rollouts"] if len(log.rollouts) > len(rollouts) else []
    hidden += [f"{len(rows)} of {len(channels)} channels"] if len(channels) > len(rows) else []
    figure.align_ylabels()
    figure.suptitle(Path(log.label).name + (f" ({', '.join(hidden)})" if hidden else ""), fontsize=10)
    without_mathematics(figure)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130)


def without_mathematics(figure: Any) -> None:
    """Let matplotlib show a `$` in every text of `figure` as it is; numbers at axes keep their powers of ten."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if not _POWER.fullmatch(text.get_text()):
            text.set_parse_math("$" not in text.get_text())


def _channels(rollouts: tuple[Rollout, ...]) -> dict[tuple[str, str], str]:
    """Maps (kind, channel) to unit, over all rollouts, in order of appearance."""
    found: dict[tuple[str, str], str] = {}
    for kind, prefix in (("ctrl", "ctrl"), ("sensor", "sensor")):
        for rollout in rollouts:
            names, units = getattr(rollout, f"{prefix}_names"), getattr(rollout, f"{prefix}_units")
            for name, unit in zip(names, units, strict=True):
                found.setdefault((kind, name), unit)
    return found


def _values(rollout: Rollout, kind: str, name: str) -> Array | None:
    if kind == "ctrl":
        return rollout.control(name) if name in rollout.ctrl_names else None
    return rollout.sensor(name) if name in rollout.sensor_names else None
