"""The posterior of an identification with everything that checks it, as summary.json holds it."""

from collections.abc import Mapping
from typing import Any

from dso_robotics.core.covariance import Uncertainty
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.progress.phase import tell
from dso_robotics.studies import posterior as posteriors
from dso_robotics.studies import predictive
from dso_robotics.studies.influence import influence
from dso_robotics.studies.posterior import Posterior
from dso_robotics.studies.study import IdentifyStudy

# Draws between two reports of progress.
_EVERY = 25


def checked(
    study: IdentifyStudy,
    route: str,
    problem: WindowedIdentification,
    solution: Solution,
    spread: Uncertainty,
    rows: Mapping[str, Mapping[str, Any]],
    scored: Mapping[str, Windows],
) -> tuple[Posterior | None, dict[str, Any]]:
    """The draws, and the entry "posterior" of the summary, with "warnings"; without draws where there is no posterior.

    rows: the table of parameters. scored: windows of "train" and "hold_out".
    """
    apart = influence(problem, solution, spread, seed=study.seed)
    summary: dict[str, Any] = {"recordings": apart.as_dict() if apart else {}}
    warnings = apart.told() if apart else []

    def progress(done: int) -> None:
        if done % _EVERY == 0:
            tell("posterior, draws", done, unit="draw")

    try:
        found = posteriors.draw(
            problem, solution, spread, route=route, count=study.draws, seed=study.seed, progress=progress
        )
    except DsoError as error:
        text = str(error)[:1].upper() + str(error)[1:]
        return None, {**summary, "route": route, "reliable": False, "told": text, "warnings": [text, *warnings]}
    table = posteriors.table(problem.vector, found, rows)
    warnings = posteriors.warnings(found, table, spread.method) + warnings
    summary |= {
        "route": found.route,
        "draws": len(found.z),
        "reliable": found.reliable,
        "told": found.told,
        "diagnostics": dict(found.diagnostics),
        "parameters": table,
        "noise": posteriors.noise_table(problem, found),
        "bands": {},
    }
    for part, windows in scored.items():
        if windows.single:
            continue
        tell("bands of the prediction")
        band = predictive.bands(problem, found.z, found.sigma, windows, robust=study.robust, seed=study.seed)
        if band is not None:
            summary["bands"][part] = band.as_dict()
            warnings += predictive.told(part, band) if found.reliable else []
    return found, {**summary, "warnings": warnings}
