"""The estimator chain (99) as a JAX function, for a user's own dynamics and, through MJX, for MuJoCo models.

`JaxFilter.layout` is theta: corrector, physics, sensor noise, change of the sensor noise with the state, noise of the state.
It is differentiated through the whole window in reverse mode. This module is loaded only when needed, because importing JAX
takes seconds. Functions are unbatched. The caller sets float64.
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core import devices
from dso_robotics.core.descent import Moment, Result, Status, descend
from dso_robotics.core.likelihood import likelihood
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Sampled, Stopping
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.data.quaternion import Places, facing
from dso_robotics.errors import DsoError
from dso_robotics.parameters.theta import Block, Theta
from dso_robotics.robot.corrector import Corrector, Scales


class Belief(NamedTuple):
    """The estimator's data that is kept between updates.

    state: the estimate, (nx,).
    memory: the corrector's memory.
    past: readings of the estimates before this one, (`oldest`, ny), newest first.
    ctrl: the control that led to the estimate, (nu,).
    """

    state: Any
    memory: Any
    past: Any
    ctrl: Any


class Forecast(NamedTuple):
    """What is predicted for the end of an interval, without sensors' scale and bias where they are of the system.

    state: (nx,).
    reading: in that state, (ny,).
    before: in the estimate at the start of the interval, (ny,); only delayed sensors need it.
    """

    state: Any
    reading: Any
    before: Any


class System(eqx.Module):
    """The system whose state is estimated. `prepare` computes from parameters (m,) what the other functions use in a window."""

    def prepare(self, parameters: Float[Array, " m"]) -> Any:
        """The model at `parameters`."""
        return parameters

    @abc.abstractmethod
    def advance(self, model: Any, state: Float[Array, " nx"], ctrl: Float[Array, " nu"]) -> Float[Array, " nx"]:
        """f(x, u): the state one interval later."""

    @abc.abstractmethod
    def read(self, model: Any, state: Float[Array, " nx"], ctrl: Float[Array, " nu"]) -> Float[Array, " ny"]:
        """h(x): the sensor readings."""

    def forecast(self, model: Any, belief: Belief, ctrl: Float[Array, " nu"]) -> Forecast:
        """What is predicted for the end of an interval with control `ctrl`."""
        state = self.advance(model, belief.state, ctrl)
        before = self.read(model, belief.state, belief.ctrl) if self.oldest else None
        return Forecast(state, self.read(model, state, ctrl), before)

    def reported(self, model: Any, reading: Float[Array, " ny"]) -> Float[Array, " ny"]:
        """What the sensors report of a reading that was simulated outside: with their scale and bias, if they have any."""
        return reading

    @property
    def oldest(self) -> int:
        """Largest delay of a sensor, in updates; 0 if no sensor is delayed."""
        return 0

    @property
    def quaternions(self) -> Places:
        """For each quaternion among the readings its four places."""
        return ()

    def late(self, model: Any) -> Float[Array, " ny"]:
        """Delay of each channel, in updates (fractions are possible), at most `oldest`."""
        raise NotImplementedError

    def move(self, state: Float[Array, " nx"], change: Float[Array, " k"]) -> Float[Array, " nx"]:
        """`state` moved in its tangent space."""
        return state + change

    def difference(self, start: Float[Array, " nx"], end: Float[Array, " nx"]) -> Float[Array, " k"]:
        """The change that moves `start` to `end`."""
        return end - start

    def features(self, state: Float[Array, " nx"], centre: Array, scale: Array) -> Float[Array, " nf"]:
        """Bounded numbers that describe the state."""
        return jnp.tanh((state - centre) / scale)


class OwnSystem(System):
    """A user's dynamics `step(x, u, theta)` and sensors `sensors(x, theta)` on plain vectors. Each entry is one feature."""

    step: Callable[[Array, Array, Array], Array]
    sensors: Callable[[Array, Array], Array]

    def advance(self, model: Array, state: Array, ctrl: Array) -> Array:
        """See `System`."""
        return self.step(state, ctrl, model)

    def read(self, model: Array, state: Array, ctrl: Array) -> Array:
        """See `System`."""
        return self.sensors(state, model)


class FilterWindow(NamedTuple):
    """One window.

    start: start state, (nx,).
    ctrl: controls, (T, nu), constant from each sample to the next.
    measured: measurements, (T, ny), NaN where missing.
    visible: (T,) False where the corrector does not see the sample.
    counted: (T,) False in the warm-up.
    truth: true states, (T, nt), or NaN.
    lead: (T,) number of consecutive hidden samples before this one; None if the corrector sees every sample.
    """

    start: Any
    ctrl: Any
    measured: Any
    visible: Any
    counted: Any
    truth: Any
    lead: Any = None


class Run(NamedTuple):
    """Predicted readings (T-1, ny), their log noise scales, the innovations, and the corrected states (T-1, nx)."""

    predicted: Float[Array, "U ny"]
    log_scale: Float[Array, "U ny"]
    states: Float[Array, "U nx"]


