"""The page of everything that a study calls by name: methods, correctors, costs, design maps, export formats."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from dso_robotics.core.method import TRAINING
from dso_robotics.costs.kind import COSTS, MotionCost
from dso_robotics.physics.design.map import DESIGN_MAPS
from dso_robotics.report.export.format import FORMATS
from dso_robotics.robot.corrector import CORRECTORS

_HEAD = """\
# Methods, costs, correctors, maps and formats

What a study or a command calls by name. Each is one file that registers itself; [one of your own](../tutorials/your_own.md) is found in the same way.
"""

# What tells methods of one class apart.
_OF_ONE_CLASS = {
    "pathwise": "The gradient runs through the chain: policy, physics, sensors and estimator are differentiated step by step.",
    "score": "The gradient follows from the likelihood of the actions that were taken; nothing of the physics is differentiated.",
    "mixed": "By the score for the blocks that have one, such as the policy; through the chain for the others, such as a design.",
}


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD]
    parts += _table("Methods of training", '`[training] method = "NAME"`, in `dso train` and `dso design`.', TRAINING)
    motion = {name: cost for name, cost in COSTS.items() if issubclass(cost, MotionCost)}
    others = {name: cost for name, cost in COSTS.items() if name not in motion}
    keys = "Keys and defaults: [study files](../studies.md)."
    parts += _table("Costs of the motion", f'`[cost.ANY] kind = "NAME"`. {keys}', motion)
    parts += _table("Costs that need no rollout", f'`[cost.ANY] kind = "NAME"`. {keys}', others)
    parts += _table(
        "Correctors", '`corrector = "NAME"`, in `dso estimate` and in `[estimator]` of `dso train`.', CORRECTORS
    )
    parts += _table("Design maps", '`[design.ANY] kind = "NAME"`, in `dso design`.', DESIGN_MAPS)
    parts += _table("Formats", "`dso export DIR --to NAME`. Options: [results elsewhere](../export.md).", FORMATS)
    return "\n".join(parts) + "\n"


def _table(title: str, how: str, things: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n\n{how}\n\n| name | is | in |\n| --- | --- | --- |"
    for name, thing in things.items():
        kind = thing if inspect.isclass(thing) else type(thing)
        told = kind.about if things is FORMATS else " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        told = _OF_ONE_CLASS.get(name, told) if things is TRAINING else told
        told = told.replace("|", "\\|")
        yield f"| `{name}` | {told} | `{kind.__module__.removeprefix('dso_robotics.')}` |"
    yield ""
