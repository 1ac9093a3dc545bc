"""Several trainings of one study that race: the better half goes on, so that a bad start costs little.

For N starts there are R = ceil(log2 N) rounds. At I / 2^R of the I iterations N are left, at I / 2^(R-1) half of them, and so
on: at half of the iterations one.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dso_robotics.core.descent import Candidate, Result
from dso_robotics.core.method.learner import Record
from dso_robotics.robot.observation import Scaling
from dso_robotics.robot.system import RobotSystem
from dso_robotics.studies.checkpoint import Reading, columns, flatten, records, restore, rows
from dso_robotics.studies.run import RunFile

# Standard deviation of the logarithm of a drawn number that has no two bounds.
_FACTOR = math.log(1.5)

LOOK = 4
"""Numbers of a look at episodes: iteration, cost, seconds, violation of the constraints."""


@dataclasses.dataclass(frozen=True, eq=False)
class Runner:
    """One training of a race: its state, the records so far, the best candidate, and the looks at episodes."""

    state: Any
    history: tuple[Record, ...] = ()
    best: Candidate | None = None
    looks: tuple[tuple[float, ...], ...] = ()
    cost: float = math.inf

    def as_dict(self) -> dict[str, Any]:
        """As a run file stores it."""
        found: dict[str, Any] = {"state": flatten(self.state), "records": columns(self.history), "cost": self.cost}
        found["looks"] = np.array(self.looks, float).reshape(-1, LOOK)
        if self.best is not None:
            best = self.best
            found["best"] = {"iteration": best.iteration, "cost": best.cost, "kept": flatten(best.kept)}
        return found


def rounds(starts: int, iterations: int) -> list[tuple[int, int]]:
    """(how many run, up to which iteration) of each round; the last one runs alone, to the end."""
    count = math.ceil(math.log2(starts))
    found, left = [], starts
    for k in range(count):
        found.append((left, max(iterations // 2 ** (count - k), k + 1)))
        left = -(-left // 2)
    return [*found, (1, iterations)]


def first_thetas(chain: RobotSystem, theta: np.ndarray, starts: int, seed: int, *, anew: bool) -> list[np.ndarray]:
    """Start vectors (n,) of the trainings, `theta` first. The others have drawn design numbers, and weights if `anew`."""
    found = [theta]
    for i in range(1, starts):
        rng, here = np.random.default_rng([seed, i]), theta.copy()
        for block, at in chain.layout.places():
            if block.name == "policy" and anew and block.free:
                here[at] = chain.policy.initial(rng)
            elif block.name == "design" and block.free:
                low, high, start = (block.flat(name) for name in ("low", "high", "initial"))
                bounded = np.isfinite(low) & np.isfinite(high)
                inside = rng.uniform(np.where(bounded, low, 0.0), np.where(bounded, high, 1.0))
                apart = np.clip(start * np.exp(_FACTOR * rng.standard_normal(block.size)), low, high)
                drawn = dataclasses.replace(block, initial=np.where(bounded, inside, apart))
                here[at] = drawn.start(chain.layout.chart)
        found.append(here)
    return found


def run_race(
    file: RunFile,
    firsts: Sequence[Any],
    iterations: int,
    leg: Callable[[Runner, int, int, int], tuple[Result, Runner]],
) -> tuple[Result, dict[str, Any]]:
    """Let the trainings that begin at `firsts` race, and return the result of the one that ran to the end, and a summary.

    leg: runner, its number, iterations, stage -> the result of running so far, and the runner then. A leg whose runner has
      `iterations` records returns at once. A leg that was interrupted goes on from the file.
    """
    plan = rounds(len(firsts), iterations)
    runners, done = _kept(file, firsts)
    left, told, result, stage = list(range(len(firsts))), [], None, 0
    for k, (count, until) in enumerate(plan):
        if k:
            left = sorted(left, key=lambda i: (not math.isfinite(runners[i].cost), runners[i].cost, i))[:count]
            left.sort()
        for i in left:
            stage += 1
            last = k + 1 == len(plan)
            if stage <= done and not last:
                continue
            result, runners[i] = leg(runners[i], i, until, stage)
            if not last:
                kept = {f"start{j}": runner.as_dict() for j, runner in enumerate(runners)}
                file.keep(race={**kept, "done": stage})
        costs = {str(i): runners[i].cost for i in left}
        told.append({"iterations": until, "costs": costs})
    assert result is not None
    steps = sum(len(runner.history) for runner in runners)
    return result, {"starts": len(firsts), "rounds": told, "chosen": left[0], "iterations": steps}


def _kept(file: RunFile, firsts: Sequence[Any]) -> tuple[list[Runner], int]:
    """The trainings as an earlier session left them, and how many legs were done."""
    stored = file.tree.get("race")
    if not stored:
        return [Runner(first) for first in firsts], 0
    with Reading(file.path):
        found = []
        for i, first in enumerate(firsts):
            mine = stored[f"start{i}"]
            best = mine.get("best")
            kept = (
                None
                if best is None
                else restore({"theta": first.theta, "scaling": first.memory}, best["kept"], file.path)
            )
            candidate = None if best is None else Candidate(int(best["iteration"]), float(best["cost"]), kept)
            history = tuple(records(Record, mine.get("records", {}), file.path))
            looks = tuple(rows(mine, "looks", LOOK, file.path))
            found.append(
                Runner(restore(first, mine["state"], file.path), history, candidate, looks, float(mine["cost"]))
            )
        return found, int(stored["done"])


def first_states(method: Any, thetas: Sequence[np.ndarray], seed: int, scaling: Scaling | None = None) -> list[Any]:
    """The learner of every start: its own key, its own theta, and `scaling` of the observation if it is given."""
    keys = [jax.random.key(seed) if i == 0 else jax.random.fold_in(jax.random.key(seed), i) for i in range(len(thetas))]
    states = []
    for key, theta in zip(keys, thetas, strict=True):
        state = method.init(key, jnp.asarray(theta))
        if scaling is not None and isinstance(state.memory, Scaling):
            numbers = scaling.mean, scaling.square, scaling.count
            state = eqx.tree_at(lambda s: (s.memory.mean, s.memory.square, s.memory.count), state, numbers)
        states.append(state)
    return states
