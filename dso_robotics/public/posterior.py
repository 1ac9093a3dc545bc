"""Samples of the numbers of an identification in Python."""

import dataclasses
import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.public.sheet import block, html_table, text_table
from dso_robotics.report import posterior as rows
from dso_robotics.studies import posterior as posteriors
from dso_robotics.studies.identify import Identified
from dso_robotics.studies.predictive import Bands, bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of equal weight from the posterior.

    samples: by number, (N,) in its unit.
    units: of the numbers.
    noise: by channel, (N, R) scale of its noise in each of the R fitted recordings.
    starts: (M, B, nq+nv+na) start states of the fitted windows, of the first M draws.
    reliable: whether the draws can be used; `told` says why, and what to do if not.
    diagnostics: "pareto_k" and "effective" of importance sampling; "rhat", "effective" and "divergences" of NUTS.
    summary: the entry "posterior" of summary.json, with "parameters" and "bands".
    bands: bands of the prediction by part, "hold_out" and "train".
    """

    samples: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    noise: Mapping[str, np.ndarray]
    starts: np.ndarray
    route: str
    reliable: bool
    told: str
    diagnostics: Mapping[str, float]
    summary: Mapping[str, Any]
    bands: Mapping[str, Bands]

    def __len__(self) -> int:
        return len(next(iter(self.samples.values())))

    def quantile(self, name: str, q: float | list[float]) -> Any:
        """Quantiles of one number.

        Raises:
          DsoError: there is no such number.
        """
        return np.quantile(self._of(name), q)

    def correlation(self, one: str, other: str) -> float:
        """The correlation of two numbers."""
        return float(np.corrcoef(self._of(one), self._of(other))[0, 1])

    def plot(self) -> "Figure":
        """Histograms of all numbers on the diagonal, and their draws in pairs below it."""
        from matplotlib.figure import Figure

        names = list(self.samples)
        figure = Figure(figsize=(2.4 * len(names) + 1, 2.2 * len(names) + 0.6), layout="constrained")
        axes = figure.subplots(len(names), len(names), squeeze=False)
        for i, y in enumerate(names):
            for j, x in enumerate(names):
                ax = axes[i][j]
                if j > i:
                    ax.set_visible(False)
                    continue
                if i == j:
                    ax.hist(self.samples[x], bins=30, color="0.6")
                    ax.set_yticks([])
                else:
                    ax.plot(self.samples[x], self.samples[y], ".", ms=2, color="C0", alpha=0.4)
                if i == len(names) - 1:
                    ax.set_xlabel(f"{x} [{self.units[x]}]", fontsize=8)
                if j == 0 and i:
                    ax.set_ylabel(y, fontsize=8)
                ax.tick_params(labelsize=7)
        return figure

    def _of(self, name: str) -> np.ndarray:
        if name not in self.samples:
            raise DsoError(f"{name!r}: there is no such number; there is {nearest(name, self.samples, 8)}.")
        return self.samples[name]

    def __str__(self) -> str:
        return f"{rows.how(self.summary)}\n{text_table(rows.parameter_rows(self.summary), '<>^<>')}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        table = html_table(rows.parameter_rows(self.summary), "<>^<>")
        return block("Posterior", html.escape(rows.how(self.summary)), [table], [], good=self.reliable)


def posterior_of(found: Identified, draws: int, seed: int) -> Posterior:
    """The draws of an identification, made now unless it has them; see `Identification.posterior`."""
    study, problem = found.study, found.problem
    if study.fit == "torque" or study.continuity is not None or study.network is not None:
        raise DsoError(
            "there is no posterior of a fit of torques, of tied windows or with a network; identify without fit, continuity "
            "and network."
        )
    drawn = found.posterior
    if drawn is None:
        drawn = posteriors.draw(problem, found.solution, found.uncertainty, count=draws, seed=seed)
    summary = {
        "route": drawn.route,
        "draws": len(drawn.z),
        "reliable": drawn.reliable,
        "told": drawn.told,
        "diagnostics": dict(drawn.diagnostics),
        "parameters": posteriors.table(found.vector, drawn, found.summary["parameters"]),
    } | found.summary.get("posterior", {})
    report = found.vector.report(drawn.z)
    kept = {}
    for part, windows in found.scored.items():
        made = None if windows.single else bands(problem, drawn.z, drawn.sigma, windows, robust=study.robust, seed=seed)
        if made is not None:
            kept[part] = made
            summary.setdefault("bands", {})[part] = made.as_dict()
    return Posterior(
        {name: values for name, (values, _) in report.items()},
        {name: unit for name, (_, unit) in report.items()},
        {name: drawn.sigma[..., c] for c, name in enumerate(problem.windows.channels.sensor_names)},
        drawn.starts,
        drawn.route,
        drawn.reliable,
        drawn.told,
        drawn.diagnostics,
        summary,
        kept,
    )
