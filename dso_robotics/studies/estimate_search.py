"""The search for an estimator, Gauss-Newton on C MuJoCo or Adam through MJX: an interrupted run takes up either again."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dso_robotics.core import gauss_newton
from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.errors import DsoError
from dso_robotics.robot.corrector import EstimatorTheta, Scales
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.studies.estimate_checkpoint import EstimateCheckpoint, take
from dso_robotics.studies.estimate_study import EstimateStudy

# So many iterations of Adam between two looks at the validation windows.
_VALIDATED = 10


@dataclasses.dataclass(frozen=True)
class Found:
    """Where the search ended: z, noise scales (A, ny), and its story; kept: the iteration of z where it is not the last."""

    z: np.ndarray
    sigma: np.ndarray
    converged: bool
    message: str
    evaluations: int
    cost: dict[str, float]
    history: dict[str, np.ndarray]
    compile_seconds: float = 0.0
    kept: int | None = None


class Validation:
    """Keeps the point at which windows that nobody trains on are predicted best: a flexible corrector learns the others by
    heart if it may.

    z (n,), cost, iteration: of that point; None and infinity before the first.
    """

    def __init__(self, problem: WindowedEstimation, start: np.ndarray):
        self._problem, self._start = problem, start
        self.z: np.ndarray | None = None
        self.cost, self.iteration = np.inf, 0

    def see(self, iteration: int, z: np.ndarray) -> None:
        """Judge one point; the first of several equal ones is kept."""
        z = z.copy()
        cost = self._problem.profiled(z, self._start)
        if cost < self.cost:
            self.z, self.cost, self.iteration = z, cost, iteration


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """What is searched, for whom.

    warm_up: updates at a window's start that do not count; lead (T-1,), visible (T,): see `estimate.pattern`; source: names the
    model in messages; tell: hears of stage, iteration and cost; validation: chooses among the points on the way, if given.
    """

    study: EstimateStudy
    vector: EstimatorTheta
    scales: Scales
    given: FilterWindows
    problem: WindowedEstimation
    warm_up: int
    lead: np.ndarray
    visible: np.ndarray
    source: str
    checkpoint: EstimateCheckpoint
    tell: Callable[[str, int, float], None]
    validation: Validation | None = None

    def chosen(self, iteration: int, z: np.ndarray, message: str) -> tuple[np.ndarray, str, int | None]:
        """Of the search's end and the points that were validated the one to keep, how the search ended, and `Found.kept`."""
        if self.validation is None:
            return z, message, None
        self.validation.see(iteration, z)
        best = self.validation
        assert best.z is not None
        message += f"; iteration {best.iteration} predicts the validation windows best"
        return best.z, message, best.iteration if best.iteration < iteration else None


def by_gauss_newton(search: Search) -> Found:
    """Levenberg-Marquardt on finite differences of C MuJoCo."""
    study, vector, given, problem, checkpoint = (
        search.study,
        search.vector,
        search.given,
        search.problem,
        search.checkpoint,
    )
    z, past, spent, damping = vector.initial, [], 0, gauss_newton.Settings.damping
    if checkpoint.state:
        n = vector.size
        shapes = {"iteration": (None,), "cost": (None,), "damping": (None,), "z": (None, n), "evaluations": ()}
        shapes |= {name: value.shape for name, value in problem.noise.items()}
        stored = take(checkpoint.state, shapes, checkpoint.path)
        z, damping, spent = stored["z"][-1], float(stored["damping"][-1]), int(stored["evaluations"])
        rows = zip(*(stored[name] for name in ("iteration", "cost", "damping", "z")), strict=True)
        past = [gauss_newton.Record(int(i), float(c), float(d), at) for i, c, d, at in rows][:-1]
        problem.restore(z, given.start, stored)
    records = list(past)
    if search.validation:
        for record in past:
            search.validation.see(record.iteration, record.z)

    def observe(record: gauss_newton.Record, x: np.ndarray) -> None:
        records.append(dataclasses.replace(record, iteration=record.iteration + len(past)))
        if search.validation:
            search.validation.see(records[-1].iteration, record.z)
        state = {name: np.array([getattr(r, name) for r in records]) for name in ("iteration", "cost", "damping", "z")}
        state |= problem.noise
        # What it took to get here does not count the evaluations that a resumed search makes again.
        checkpoint.save(state | {"evaluations": max(spent + record.evaluations - 2 * bool(past), 0)})
        search.tell("Gauss-Newton", records[-1].iteration, record.cost)

    settings = gauss_newton.Settings(
        iterations=study.iterations - len(past), cost_tolerance=1e-5, step_tolerance=0.1, damping=damping
    )
    try:
        found = gauss_newton.solve(
            problem,
            z,
            given.start,
            low=vector.low,
            high=vector.high,
            scale=vector.scale,
            settings=settings,
            observe=observe,
            past=past,
        )
    except gauss_newton.StartError:
        raise DsoError(
            f"{search.source}: the filter diverges at the start values; give start values nearer to the robot's (free = "
            '["PATH=INIT"]), a shorter window or a smaller timestep.'
        ) from None
    history = {name: np.array([getattr(r, name) for r in records]) for name in ("iteration", "cost", "z")}
    message = f"stopped after {study.iterations} iterations" if found.message.startswith("stopped") else found.message
    z, message, kept = search.chosen(records[-1].iteration, found.z, message)
    problem.reweight(z, given.start)
    terms = problem.terms(z, given.start)
    evaluations = found.evaluations + (spent - 2 if past else 0)
    return Found(z, problem.sigma, found.converged, message, evaluations, terms, history, kept=kept)


