"""How far the differentiable step and its derivatives are from C MuJoCo, on states of one model reached by rollout.

Derivatives are compared along random directions, one for each block of inputs. A direction mixes every element of its block,
so one number per state tests them all. The reference is a central difference of C MuJoCo. Where two step sizes disagree, the
step has a kink (a contact, limit or friction switches). There is no derivative at a kink, so the state is counted as excluded.
"""

import copy
import dataclasses
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics import stages
from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import mjx
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.constants import set_constants
from dso_robotics.physics.device import put_model
from dso_robotics.physics.state import Tangent
from dso_robotics.progress.phase import each, phase

FIELDS = (
    "body_mass",
    "body_inertia",
    "body_ipos",
    "body_pos",
    "dof_damping",
    "dof_armature",
    "dof_frictionloss",
    "jnt_stiffness",
    "actuator_gear",
    "actuator_gainprm",
    "geom_friction",
    "geom_size",
)
INPUTS = ("qpos", "qvel", "act", "ctrl")
# Relative moves of a block. Smaller ones drown in C's rounding; larger ones cross more switches.
MOVES = (1e-6, 4e-6)
# Errors are relative to the derivative's largest element, or to this if it is larger: smaller effects drown in C's rounding.
FLOOR = 1e-4
# If two central differences are further apart than this relative error, there is a kink.
_KINK = 1e-5
_SOLVER_TOLERANCE, _SOLVER_ITERATIONS = 1e-14, 200


@dataclasses.dataclass(frozen=True)
class Block:
    """Agreement of one block's derivative.

    largest: largest relative error over the states compared.
    median: median relative error over the states compared.
    compared: number of states compared.
    excluded: number of states excluded.
    zero: True if the derivative was exactly zero in every state compared.
    """

    largest: float
    median: float
    compared: int
    excluded: int
    zero: bool


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of one model.

    step: largest error of the next state over the states that do not switch, relative to the larger of one and the state's
      largest element.
    switching: number of states that switch: C's own differences by position or velocity disagree there.
    step_switching: largest error of the next state over the states that switch.
    blocks: agreement of the derivative, by block.
    states: number of states.
    contacts: number of states with at least one active constraint.
    compile_seconds: time to compile the derivative.
    """

    step: float
    switching: int
    step_switching: float
    blocks: Mapping[str, Block]
    states: int
    contacts: int
    compile_seconds: float


def sample_states(
    model: mujoco.MjModel, count: int, *, seconds: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States (count, nq+nv+na), controls (count, nu) and numbers of constraints (count,) from rollouts in C MuJoCo.

    Every rollout starts at qpos0 with a small random velocity. Its controls are random within the actuators' ranges and
    are held for 20 steps each. One state is taken from each rollout, at a random time up to `seconds`.
    """
    rng, data = np.random.default_rng(seed), mujoco.MjData(model)
    low = np.where(model.actuator_ctrllimited, model.actuator_ctrlrange[:, 0], -1.0)
    high = np.where(model.actuator_ctrllimited, model.actuator_ctrlrange[:, 1], 1.0)
    states, ctrls, constraints = [], [], []
    steps = max(int(seconds / model.opt.timestep), 1)
    while len(states) < count:
        mujoco.mj_resetData(model, data)
        data.qvel[:] = 0.1 * rng.normal(size=model.nv)
        for k in range(rng.integers(1, steps + 1)):
            if k % 20 == 0:
                data.ctrl[:] = rng.uniform(0.8 * low + 0.2 * high, 0.2 * low + 0.8 * high)
            mujoco.mj_step(model, data)
        state = np.concatenate([data.qpos, data.qvel, data.act])
        if np.isfinite(state).all():
            mujoco.mj_forward(model, data)
            states.append(state)
            ctrls.append(data.ctrl.copy())
            constraints.append(data.nefc)
    return np.array(states), np.array(ctrls), np.array(constraints)


