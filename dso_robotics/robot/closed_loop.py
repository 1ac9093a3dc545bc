"""A robot, an estimator and a policy as one `Chain` of the core. It trains estimators for the task itself.

    x[t+1] = f(x[t], u[t] + e),  y[t+1] = h(x[t+1]) + n,  b[t+1] = c(f'(b[t], u[t]), y[t+1]),  u[t] = u0 - K (b[t] - x0)

f and h belong to the world. f' is the estimator's model, and b is the estimator's state. theta is the estimator's own vector
(corrector weights, model parameters, noise). If the policy is trained too, K follows. `filter_jax.train` trains the same
estimator vector on prediction errors, so either training can start from the other's result.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.linalg import solve_discrete_are

from dso_robotics.core.chain import Chain
from dso_robotics.core.descent import Moment, Result, Status
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.objective import Average, Problem
from dso_robotics.core.sampler import PathwiseSampler
from dso_robotics.errors import DsoError
from dso_robotics.robot.filter_jax import Belief, FilterWindow, JaxFilter, System, adam


class Loop(NamedTuple):
    """State of the chain: the world's state (nx,), the estimator's belief, and the control (nu,) computed from it."""

    state: Any
    belief: Belief
    ctrl: Any


class ClosedLoop(Chain):
    """`world` under a linear policy that acts on the estimate of `filter`.

    reality: parameters of the world.
    task: cost of a state (nx,) and a control (nu,).
    goal, hold: state x0 and control u0 around which the policy regulates.
    gain: K (nu, k); fixed, or the initial value if `trains_policy`.
    start_spread: standard deviations of the first state around the goal, (k,). The estimator starts at the goal.
    action_noise, sensor_noise: standard deviations, (nu,) and (ny,).
    process_noise: standard deviations of the noise added to the state after each step, (k,); zero for none.
    """

    world: System
    reality: Array
    filter: JaxFilter
    task: Callable[[Array, Array], Array] = eqx.field(static=True)
    goal: Array
    hold: Array
    gain: Array
    start_spread: Array
    action_noise: Array
    sensor_noise: Array
    process_noise: Array
    trains_policy: bool = eqx.field(static=True, default=False)

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.filter.size + (self.gain.size if self.trains_policy else 0)

    def parts(self, theta: Float[Array, " n"]) -> tuple[Float[Array, " m"], Float[Array, "nu k"]]:
        """The estimator's vector, and the policy's gain."""
        own = theta[: self.filter.size]
        return own, theta[self.filter.size :].reshape(self.gain.shape) if self.trains_policy else self.gain

    def act(self, gain: Float[Array, "nu k"], belief: Belief) -> Float[Array, " nu"]:
        """u = u0 - K (b - x0), differences in the tangent space."""
        return self.hold - gain @ self.filter.system.difference(self.goal, belief.state)

    def initial(self, key: PRNGKeyArray, theta: Float[Array, " n"]) -> Loop:
        """Start with the world near the goal and the belief at the goal."""
        own, gain = self.parts(theta)
        off = self.start_spread * jax.random.normal(key, self.start_spread.shape)
        model = self.filter.system.prepare(self.filter.split(own)[1])
        belief = self.filter.begin(model, self.goal, self.hold)
        return Loop(self.world.move(self.goal, off), belief, self.act(gain, belief))

    def draw(self, key: PRNGKeyArray, theta: Float[Array, " n"], steps: int) -> Float[Array, "steps j"]:
        """Draw the noise of actions, state and sensors."""
        size = self.action_noise.size + self.process_noise.size + self.sensor_noise.size
        return jax.random.normal(key, (steps, size))

    def step(self, key: PRNGKeyArray, state: Loop, theta: Float[Array, " n"]) -> Loop:
        """See `Chain.step`."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def move(self, noise: Float[Array, " j"], state: Loop, theta: Float[Array, " n"]) -> Loop:
        """The world and the estimator one interval later."""
        nu, k = self.action_noise.size, self.process_noise.size
        felt, pushed, shown = noise[:nu], noise[nu : nu + k], noise[nu + k :]
        truth = self.world.prepare(self.reality)
        ctrl = state.ctrl + self.action_noise * felt
        following = self.world.move(self.world.advance(truth, state.state, ctrl), self.process_noise * pushed)
        measured = self.world.read(truth, following, ctrl) + self.sensor_noise * shown
        own, gain = self.parts(theta)
        weights, parameters, *_ = self.filter.split(own)
        model = self.filter.system.prepare(parameters)
        belief, _, _ = self.filter.update(model, weights, state.belief, state.ctrl, measured)
        return Loop(following, belief, self.act(gain, belief))

    def cost(self, state: Loop, theta: Float[Array, " n"]) -> Float[Array, ""]:
        """The task's cost."""
        return self.task(state.state, state.ctrl)

    def diverged(self, state: Loop) -> Array:
        """Whether the world or the belief diverged."""
        return ~(jnp.all(jnp.isfinite(state.state)) & jnp.all(jnp.isfinite(state.belief.state)))

    def record(self, theta: Float[Array, " n"], *, seed: int, rollouts: int, steps: int) -> FilterWindow:
        """Controls and noisy measurements of closed-loop runs, for training an estimator on prediction errors."""
        start, ctrl, measured = _recorded(self, theta, jax.random.split(jax.random.key(seed), rollouts), steps)
        ctrl = jnp.concatenate([ctrl, ctrl[:, -1:]], 1)
        some = np.ones(measured.shape[:2], bool)
        nothing = np.full((*some.shape, len(self.goal)), np.nan)
        return FilterWindow(start, ctrl, measured, some, some & (np.arange(steps + 1) > steps // 5), nothing)


def linearised(
    system: System, parameters: Float[Array, " m"], goal: Float[Array, " nx"], hold: Float[Array, " nu"]
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (k, k) and (k, nu) of the state one interval later by the state and the control, in the tangent space."""

    def after(change: Array, ctrl: Array, parameters: Array) -> Array:
        model = system.prepare(parameters)
        return system.difference(goal, system.advance(model, system.move(goal, change), ctrl))

    none = jnp.zeros(jax.eval_shape(system.difference, goal, goal).shape)
    both = jax.jit(jax.jacfwd(after, argnums=(0, 1)))(none, jnp.asarray(hold), parameters)
    return np.asarray(both[0]), np.asarray(both[1])


def linear_policy(
    system: System,
    parameters: Float[Array, " m"],
    goal: Float[Array, " nx"],
    hold: Float[Array, " nu"],
    *,
    state_weight: np.ndarray,
    control_weight: np.ndarray,
) -> np.ndarray:
    """K (nu, k) of the linear-quadratic regulator around `goal`, from derivatives of `system`.

    The weights are diagonal: (k,) for the state and (nu,) for the control. Raises DsoError if the linearised model cannot be
    stabilised.
    """
    a, b = linearised(system, parameters, goal, hold)
    try:
        p = solve_discrete_are(a, b, np.diag(state_weight), np.diag(control_weight))
    except (np.linalg.LinAlgError, ValueError) as error:
        raise DsoError(
            f"goal: no linear policy keeps the model there ({error}); choose a state and a control at which it can rest, and "
            "actuators that reach what moves."
        ) from error
    return np.linalg.solve(np.diag(control_weight) + b.T @ p @ b, b.T @ p @ a)


def train_in_loop(
    loop: ClosedLoop,
    theta: Float[Array, " n"],
    *,
    steps: int,
    rollouts: int,
    iterations: int,
    learning_rate: float = 1e-2,
    burn_in: int = 0,
    seed: int = 0,
    watch: Callable[[Moment], bool | None] | None = None,
) -> Result:
    """Adam on the pathwise gradient of the average cost of `steps` steps, without the first `burn_in`.

    Raises DsoError if every rollout diverges at the initial theta.
    """
    found = minimise(
        jax.random.key(seed),
        PathwiseSampler(_problem(loop, theta, steps, burn_in), count=rollouts),
        jnp.asarray(theta),
        adam(learning_rate, iterations),
        iterations=iterations,
        stopping=Stopping(noise_floor=False),
        watch=watch,
    )
    if found.status is Status.DIVERGED and not found.history:
        raise DsoError(
            f"the closed loop blows up at the start: {found.message} Give a better gain, less noise or fewer steps."
        )
    return found


def closed_loop_cost(
    loop: ClosedLoop, theta: Float[Array, " n"], *, steps: int, rollouts: int, burn_in: int = 0, seed: int = 1
) -> tuple[float, float]:
    """Average cost of a step in the world, and its standard error; infinite if a rollout diverged."""
    _problem(loop, theta, steps, burn_in)
    costs = np.asarray(_costs(loop, theta, jax.random.split(jax.random.key(seed), rollouts), steps, burn_in))
    if not np.isfinite(costs).all():
        return float("inf"), float("nan")
    return float(costs.mean()), float(costs.std(ddof=1) / np.sqrt(len(costs)))


def _problem(loop: ClosedLoop, theta: Array, steps: int, burn_in: int) -> Problem:
    if theta.shape != (loop.size,):
        raise DsoError(f"theta has {theta.shape} numbers, but estimator and policy have {loop.size} together.")
    return Problem(loop, Average(steps, burn_in=burn_in), theta=theta)


@eqx.filter_jit
def _costs(loop: ClosedLoop, theta: Array, keys: PRNGKeyArray, steps: int, burn_in: int) -> Array:
    """Average cost of each rollout (R,)."""

    def one(key: PRNGKeyArray) -> Array:
        first, draws = jax.random.split(key)

        def body(state: Loop, noise: Array) -> tuple[Loop, Array]:
            return loop.move(noise, state, theta), loop.cost(state, theta)

        _, costs = jax.lax.scan(body, loop.initial(first, theta), loop.draw(draws, theta, steps))
        return jnp.mean(costs[burn_in:])

    return jax.vmap(one)(keys)


@eqx.filter_jit
def _recorded(loop: ClosedLoop, theta: Array, keys: PRNGKeyArray, steps: int) -> tuple[Array, Array, Array]:
    """Starts of the belief (R, nx), commanded controls (R, steps, nu), and readings (R, steps + 1, ny), NaN at the first."""
    truth = loop.world.prepare(loop.reality)
    nu, k = loop.action_noise.size, loop.process_noise.size

    def one(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        first, draws = jax.random.split(key)

        def body(state: Loop, noise: Array) -> tuple[Loop, tuple[Array, Array]]:
            following = loop.move(noise, state, theta)
            ctrl = state.ctrl + loop.action_noise * noise[:nu]
            shown = loop.world.read(truth, following.state, ctrl) + loop.sensor_noise * noise[nu + k :]
            return following, (state.ctrl, shown)

        _, (ctrl, measured) = jax.lax.scan(body, loop.initial(first, theta), loop.draw(draws, theta, steps))
        return loop.goal, ctrl, jnp.concatenate([jnp.full((1, measured.shape[1]), jnp.nan), measured])

    return jax.vmap(one)(keys)
