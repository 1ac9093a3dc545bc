"""Which numbers of the model a result's parameters are: where `model.xml` differs from the model before because of them."""

import dataclasses
import re
from collections.abc import Iterator

from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import recordings, resolve, tied
from dso_robotics.report.export.finished import Finished

_FULL = re.compile(r"^(body/.+/inertia)\[[^\]]*\]$")
# What a full inertia is written to.
_INERTIA = ("body_mass", "body_ipos", "body_inertia")


@dataclasses.dataclass(frozen=True)
class Place:
    """A number of the model that was free: its path, the field of MjModel, and the row of the field.

    field is empty where the model has no place for it, as for a noise scale.
    """

    path: str
    field: str = ""
    row: int = -1


def identified(result: Finished) -> list[Place]:
    """The places of all free numbers of `result`, each once, in the order of its table."""
    return list(dict.fromkeys(place for label in result.summary["parameters"] for place in _places(label, result)))


def _places(label: str, result: Finished) -> Iterator[Place]:
    full = _FULL.match(label)
    path = recordings(full[1] if full else label, _recording(label))[1]
    for part in tied(path):
        try:
            targets = resolve(part, result.robot)
        except DsoError:  # a noise scale, or a gain of a controller
            yield Place(part)
            continue
        for target in targets:
            if full:
                yield from (Place(part, field, target.object_id) for field in _INERTIA)
                continue
            for slot in target.family.places(result.robot.mj, target.object_id, target.component):
                width = _width(result, slot.field)
                yield from (Place(part, slot.field, at // width) for at in slot.at)


def _recording(label: str) -> list[str]:
    """The recording that a path of one recording names."""
    return [label.split("/")[1]] if label.startswith("log/") else []


def _width(result: Finished, field: str) -> int:
    """Numbers in a row of a field."""
    if field.endswith("_turn"):
        return 3
    value = getattr(result.robot.mj, field, None)
    return value.shape[1] if value is not None and value.ndim > 1 else 1
