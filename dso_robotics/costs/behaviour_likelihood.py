"""Identification with cloning: the actions were not recorded, so the policy acts (that row of equation (98)).

-log p of the recorded states after 1 to K control steps, given f(x, pi(x, theta), theta) from the recorded state before. The
cost moves the policy and the physical parameters: whoever made the recording followed the policy to be found.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core import devices
from dso_robotics.costs.recorded import recorded_states
from dso_robotics.costs.supervised import existing
from dso_robotics.data.log import Log
from dso_robotics.data.resample import resample
from dso_robotics.errors import DsoError
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.stepwise import differentiable
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState
from dso_robotics.robot.windows import CWindows

_LEAST_NOISE = 1e-6


class BehaviourLikelihood:
    """(1/N) sum_k n_k log rms_k over the tangent directions k of the state, the concentrated normal likelihood.

    start: recorded states at the starts of B windows, leaves (B, ...).
    truth: recorded states after each of K control steps, (B, K, nq+nv).
    """

    def __init__(self, chain: RobotSystem, start: RobotState, truth: np.ndarray):
        self.start, self.truth = start, truth
        self.count = int(np.prod(truth.shape[:2])) * (2 * chain.mj.nv)
        self.space = Space(chain.mj)
        flat = truth.reshape(-1, truth.shape[-1])
        spread = self.space.difference(np.broadcast_to(flat[len(flat) // 2], flat.shape), flat).std(0)
        self._floor = np.maximum(_LEAST_NOISE * spread, 1e-9) ** 2
        self._windows: CWindows | None = None

    def __call__(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The cost, differentiable."""
        return self._cost(self._errors(chain, theta))

    def residual(self, chain: RobotSystem, theta: Float[Array, " n"]) -> Float[Array, " m"]:
        """Errors in units of their root mean squares, which have no derivative here, divided by the root of their number."""
        errors = self._errors(chain, theta)
        rms = jax.lax.stop_gradient(jnp.sqrt(jnp.mean(errors**2, (0, 1)) + self._floor))
        return (errors / rms).ravel() / np.sqrt(errors.size)

    def by_c(self, chain: RobotSystem, theta: np.ndarray) -> float:
        """The same number, simulated on C MuJoCo."""
        if self._windows is None:
            self._windows = CWindows(chain, threads=1)
        count, steps = self.truth.shape[:2]
        at = existing(chain, jnp.asarray(theta))
        path = self._windows(at, chain.scaling, self._starts(chain, at), jnp.zeros((count, steps, chain.noises)))
        states = np.concatenate([path.body.qpos, path.body.qvel], -1)[:, 1:]
        return float(self._cost(self.space.difference(self.truth, states)))

    def _starts(self, chain: RobotSystem, theta: Array) -> RobotState:
        return jax.vmap(lambda state: chain.placed(state, theta))(self.start) if chain.places else self.start

    def _errors(self, chain: RobotSystem, theta: Array) -> Float[Array, "B K k"]:
        theta, steps = existing(chain, theta), self.truth.shape[1]
        bound = differentiable(chain).bind(theta)

        def one(shared: Any, state: RobotState, truth: Array) -> Array:
            bound, theta = shared

            def step(state: RobotState, _: None) -> tuple[RobotState, Array]:
                state = bound.drift(state, theta)
                return state, jnp.concatenate([state.body.qpos, state.body.qvel])

            return self.space.difference(truth, jax.lax.scan(step, state, None, length=steps)[1])

        return devices.spread(
            eqx.filter_vmap(one, in_axes=(None, eqx.if_array(0), 0)),
            (bound, theta),
            self._starts(bound, theta),
            jnp.asarray(self.truth),
        )

    def _cost(self, errors: Any) -> Any:
        xp = errors.__array_namespace__()
        return 0.5 * xp.log((errors**2).mean((0, 1)) + self._floor).mean()


def identification_with_cloning(log: Log, chain: RobotSystem, *, window: float = 0.2) -> BehaviourLikelihood:
    """The cost of all recordings of `log`, whose states must be recorded, in windows of `window` [s].

    Raises:
      DsoError: states are missing or of another width, the policy has a memory, or a recording is shorter than a window.
    """
    mj, source = chain.mj, log.label
    if chain.policy.memory:
        raise DsoError(
            f"{source}: a log does not hold what a recurrent policy remembers; use a policy without memory here."
        )
    if chain.delay or mj.na or chain.placement.lift is not None:
        what = "a delay" if chain.delay else "activations" if mj.na else "[start] lift"
        raise DsoError(f"{source}: a log of states alone does not fit a system with {what}; remove it from the study.")
    seconds = chain.control_step
    steps = round(window / seconds)
    if steps < 1:
        raise DsoError(f"{source}: window = {window:g} s is shorter than a control step of {seconds:g} s.")
    starts, truths = [], []
    for rollout in log.rollouts:
        recorded_states(rollout, mj, source, "identification with cloning")
        gridded = resample(rollout, seconds)
        assert gridded.qpos is not None
        assert gridded.qvel is not None
        states = np.concatenate([gridded.qpos, gridded.qvel], 1)
        begins = range(0, len(states) - steps, steps)
        starts += [states[b] for b in begins]
        truths += [states[b + 1 : b + 1 + steps] for b in begins]
    if not starts:
        raise DsoError(f"{source}: every recording is shorter than a window of {window:g} s; write a shorter `window`.")
    first = np.stack(starts)
    rest = jax.vmap(lambda q, v: chain.rest(q, v))(jnp.asarray(first[:, : mj.nq]), jnp.asarray(first[:, mj.nq :]))
    return BehaviourLikelihood(chain, rest, np.stack(truths))
