"""Learn a state estimator: models and logs as paths or objects in, a result with the estimator out."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.data.log import Log, read_log
from dso_robotics.data.split import PART_NAMES
from dso_robotics.errors import DsoError
from dso_robotics.progress.report import Progress
from dso_robotics.public.computing import computing
from dso_robotics.public.inputs import Logs, sitting
from dso_robotics.public.place import Place
from dso_robotics.public.progress import following
from dso_robotics.public.result import Result
from dso_robotics.public.sheet import block, html_table
from dso_robotics.report.quantity import number, percent, unit
from dso_robotics.report.table import estimation_table
from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.estimate import estimate as run
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.folder import SMOOTHED

if TYPE_CHECKING:
    import mujoco

    from dso_robotics.parameters.path import Declaration
    from dso_robotics.physics.model import Robot


class Estimation(Result):
    """The result of `estimate`."""

    def __init__(self, place: Place, summary: dict[str, Any], names: Mapping[str, str]):
        super().__init__(place, summary, names)

    @functools.cached_property
    def estimator(self) -> Estimator:
        """The learned estimator, which runs on C MuJoCo and NumPy; `reset` it before its first update."""
        return Estimator.load(self.folder)

    @property
    def smoothed(self) -> Log:
        """The logs with the most probable qpos and qvel given all readings; of an estimation with `smooth=True`.

        Raises:
          DsoError: the estimation was made without `smooth`, or nothing could be smoothed.
        """
        path = self.folder / SMOOTHED
        if not path.is_file():
            raise DsoError(
                f"{self.folder}: no motion was smoothed here; estimate with smooth=True. Where that "
                "was asked for, the warnings of the summary say why it could not be."
            )
        return read_log(path)

    def _draw(self, video: bool) -> None:
        from dso_robotics.report.estimate import write_report

        write_report(self.folder)

    def __str__(self) -> str:
        return "\n".join(estimation_table(self.summary | {"warnings": self.warnings}))

    def _repr_html_(self) -> str:
        s, parts = self.summary, []
        if self.parameters:
            rows = [("parameter", "start", "value", "unit")]
            rows += [(k, number(p["initial"]), number(p["value"]), unit(p["unit"])) for k, p in self.parameters.items()]
            parts.append(html_table(rows, "<>><"))
        rows = [("channel", "runs", "rms, one step ahead", "unit", "within 1.96 predicted sd")]
        for part, fit in sorted(s["fit"].items()):
            for name, entry in fit.items():
                covered = percent(entry["covered_percent"])
                rows.append(
                    (name, PART_NAMES[part], number(entry["rmse"], 3, zeros=True), unit(entry["unit"]), covered)
                )
        parts.append(html_table(rows, "<<><>"))
        c = s["corrector"]
        title = f"State estimator, {c['kind']} corrector of {c['numbers']} numbers"
        state = f"{'converged' if self.converged else 'NOT converged'}, {s['message']}; {s['seconds']['total']:.1f} s"
        return block(title, state, parts, self.warnings, good=self.converged)


def estimate(
    model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    logs: Logs | None = None,
    *,
    corrector: str | None = None,
    free: "str | Declaration | Mapping[str, Any] | Sequence[str | Declaration | Mapping[str, Any]] | None" = None,
    hold_out: float | str | Sequence[str] | None = None,
    sensors: str | Sequence[str] | None = None,
    drift: str | Sequence[str] | None = None,
    strapdown: str | None = None,
    contact: Mapping[str, Any] | None = None,
    units: int | None = None,
    window: float | None = None,
    warm_up: float | None = None,
    validation: float | None = None,
    ahead: int | None = None,
    robust: float | str | None = None,
    gate: float | None = None,
    supervised: float | None = None,
    covariance: bool | None = None,
    smooth: bool | None = None,
    timestep: float | None = None,
    engine: str | None = None,
    iterations: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    study: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    report: bool | None = None,
    progress: bool | Callable[[Progress], None] = False,
    precision: str = "float64",
) -> Estimation:
    """Learn a state estimator from recorded logs: a Kalman filter's noises or another corrector. No ground truth is needed.

    model, logs, hold_out, free, study, out, progress, precision: as in `identify`.
    corrector: "kalman", "gain", "linear", "mlp" or "recurrent"; by default "kalman", or "gain" where the study asks for what a
      Kalman filter does not do (late sensors whose delay is free, `supervised`, `ahead`, `robust`, `covariance`, `validation`).
    sensors: the sensors that the estimator reads; by default all sensors of the model.
    drift: sensors whose bias drifts; a Kalman filter estimates it.
    strapdown: the accelerometer whose readings move the base in the place of forces.
    contact: by name, feet whose velocity is zero while they stand: `{"left": {"channel": "left_touch", "site": "left_sole"}}`.
    smooth: also find the most probable motion given all readings; `smoothed` of the result has it.
    The other arguments are the study file keys of the same name (docs/estimators.md).

    Raises:
      DsoError: something is wrong with the model, the logs or the study; or the filter diverges at the start.
    """
    if study is None and isinstance(model, str | os.PathLike) and Path(model).suffix == ".toml":
        model, study = None, model
    given = {
        "corrector": corrector,
        "hold_out": hold_out,
        "sensors": sensors,
        "drift": drift,
        "strapdown": strapdown,
        "contact": contact,
        "units": units,
        "window": window,
        "warm_up": warm_up,
        "validation": validation,
        "ahead": ahead,
        "robust": robust,
        "gate": gate,
        "supervised": supervised,
        "covariance": covariance,
        "smooth": smooth,
        "timestep": timestep,
        "engine": engine,
        "iterations": iterations,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    with sitting(out) as (place, inputs):
        asked = inputs.study(
            EstimateStudy, study, {"model": model, "logs": logs, "free": free, **given}, out if resume else None
        )
        draw = None
        if report or (report is None and out is not None):
            from dso_robotics.report.estimate import write_report as draw
        with computing(precision, jax=asked.engine != "mujoco"), following(progress):
            summary = run(asked, place.folder, resume=resume, force=force, report=draw)
    return Estimation(place, summary, inputs.names)
