"""The report of an estimator: one HTML file that opens offline, drawn from run.h5 alone."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from markupsafe import Markup

from dso_robotics.core.covariance import Z95
from dso_robotics.data.bundle import load_text
from dso_robotics.data.run_file import read_run
from dso_robotics.data.split import PART_NAMES
from dso_robotics.errors import DsoError
from dso_robotics.report import quantity as q
from dso_robotics.report.chart import Chart, Line
from dso_robotics.report.identify_charts import residual_charts
from dso_robotics.report.page import Charts, write_page
from dso_robotics.report.residual import verdict, whiteness
from dso_robotics.report.state_charts import degrees_of_freedom, shown_band, state_charts
from dso_robotics.report.study_text import file_name, study_text
from dso_robotics.report.table import noise_lines, smoother_lines, trust_lines
from dso_robotics.report.trace import Trace
from dso_robotics.studies import folder as folders

# Runs that are drawn, charts of them all, and charts that are shown at first.
_MOST_RUNS, _MOST_CHARTS, _FIRST = 12, 400, 8


def write_report(folder: Path, *, figures: bool = False) -> Path:
    """Draw the run in `folder`/run.h5 as `folder`/report.html; return its path.

    `figures` writes the charts as PNG files to `folder`/figures too, which takes matplotlib some seconds.

    Raises:
      DsoError: run.h5 is missing, damaged or of a run that has not finished; or the folder is not writable.
    """
    folder = Path(folder)
    tree, study, mjcf = read_run(folder / "run.h5")
    if tree.get("status") != "finished" or "summary" not in tree:
        raise DsoError(f"{folder / 'run.h5'}: this run has not finished, so there is nothing to report; run it again.")
    summary = json.loads(tree["summary"])
    model = load_text(mjcf, folder, source=str(folder / "run.h5"))
    names = [name or f"joint {i}" for i, name in enumerate(model.names("joint"))]
    page = _Page(tree, study, summary, model.mj, names)
    path = write_page(folder, "estimator.html.jinja", page=page, s=summary)
    if figures:
        from dso_robotics.report.chart_sheet import write_sheets

        write_sheets(folder / folders.FIGURES, page.sheets)
    return path


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run of the filter. columns: see `estimate_score.traces`."""

    part: str
    name: str
    columns: Mapping[str, np.ndarray]

    @property
    def trace(self) -> Trace:
        """As one window, of whose first sample nothing was known."""
        c = self.columns
        return Trace(self.part, self.name, c["time"], c["measured"], c["predicted"], c["time"][:1])


