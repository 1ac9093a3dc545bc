"""Gradient-free search for a study of `dso design`: a population of thetas on C MuJoCo, and CMA-ES."""

import os
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

SIGMA = 0.5
LOST = 1e6  # the cost of an episode that blows up


class Population:
    """Costs of one episode of the study for each of `size` policies with their mechanisms, without noise.

    Observations are scaled with those of random policies and mechanisms in the first episodes.
    """

    def __init__(self, task, size: int, seed: int):
        from dso_robotics.robot.windows import CWindows

        chain = task.chain
        self.size, self.steps, self.episode = size, 0, task.steps
        self._key, self._windows = jax.random.key(seed), CWindows(chain, threads=1)
        self._start = jax.jit(jax.vmap(chain.initial, in_axes=(None, 0)))
        self._noise = np.zeros((size, task.steps, chain.mj.nu))
        self._scene_cost = jax.jit(
            jax.vmap(lambda theta, path: jnp.sum(jax.vmap(lambda x: chain.bind(theta, x).cost(x, theta))(path)))
        )
        self._lost = jax.jit(jax.vmap(lambda path: jnp.any(jax.vmap(chain.diverged)(path))))
        self.scaling = chain.scaling
        initial = np.asarray(chain.layout.initial)
        thetas = initial + SIGMA * np.random.default_rng(seed).standard_normal((size, len(initial)))
        look = jax.vmap(lambda theta, path: jax.vmap(lambda x: chain.observe(x, theta))(path))
        seen = look(jnp.asarray(thetas), self._play(thetas))
        self.scaling = chain.scaling.updated(seen.reshape(-1, seen.shape[-1]))

    def _play(self, thetas: np.ndarray):
        """States (size, T, ...) that were reached; every episode begins with the same draw."""
        key = jax.random.fold_in(self._key, self.steps)
        self.steps += self.size * self.episode
        start = self._start(key, jnp.asarray(thetas))
        states = self._windows(jnp.asarray(thetas), self.scaling, start, self._noise)
        return jax.tree.map(lambda leaf: leaf[:, 1:], states)

    def __call__(self, thetas: np.ndarray) -> np.ndarray:
        """Costs (size,) of an episode of thetas (size, n)."""
        states = self._play(thetas)
        costs = np.asarray(self._scene_cost(jnp.asarray(thetas), states))
        return np.where(np.asarray(self._lost(states)) | ~np.isfinite(costs), LOST, costs)


def both(task, seed: int, budget: int, judge, looks: int = 20, *, equal: int) -> tuple[np.ndarray, dict]:
    """CMA-ES, with its own defaults, over weights and design numbers in one vector, for `budget` control steps: theta, figures.

    "equal_steps" of the figures is the best of the looks up to the first one at `equal` control steps or more.

    It starts with weights of zero and the unchanged mechanism. At intervals its mean and its best candidate so far are
    evaluated, and the one with the lowest cost is the result, as in dso. `judge(theta, scaling, seeds, finer)` is the mean
    cost of episodes on the exported model.
    """
    import cma

    began, layout = time.perf_counter(), task.chain.layout
    first = np.array(layout.initial)
    first[layout.where("policy")] = 0.0
    search = cma.CMAEvolutionStrategy(first, SIGMA, {"seed": seed + 1, "verbose": -9})
    population = Population(task, search.popsize, seed)
    rows: list[tuple] = []
    best, least, early = first, np.inf, {}
    while population.steps < budget:  # its own stopping rules are passed over: the budget is the rule here
        asked = search.ask()
        search.tell(asked, population(np.stack(asked)).tolist())
        if population.steps >= (len(rows) + 1) * budget / looks:
            seen = [np.asarray(search.result.xfavorite), np.asarray(search.result.xbest)]
            costs = [judge(theta, population.scaling, 3, 1) for theta in seen]
            if min(costs) < least:
                least, best = min(costs), seen[int(np.argmin(costs))]
            rows.append((population.steps, min(costs), time.perf_counter() - began))
            if not early and population.steps >= equal:
                early = {"steps": population.steps, "cost": least, "theta": best}
            print(f"cma seed {seed}: {rows[-1][0]} steps, cost {min(costs):.2f}, {rows[-1][2]:.0f} s", flush=True)
    steps, costs, seconds = (list(column) for column in zip(*rows, strict=True))
    return best, {
        "seed": seed,
        "cost": judge(best, population.scaling, 3, 1),
        "quarter_timestep": judge(best, population.scaling, 3, 4),
        "steps": population.steps,
        "equal_steps": early,
        "history": {"steps": steps, "cost": costs, "seconds": seconds},
        "total": time.perf_counter() - began,
        "cores": len(os.sched_getaffinity(0)),
    }


def design_only(train, initial: np.ndarray, seed: int, generations: int) -> Iterator[tuple[int, np.ndarray, float]]:
    """CMA-ES over unconstrained design numbers. `train(numbers)` is a training's cost. Yields trainings so far and the best."""
    import cma

    search, count = cma.CMAEvolutionStrategy(initial, SIGMA, {"seed": seed + 1, "verbose": -9}), 0
    for _ in range(generations):
        asked = search.ask()
        search.tell(asked, [train(numbers) for numbers in asked])
        count += len(asked)
        yield count, np.asarray(search.result.xbest), float(search.result.fbest)
