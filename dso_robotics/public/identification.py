"""Identify physical parameters: models and logs as paths or objects in, a result that shows itself out."""

import functools
import html
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.progress.report import Progress
from dso_robotics.public.computing import computing
from dso_robotics.public.inputs import Logs, read_logs, sitting
from dso_robotics.public.place import Place
from dso_robotics.public.posterior import Posterior, posterior_of
from dso_robotics.public.prediction import Prediction, predicted
from dso_robotics.public.progress import following
from dso_robotics.public.result import Result
from dso_robotics.public.sheet import block, html_table
from dso_robotics.public.wording import speaking_python
from dso_robotics.report import posterior as posteriors
from dso_robotics.report.quantity import interval, number, percent, unit
from dso_robotics.report.table import identification_table, state
from dso_robotics.studies.identify import Identified
from dso_robotics.studies.identify import identify as run
from dso_robotics.studies.study import IdentifyStudy

if TYPE_CHECKING:
    import mujoco
    from matplotlib.figure import Figure

    from dso_robotics.parameters.path import Declaration
    from dso_robotics.physics.model import Robot


class Identification(Result):
    """The result of `identify`.

    run: all details, for further use: vector, solution, covariance, evaluations.
    """

    def __init__(self, place: Place, found: Identified, names: Mapping[str, str]):
        super().__init__(place, found.summary, names)
        self.run = found

    def predict(self, logs: Logs, *, window: float | str | None = None) -> Prediction:
        """Predict other recordings with the identified parameters, open loop in windows, as hold-out runs are scored.

        window: length of the windows [s], or "full" for whole rollouts; by default the study's scoring window.

        Raises:
          DsoError: a log is damaged or does not fit the model.
        """
        with speaking_python(), computing(jax=False):
            return predicted(self.run, read_logs(logs), window)

    def posterior(self, *, draws: int = 500, seed: int | None = None) -> Posterior:
        """Samples of the numbers given the logs: those of `identify(posterior=True)`, or else drawn now.

        draws: how many, if they are drawn now; the route is then that of importance sampling. seed: the study's by default.

        Raises:
          DsoError: nothing holds one of the numbers, or the fit was of torques, tied windows or a network.
        """
        with speaking_python(self._names), computing(jax=False):
            return posterior_of(self.run, draws, self.run.study.seed if seed is None else seed)

    def plot(self, run: str | None = None) -> "Figure":
        """Plot measured and predicted values over time for the recording `run`.

        By default this is the first held-out recording, or the first recording if none is held out.

        Raises:
          DsoError: there is no such recording.
        """
        return Prediction.of_result(self.run).plot(run)

    def _draw(self, video: bool) -> None:
        from dso_robotics.report.identify import write_report

        write_report(self.folder, video=video)

    def __str__(self) -> str:
        return identification_table(self.summary | {"warnings": self.warnings})

    def _repr_html_(self) -> str:
        s = self.summary
        rows = [("parameter", "start", "value", "95% interval", "unit", "")]
        for path, p in self.parameters.items():
            held = "at bound" if p["at_bound"] else "" if p.get("determined", True) else "not determined"
            ends = interval(p["low95"], p["high95"])
            rows.append((path, number(p["initial"]), number(p["value"], zeros=True), ends, unit(p["unit"]), held))
        parts = [html_table(rows, "<>>^<<")]
        fit, seconds = s["fit"], s["windows"]["score_seconds"]
        held = bool(fit["hold_out"])
        head = ("channel", "noise", "fitted runs", *(("held-out runs", "of spread") if held else ()), "unit")
        channels: list[tuple[str, ...]] = [head]
        for name, noise in s["noise"].items():
            train, other = fit["train"].get(name, {}), fit["hold_out"].get(name, {})
            more = (number(other.get("rmse"), 3, zeros=True), percent(other.get("nrmse_percent"))) if held else ()
            channels.append(
                (
                    name,
                    number(noise["value"], 3, zeros=True),
                    number(train.get("rmse"), 3, zeros=True),
                    *more,
                    unit(noise["unit"]),
                )
            )
        how = f"open loop over {seconds:g} s" if seconds else "sample by sample at the recorded states"
        parts += [
            f"<p>Prediction error, {how}, mean of the windows' root mean squares</p>",
            html_table(channels, "<>>>><" if held else "<>><"),
        ]
        if s.get("posterior", {}).get("parameters"):
            parts += [f"<p>{html.escape(posteriors.how(s['posterior']))}</p>"]
            parts += [html_table(posteriors.parameter_rows(s["posterior"]), "<>^<>")]
        said = f"{state(s)}, {s['message']}; {s['seconds']['total']:.1f} s"
        return block("Identification", said, parts, self.warnings, good=self.converged and not s.get("doubts"))


