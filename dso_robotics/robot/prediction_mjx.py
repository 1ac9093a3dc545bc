"""Predictions of every window through MJX: exact derivatives in forward mode, and a cost for reverse mode.

This module is loaded only when the engine is used, because importing JAX and MJX takes seconds. The caller sets float64.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.core import devices
from dso_robotics.data.quaternion import facing
from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics import stages
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.device import put_model
from dso_robotics.physics.state import Tangent
from dso_robotics.progress.phase import phase
from dso_robotics.robot.signals import arriving, commanded, reported

# Number of windows differentiated at once. Memory grows with it, and a larger number is not faster on a CPU.
_AT_ONCE = 16


class MjxPrediction:
    """The differentiable engine. See `prediction.Prediction` for the interface.

    compile_seconds: time spent tracing and compiling so far.
    """

    name = "mjx"

    def __init__(self, vector: ParameterVector, windows: Windows):
        self.vector, self.windows = vector, windows
        self.steps, self.compile_seconds = 0, 0.0
        if any(vector.mj.tendon_frictionloss[i] == 0 for i in vector.freed("tendon_frictionloss")):
            raise DsoError(
                "a tendon whose frictionloss is 0 in the model has no friction on MJX, whatever the value freed; write a small "
                "frictionloss in the model, or use --engine mujoco."
            )
        self._model = put_model(vector.mj, friction_dofs=vector.freed("dof_frictionloss"))
        self._expansion = tuple(map(jnp.asarray, vector.expansion([r.name for r in windows.rollouts])))
        self._compiled: dict[str, Callable[..., tuple[Array, ...]]] = {}

    def predict(self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None) -> np.ndarray:
        """See `Prediction.predict`. Always simulates all windows, because the compiled code has one fixed shape."""
        self.steps += self.windows.ctrl.shape[0] * self.windows.ctrl.shape[1]
        chosen, every = self._every(start, only)
        return np.asarray(self._run("predict", self._window, z, every)[0])[chosen]

    def _every(self, start: np.ndarray, only: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the requested windows, and a start state for every window."""
        chosen = np.arange(len(self.windows)) if only is None else only
        every = np.tile(start[:1], (len(self.windows), 1))
        every[chosen] = start
        return chosen, every

    def linearize(
        self, z: np.ndarray, start: np.ndarray, *, by_start: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Prediction.linearize`."""
        n, k = len(z), 2 * self.vector.mj.nv + self.vector.mj.na
        arguments = (0, 1) if by_start else (0,)
        self.steps += self.windows.ctrl.shape[0] * self.windows.ctrl.shape[1] * (1 + n + (k if by_start else 0))

        def both(z: Array, change: Array, *window: Array) -> tuple[Array, ...]:
            def twice(z: Array, change: Array) -> tuple[Array, Array]:
                y = self._window(z, change, *window)
                return y, y

            derivatives, y = jax.jacfwd(twice, argnums=arguments, has_aux=True)(z, change)
            return y, *derivatives

        y, by_z, *rest = self._run(f"linearize{by_start}", both, z, start)
        by_x = rest[0] if rest else np.zeros((*y.shape, 0))
        return np.asarray(y), np.asarray(by_z), np.asarray(by_x)

    def predict_ends(
        self, z: np.ndarray, start: np.ndarray, only: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Prediction.predict_ends`."""
        self.steps += self.windows.ctrl.shape[0] * self.windows.ctrl.shape[1]
        chosen, every = self._every(start, only)
        y, end = map(np.asarray, self._run("predict_ends", self._window_and_end, z, every))
        return y[chosen], np.where(self._followed, end, np.nan)[chosen]

    def linearize_ends(self, z: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        """See `Prediction.linearize_ends`."""
        k = 2 * self.vector.mj.nv + self.vector.mj.na
        self.steps += self.windows.ctrl.shape[0] * self.windows.ctrl.shape[1] * (1 + len(z) + k)

        def both(z: Array, change: Array, *window: Array) -> tuple[Array, ...]:
            def twice(z: Array, change: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
                out = self._window_and_end(z, change, *window)
                return out, out

            ((y_z, y_x), (end_z, end_x)), (y, end) = jax.jacfwd(twice, argnums=(0, 1), has_aux=True)(z, change)
            return y, y_z, y_x, end, end_z, end_x

        y, y_z, y_x, end, end_z, end_x = map(np.asarray, self._run("linearize_ends", both, z, start))
        end = np.where(self._followed, end, np.nan)
        chart = self._chart(end)
        return y, y_z, y_x, end, chart @ end_z, chart @ end_x

    @property
    def _followed(self) -> np.ndarray:
        return np.isfinite(self.windows.handover)[:, None]

    def _chart(self, state: np.ndarray) -> np.ndarray:
        """Derivative (B, 2*nv+na, nq+nv+na) of the tangent by the coordinates of the state, at `state`."""
        tangent, h = Tangent(self.vector.mj), 1e-6
        moved = state[:, None] + h * np.eye(state.shape[1])
        return np.swapaxes(tangent.difference(state[:, None], moved), 1, 2) / h

    def cost(
        self, sigma: np.ndarray
    ) -> Callable[[Float[Array, " n"], Float[Array, "B k"], Float[Array, "B nx"]], Float[Array, ""]]:
        """Negative log-likelihood as a JAX function of z, the starts' tangents and the starts, for reverse mode.

        It equals the cost of `WindowedIdentification` with noise scales `sigma`, (C,) or (B, 1, C), including the prior.
        """
        seen = jnp.asarray(np.isfinite(self.windows.measured))

        def negative_log_likelihood(z: Array, change: Array, start: Array) -> Array:
            errors = self.errors(z, change, start) / sigma
            scales = jnp.sum(jnp.where(seen, jnp.log(jnp.asarray(sigma)), 0.0))
            return 0.5 * jnp.sum(errors**2) + scales + 0.5 * jnp.sum(self.vector.prior_residual(z) ** 2)

        return negative_log_likelihood

    def errors(
        self, z: Float[Array, " n"], change: Float[Array, "B k"], start: Float[Array, "B nx"], *, in_turn: bool = False
    ) -> Float[Array, "B S C"]:
        """Predictions minus measurements, 0 where nothing was measured; a JAX function.

        in_turn: simulate one window after the other, which is no slower on a CPU and needs less memory.
        """
        inputs, measured = self._inputs(), self.windows.measured
        if in_turn:
            y = jax.lax.map(lambda window: self._window(z, *window), (change, start, *inputs))
        else:
            y = devices.spread(
                lambda z, *rows: jax.vmap(functools.partial(self._window, z))(*rows), z, change, start, *inputs
            )
        return jnp.where(np.isfinite(measured), y - np.nan_to_num(measured), 0.0)

    def _inputs(self) -> tuple[Array, ...]:
        w = self.windows
        steps = w.past.shape[1] + w.ctrl.shape[1]
        drive = np.zeros((len(w), steps, 0)) if w.drive is None else w.drive.values
        return tuple(
            map(
                jnp.asarray,
                (w.ctrl, w.past, drive, w.step, w.share, w.rollout, np.nan_to_num(w.handover, nan=1.0), w.measured),
            )
        )

    def _window(self, *arguments: Array) -> Array:
        """Channels (S, C) of one window. Arguments as in `_window_and_end`."""
        return self._window_and_end(*arguments)[0]

    def _window_and_end(
        self,
        z: Array,
        change: Array,
        start: Array,
        ctrl: Array,
        past: Array,
        drive: Array,
        step: Array,
        share: Array,
        rollout: Array,
        handover: Array,
        measured: Array,
    ) -> tuple[Array, Array]:
        """Channels (S, C) of one window from `start` (nq+nv+na,) moved by `change` (2*nv+na,), and its state at `handover`."""
        if self.vector.local:
            z = self._expansion[0][rollout] @ z + self._expansion[1][rollout]
        model, products = self._model_at(z)
        signals = self.vector.shared.signals(z)
        if self.windows.drive is not None:
            ctrl, past = commanded(ctrl, past, drive, jnp.asarray(self.windows.drive.share), signals["controller_gain"])
        if "actuator_delay" in signals:
            ctrl = arriving(ctrl, past, signals["actuator_delay"], self.windows.timestep)
        nq, nv = model.nq, model.nv
        qpos = stages.integrate_position(model, start[:nq], change[:nv], 1.0)
        state = physics.make_state(
            model, qpos, start[nq : nq + nv] + change[nv : 2 * nv], start[nq + nv :] + change[2 * nv :]
        )

        def advance(state: physics.State, ctrl: Array) -> tuple[physics.State, tuple[Array, Array]]:
            state, sensordata = physics.advance_measured(model, state, ctrl, products=products)
            return state, (sensordata, jnp.concatenate([state.qpos, state.qvel, state.act]))

        _, (sensordata, path) = jax.lax.scan(advance, state, ctrl)
        met = jnp.floor(handover).astype(int)
        end = path[met - 1]
        end = end + (handover - met) * (path[jnp.minimum(met, len(ctrl) - 1)] - end)
        channels = self.windows.channels
        wanted = reported(sensordata, signals)[:, channels.sensor_addresses]
        if "sensor_delay" not in signals:
            before, after = wanted[step], wanted[jnp.minimum(step + 1, len(ctrl) - 1)]
            return self._facing(before + share[:, None] * (after - before), measured), end
        late = signals["sensor_delay"][channels.sensor_ids] / self.windows.timestep
        place = jnp.maximum((step + share)[:, None] - late, 0.0)
        whole = jnp.minimum(jnp.floor(place), len(ctrl) - 1.0)
        index = whole.astype(int)
        before = jnp.take_along_axis(wanted, index, 0)
        after = jnp.take_along_axis(wanted, jnp.minimum(index + 1, len(ctrl) - 1), 0)
        return self._facing(before + (place - whole) * (after - before), measured), end

    def _facing(self, y: Array, measured: Array) -> Array:
        places = self.windows.channels.quaternions
        return y * facing(y, measured, places) if places else y

    def _model_at(self, z: Array) -> tuple[mjx.Model, Array | None]:
        """The MJX model at z, and the products of inertia if a full inertia is free."""
        return with_fields(self._model, self.vector.mj, self.vector.shared.fields(z))

    def _run(
        self, name: str, function: Callable[..., Array | tuple[Array, ...]], z: np.ndarray, start: np.ndarray
    ) -> tuple[Array, ...]:
        change = jnp.zeros((len(start), 2 * self.vector.mj.nv + self.vector.mj.na))
        arguments = devices.everywhere((jnp.asarray(z), change, jnp.asarray(start), *self._inputs()))
        if name not in self._compiled:

            def every(z: Array, *windows: Array) -> tuple[Array, ...]:
                def mine(z: Array, *part: Array) -> tuple[Array, ...]:
                    def one(window: tuple[Array, ...]) -> tuple[Array, ...]:
                        out = function(z, *window)
                        return out if isinstance(out, tuple) else (out,)

                    return jax.lax.map(one, part, batch_size=min(_AT_ONCE, len(part[0])))

                return devices.spread(mine, z, *windows)

            began = time.perf_counter()
            with phase("derivatives of the windows" if "linearize" in name else "prediction of the windows"):
                self._compiled[name] = jax.jit(every, out_shardings=devices.whole()).lower(*arguments).compile()
            self.compile_seconds += time.perf_counter() - began
        return self._compiled[name](*arguments)