class JaxFilter(eqx.Module):
    """The estimator chain for `system` with `corrector`.

    parameters: number of free parameters of the model.
    truths: number of state errors in the cost.
    covariance: whether the noise scale of each channel depends on the state's features.
    robust: degrees of freedom of Student's t.
    ahead: number of noise scales of each channel, one for each `lead`.
    """

    system: System
    corrector: Corrector = eqx.field(static=True)
    scales: Scales = eqx.field(static=True)
    parameters: int = eqx.field(static=True, default=0)
    truths: int = eqx.field(static=True, default=0)
    covariance: bool = eqx.field(static=True, default=False)
    robust: float | None = eqx.field(static=True, default=None)
    supervised: float = eqx.field(static=True, default=0.0)
    ahead: int = eqx.field(static=True, default=1)

    @property
    def layout(self) -> Theta:
        """Theta in the open chart. Noise scales are logarithms; their initial values are the innovation scales."""
        c, noise = self.corrector, np.tile(np.log(self.scales.innovation), (self.ahead, 1))
        blocks = {"corrector": np.zeros(c.size), "physics": np.zeros(self.parameters), "sensor noise": noise}
        spread = Block("spread", np.zeros((c.ny, c.nf)), free=self.covariance)
        return Theta((*(Block(*pair) for pair in blocks.items()), spread, Block("state noise", np.zeros(self.truths))))

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.layout.size

    def initial(self, gain: np.ndarray, parameters: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Initial theta, with a constant whitened gain (k, ny) and noise scales equal to the innovation scales."""
        return self.layout.join({"corrector": self.corrector.initial(gain, seed), "physics": parameters})

    def split(self, theta: Float[Array, " n"]) -> tuple[dict[str, Array], Array, Array, Array, Array]:
        """Weights, model parameters (m,), log noise (ahead, ny), spread (ny, nf), log truth scales."""
        # A NumPy theta inside `jit` would be indexed by traced numbers, which NumPy cannot.
        weights, *rest = self.layout.split(jnp.asarray(theta)).values()
        return self.corrector.split(weights), *rest

    def begin(
        self,
        model: Any,
        start: Float[Array, " nx"],
        ctrl: Float[Array, " nu"],
        reading: Float[Array, " ny"] | None = None,
    ) -> Belief:
        """The belief at a start state. Delayed sensors show their readings in that state.

        reading: that reading without scale and bias, if it was simulated outside.
        """
        past = jnp.zeros((0, self.corrector.ny), start.dtype)
        if self.system.oldest:
            given = reading is not None
            here = self.system.reported(model, reading) if given else self.system.read(model, start, ctrl)
            past = jnp.tile(here, (self.system.oldest, 1))
        return Belief(start, jnp.zeros(self.corrector.memory_size, start.dtype), past, ctrl)

    def update(
        self,
        model: Any,
        weights: dict[str, Array],
        belief: Belief,
        ctrl: Array,
        measured: Array,
        visible: Any = True,
        *,
        forecast: Forecast | None = None,
    ) -> tuple[Belief, Float[Array, " ny"], Float[Array, " nf"]]:
        """One update of (99): the belief one interval later, the predicted readings, and the features of the prediction.

        forecast: what was simulated outside, without scale and bias; by default the system predicts.
        """
        system, scales = self.system, self.scales
        if forecast is None:
            forecast = system.forecast(model, belief, ctrl)
        else:
            readings = (None if one is None else system.reported(model, one) for one in forecast[1:])
            forecast = Forecast(forecast.state, *readings)
        reading, past = forecast.reading, belief.past
        if system.oldest:
            past = jnp.concatenate([forecast.before[None], past[:-1]])
            reading = shown(jnp.concatenate([reading[None], past]), system.late(model))
        here = jnp.isfinite(measured) & visible
        # A quaternion and its negative are one rotation: the prediction is reported with the sign of the measurement.
        sign = facing(reading, measured, system.quaternions) if system.quaternions else jnp.ones_like(reading)
        innovation = jnp.where(here, (jnp.nan_to_num(measured) * sign - reading) / scales.innovation, 0.0)
        features = system.features(forecast.state, jnp.asarray(scales.centre), jnp.asarray(scales.state))
        change, memory = self.corrector(weights, belief.memory, innovation, here.astype(reading.dtype), features)
        state = system.move(forecast.state, change * scales.change)
        return Belief(state, memory, past, ctrl), reading * sign, features

    def run(self, theta: Float[Array, " n"], window: FilterWindow) -> Run:
        """Filter one window."""
        weights, parameters, noise, spread, _ = self.split(theta)
        model = self.system.prepare(parameters)

        def step(belief: Belief, given: tuple[Array, ...]) -> tuple[Belief, tuple]:
            ctrl, measured, visible, lead = given
            belief, reading, features = self.update(model, weights, belief, ctrl, measured, visible)
            return belief, (reading, noise[lead] + spread @ features, belief.state)

        lead = jnp.zeros(len(window.ctrl), int) if window.lead is None else window.lead
        inputs = (window.ctrl[:-1], window.measured[1:], window.visible[1:], lead[1:])
        _, out = jax.lax.scan(step, self.begin(model, window.start, window.ctrl[0]), inputs)
        return Run(*out)

    def cost(self, theta: Float[Array, " n"], window: FilterWindow) -> Float[Array, ""]:
        """Negative log-likelihood of one window's measurements and, with supervision, of its states."""
        run = self.run(theta, window)
        seen = jnp.isfinite(window.measured[1:]) & window.counted[1:, None]
        error = jnp.where(seen, (run.predicted - jnp.nan_to_num(window.measured[1:])) * jnp.exp(-run.log_scale), 0.0)
        total = jnp.sum(likelihood(self.robust).cost(error) + jnp.where(seen, run.log_scale, 0.0))
        if self.supervised > 0 and self.truths:
            log_truth = self.split(theta)[-1]
            known = jnp.isfinite(window.truth[1:]).all(-1) & window.counted[1:]
            truth = jnp.where(known[:, None], window.truth[1:], run.states[:, : window.truth.shape[1]])
            full = run.states.at[:, : truth.shape[1]].set(truth)
            off = jax.vmap(self.system.difference)(full, run.states)[:, : self.truths] * jnp.exp(-log_truth)
            each = 0.5 * jnp.sum(off**2, axis=1) + jnp.sum(log_truth)
            total = total + self.supervised * jnp.sum(jnp.where(known, each, 0.0))
        return total

    def mean_cost(self, theta: Float[Array, " n"], windows: FilterWindow) -> Float[Array, ""]:
        """Cost per measured sample over a batch of windows (leading axis)."""

        def each(shared: tuple[JaxFilter, Array], windows: FilterWindow) -> Array:
            chain, theta = shared
            return jax.vmap(chain.cost, in_axes=(None, 0))(theta, windows)

        costs = devices.spread(each, (self, theta), windows)
        seen = jnp.isfinite(windows.measured[:, 1:]) & windows.counted[:, 1:, None]
        return jnp.sum(costs) / jnp.sum(seen)


def shown(history: Float[Array, "H ny"], late: Float[Array, " ny"]) -> Float[Array, " ny"]:
    """Readings at row `late` of `history` by linear interpolation. The first row is the newest."""
    row = jnp.clip(jnp.floor(late).astype(int), 0, len(history) - 2)
    newer, older = (jnp.take_along_axis(history, (row + i)[None], 0)[0] for i in (0, 1))
    return newer + (late - row) * (older - newer)


class _MeanCost(eqx.Module):
    """The mean cost of all windows at once, as a function of theta, with the prior's share for each measured sample."""

    chain: JaxFilter
    data: FilterWindow
    prior: Callable[[Array], Array] | None = eqx.field(static=True, default=None)

    def __call__(self, theta: Array) -> Array:
        cost = self.chain.mean_cost(theta, self.data)
        if self.prior is None:
            return cost
        seen = jnp.isfinite(self.data.measured[:, 1:]) & self.data.counted[:, 1:, None]
        return cost + self.prior(theta) / jnp.sum(seen)


def adam(learning_rate: float, iterations: int, *, weight_decay: float = 0.0) -> FirstOrder:
    """Adam with gradients clipped to norm 10. The learning rate falls to a hundredth along a cosine over the iterations."""
    import optax

    schedule = optax.cosine_decay_schedule(learning_rate, iterations, 0.01)
    return FirstOrder(
        optimiser=optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=weight_decay))
    )