def identify(
    model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    logs: Logs | None = None,
    *,
    free: "str | Declaration | Mapping[str, Any] | Sequence[str | Declaration | Mapping[str, Any]] | None" = None,
    actuator: str | Sequence[str] | None = None,
    hold_out: float | str | Sequence[str] | None = None,
    window: float | str | None = None,
    fit: str | None = None,
    score_window: float | str | None = None,
    robust: bool | None = None,
    noise: Mapping[str, float] | None = None,
    continuity: float | str | None = None,
    controller: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    residual: str | None = None,
    starts: int | None = None,
    choose: str | None = None,
    warm_start: bool | None = None,
    engine: str | None = None,
    seed: int | None = None,
    posterior: bool | None = None,
    sampler: str | None = None,
    draws: int | None = None,
    study: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    report: bool | None = None,
    video: bool = False,
    progress: bool | Callable[[Progress], None] = False,
    precision: str = "float64",
) -> Identification:
    """Fit physical parameters of a model to recorded logs, with uncertainty.

    The logs are cut into windows. Each window is predicted open loop from an estimated start state. The parameters, the noise
    of every channel and the start states are estimated by maximum likelihood.

    model: a path (MJCF or URDF), an MjSpec, an MjModel, or a result of `load`. It may also be the path of a study file
      that ends in .toml.
    logs: one or several paths or `Log` objects.
    free: paths such as "joint/*/damping" or "body/upper/mass=0.5@0.1:2" (start value, bounds), or dicts with path, init,
      low, high, prior. `list_parameters(model)` lists the paths.
    actuator: "SERVO" or "SERVO=ACTUATOR" (docs/servos.md): published numbers of a servo as start values and priors.
    hold_out: names of rollouts that are only predicted, or a fraction of the rollouts.
    window: length of the fitted windows [s] (0.5), or "full".
    fit: what is compared: "motion" of the simulated windows, or "torque" of inverse dynamics, without a simulation.
    score_window: length of the scored windows [s], or "full".
    robust: whether the errors have heavy tails.
    noise: known noise by channel, in its unit.
    posterior: also draw samples of the numbers given the logs; `posterior()` of the result returns them.
    sampler: how they are drawn, "laplace" or, on the MJX engine, "nuts"; draws: how many (500).
    study: a study file (TOML) with these settings. Arguments override it.
    out: folder for the result, as in `dso identify`. Without it the run uses a temporary folder, which is deleted with
      the result; `save` keeps it.
    resume, force: as in `dso identify`.
    report: whether to write a report; by default yes if `out` is given. With `video` it has a film of some seconds.
    progress: True shows on stderr what is under way and how far it is. A function is called with each report, a `Progress`.
    precision: JAX precision for the MJX engine or a network: "float64" or "float32". The caller's own setting is kept.
    The other arguments are the study file keys of the same name (docs/files.md).

    Raises:
      DsoError: something is wrong with the model, the logs, the declarations or the folder.
    """
    if study is None and isinstance(model, str | os.PathLike) and Path(model).suffix == ".toml":
        model, study = None, model
    given = {
        "actuator": actuator,
        "hold_out": hold_out,
        "engine": engine,
        "window": window,
        "fit": fit,
        "score_window": score_window,
        "seed": seed,
        "starts": starts,
        "choose": choose,
        "warm_start": warm_start,
        "robust": robust,
        "noise": noise,
        "residual": residual,
        "network": network,
        "continuity": continuity,
        "controller": controller,
        "posterior": posterior,
        "sampler": sampler,
        "draws": draws,
    }
    with sitting(out) as (place, inputs):
        asked = inputs.study(
            IdentifyStudy, study, {"model": model, "logs": logs, "free": free, **given}, out if resume else None
        )
        draw = None
        if report or (report is None and out is not None):
            from dso_robotics.report.identify import write_report

            draw = functools.partial(write_report, video=video)
        with computing(precision, jax=asked.engine == "mjx" or asked.network is not None), following(progress):
            found = run(asked, place.folder, resume=resume, force=force, report=draw)
    return Identification(place, found, inputs.names)
