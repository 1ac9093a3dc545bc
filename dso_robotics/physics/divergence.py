"""Diverged simulations: detected by C MuJoCo's own limit, and excluded from every derivative."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float


class State(eqx.Module):
    """State before a step. `warmstart` only speeds up the constraint solver and has no derivative."""

    qpos: Float[Array, " nq"]  # [m, rad, quaternions]
    qvel: Float[Array, " nv"]  # [m/s, rad/s]
    act: Float[Array, " na"]  # actuator activations
    warmstart: Float[Array, " nv"]  # acceleration of the previous step [m/s², rad/s²]
    time: Float[Array, ""]  # [s]


def diverged(state: State) -> Bool[Array, ""]:
    """Whether position, velocity, activation or the last acceleration is NaN or beyond MuJoCo's limit of 1e10.

    At the same limit C MuJoCo warns of "Nan, Inf or huge value in QPOS, QVEL or QACC" and resets the simulation.
    """
    numbers = jnp.concatenate([state.qpos, state.qvel, state.act, state.warmstart])
    return ~jnp.all(jnp.abs(numbers) <= mujoco.mjMAXVAL)  # a NaN compares false


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def guarded(step: Callable[..., tuple[State, Any]], *inputs: Any) -> tuple[State, Any]:
    """`step(*inputs)`, a state and other results. The derivative is zero where that state has diverged.

    Selecting a finite value afterwards does not keep NaN out of a reverse pass: zero times the step's infinite derivative
    is NaN. So the derivative is set to zero on both sides of the step.
    """
    return step(*inputs)


@functools.partial(guarded.defjvp, symbolic_zeros=True)
def _guarded_jvp(step, primals, tangents):
    leaves, structure = jax.tree.flatten(primals)
    # Symbolic zeros are inputs that are not differentiated: most fields of the model.
    moves = jax.tree.leaves(tangents, is_leaf=lambda x: isinstance(x, SymbolicZero))
    moving = [i for i, move in enumerate(moves) if not isinstance(move, SymbolicZero)]

    def of(values: list[Array]) -> tuple[State, Any]:
        filled = list(leaves)
        for i, value in zip(moving, values, strict=True):
            filled[i] = value
        return step(*jax.tree.unflatten(structure, filled))

    out, linear = jax.linearize(of, [leaves[i] for i in moving])
    sound = ~diverged(out[0])

    def cut(tangent: Array) -> Array:
        return jnp.where(sound, tangent, jnp.zeros_like(tangent))

    return out, jax.tree.map(cut, linear([cut(moves[i]) for i in moving]))
