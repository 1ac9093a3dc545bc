"""The search for an estimator: Gauss-Newton on C MuJoCo, or Adam through MJX. Both use the same descent loop."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dso_robotics.core.covariance import Uncertainty, uncertainty
from dso_robotics.core.descent import Best, Last, Moment, Result, Status
from dso_robotics.core.method.gauss_newton import GaussNewton
from dso_robotics.core.method.least_squares import Record, Settings, Solution, StartError
from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.errors import DsoError
from dso_robotics.progress.phase import tell
from dso_robotics.robot.corrector import EstimatorTheta, Scales
from dso_robotics.robot.filter_data import FilterWindows
from dso_robotics.studies.checkpoint import columns
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.run import RunFile
from dso_robotics.studies.search import search

# Iterations of Adam between two evaluations on the validation windows.
_VALIDATED = 10


@dataclasses.dataclass(frozen=True)
class Found:
    """The end of the search: z (n,), noise scales sigma (A, ny), and the history.

    method: "gauss_newton", "adam" or "fisher_scoring".
    status: how the search ended, as `core.descent.Status` has it.
    kept: the iteration that z comes from, if it is not the last one.
    known: the derivatives at z, and the covariance of z; None where z is no minimum, or its curvature is not known.
    """

    z: np.ndarray
    sigma: np.ndarray
    method: str
    status: str
    converged: bool
    message: str
    evaluations: int
    cost: dict[str, float]
    history: dict[str, np.ndarray]
    compile_seconds: float = 0.0
    kept: int | None = None
    known: tuple[Solution, Uncertainty] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """The search problem and its settings.

    warm_up: number of updates at the start of a window that do not count.
    lead: (T-1,), see `estimate.pattern`.
    visible: (T,), see `estimate.pattern`.
    source: name of the model in messages.
    judge: validation windows and their start states. They choose among the points of the search, because a flexible
      corrector can overfit the training windows.
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
    file: RunFile
    judge: tuple[WindowedEstimation, np.ndarray] | None = None

    def keep(self, point: Callable[[Any], np.ndarray], every: int) -> Last:
        """The rule for the point that the descent keeps. `point` reads z (n,) from a state."""
        if self.judge is None:
            return Last()
        problem, start = self.judge
        return Best(lambda state: problem.profiled(point(state).copy(), start), every=every, take=point)

    def found(self, result: Result, z: np.ndarray, message: str, **more: Any) -> Found:
        """The result at the kept point if there is one, else at the last point z (n,)."""
        kept, steps = None, len(result.history)
        if result.best is not None:
            z, message = (
                result.best.kept,
                f"{message}; iteration {result.best.iteration} predicts the validation windows best",
            )
            kept = result.best.iteration if result.best.iteration < steps else None
        self.problem.reweight(z, self.given.start)
        terms = self.problem.terms(z, self.given.start)
        return Found(z=z, sigma=self.problem.sigma, message=message, cost=terms, kept=kept, **more)

    def moved(self, found: Found, z: np.ndarray, message: str) -> Found:
        """`found` at another point z (n,), which is no minimum of the cost."""
        self.problem.profiled(z, self.given.start)
        terms = self.problem.terms(z, self.given.start)
        ended = {"converged": False, "status": str(Status.STOPPED), "message": message}
        return dataclasses.replace(found, z=z, sigma=self.problem.sigma, cost=terms, known=None, **ended)


def by_gauss_newton(asked: Search) -> Found:
    """Levenberg-Marquardt on finite differences of C MuJoCo."""
    study, vector, given = asked.study, asked.vector, asked.given
    settings = Settings(iterations=study.iterations, cost_tolerance=1e-5)
    box = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    method = GaussNewton(asked.problem, given.start, **box, settings=settings)
    tell("Gauss-Newton", total=study.iterations, at_most=True)
    try:
        first = method.init(None, vector.initial)
    except StartError:
        raise DsoError(
            f"{asked.source}: the filter diverges at the start values; give start values nearer to the robot's (free = "
            '["PATH=INIT"]), a shorter window or a smaller timestep.'
        ) from None

    def watch(moment: Moment) -> None:
        tell("Gauss-Newton", moment.record.iteration, moment.record.cost, total=study.iterations, at_most=True)

    keep = asked.keep(lambda state: state.z, 1)
    result = search(asked.file, method, first, Record, iterations=study.iterations, keep=keep, watch=watch)
    solution = method.finish(result)
    table = columns(solution.history)
    return asked.found(
        result,
        solution.z,
        solution.message,
        method="gauss_newton",
        status=str(solution.status),
        converged=solution.converged,
        evaluations=solution.evaluations,
        history={name: table[name] for name in ("iteration", "cost", "z")},
        known=(solution, uncertainty(solution, vector.scale)) if result.best is None else None,
    )