def converged(source: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of `source` whose constraint solver runs to convergence."""
    model = copy.copy(source)
    model.opt.tolerance, model.opt.iterations = _SOLVER_TOLERANCE, _SOLVER_ITERATIONS
    return model


def agreement(source: mujoco.MjModel, *, count: int = 20, seed: int = 0) -> Agreement:
    """Compare step and derivatives of `source` with C MuJoCo on `count` states. Both constraint solvers run to convergence.

    JAX must be in float64. Raises DsoError when the differentiable engine does not support the model.
    """
    states, ctrls, constraints = sample_states(source, count, seed=seed)
    model = converged(source)
    directions = _directions(model, np.random.default_rng(seed + 1))
    began = time.perf_counter()
    with phase("derivatives of the step"):
        traced = jax.jit(_derivatives(model, directions)).lower(jnp.asarray(states[0]), jnp.asarray(ctrls[0]))
        run = traced.compile()
    compile_seconds = time.perf_counter() - began
    engine = BatchEngine(model)
    errors: dict[str, list[float]] = {name: [] for name in directions}
    excluded, zero = dict.fromkeys(directions, 0), dict.fromkeys(directions, True)
    largest, switching = {False: 0.0, True: 0.0}, 0
    for state, ctrl in each(list(zip(states, ctrls, strict=True)), "compared with C MuJoCo", "state"):
        following, slopes = run(jnp.asarray(state), jnp.asarray(ctrl))
        expected, numeric = _differences(model, engine, directions, state, ctrl)
        error = float(np.abs(following - expected).max() / max(1.0, np.abs(expected).max()))
        switches = any(_kinked(*numeric[name]) for name in ("qpos", "qvel"))
        largest[switches] = max(largest[switches], error)
        switching += switches
        for name in directions:
            fine, coarse = numeric[name]
            size = max(float(np.abs(fine).max()), FLOOR)
            if _kinked(fine, coarse):
                excluded[name] += 1
                continue
            zero[name] &= not np.any(slopes[name])
            errors[name].append(float(np.abs(slopes[name] - (4 * fine - coarse / 4) / 3.75).max() / size))
    blocks = {
        name: Block(
            largest=max(found, default=0.0),
            median=float(np.median(found)) if found else 0.0,
            compared=len(found),
            excluded=excluded[name],
            zero=bool(found) and zero[name],
        )
        for name, found in errors.items()
    }
    touching = int((constraints > 0).sum())
    return Agreement(largest[False], switching, largest[True], blocks, count, touching, compile_seconds)


def _kinked(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether two central differences disagree: the step has no derivative there."""
    return bool(np.abs(fine - coarse).max() > _KINK * max(float(np.abs(fine).max()), FLOOR))


def _directions(model: mujoco.MjModel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A random direction for each block that the model has. Parameters move in proportion to their size."""
    sizes = {"qpos": model.nv, "qvel": model.nv, "act": model.na, "ctrl": model.nu}
    found = {name: rng.normal(size=n) for name, n in sizes.items() if n}
    for name in FIELDS:
        value = np.asarray(getattr(model, name), float)
        move = value * rng.uniform(0.5, 1.5, size=value.shape) * rng.choice([-1, 1], size=value.shape)
        if name == "geom_size":
            moving = np.asarray(model.geom_type) != int(mujoco.mjtGeom.mjGEOM_PLANE)
            moving &= ~np.isin(model.geom_type, [int(mujoco.mjtGeom.mjGEOM_MESH), int(mujoco.mjtGeom.mjGEOM_HFIELD)])
            move = move * moving[:, None]
        if np.any(move):
            found[name] = move
    return found


def _derivatives(model: mujoco.MjModel, directions: Mapping[str, np.ndarray]):
    """Function of state and control: the next state and its derivative along each direction."""
    made = put_model(model)
    nq, nv = model.nq, model.nv
    touched = [name for name in FIELDS if name in directions]

    def run(state: Float[Array, " nx"], ctrl: Float[Array, " nu"]) -> tuple[Array, dict[str, Array]]:
        def following(amounts: dict[str, Array]) -> Array:
            def moved(name: str, value: Array) -> Array:
                return value + amounts[name] * directions[name] if name in directions else value

            fields = {name: moved(name, jnp.asarray(getattr(model, name), float)) for name in touched}
            changed: mjx.Model = set_constants(made.replace(**fields))
            qpos = stages.integrate_position(changed, state[:nq], moved("qpos", jnp.zeros(nv)), 1.0)
            start = physics.make_state(
                changed, qpos, moved("qvel", state[nq : nq + nv]), moved("act", state[nq + nv :])
            )
            end = physics.advance(changed, start, moved("ctrl", ctrl))
            return jnp.concatenate([end.qpos, end.qvel, end.act])

        names = list(directions)
        nothing = dict.fromkeys(names, jnp.zeros(()))

        def along(unit: Float[Array, " blocks"]) -> tuple[Array, Array]:
            return jax.jvp(following, (nothing,), (dict(zip(names, unit, strict=True)),))

        values, slopes = jax.vmap(along)(jnp.eye(len(names)))
        return values[0], dict(zip(names, slopes, strict=True))

    return run


def _differences(
    model: mujoco.MjModel,
    engine: BatchEngine,
    directions: Mapping[str, np.ndarray],
    state: np.ndarray,
    ctrl: np.ndarray,
) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """C's next state, and for each block its central differences with the small and the large move."""
    moves = [(name, sign * size) for name in directions for size in MOVES for sign in (1, -1)]
    n = 1 + len(moves)
    starts, ctrls = np.tile(state, (n, 1)), np.tile(ctrl, (n, 1))
    fields = {
        name: np.tile(np.asarray(getattr(model, name), float), (n, *[1] * getattr(model, name).ndim)) for name in FIELDS
    }
    tangent, nv = Tangent(model), model.nv
    offsets = {"qpos": 0, "qvel": nv, "act": 2 * nv}
    for row, (name, amount) in enumerate(moves, start=1):
        if name in fields:
            fields[name][row] += amount * directions[name]
        elif name == "ctrl":
            ctrls[row] += amount * directions[name]
        else:
            change = np.zeros(tangent.size)
            change[offsets[name] : offsets[name] + len(directions[name])] = amount * directions[name]
            starts[row] = tangent.move(state, change)
    ends = engine.simulate(fields, starts, ctrls[:, None]).state[:, 0]
    found, row = {}, 1
    for name in directions:
        pair = []
        for size in MOVES:
            pair.append((ends[row] - ends[row + 1]) / (2 * size))
            row += 2
        found[name] = (pair[0], pair[1])
    return ends[0], found