def adam_method(
    chain: JaxFilter,
    windows: FilterWindow,
    *,
    iterations: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    prior: Callable[[Array], Array] | None = None,
) -> Sampled:
    """`adam` on the mean cost of all windows at once, as a method of the common optimisation loop.

    prior: minus the log of a prior on theta (n,), JAX.
    """
    cost = ExactSampler(devices.everywhere(_MeanCost(chain, jax.tree.map(jnp.asarray, windows), prior)))
    rule = adam(learning_rate, iterations, weight_decay=weight_decay)
    return Sampled(rule, cost, stopping=Stopping(tolerance=1e-7, noise_floor=False))


def train(
    chain: JaxFilter,
    theta: np.ndarray,
    windows: FilterWindow,
    *,
    iterations: int,
    learning_rate: float = 1e-2,
    seed: int = 0,
    weight_decay: float = 0.0,
    watch: Callable[[Moment], bool | None] | None = None,
) -> Result:
    """Minimise the mean cost of all windows from `theta` (n,) by `adam_method`.

    Raises:
      DsoError: the cost at the initial theta is not finite.
    """
    method = adam_method(chain, windows, iterations=iterations, learning_rate=learning_rate, weight_decay=weight_decay)
    first = method.init(jax.random.key(seed), jnp.asarray(theta))
    found = descend(method, first, iterations=iterations, watch=watch)
    if found.status is Status.DIVERGED and not found.history:
        raise DsoError(
            f"the estimator's cost is not finite at the start: {found.message} Give a shorter window or better start values."
        )
    return found
