"""A policy that is planned with a model of its own: the linear-quadratic regulator of that model about a posture.

    numbers z of the model -> A, B, u* -> P, K -> action = u* - K (x - x*)

A and B linearise a control step of C MuJoCo about the posture x*, and u* holds the model there. Their derivatives by z are
central differences. P solves the Riccati equation; its derivative is that of an implicit function (`core.regulator`). The
regulator is linear in the observation of the state, so it is the weights of a `LinearPolicy`: an unlimited hinge counts as
sin(q - q*), and a quaternion as twice the vector part of conj(q*) q. At run time it is a linear policy like any other.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float
from mujoco import batch

from dso_robotics.core.differences import measured
from dso_robotics.core.implicit import Dense
from dso_robotics.core.regulator import regulator
from dso_robotics.errors import DsoError
from dso_robotics.parameters.theta import Block
from dso_robotics.physics.batch import set_fields
from dso_robotics.physics.posture import BALL, FREE
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.squash import Squash

# The block of theta with the numbers of the planning model.
PLAN = "plan"
# Step of the differences by a number, as a part of its typical size; of a state or a control, by MuJoCo.
_STEP, _SMALL = 1e-3, 1e-6
# Generalised forces that the actuators leave at the posture, as a part of those that it needs.
_HELD = 1e-6
# How far inside the unit circle the eigenvalues of the regulated model must be.
_MARGIN = 1e-7


@dataclasses.dataclass(frozen=True, eq=False)
class Regulator:
    """The plan of a chain, as weights of its policy.

    model: the planning model and its free numbers.
    posture: where it is to be held, (nq,) of the planning model.
    substeps: time steps of the planning model in a control step.
    state_cost: Q, the diagonal (2 nv,), of positions and velocities in tangent coordinates.
    action_cost: R, the diagonal (nu,), of controls.
    seen: (2 nv, o) and home (2 nv,): the state x - x* is seen @ observation - home.
    drives: which actuator of the planning model each one of the chain is, (nu,).
    squash: from actions to controls of the chain.
    """

    model: Mechanism
    posture: np.ndarray
    substeps: int
    state_cost: np.ndarray
    action_cost: np.ndarray
    seen: np.ndarray
    home: np.ndarray
    drives: np.ndarray
    squash: Squash

    @functools.cached_property
    def block(self) -> Block:
        """The free numbers as a block of theta; their names begin with plan/, because they are no numbers of the robot."""
        made = self.model.groups["physics"].block(PLAN)
        return dataclasses.replace(made, prior=None, entries=tuple(f"plan/{name}" for name in made.names))

    def weights(self, part: Float[Array, " k"], scaling: Scaling) -> Float[Array, " size"]:
        """Weights of a `LinearPolicy` that sees the scaled observation. NaN where no regulator exists.

        part: the numbers in the open chart, as in theta.
        """
        holds, gain = self.gain(self.block.numbers(part, "open"))
        limited = np.array(self.squash.limited)
        squash, holds, gain = self.squash, holds[self.drives], gain[self.drives]
        rest = squash.action(holds)
        z = jnp.arctanh(rest) if squash.after else squash.moved(rest)
        z = jnp.where(limited, z, squash.moved(rest))
        slope = squash.gain * jnp.where(limited, squash.half * (1.0 - jnp.tanh(z) ** 2), 1.0)
        matrix = -gain @ self.seen / slope[:, None]
        offset = squash.unmoved(z) + gain @ self.home / slope
        return jnp.concatenate([(matrix * scaling.spread).ravel(), offset + matrix @ scaling.mean])

    def gain(self, numbers: Float[Array, " k"]) -> tuple[Float[Array, " nu"], Float[Array, "nu 2nv"]]:
        """u* and K of the planning model at its numbers. K is NaN where no gain stabilises it."""
        size, nu = 2 * self.model.mj.nv, self.model.mj.nu
        flat = self._linear(numbers)
        a, b = flat[: size * size].reshape(size, size), flat[size * size : size * (size + nu)].reshape(size, nu)
        told = jax.ShapeDtypeStruct((size, size), flat.dtype)
        pair = jax.lax.stop_gradient(a), jax.lax.stop_gradient(b)
        value = jax.pure_callback(self._value, told, *pair, vmap_method="sequential")
        weights = jnp.diag(jnp.asarray(self.state_cost)), jnp.diag(jnp.asarray(self.action_cost))
        return flat[size * (size + nu) :], regulator(a, b, *weights, inverse=Dense(), value=value)[0]

    @functools.cached_property
    def _linear(self) -> Callable[[Float[Array, " k"]], Float[Array, " m"]]:
        """A, B and u* one after the other, as a function of the numbers (k,) with a derivative."""
        size, nu = 2 * self.model.mj.nv, self.model.mj.nu
        steps = _STEP * self.model.groups["physics"].scale
        return measured(self._linearised, (size * (size + nu) + nu,), step=steps)

    def _linearised(self, numbers: np.ndarray) -> np.ndarray:
        model = self._at(numbers)
        data, holds = mujoco.MjData(model), self.held(model)[0]
        size, nu = 2 * model.nv, model.nu
        a, b = np.zeros((size, size)), np.zeros((size, nu))
        data.qpos[:], data.ctrl[:] = self.posture, holds
        mujoco.mjd_transitionFD(model, data, _SMALL, 1, a, b, None, None)
        whole, pushed = np.eye(size), np.zeros((size, nu))
        for _ in range(self.substeps):
            whole, pushed = a @ whole, a @ pushed + b
        return np.concatenate([whole.ravel(), pushed.ravel(), holds])

    def _at(self, numbers: np.ndarray) -> mujoco.MjModel:
        """The planning model at its numbers, without the limits of its controls: those are the chain's."""
        mechanism = self.model
        engine = batch.Batch(mechanism.mj, 1, 1)
        fields = mechanism.fields(np.asarray(numbers, float))
        set_fields(engine, mechanism.mj, {name: np.asarray(value)[None] for name, value in fields.items()})
        model = engine.get_model(0)
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL)
        return model

    def held(self, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
        """The controls (nu,) that hold a model at the posture best, and the generalised forces (nv,) that they leave."""
        data = mujoco.MjData(model)
        data.qpos[:] = self.posture
        mujoco.mj_inverse(model, data)
        needed = data.qfrc_inverse.copy()
        mujoco.mj_fwdVelocity(model, data)
        mujoco.mj_fwdActuation(model, data)
        rest, columns = data.qfrc_actuator.copy(), np.zeros((model.nv, model.nu))
        for i in range(model.nu):
            data.ctrl[:] = np.eye(model.nu)[i]
            mujoco.mj_fwdActuation(model, data)
            columns[:, i] = data.qfrc_actuator - rest
        found = np.linalg.lstsq(columns, needed - rest, rcond=None)[0]
        return found, needed - rest - columns @ found

    def _value(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """P of the Riccati equation; NaN if there is none whose gain stabilises the model."""
        a, b, kind = np.asarray(a, float), np.asarray(b, float), a.dtype
        costs = np.diag(self.state_cost), np.diag(self.action_cost)
        try:
            found = scipy.linalg.solve_discrete_are(a, b, *costs)
            gain = np.linalg.solve(costs[1] + b.T @ found @ b, b.T @ found @ a)
            stable = np.max(np.abs(np.linalg.eigvals(a - b @ gain))) < 1.0 - _MARGIN
        except (np.linalg.LinAlgError, ValueError):
            stable, found = False, a
        return np.where(stable, found, np.nan).astype(kind)

    def check(self) -> None:
        """Raise DsoError if the model at its first numbers does not rest at the posture, or no gain stabilises it there."""
        numbers = np.asarray(self.model.groups["physics"].initial)
        model = self._at(numbers)
        holds, left = self.held(model)
        data = mujoco.MjData(model)
        data.qpos[:] = self.posture
        mujoco.mj_inverse(model, data)
        if np.max(np.abs(left), initial=0.0) > _HELD * (1.0 + np.max(np.abs(data.qfrc_inverse))):
            worst = int(np.argmax(np.abs(left)))
            joint = model.joint(int(model.dof_jntid[worst])).name
            raise DsoError(
                f"no control holds the model at the posture: at joint '{joint}' {np.abs(left[worst]):.3g} N or N*m are left. "
                "Give a posture at which it can rest, by `keyframe` or `position`."
            )
        limited, at = np.array(self.squash.limited), holds[self.drives]
        place = np.where(limited, np.abs(np.asarray(self.squash.place(jnp.asarray(at)))), 0.0)
        if np.any(place >= 1.0):
            worst = int(np.argmax(place))
            raise DsoError(
                f"holding the posture takes {at[worst]:.4g} of actuator {worst}, which is not inside its range; give another "
                "posture, or a model that can hold it."
            )
        if not np.all(np.isfinite(np.asarray(self.gain(jnp.asarray(numbers))[1]))):
            raise DsoError(
                "no regulator stabilises the model at the posture. Every motion must be seen in the costs and reached by the "
                "actuators: give each joint a positive `position_cost`, or take joints out that no actuator moves."
            )


def seen_state(
    model: mujoco.MjModel, posture: np.ndarray, labels: Sequence[str], named: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """`Regulator.seen` and `Regulator.home`, for an observation of the state of a chain.

    model: the planning model; its joints are `named`, as the chain calls them.
    labels: what the chain's policy sees, see `entries.state_entries`.

    Raises:
      DsoError: the policy does not see a joint of the planning model.
    """
    where = {label: i for i, label in enumerate(labels)}
    seen, home, q = np.zeros((2 * model.nv, len(labels))), np.zeros(2 * model.nv), posture

    def at(label: str, joint: str) -> int:
        if label not in where:
            raise DsoError(
                f"the policy does not see joint '{joint}', which the planning model has. Take it out of leave_out, or out of "
                "the planning model."
            )
        return where[label]

    for joint, name in enumerate(named):
        kind, first, dof = int(model.jnt_type[joint]), int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
        width = {FREE: 6, BALL: 3}.get(kind, 1)
        for k in range(width):
            label = f"{name} velocity" if width == 1 else f"{name} velocity[{k}]"
            seen[model.nv + dof + k, at(label, name)] = 1.0
        if width == 1:
            if name in where or f"sin {name}" not in where:
                seen[dof, at(name, name)], home[dof] = 1.0, q[first]
            else:
                seen[dof, where[f"sin {name}"]], seen[dof, where[f"cos {name}"]] = np.cos(q[first]), -np.sin(q[first])
            continue
        turn = 3 if kind == FREE else 0
        for k in range(turn):
            seen[dof + k, at(f"{name}[{k}]", name)], home[dof + k] = 1.0, q[first + k]
        w, x, y, z = q[first + turn : first + turn + 4]
        # Twice the vector part of conj(q*) q.
        rows = 2.0 * np.array([[-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])
        for k in range(4):
            seen[dof + turn : dof + turn + 3, at(f"{name}[{turn + k}]", name)] = rows[:, k]
    return seen, home