def _degrees(asked: Search) -> float | None:
    """Degrees of freedom for Adam, which uses one number for all channels: the mean of the channels' start values."""
    if asked.study.robust is None:
        return None
    asked.problem.reweight(asked.vector.initial, asked.given.start)
    assert asked.problem.degrees is not None
    return float(np.exp(np.mean(np.log(asked.problem.degrees))))


def by_adam(asked: Search) -> Found:
    """Adam through MJX. Physics uses the coordinates of `constrain`, which keep it within its bounds."""
    import jax
    import jax.numpy as jnp

    from dso_robotics.core.method import sampled
    from dso_robotics.robot.filter_jax import JaxFilter, adam_method
    from dso_robotics.robot.filter_mjx import MjxSystem, jax_windows

    study, vector, given = asked.study, asked.vector, asked.given
    scales, lead, w = asked.scales, asked.lead, len(vector.weights)
    truths = 2 * vector.physics.mj.nv if study.supervised > 0 and np.isfinite(given.truth).any() else 0
    addresses = given.channels.sensor_addresses
    system = MjxSystem(vector.physics, addresses, given.interval, given.substeps, unconstrained=True)
    chain = JaxFilter(
        system,
        vector.corrector,
        scales,
        parameters=vector.size - w,
        truths=truths,
        robust=_degrees(asked),
        supervised=study.supervised,
        ahead=int(lead.max()) + 1,
    )
    physics = vector.physics
    noise = np.tile(np.log(scales.innovation), chain.ahead)
    begin = np.concatenate((vector.weights, physics.unconstrain(vector.initial[w:]), noise, np.zeros(truths)))
    windows = jax_windows(given, warm_up=asked.warm_up, visible=asked.visible, lead=np.concatenate([[0], lead]))
    clock, compiled = time.perf_counter(), []

    def prior(theta: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(physics.prior_residual(physics.constrain(theta[w : vector.size])) ** 2)

    rates: dict[str, Any] = {"iterations": study.iterations, "learning_rate": study.learning_rate}
    method = adam_method(chain, windows, **rates, prior=prior if len(physics.priors[1]) else None)
    tell("Adam", total=study.iterations)
    first = method.init(jax.random.key(study.seed), jnp.asarray(begin))

    def watch(moment: Moment) -> None:
        if not compiled:
            compiled.append(time.perf_counter() - clock)
        tell("Adam", moment.record.iteration, moment.record.value, total=study.iterations)

    def at(state: sampled.State) -> np.ndarray:
        z = np.array(state.theta)[: vector.size]
        z[w:] = np.asarray(physics.constrain(jnp.asarray(z[w:])))
        return z

    keep = asked.keep(at, _VALIDATED)
    result = search(asked.file, method, first, sampled.Record, iterations=study.iterations, keep=keep, watch=watch)
    if result.status is Status.DIVERGED and not result.history:
        raise DsoError(
            f"the estimator's cost is not finite at the start: {result.message} Give a shorter window or better start values."
        )
    z, costs = at(result.state), np.array([record.value for record in result.history])
    return asked.found(
        result,
        z,
        result.message.rstrip("."),
        method="adam",
        status=str(result.status),
        converged=len(costs) > 10 and bool(abs(costs[-1] - costs[-6]) < 1e-3),
        evaluations=len(costs),
        history={"iteration": np.arange(len(costs)), "cost": costs, "z": z[None]},
        compile_seconds=compiled[0] if compiled else 0.0,
    )
