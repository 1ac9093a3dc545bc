"""Other recordings as an identified model predicts them, open loop from their measured states."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dso_robotics.data.log import Log, merge_logs
from dso_robotics.data.match import fitted, match_channels
from dso_robotics.errors import DsoError, nearest
from dso_robotics.public.sheet import block, html_table, text_table
from dso_robotics.report.quantity import number, percent, unit
from dso_robotics.report.trace import Trace, read_traces
from dso_robotics.report.trace_sheet import TraceSheet
from dso_robotics.robot.controller import controlled
from dso_robotics.studies import calibration
from dso_robotics.studies import summary as summaries
from dso_robotics.studies.evaluate import Evaluation, evaluate, scoring_windows
from dso_robotics.studies.identify import Identified
from dso_robotics.studies.study import FULL

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions of recordings.

    runs: by name, each with time (T,) [s], measured and predicted (T, C) and window starts (W,) [s]. Values that were not
      measured or predicted are NaN.
    channels: unit of each channel by name, in the order of the columns.
    rmse: root-mean-square error of each channel, averaged over windows.
    percent: rmse divided by the channel's spread [%].
    seconds: length of the windows [s].
    scored: whether these are the recordings of the study itself.
    """

    runs: Mapping[str, Trace]
    channels: Mapping[str, str]
    rmse: Mapping[str, float]
    percent: Mapping[str, float]
    seconds: float
    warnings: tuple[str, ...] = ()
    scored: bool = False

    @classmethod
    def of_result(cls, found: Identified) -> "Prediction":
        """The predictions on which the result was scored, held-out recordings first."""
        parts = {name: {t.rollout: t.as_dict() for t in e.traces} for name, e in found.evaluations.items()}
        traces = read_traces(parts, found.summary["windows"]["rollouts"])
        part = "hold_out" if "hold_out" in found.evaluations else "train"
        fit = found.summary["fit"][part]
        return cls(
            {trace.name: trace for trace in traces},
            {name: entry["unit"] for name, entry in found.summary["noise"].items()},
            {name: entry["rmse"] for name, entry in fit.items()},
            {name: entry["nrmse_percent"] for name, entry in fit.items()},
            found.summary["windows"]["score_seconds"],
            scored=True,
        )

    def plot(self, run: str | None = None) -> "Figure":
        """Plot measured and predicted values over time for the recording `run` (default: the first), a row per channel.

        Raises:
          DsoError: there is no such recording.
        """
        if run is not None and run not in self.runs:
            raise DsoError(f"run={run!r}: there is no such recording; there is {nearest(run, self.runs, 8)}.")
        trace = next(iter(self.runs.values())) if run is None else self.runs[run]
        return TraceSheet(self.channels).fill(trace, None if self.scored else trace.name)

    def _rows(self) -> list[tuple[str, ...]]:
        rows = [("channel", "RMS error", "of spread", "unit")]
        return rows + [
            (name, number(self.rmse[name], zeros=True), percent(self.percent[name]), unit(text))
            for name, text in self.channels.items()
        ]

    def _how(self) -> str:
        count = f"{len(self.runs)} recording{'' if len(self.runs) == 1 else 's'}"
        how = (
            f"predicted open loop over {self.seconds:g} s, mean over windows"
            if self.seconds
            else "read sample by sample"
        )
        return f"{count} {how}"

    def __str__(self) -> str:
        notes = [f"note: {text}" for text in self.warnings]
        return "\n".join([self._how(), text_table(self._rows(), "<>><"), *notes])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return block("Prediction", self._how(), [html_table(self._rows(), "<>><")], self.warnings)


def predicted(found: Identified, logs: Sequence[Log], window: float | str | None) -> Prediction:
    """Predict `logs` with the identified parameters, in half-overlapping windows of `window` [s].

    Raises:
      DsoError: a log is damaged or does not fit the model, or is shorter than a window needs.
    """
    study, robot, vector = found.study, found.robot, found.vector
    log = merge_logs(logs)
    log, left_out = fitted(log, robot.mj, ctrl=False)
    log, drives = controlled(log, tuple(study.controller.values()), robot.mj)
    log, unused = fitted(log, robot.mj, sensors=False)
    channels = match_channels(log, robot.mj)
    if set(channels.sensor_names) != set(found.channels.sensor_names):
        raise DsoError(f"{log.label}: its channels are not those that the model was identified with.")
    seconds = found.summary["windows"]["score_seconds"] if window is None else _length(window)
    option = "--score-window" if window is None else "--window"
    late: dict[str, Any] = {"past": vector.longest("actuator_delay"), "settle": vector.longest("sensor_delay")}
    windows = scoring_windows(
        log.rollouts,
        channels,
        timestep=float(robot.mj.opt.timestep),
        seconds=seconds,
        source=log.label,
        option=option,
        **late,
    )
    if drives:
        windows = drives.attach(windows)
    if windows.single:
        windows = calibration.prepared(vector, windows, log.label)
    sigma = found.sigma[..., [found.channels.sensor_names.index(name) for name in channels.sensor_names]]
    evaluation = evaluate(vector, found.solution.z, windows, sigma=sigma, robust=study.robust)
    fit = summaries.fit(channels, evaluation)
    return Prediction(
        {t.rollout: Trace("hold_out", *_columns(t)) for t in evaluation.traces},
        dict(zip(channels.sensor_names, channels.sensor_units, strict=True)),
        {name: entry["rmse"] for name, entry in fit.items()},
        {name: entry["nrmse_percent"] for name, entry in fit.items()},
        min(seconds, windows.longest),
        tuple([*left_out, *unused, *channels.warnings, *_warnings(evaluation)]),
    )


def _columns(trace: Any) -> tuple[Any, ...]:
    return trace.rollout, trace.time, trace.measured, trace.predicted, trace.starts


def _length(window: float | str) -> float:
    if window == FULL:
        return math.inf
    if isinstance(window, str) or not window > 0:
        raise DsoError(f"--window {window}: a window lasts a positive number of seconds, such as 0.5; or {FULL}.")
    return float(window)


def _warnings(evaluation: Evaluation) -> list[str]:
    found = []
    if evaluation.diverged:
        found.append(
            f"{evaluation.diverged} of {evaluation.windows} windows diverged and count as a prediction that stands still."
        )
    if evaluation.left_out:
        found.append(f"{evaluation.left_out} windows begin where a joint was not measured and are left out.")
    if evaluation.start == "estimated":
        found.append("The log does not show the whole state, so windows start at states estimated from themselves.")
    return found