class _Page:
    """The contents of the template. sheets: all charts, by the name of a PNG file."""

    def __init__(
        self,
        tree: Mapping[str, Any],
        study: Mapping[str, Any],
        summary: Mapping[str, Any],
        model: mujoco.MjModel,
        names: Sequence[str],
    ):
        self._summary, self._study, self._mj, self._names = summary, study, model, names
        self.first = _FIRST
        self._units = {name: noise["unit"] for name, noise in next(iter(summary["fit"].values())).items()}
        runs = [
            _Run(part, name, {key: np.asarray(value, float) for key, value in trace.items()})
            for part in ("hold_out", "train")
            for name, trace in tree.get("traces", {}).get(part, {}).items()
        ]
        shown = runs[: max(1, min(_MOST_RUNS, _MOST_CHARTS // max(1, 4 * model.nv + len(self._units))))]
        self.left_out = len(runs) - len(shown)
        drawn = [(run, self._states(run), self._innovations(run)) for run in shown]
        history = _convergence(tree["history"])
        parts = {part: [run.trace for run in runs if run.part == part] for part in ("hold_out", "train")}
        parts = {part: mine for part, mine in parts.items() if mine}
        self.sheets: dict[str, list[Chart]] = {"convergence": history}
        for i, (_, states, innovations) in enumerate(drawn):
            self.sheets |= {f"states-{i}": states, f"innovations-{i}": innovations}
        lines = sum(len(chart.lines) + 1 for sheet in self.sheets.values() for chart in sheet)
        self.charts = Charts(lines + 8 * len(self._units) * len(parts))
        self.history = [self.charts.add(chart) for chart in history]
        self.runs = [
            (
                run.name,
                PART_NAMES[run.part],
                float(run.columns["time"][-1] - run.columns["time"][0]),
                *(
                    [self.charts.add(chart, picture=i == 0 and c < _FIRST) for c, chart in enumerate(charts)]
                    for charts in (states, innovations)
                ),
            )
            for i, (run, states, innovations) in enumerate(drawn)
        ]
        self.whiteness = [self._white(part, mine, i == 0) for i, (part, mine) in enumerate(parts.items())]

    def _white(self, part: str, traces: list[Trace], opened: bool) -> tuple[str, str, list[tuple[str, list[Markup]]]]:
        """Heading, verdict, and charts by channel of the innovations of a part."""
        statistics = [whiteness(traces, c) for c in range(len(self._units))]
        rows = residual_charts(traces, self._units, statistics)
        charts = [
            (name, [self.charts.add(chart, picture=opened and c < _FIRST) for chart in row])
            for c, (name, row) in enumerate(zip(self._units, rows, strict=True))
        ]
        return f"{PART_NAMES[part].capitalize()} runs", verdict(list(self._units), statistics), charts

    def _states(self, run: _Run) -> list[Chart]:
        c = run.columns
        if "state" not in c:  # of an earlier version
            return []
        return state_charts(
            self._mj,
            self._names,
            c["time"],
            c["state"],
            c["state_error"],
            c.get("state_std"),
            smoothed=c.get("smoothed"),
            smoothed_error=c.get("smoothed_error"),
            group=_group(run),
        )

    def _innovations(self, run: _Run) -> list[Chart]:
        c, charts = run.columns, []
        for k, (name, text) in enumerate(self._units.items()):
            error, band = c["measured"][:, k] - c["predicted"][:, k], Z95 * c["std"][:, k]
            band = shown_band(band, error)
            lines = [Line("95% as predicted", side, "measured", "band") for side in (-band, band)]
            lines.append(Line("innovation", error, run.part, "dots" if run.trace.sparse(k) else "line"))
            seen = error[np.isfinite(error)]
            remark = f"RMS {q.quantity(float(np.sqrt(np.mean(seen**2))), text, 3)}" if len(seen) else ""
            charts.append(Chart(name, c["time"], lines, "time [s]", text or "1", remark, group=_group(run)))
        return charts

    @property
    def model(self) -> str:
        """File name of the model."""
        return file_name(self._study["model"])

    @property
    def logs(self) -> str:
        """File names of the logs, in a sentence."""
        return q.listed([file_name(log) for log in self._study["logs"]])

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run."""
        return list(self._summary["warnings"])

    @property
    def trust(self) -> list[str]:
        """Whether errors shrink, and whether they are as large as the estimator claims."""
        return [" ".join(line.split()) for line in (*trust_lines(self._summary), *smoother_lines(self._summary))]

    @property
    def noises(self) -> list[str]:
        """The noises of a Kalman filter."""
        return noise_lines(self._summary)

    @property
    def fits(self) -> list[tuple[str, ...]]:
        """By part and channel, the error of the prediction and its coverage."""
        return [
            (name, PART_NAMES[part], q.number(e["rmse"]), q.unit(e["unit"]), q.percent(e["covered_percent"]))
            for part, channels in sorted(self._summary["fit"].items())
            for name, e in channels.items()
        ]

    @property
    def numbers(self) -> list[tuple[str, ...]]:
        """Physics and sensors that were learned."""
        return [
            (
                path,
                q.number(e["initial"]),
                q.number(e["value"]),
                q.interval(e.get("low95"), e.get("high95")),
                q.unit(e["unit"]),
            )
            for path, e in self._summary["parameters"].items()
        ]

    @property
    def state_columns(self) -> list[str]:
        """Headings of `state_errors`."""
        more = [">fitted, smoothed", ">held-out, smoothed"] if "smoother" in self._summary else []
        return ["of", ">fitted runs", ">held-out runs", *more, "unit"]

    @property
    def state_errors(self) -> list[tuple[str, ...]]:
        """The error of each position and velocity; empty where no log holds the state."""
        known = {part: entry["rmse"] for part, entry in self._summary["state"].items() if entry}
        if not known:
            return []
        smoother = self._summary.get("smoother", {})
        known |= {f"smoothed {part}": row["rmse"] for part, row in smoother.items() if row["rmse"]}
        parts = ["train", "hold_out", *(["smoothed train", "smoothed hold_out"] if smoother else [])]
        labels, units, _ = degrees_of_freedom(self._mj, self._names)
        rows = [(f"{name}, position", unit) for name, unit in zip(labels, units, strict=True)]
        rows += [(f"{name}, velocity", f"{unit}/s") for name, unit in zip(labels, units, strict=True)]
        return [
            (label, *(q.number(known[part][k]) if part in known else q.MISSING for part in parts), unit)
            for k, (label, unit) in enumerate(rows)
        ]

    @property
    def study(self) -> str:
        """The study as given, one line for each key, files without their folders."""
        return study_text(self._study)


def _group(run: _Run) -> str:
    return f"{run.part}/{run.name}"


def _convergence(history: Mapping[str, np.ndarray]) -> list[Chart]:
    cost = np.asarray(history["cost"], float)
    least = float(np.nanmin(cost))
    above = np.where(cost > least, cost - least, np.nan)
    scale = "log" if np.isfinite(above).any() else "linear"
    title, remark = "negative log-likelihood above its minimum", f"minimum {q.number(least, 6)} nat"
    line = Line("above the minimum", above, "p0")
    return [Chart(title, np.arange(len(cost), dtype=float), [line], "iteration", remark=remark, scale=scale)]
