"""A network that adds joint torques which the physical parameters do not explain. Thousands of weights, by reverse mode."""

import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.core.descent import Best, Status, descend
from dso_robotics.core.likelihood import Likelihood
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import matches
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import Robot, load, without_delays
from dso_robotics.robot import start
from dso_robotics.robot.joint_network import JointNetwork, joint_network
from dso_robotics.studies import summary as summaries
from dso_robotics.studies.evaluate import Evaluation, evaluate
from dso_robotics.studies.network_settings import NetworkSettings

_RATE = 1e-2
# Steps between two evaluations of the validation windows, and attempts at a step: with one attempt, the first step that
# makes a window diverge ends the training.
_LOOK, _TRIES = 10, 1
# One in this many recordings (or windows, if there are few recordings) is used for validation instead of training.
_WATCHED = 5


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """The weights that predict the validation windows best.

    history: (K, 2) mean cost per sample of the training windows and of the validation windows, at every evaluation.
    chosen: the step at which the weights were chosen.
    watched: names of the recordings that were used only for validation.
    ended: the step at which a window diverged and training stopped, or None if training completed.
    """

    network: JointNetwork
    model: mujoco.MjModel
    weights: np.ndarray
    history: np.ndarray
    chosen: int
    watched: tuple[str, ...]
    ended: int | None = None

    def predict(self, windows: Windows, begin: np.ndarray, signals: dict[str, np.ndarray]) -> np.ndarray:
        """Readings (B, S, C) of `windows` from start states (B, nq+nv+na)."""
        from dso_robotics.robot.prediction_network import NetworkPrediction

        return NetworkPrediction(self.model, self.network, windows, signals).predict(self.weights, begin)


