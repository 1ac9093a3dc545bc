"""The search for a minimum by simulated motion, in stages that a run file holds.

Start states are first as measured, then estimated. Further stages begin at start states or values that were missed.
"""

import dataclasses
import json
from typing import Any

import numpy as np

from dso_robotics.core.descent import Moment, Result
from dso_robotics.core.method.gauss_newton import GaussNewton
from dso_robotics.core.method.least_squares import Record, Settings, Solution, StartError
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.progress.phase import phase, tell
from dso_robotics.robot.prediction import Prediction
from dso_robotics.studies.checkpoint import columns, damaged, joined, records
from dso_robotics.studies.race import race
from dso_robotics.studies.run import RunFile
from dso_robotics.studies.search import search
from dso_robotics.studies.start_states import missed

# How often the search goes on from start states that it had missed.
_AGAIN = 3


def search_motion(
    file: RunFile,
    vector: ParameterVector,
    windows: Windows,
    prediction: Prediction,
    begin: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    source: str,
    options: dict[str, Any],
    *,
    beside: int | None = None,
) -> tuple[Solution, WindowedIdentification]:
    """Two stages: first with the measured start states (robust far from the solution), then with estimated start states.

    Start states have minima of their own, such as a joint at rest or sliding, and an activation that no sensor shows. If other
    start states explain their windows better where the second stage ended, it runs again from there, at most `_AGAIN` times.

    begin: the initial coordinates, start states and noise scales (or None for the noise scales).
    beside: a seed, if searches from drawn start values are to compete; see `race`. The run file then keeps their outcome as
      "race".
    """
    z, x, sigma = begin
    measured = x
    earlier = {name: file.count(name) for name in ("stage", "steps", "evaluations")}
    if earlier["stage"] > 1 + _AGAIN:
        raise damaged(file.path, f"a search of {2 + _AGAIN} stages has no stage {earlier['stage']}")
    if table := file.kept("earlier"):
        records(Record, {name: column for name, column in table.items() if name != "stage"}, file.path)
    first = earlier["stage"] if file.tree else int(windows.single)
    if file.tree:
        z, x, sigma = _stored_point(file, vector, windows)
    done: int = earlier["evaluations"] if file.tree else 0
    for stage in range(first, 2 + _AGAIN):
        problem = WindowedIdentification(
            vector, windows, prediction, sigma=sigma, free_starts=stage > 0 and not windows.single, **options
        )
        settings = Settings() if stage else Settings(cost_tolerance=1e-2, noise_tolerance=0.1)
        name = "start states estimated" if stage and not windows.single else "start states as measured"
        method = GaussNewton(problem, x, low=vector.low, high=vector.high, scale=vector.scale, settings=settings)

        def counted(moment: Moment, before: int = done) -> dict[str, Any]:
            return {"steps": earlier["steps"] + prediction.steps, "evaluations": before}

        def watch(moment: Moment, name: str = name, most: int = settings.iterations) -> None:
            tell(name, moment.record.iteration, moment.record.cost, total=most, at_most=True)

        tell(name, total=settings.iterations, at_most=True)
        try:
            begun = method.init(None, z)
        except StartError:
            raise DsoError(
                f"{source}: the simulation diverges at the start values, so there is nothing to search from; give "
                "start values nearer to the robot's with =INIT, a shorter --window, or a smaller timestep in the model."
            ) from None
        result: Result = search(
            file, method, begun, Record, iterations=settings.iterations, stage=stage, watch=watch, spent=counted
        )
        z, x, sigma = result.state.z, result.state.x, problem.sigma
        if stage:
            file.write("searched")
            others = missed(problem, z, x, measured) if stage < 1 + _AGAIN else None
            if others is None and beside is not None and file.kept("race") is None and stage < 1 + _AGAIN:
                with phase("other starts tried", unit="start") as tried:
                    point, outcome = race(problem, z, x, measured, options=options, seed=beside, progress=tried.at)
                file.keep(race={"outcome": json.dumps(outcome)})
                if point:
                    z, others, sigma = point
            if others is None:
                solution = method.finish(result)
                return dataclasses.replace(solution, evaluations=solution.evaluations + done), problem
            x = others
        done += result.state.evaluations
        _keep(file, result, stage)
    raise AssertionError("the last stage returns")


def _keep(file: RunFile, result: Result, stage: int) -> None:
    """Keep the linearisations of a stage that others follow, after those of the stages before it."""
    table = columns(result.history)
    table["stage"] = np.full(len(table.get("cost", ())), min(stage, 1))
    before = file.kept("earlier")
    file.keep(earlier=joined([before, table] if before else [table], file.path))


def _stored_point(file: RunFile, vector: ParameterVector, windows: Windows) -> tuple[np.ndarray, ...]:
    """Coordinates, start states and noise scales of a resumed run. Raises DsoError if they do not fit these windows."""
    state, width = file.tree["state"], vector.mj.nq + vector.mj.nv + vector.mj.na
    shapes = {
        "z": (vector.size,),
        "x": (len(windows), width),
        "noise.sigma": (len(windows.rollouts), windows.measured.shape[-1]),
    }
    if any(np.shape(state.get(name)) != shape for name, shape in shapes.items()):
        raise DsoError(f"{file.path}: what it holds does not fit the study; run the study again without --resume.")
    z, x, sigma = (np.asarray(state[name], float) for name in shapes)
    return z, x, sigma


def history(file: RunFile, solution: Solution) -> dict[str, np.ndarray]:
    """Every linearisation of all stages, as the report plots them. "stage" is 0 with measured start states, else 1."""
    last = columns(solution.history)
    last["stage"] = np.ones(len(last.get("cost", ())), int)
    tables = [table for table in (file.kept("earlier"), last) if table and len(table.get("cost", ()))]
    return joined(tables or [last], file.path)
