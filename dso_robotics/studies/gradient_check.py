"""A study's own gradient against finite differences of C MuJoCo: one random direction in each block of theta."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.robot.chain import RobotState
from dso_robotics.robot.play import Player
from dso_robotics.studies.train_build import Task

_MOVE = 1e-4


@dataclasses.dataclass(frozen=True)
class BlockCheck:
    """The derivative of a short episode's cost by one block, along a random direction, from MJX and from C.

    exact: the derivative from MJX.
    difference: the finite difference on C.
    error: their difference, relative to the larger of the two.
    kink: relative difference between C's finite differences at two step sizes. If it is large, a contact or limit switches
      within the step, and there is no derivative to compare with.
    """

    block: str
    exact: float
    difference: float
    error: float
    kink: float


def check_gradients(task: Task, *, steps: int = 8, seed: int = 0) -> list[BlockCheck]:
    """Compare the blocks of `task` that an episode without noise depends on, over `steps` control steps from a start.

    Costs that need no rollout are added to those of the motion.
    """
    from dso_robotics.studies.train import compiled

    chain, rng = task.chain, np.random.default_rng(seed)
    theta = chain.layout.initial + 0.1 * rng.standard_normal(chain.layout.size)
    names = [block.name for block in chain.layout.free if block.name != "noise" and len(block.initial)]
    directions = np.zeros((len(names), chain.layout.size))
    for row, name in zip(directions, names, strict=True):
        part = chain.layout.where(name)
        row[part] = rng.standard_normal(part.stop - part.start)
        row /= np.linalg.norm(row)

    def cost(at: jax.Array) -> jax.Array:
        start = eqx.tree_at(lambda s: s.context, chain.start(jax.random.key(seed)), jnp.asarray(chain.context.rest))
        bound = chain.bind(at, start)
        start = bound.placed(start, at)

        def body(state: RobotState, _: None) -> tuple[RobotState, jax.Array]:
            state = bound.drift(state, at)
            return state, task.scene_cost(bound.scene(state, at))

        motion = jnp.sum(jax.lax.scan(body, start, None, length=steps)[1])
        return motion + sum(term(chain, at) for term in task.supervised.values())

    vector = jnp.asarray(theta)
    exact = jax.jit(jax.vmap(lambda d: jax.jvp(cost, (vector,), (d,))[1]))(jnp.asarray(directions))
    player, rest = Player(chain), chain.context.rest

    def played(at: np.ndarray) -> float:
        motion = player.play(at, chain.scaling, steps=steps, seed=seed, model=compiled(task, at), context=rest).cost
        return motion + sum(term.by_c(chain, at) for term in task.supervised.values())

    found = []
    for name, direction, slope in zip(names, directions, np.asarray(exact), strict=True):
        first, second = (
            (played(theta + size * direction) - played(theta - size * direction)) / (2 * size)
            for size in (_MOVE, 2 * _MOVE)
        )
        best = (4 * first - second) / 3
        size = max(abs(best), abs(float(slope)), 1e-12)
        found.append(BlockCheck(name, float(slope), best, abs(best - float(slope)) / size, abs(first - second) / size))
    return found
