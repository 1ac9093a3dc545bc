"""The report of an identification: one HTML file that opens offline, made from run.h5 alone."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from dso_robotics.data.run_file import read_run
from dso_robotics.data.split import PART_NAMES
from dso_robotics.errors import DsoError
from dso_robotics.report import posterior as posteriors
from dso_robotics.report import quantity as q
from dso_robotics.report.glimpse import Glimpse
from dso_robotics.report.identify_charts import (
    convergence_charts,
    correlation_cells,
    interval_bar,
    residual_charts,
    trace_charts,
)
from dso_robotics.report.page import Charts, write_page
from dso_robotics.report.residual import verdict, whiteness
from dso_robotics.report.study_text import file_name, words
from dso_robotics.report.trace import Trace, read_traces

# Correlations above this are listed; the study warns of the strongest.
_STRONG = 0.9
_MOST_PAIRS = 10
# Charts of measured and predicted channels over all runs together.
_MOST_CHARTS = 800
# Channels that are shown at first.
_FIRST = 12


def write_report(folder: Path, *, video: bool = False, figures: bool = False) -> Path:
    """Draw the run in `folder`/run.h5 as `folder`/report.html; return its path.

    With `video`, and if an OpenGL works, the page shows a few seconds of motion. `figures` writes PNG files of all charts to
    `folder`/figures too, which takes matplotlib some seconds.

    Raises:
      DsoError: run.h5 is missing, damaged, or of a run that has not finished; or the folder is not writable.
    """
    folder = Path(folder)
    tree, study, mjcf = read_run(folder / "run.h5")
    if tree.get("status") != "finished" or "summary" not in tree:
        raise DsoError(
            f"{folder / 'run.h5'}: this run has not finished, so there is nothing to report; continue it with --resume."
        )
    summary = json.loads(tree["summary"])
    with Glimpse(folder, wanted=video) as glimpse:
        page = _Page(tree, study, summary, mjcf, glimpse)
    values = {"page": page, "s": summary, "interval": q.interval, "parts": PART_NAMES}
    path = write_page(folder, "identification.html.jinja", **values)
    if figures:
        from dso_robotics.report.identify_figures import write_figures

        write_figures(folder / "figures", tree, summary, page.parts, page.whiteness, page.shown)
    return path


class _Page:
    """The contents of the template: figures, and sentences that need more than a number."""

    def __init__(
        self, tree: Mapping[str, Any], study: Mapping[str, Any], summary: Mapping[str, Any], mjcf: str, glimpse: Glimpse
    ):
        self._summary, self._study, self._mjcf = summary, study, mjcf
        self.glimpse = glimpse
        self.names = list(tree["names"])
        self.units = {name: noise["unit"] for name, noise in summary["noise"].items()}
        traces = read_traces(tree.get("traces", {}), summary["windows"]["rollouts"])
        self.parts = {part: mine for part in PART_NAMES if (mine := [t for t in traces if t.part == part])}
        self.parts = dict(sorted(self.parts.items()))
        channels = range(len(self.units))
        self.whiteness = {part: [whiteness(mine, c) for c in channels] for part, mine in self.parts.items()}
        self.correlation = np.atleast_2d(np.asarray(tree["correlation"], float))
        most = max(3, _MOST_CHARTS // max(1, len(self.units) * len(self.parts)))
        self.shown = {part: sorted(_chosen(mine, most)) for part, mine in self.parts.items()}
        self.left_out = sum(len(mine) - len(self.shown[part]) for part, mine in self.parts.items())
        drawn = sum(map(len, self.shown.values()))
        self.charts = Charts(len(self.units) * (2 * drawn + 6 * len(self.parts)) + 20)
        self.first = _FIRST
        self.history = [self.charts.add(chart) for chart in convergence_charts(tree["history"], self.names)]

    def traces(self, part: str) -> list[tuple[Trace, list[Markup]]]:
        """The runs of a part, each with a chart for each channel; no charts where it is not drawn."""
        found = []
        for i, trace in enumerate(self.parts[part]):
            charts = trace_charts(trace, self.units) if i in self.shown[part] else []
            # Of the run that is open at first, a few channels have a still picture.
            found.append((trace, [self.charts.add(one, picture=i == 0 and c < _FIRST) for c, one in enumerate(charts)]))
        return found

    def residuals(self, part: str) -> list[tuple[str, list[Markup]]]:
        """For each channel of a part its name and its charts of residuals."""
        rows = residual_charts(self.parts[part], self.units, self.whiteness[part])
        open_ = part == next(iter(self.parts))
        return [
            (name, [self.charts.add(chart, picture=open_ and c < _FIRST) for chart in row])
            for c, (name, row) in enumerate(zip(self.units, rows, strict=True))
        ]

    def bar(self, parameter: Mapping[str, Any]) -> Markup:
        """Start, value and interval of a parameter as a small picture."""
        return interval_bar(parameter)

    @property
    def cells(self) -> list[tuple[str, list[tuple[str, str, str]]]]:
        """Rows of the correlation matrix below its diagonal; empty if it is too large for a page."""
        return correlation_cells(self.correlation, self.names)

    @property
    def posterior(self) -> dict[str, Any]:
        """How the draws were made, in a sentence, and tables of numbers and bands, each with a heading."""
        found = self._summary["posterior"]
        text = posteriors.how(found).removeprefix("posterior, ").removeprefix("posterior: ")
        tables = [posteriors.parameter_rows(found)] if found.get("parameters") else []
        return {"how": text[:1].upper() + text[1:], "tables": [*tables, *filter(None, [posteriors.band_rows(found)])]}

    @property
    def model(self) -> str:
        """File name of the model and, if it differs, the name inside the model."""
        found = re.search(r"<mujoco\b[^>]*?\bmodel=\"([^\"]*)\"", self._mjcf[:10_000])
        file, name = file_name(self._study["model"]), html.unescape(found[1]) if found else ""
        return file if not name or name == Path(file).stem else f"{file} ({name})"

    @property
    def logs(self) -> str:
        """File names of the logs, in a sentence."""
        return q.listed([file_name(log) for log in self._study["logs"]])

    @property
    def compared(self) -> str:
        """What was compared with the recordings, in a few words."""
        if self._study.get("fit") == "torque":
            return "the forces of inverse dynamics, without a simulation"
        windows = self._summary["windows"]
        return f"{q.counted(windows['train'], 'window')} of {windows['seconds']:g} s"

    @property
    def accuracy(self) -> str:
        """The prediction error in one sentence."""
        part = "hold_out" if self._summary["fit"]["hold_out"] else "train"
        fit = self._summary["fit"][part]
        runs = len(self._summary["windows"]["rollouts"].get(part, ()))
        errors = [f"{q.quantity(entry['rmse'], entry['unit'], 3)} in {name}" for name, entry in fit.items()]
        shares = [v for e in fit.values() if (v := e["nrmse_percent"]) is not None and np.isfinite(v) and v < 1e6]
        ends = dict.fromkeys(q.percent(end(shares)) for end in (min, max)) if shares else {}
        spread = f" ({' to '.join(ends)} of a channel's spread)" if ends else ""
        seconds = self._summary["windows"]["score_seconds"]
        ahead = (
            f"predicting open loop for {seconds:g} s at a time" if seconds else "reading the sensors of recorded states"
        )
        how = f"the model, {ahead}, is off by"
        where = (
            "On {} it was not fitted to" if part == "hold_out" else "No run was held out. On the {} it was fitted to"
        )
        return f"{where.format(q.counted(runs, 'run'))}, {how} {q.listed(errors)}{spread}."

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run."""
        return [self.plain(text) for text in self._summary["warnings"]]

    @property
    def pairs(self) -> list[tuple[str, str, float]]:
        """The most strongly correlated pairs, strongest first."""
        upper = np.triu(np.abs(np.nan_to_num(self.correlation)), 1)
        found = np.argwhere(upper > _STRONG)
        found = sorted(found.tolist(), key=lambda pair: -upper[pair[0], pair[1]])[:_MOST_PAIRS]
        return [(self.names[i], self.names[j], float(self.correlation[i, j])) for i, j in found]

    @property
    def nearly_zero(self) -> list[str]:
        """Parameters whose 95% interval reaches zero."""
        return [
            path
            for path, p in self._summary["parameters"].items()
            if p["low95"] is not None and p["high95"] is not None and p["low95"] <= 0 <= p["high95"]
        ]

    @property
    def versions(self) -> dict[str, str]:
        """Versions recorded by the run."""
        return {"dso-robotics": self._summary["version"], **self._summary.get("versions", {})}

    @property
    def study(self) -> str:
        """The study as given, one line for each key, files without their folders."""
        shown = {key: value for key, value in self._study.items() if key not in ("command", "model", "logs", "free")}
        lines = [
            f"model = {file_name(self._study['model'])}",
            f"logs = {', '.join(map(file_name, self._study['logs']))}",
        ]
        lines += [f"{key} = {words(value)}" for key, value in shown.items() if value is not None]
        return "\n".join([*lines, *(f"free: {words(free)}" for free in self._study["free"])])

    def share(self, parameter: Mapping[str, Any]) -> str:
        """Half the 95% interval over the value."""
        low, high, value = parameter["low95"], parameter["high95"], parameter["value"]
        return q.percent(50 * abs(high - low) / abs(value)) if value and None not in (low, high) else q.MISSING

    def verdict(self, part: str) -> str:
        """Which channels have residuals that look like noise alone."""
        return verdict(list(self.units), self.whiteness[part])

    def plain(self, text: str) -> str:
        """`text` with the study's files named without their folders."""
        for path in sorted((self._study["model"], *self._study["logs"]), key=len, reverse=True):
            text = text.replace(path, file_name(path))
        return text


def _chosen(traces: Sequence[Trace], most: int) -> set[int]:
    """Indices of the traces to draw: all if there are few, otherwise some from the best to the worst."""
    if len(traces) <= most:
        return set(range(len(traces)))
    errors = np.array([t.rmse for t in traces])
    spread = np.nanmean(np.where(np.isfinite(errors), errors, np.nan), 0)
    order = np.argsort(np.nansum(errors / np.where(spread > 0, spread, np.inf), 1))
    return {int(order[i]) for i in np.round(np.linspace(0, len(order) - 1, most)).astype(int)}