def train_network(
    robot: Robot,
    windows: Windows,
    begin: np.ndarray,
    sigma: np.ndarray,
    signals: dict[str, np.ndarray],
    likelihood: Likelihood,
    settings: NetworkSettings,
    *,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda iteration, cost: None,
) -> TrainedNetwork:
    """Train on `windows` from start states `begin` (B, nq+nv+na) with noise scales `sigma` (R, C).

    Some recordings are used only for validation. The weights that predict these best are returned. The initial weights,
    which give zero torque, are also a candidate. Training stops if a window diverges.

    Raises:
      DsoError: no joint has the given name, or a named joint is neither a hinge nor a slide.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from dso_robotics.core.gradient.estimate import Estimate
    from dso_robotics.core.method.first_order import FirstOrder
    from dso_robotics.core.method.sampled import Sampled, Stopping
    from dso_robotics.core.sampler import Sample, Sampler
    from dso_robotics.robot.prediction_network import DivergedError, NetworkPrediction, with_motors

    joints = chosen_joints(robot, settings.joints)
    plain = without_delays(robot)
    assert plain.spec is not None
    model = with_motors(plain.spec, tuple(robot.names("joint")[j] for j in joints))
    speeds = begin[:, robot.mj.nq : robot.mj.nq + robot.mj.nv]
    network = joint_network(
        model, joints, qvel=speeds, ctrl=windows.ctrl, hidden=settings.hidden, inputs=settings.inputs
    )
    prediction = NetworkPrediction(model, network, windows, signals)
    scale = sigma[windows.rollout][:, None]
    measured, seen = np.nan_to_num(windows.measured), np.isfinite(windows.measured)

    def slope_of(rows: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def slope(y: np.ndarray) -> tuple[float, np.ndarray]:
            r = np.where(seen[rows], (y - measured[rows]) / scale[rows], 0.0)
            count = seen[rows].sum()
            white = likelihood.whiten(r)
            by = np.where(seen[rows], white * likelihood.slope(r) / scale[rows], 0.0)
            return float(0.5 * np.sum(white**2) / count), by / count

        return slope

    watched, trained = _watched(windows)

    class Batches(Sampler):
        """The cost of a few windows, drawn at random for each step."""

        def memory(self) -> None:
            return

        def __call__(self, key: Any, theta: Any, memory: None) -> Sample:
            rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
            rows = np.sort(rng.choice(trained, min(settings.batch, len(trained)), replace=False))
            part = windows.only(_mask(rows, len(windows)))
            try:
                cost, gradient = prediction.gradient(np.asarray(theta), begin[rows], part, slope_of(rows))
            except DivergedError:
                cost, gradient = np.inf, np.zeros(network.size)
            zero, one = jnp.zeros(network.size), jnp.ones((), int)
            made = jnp.asarray(cost), jnp.asarray(gradient), zero, jnp.zeros(()), one, 0 * one, zero == 0.0
            return Sample(Estimate(*made), None, None)

    looks: list[float] = []

    def judge(state: Any) -> float:
        part = windows.only(_mask(watched, len(windows)))
        path = prediction.simulate(np.asarray(state.theta), begin[watched], part)
        looks.append(slope_of(watched)(prediction.read(path, part))[0])
        progress(state.iteration, looks[-1])
        return looks[-1]

    schedule = optax.cosine_decay_schedule(_RATE, settings.iterations)
    adam = FirstOrder(optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)))
    method = Sampled(adam, Batches(), stopping=Stopping(tolerance=0.0, noise_floor=False, rejections=_TRIES))
    first = method.init(jax.random.key(seed), jnp.asarray(network.start(np.random.default_rng(seed))))
    keep = Best(judge, every=_LOOK, take=lambda state: np.asarray(state.theta))
    result = descend(method, first, iterations=settings.iterations, keep=keep)
    costs = [record.value for record in result.history]
    running = [np.nan, *(np.mean(costs[max(_LOOK * i - _LOOK, 0) : _LOOK * i]) for i in range(1, len(looks)))]
    names = tuple(windows.rollouts[i].name for i in np.unique(windows.rollout[watched]))
    ended = len(result.history) if result.status is Status.DIVERGED else None
    if result.best is None:
        return TrainedNetwork(network, model, np.asarray(first.theta), np.array([[np.nan, np.nan]]), 0, names, ended)
    history, best = np.column_stack([running, looks]), result.best
    return TrainedNetwork(network, model, best.kept, history, best.iteration, names, ended)


def _watched(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Windows for validation and for training. With several recordings, whole recordings are set aside; else every fifth
    window."""
    recordings = len(windows.rollouts)
    if recordings >= 3:
        watched = windows.rollout >= recordings - max(recordings // _WATCHED, 1)
    else:
        watched = np.arange(len(windows)) % _WATCHED == _WATCHED - 1
    return np.flatnonzero(watched), np.flatnonzero(~watched)


def _mask(rows: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def chosen_joints(robot: Robot, patterns: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of the hinges and slides that `patterns` name. Raises DsoError if no joint matches or a match is another type."""
    names, found = robot.names("joint"), []
    for pattern in patterns:
        matching = [i for i, n in enumerate(names) if n and matches(n, pattern)]
        if not matching:
            raise DsoError(
                f"{robot.source}: network joints: no joint is called '{pattern}'; they are {', '.join(names)}."
            )
        found += matching
    for i in found:
        if int(robot.mj.jnt_type[i]) <= int(mujoco.mjtJoint.mjJNT_BALL):
            raise DsoError(
                f"{robot.source}: joint '{names[i]}' is neither hinge nor slide, so no network can act on it."
            )
    return tuple(dict.fromkeys(found))


def learn(
    settings: NetworkSettings,
    robot: Robot,
    windows: Windows,
    problem: WindowedIdentification,
    solution: Solution,
    scored: dict[str, Windows],
    evaluations: dict[str, Evaluation],
    *,
    robust: bool,
    seed: int,
    progress: Callable[[int, float], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a network on the errors that remain after the solution. Returns its parts of the summary and the run file.

    scored: the scoring windows, by part.
    evaluations: the scores of the parameters alone, by part.
    """
    vector, signals = problem.vector, problem.vector.signals(solution.z)
    fitted = load(mujoco.MjSpec.from_string(to_mjcf(robot, vector.written(solution.z))))

    # Start states that were estimated with the parameters alone absorb part of what the network should learn.
    shown = start.measured(windows, fitted.mj)
    x = start.guess(windows, fitted.mj, signals, robust=robust) if shown else solution.x
    found = train_network(
        fitted,
        windows,
        x,
        problem.sigma,
        signals,
        problem.likelihood,
        settings,
        seed=seed,
        progress=progress,
    )
    scores = {
        name: evaluate(
            vector,
            solution.z,
            part,
            sigma=problem.pooled_sigma(),
            robust=robust,
            predict=lambda windows, x: found.predict(windows, x, signals),
        )
        for name, part in scored.items()
    }
    joints = [robot.names("joint")[j] for j in found.network.joints]
    part = "hold_out" if "hold_out" in scores else "train"
    change = 100 * (float(np.mean(scores[part].rmse / evaluations[part].rmse)) - 1)
    where = "held-out" if part == "hold_out" else "fitted"
    outcome = (
        f"changes the error on {where} recordings by {change:+.1f}% (mean over channels)"
        if found.chosen
        else "does not predict the recordings watched better than the parameters alone, so it is left at zero torque"
    )
    if found.ended is not None:
        outcome += f"; its training ended at step {found.ended}, where a window diverged"
    text = (
        f"A network of {found.network.size:,} weights on the torque of {', '.join(joints)} {outcome}. model.xml cannot hold a "
        "network; run.h5 does."
    )
    summary = {
        "weights": found.network.size,
        "joints": joints,
        "inputs": list(settings.inputs),
        "watched": list(found.watched),
        "iterations": found.chosen,
        "fit": {name: summaries.fit(problem.windows.channels, e) for name, e in scores.items()},
        "text": text,
    }
    return summary, {"weights": found.weights, "history": found.history}