def _degrees(search: Search) -> float | None:
    """Degrees of freedom for the gradient route, which has one number for all channels: the mean of those at the start."""
    if search.study.robust is None:
        return None
    search.problem.reweight(search.vector.initial, search.given.start)
    assert search.problem.degrees is not None
    return float(np.exp(np.mean(np.log(search.problem.degrees))))


def by_adam(search: Search) -> Found:
    """Adam through MJX. Physics moves in the coordinates of `constrain`, which keeps it within its bounds."""
    import jax
    import jax.numpy as jnp

    from dso_robotics.core.descent import DescentState
    from dso_robotics.robot.filter_jax import JaxFilter, train
    from dso_robotics.robot.filter_mjx import MjxSystem, jax_windows

    study, vector, given, problem, checkpoint = (
        search.study,
        search.vector,
        search.given,
        search.problem,
        search.checkpoint,
    )
    scales, lead, w = search.scales, search.lead, len(vector.weights)
    truths = 2 * vector.physics.mj.nv if study.supervised > 0 and np.isfinite(given.truth).any() else 0
    addresses = given.channels.sensor_addresses
    system = MjxSystem(vector.physics, addresses, given.interval, given.substeps, unconstrained=True)
    chain = JaxFilter(
        system,
        vector.corrector,
        scales,
        parameters=vector.size - w,
        truths=truths,
        robust=_degrees(search),
        supervised=study.supervised,
        ahead=int(lead.max()) + 1,
    )
    physics = vector.physics
    noise = np.tile(np.log(scales.innovation), chain.ahead)
    begin = np.concatenate((vector.weights, physics.unconstrain(vector.initial[w:]), noise, np.zeros(truths)))
    clock, costs = time.perf_counter(), []
    first: list[float] = []

    def observe(iteration: int, cost: float) -> None:
        if not first:
            first.append(time.perf_counter() - clock)
        costs.append(cost)
        if iteration % 10 == 0:
            search.tell("Adam", iteration, cost)

    def leaves(state: DescentState) -> list[Any]:
        return jax.tree.leaves(state.method)

    def at(theta: Any) -> np.ndarray:
        z = np.array(theta)[: vector.size]
        z[w:] = np.asarray(physics.constrain(jnp.asarray(z[w:])))
        return z

    chosen = search.validation

    def save(state: DescentState) -> None:
        if chosen and state.iteration % _VALIDATED == 0:
            chosen.see(state.iteration, at(state.theta))
        stored = {f"method{i}": np.asarray(leaf) for i, leaf in enumerate(leaves(state))}
        stored |= {"theta": np.asarray(state.theta), "iteration": state.iteration, "scale": state.scale}
        if chosen and chosen.z is not None:
            stored |= {"best": chosen.z, "best_cost": chosen.cost, "best_iteration": chosen.iteration}
        checkpoint.save(stored | {"quiet": state.quiet, "costs": np.array(costs)}, always=False)

    def resume(first: DescentState) -> DescentState:
        if not checkpoint.state:
            return first
        own = leaves(first)
        shapes = {f"method{i}": np.shape(leaf) for i, leaf in enumerate(own)}
        shapes |= {"theta": (len(begin),), "iteration": (), "scale": (), "quiet": (), "costs": (None,)}
        if chosen and "best" in checkpoint.state:
            shapes |= {"best": (vector.size,), "best_cost": (), "best_iteration": ()}
        stored = take(checkpoint.state, shapes, checkpoint.path)
        if chosen and "best" in stored:
            chosen.z, chosen.cost = stored["best"], float(stored["best_cost"])
            chosen.iteration = int(stored["best_iteration"])
        costs.extend(stored["costs"].tolist())
        method = [jnp.asarray(stored[f"method{i}"], jnp.asarray(leaf).dtype) for i, leaf in enumerate(own)]
        return dataclasses.replace(
            first,
            theta=jnp.asarray(stored["theta"]),
            method=jax.tree.unflatten(jax.tree.structure(first.method), method),
            iteration=int(stored["iteration"]),
            scale=float(stored["scale"]),
            quiet=int(stored["quiet"]),
        )

    result = train(
        chain,
        begin,
        jax_windows(given, warm_up=search.warm_up, visible=search.visible, lead=np.concatenate([[0], lead])),
        iterations=study.iterations,
        learning_rate=study.learning_rate,
        seed=study.seed,
        observe=observe,
        checkpoint=save,
        resume=resume,
    )
    z, message, kept = search.chosen(len(costs), at(result.theta), result.message.rstrip("."))
    problem.reweight(z, given.start)
    terms = problem.terms(z, given.start)
    history = {"iteration": np.arange(len(costs)), "cost": np.array(costs), "z": z[None]}
    settled = len(costs) > 10 and abs(costs[-1] - costs[-6]) < 1e-3
    return Found(z, problem.sigma, settled, message, len(costs), terms, history, first[0] if first else 0.0, kept)
