"""Which costs move which blocks of theta, and the other gradients that are stopped.

A cost of the chain's own rollouts must not move the world: it would lighten the pole and silence the sensors. So data move
physics, sensors and their noise, and rollouts move the policy, the design and the corrector. The table [flow] overrides this.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dso_robotics.costs.kinds.prior import PriorCost
from dso_robotics.costs.kinds.recorded import EstimationCost
from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.theta import Theta
from dso_robotics.studies.train_study import TrainStudy

ROLLOUTS = "rollouts"
# Blocks that may stay as they started if no cost moves them; of the others the user freed numbers by name.
_MAY_STAY = ("policy", "corrector", "action noise")


@dataclasses.dataclass(frozen=True, eq=False)
class Flow:
    """moved: the sources, "rollouts" or names of costs, by block of theta. masks: entries (n,) that each source moves.

    notes: sentences for the summary.
    """

    moved: Mapping[str, tuple[str, ...]]
    masks: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def make_flow(study: TrainStudy, layout: Theta, held: np.ndarray) -> Flow:
    """The flow of a study whose theta is `layout`.

    held: (n,) entries that no cost moves, because they are not free.

    Raises:
      DsoError: [flow] names what is not there, or no cost moves a block that was freed.
    """
    apart = {name: cost for name, cost in study.cost.items() if cost.supervised}
    motion = [cost for cost in study.cost.values() if not cost.supervised]
    moves = {name: set(cost.moves) for name, cost in apart.items()}
    believes = study.estimator.model if study.estimator is not None else "world"
    for name, cost in apart.items():
        if isinstance(cost, EstimationCost) and believes != "world":
            moves[name] -= {"physics"}
    sources = list(apart)
    if motion:
        sources.insert(0, ROLLOUTS)
        moves[ROLLOUTS] = set().union(*(cost.moves for cost in motion))
    blocks = [block.name for block in layout.free if block.size]
    _check(study, blocks, sources)
    found, notes = {}, []
    for block in blocks:
        mine = tuple(name for name in sources if block in moves[name])
        likelihoods = [name for name in mine if name != ROLLOUTS and not isinstance(apart[name], PriorCost)]
        if block == "physics" and motion and not likelihoods and block not in study.flow:
            mine = (ROLLOUTS, *mine)
            notes.append("No cost of a log moves the free physics, so the costs of the motion do: it is designed.")
        mine = tuple(study.flow.get(block, mine))
        if not mine and block not in _MAY_STAY:
            raise DsoError(
                f"{study.source}: no cost moves the block '{block}' ({', '.join(_names(layout, block))}), so it would stay as "
                f"it is; add a cost of a log that depends on it, leave it out of `free`, or write [flow] with {_key(block)} = "
                f'["{ROLLOUTS}"].'
            )
        if not mine:
            notes.append(f"No cost moves the {block}; it stays as it started.")
        found[block] = mine
    masks = {name: np.zeros(layout.size, bool) for name in sources}
    for block, mine in found.items():
        for name in mine:
            masks[name][layout.where(block)] = True
    for mask in masks.values():
        mask &= ~held
    return Flow(found, masks, tuple(notes))


def _check(study: TrainStudy, blocks: list[str], sources: list[str]) -> None:
    for block, named in study.flow.items():
        if block not in blocks:
            raise DsoError(
                f"{study.source}: [flow] {_key(block)}: theta has no free block of that name; its blocks are "
                f"{nearest(block, blocks, 8)}."
            )
        for name in named:
            if name not in sources:
                raise DsoError(
                    f"{study.source}: [flow] {_key(block)}: there is no source '{name}'; there are "
                    f"{nearest(name, sources, 8)}. All costs of the motion together are '{ROLLOUTS}'."
                )


def _key(block: str) -> str:
    return f'"{block}"' if " " in block else block


def _names(layout: Theta, block: str) -> list[str]:
    names = next(b.names for b in layout.free if b.name == block)
    return [*names[:4], *(["..."] if len(names) > 4 else [])]
