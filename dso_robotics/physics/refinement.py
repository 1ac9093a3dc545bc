"""How the gradient of a rollout through contact changes as the time step gets smaller.

The derivative of a discrete simulation is exact. Through a hard impact it can still be far from the derivative of the
continuous motion: at usual time steps it can even have the wrong sign (DiffMJX, ICLR 2026). Trust it if it stays the same
with a smaller time step.
"""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics import step as physics
from dso_robotics.physics.agreement import converged, sample_states
from dso_robotics.physics.device import put_model
from dso_robotics.progress.phase import each, phase

_HALVINGS, _STEPS, _CANDIDATES = 3, 100, 12
_SETTLED, _DOUBTFUL = 0.05, 0.5


@dataclasses.dataclass(frozen=True)
class Refinement:
    """The same physical time, simulated with smaller and smaller time steps.

    seconds: length of the rollout [s].
    timesteps: time steps [s].
    derivatives: derivatives of the sum of the final state, by name, one for each time step.
    touching: share of the steps (at the model's own time step) with a contact or joint limit.
    switches: how often the number of contacts and limits changed.
    """

    seconds: float
    timesteps: tuple[float, ...]
    derivatives: dict[str, tuple[float, ...]]
    touching: float
    switches: int

    def verdict(self, name: str) -> str:
        """One sentence: whether sign and magnitude of a derivative have settled."""
        values = np.array(self.derivatives[name])
        first, before, last = values[0], values[-2], values[-1]
        if not np.isfinite(values).all():
            return "is not finite: the simulation diverges at some time step."
        size = np.abs(values).max()
        if size == 0:
            return "is exactly zero at every time step."
        if np.abs(last - before) > _SETTLED * max(abs(last), 1e-3 * size):
            words = "sign" if last * before < 0 else "magnitude"
            much = abs(last - before) / max(abs(last), 1e-3 * size)
            steady = (np.sign(values) == np.sign(last)).all() and much < _DOUBTFUL
            trust = "Its sign is stable; its magnitude is no more accurate than that." if steady else "Do not trust it."
            return f"has NOT settled: its {words} still changes (by {much:.0%}) at the smallest time steps. {trust}"
        if first * last < 0:
            return (
                "has the WRONG SIGN at the model's time step: it settles at the opposite one. Use a smaller time step."
            )
        if np.abs(first - last) > _SETTLED * abs(last):
            return f"settles, but is off by {abs(first / last - 1):.0%} at the model's time step: use a smaller one."
        return "has settled: sign and magnitude are reliable at the model's time step."


def refine(source: mujoco.MjModel, *, seed: int = 0, steps: int = _STEPS) -> Refinement:
    """Differentiate a rollout of `steps` steps, and the same time with two, four and eight times as many steps.

    Of several random rollouts, the one in which contacts and limits switch most is used; its control is constant. One
    derivative is along a random unit direction of the initial velocity, the other along a random relative change of all body
    masses. JAX must be in float64. Raises DsoError when the differentiable engine does not support the model.
    """
    model = converged(source)
    with phase("states sampled"):
        state, ctrl, touching, switches = _start(model, steps, seed)
    rng = np.random.default_rng(seed + 1)
    push = rng.normal(size=model.nv)
    push /= np.linalg.norm(push)
    mass = np.asarray(model.body_mass) * rng.uniform(0.5, 1.5, model.nbody) * rng.choice([-1, 1], model.nbody)
    run = jax.jit(_slopes(model, state, ctrl, push, mass))
    timesteps, found = [], []
    for k in each(range(_HALVINGS + 1), "rollout differentiated", "time step"):
        timesteps.append(model.opt.timestep / 2**k)
        found.append(np.asarray(run(timesteps[-1], steps * 2**k)))
    pairs = zip(("initial velocity", "body masses"), np.array(found).T, strict=True)
    derivatives = {name: tuple(v.tolist()) for name, v in pairs}
    return Refinement(steps * timesteps[0], tuple(timesteps), derivatives, touching, switches)


def _start(model: mujoco.MjModel, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, float, int]:
    """State and control from which constraints switch most within `steps`, share of steps with a constraint, switches."""
    states, ctrls, _ = sample_states(model, _CANDIDATES, seconds=0.5, seed=seed)
    data, best = mujoco.MjData(model), (states[0], ctrls[0], 0.0, -1)
    kinds = (mujoco.mjtConstraint.mjCNSTR_FRICTION_DOF, mujoco.mjtConstraint.mjCNSTR_FRICTION_TENDON)
    for state, ctrl in zip(states, ctrls, strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.act[:] = np.split(state, [model.nq, model.nq + model.nv])
        data.ctrl[:] = ctrl
        counts = []
        for _ in range(steps):
            mujoco.mj_step(model, data)
            counts.append(data.nefc - data.ne - np.isin(data.efc_type, kinds).sum())
        if not np.isfinite(data.qpos).all():
            continue
        switches = int((np.diff(counts) != 0).sum())
        if switches > best[3]:
            best = (state, ctrl, float(np.mean(np.array(counts) > 0)), switches)
    return best


def _slopes(model: mujoco.MjModel, state: np.ndarray, ctrl: np.ndarray, push: np.ndarray, mass: np.ndarray):
    """Function of time step and number of steps: derivatives of the final state's sum along `push` and `mass`."""
    made, nq, nv = put_model(model), model.nq, model.nv

    def slopes(timestep: Float[Array, ""], steps: int) -> Float[Array, "2"]:
        def total(amounts: Float[Array, "2"]) -> Array:
            changed = made.replace(
                body_mass=jnp.asarray(model.body_mass, float) + amounts[1] * mass,
                opt=made.opt.replace(timestep=jnp.asarray(timestep, float)),
            )
            begin = physics.make_state(
                changed,
                jnp.asarray(state[:nq]),
                jnp.asarray(state[nq : nq + nv]) + amounts[0] * push,
                jnp.asarray(state[nq + nv :]),
            )
            end = jax.lax.fori_loop(0, steps, lambda _, s: physics.advance(changed, s, jnp.asarray(ctrl)), begin)
            return end.qpos.sum() + end.qvel.sum() + end.act.sum()

        return jax.jacfwd(total)(jnp.zeros(2))

    return slopes
