"""A study's own gradient against finite differences of C MuJoCo, for each block and each cost that moves it.

One random direction in each block is compared. The noise of actions and readings is drawn once and used on both sides.
Derivatives that the study stops are left out on both sides.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.compiling import quick_jit
from dso_robotics.progress.phase import each
from dso_robotics.robot.play import Player
from dso_robotics.robot.replay import replayed
from dso_robotics.robot.system_state import RobotState
from dso_robotics.robot.windows import CWindows
from dso_robotics.studies.flow import ROLLOUTS
from dso_robotics.studies.train_build import Task

_MOVE = 1e-4


@dataclasses.dataclass(frozen=True)
class BlockCheck:
    """The derivative of a cost by one block, along a random direction, from the training's engine and by differences of C.

    source: "rollouts" for all costs of the motion, over a short episode with noise, or the name of a cost of a log.
    exact: the derivative of the engine of the training.
    difference: the finite difference on C.
    error: their difference, relative to the larger of the two.
    kink: relative difference between C's finite differences at two step sizes. If it is large, a contact or limit switches
      within the step, and there is no derivative to compare with.
    """

    block: str
    source: str
    exact: float
    difference: float
    error: float
    kink: float


def check_gradients(task: Task, *, steps: int = 8, seed: int = 0) -> list[BlockCheck]:
    """Compare every block of `task` and every cost that moves it, over `steps` control steps from a start."""
    layout, rng = task.chain.layout, np.random.default_rng(seed)
    theta = layout.initial + 0.1 * rng.standard_normal(layout.size)
    found = []
    for source, mask in each(task.flow.masks.items(), "gradients compared", "cost"):
        names = [name for name, sources in task.flow.moved.items() if source in sources]
        rows = np.zeros((len(names), layout.size))
        for row, name in zip(rows, names, strict=True):
            part = layout.where(name)
            row[part] = rng.standard_normal(part.stop - part.start) * mask[part]
            row /= np.linalg.norm(row)
        if not names:
            continue
        exact, by_c = _motion(task, theta, steps, seed) if source == ROLLOUTS else _supervised(task, source)
        slope = quick_jit(jax.vmap(lambda d, exact=exact: jax.jvp(exact, (jnp.asarray(theta),), (d,))[1]))
        for name, row, value in zip(names, rows, np.asarray(slope(jnp.asarray(rows))), strict=True):
            found.append(_compared(name, source, float(value), by_c, theta, row))
    order = {name: i for i, name in enumerate(task.flow.moved)}
    return sorted(found, key=lambda check: order[check.block])


def _compared(
    block: str, source: str, exact: float, by_c: Callable[[np.ndarray], float], theta: np.ndarray, row: np.ndarray
) -> BlockCheck:
    first, second = ((by_c(theta + size * row) - by_c(theta - size * row)) / (2 * size) for size in (_MOVE, 2 * _MOVE))
    best = (4 * first - second) / 3
    size = max(abs(best), abs(exact), 1e-12)
    return BlockCheck(block, source, exact, best, abs(best - exact) / size, abs(first - second) / size)


def _motion(
    task: Task, theta: np.ndarray, steps: int, seed: int
) -> tuple[Callable[[Any], Any], Callable[[np.ndarray], float]]:
    """The cost of a short episode with noise as a JAX function, to be differentiated at theta, and the same on C."""
    from dso_robotics.studies.trained_robot import compiled

    chain = task.chain
    noise: Any = np.random.default_rng(seed).standard_normal((steps, chain.noises))
    start = eqx.tree_at(lambda s: s.context, chain.start(jax.random.key(seed)), jnp.asarray(chain.context.rest))
    whole, draws = chain, jnp.asarray(noise)
    if chain.watch is not None:
        drawn = jax.tree.map(lambda leaf: leaf[None], start)
        more: dict[str, Any] = {"log_noise": chain.noise_scale(jnp.asarray(theta)), "centred": True}
        record = CWindows(chain).record(jnp.asarray(theta), chain.scaling, drawn, np.ones(1, bool), noise[None], **more)
        whole = replayed(chain, jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], record))
        draws = whole.draw(jax.random.key(seed), jnp.asarray(theta), steps)

    def cost(at: jax.Array) -> jax.Array:
        state = whole.placed(start, at)
        bound = whole.bind(at, state)

        def body(state: RobotState, draw: Any) -> tuple[RobotState, jax.Array]:
            state = bound.move(draw, state, at)
            return state, task.scene_cost(bound.scene(state, at))

        return jnp.sum(jax.lax.scan(body, state, draws)[1])

    player, rest = Player(chain), chain.context.rest

    def by_c(at: np.ndarray) -> float:
        more = {"model": compiled(task, at), "context": rest, "noise": noise}
        return player.play(at, chain.scaling, steps=steps, seed=seed, **more).cost

    return cost, by_c


def _supervised(task: Task, name: str) -> tuple[Callable[[Any], Any], Callable[[np.ndarray], float]]:
    term = task.supervised[name]
    return (lambda at: term(task.chain, at)), (lambda at: term.by_c(task.chain, at))
