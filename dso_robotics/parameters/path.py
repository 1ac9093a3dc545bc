"""Parameter paths: KIND/NAME/FIELD[INDEX], with the names of MJCF, and with the wildcards `*` and `?` in NAME.

INDEX `*` frees each number of the field. A model has one set of options, so their paths have no name: option/FIELD[INDEX].
If a name contains `*`, `?`, `=`, `@`, `+` or a backslash, write a backslash before that character.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

from dso_robotics.errors import DsoError
from dso_robotics.parameters.families import PSEUDO_INERTIA, REFUSED, SYNONYMS
from dso_robotics.parameters.family import FAMILIES, WHOLE, Family, Slot
from dso_robotics.parameters.gains import NO_GAINS, Gains
from dso_robotics.parameters.signals import nominal
from dso_robotics.physics.model import OPTION, Robot, nearest

_PATH = re.compile(r"^(?P<kind>[a-z]+)/(?P<name>.+)/(?P<field>[a-z_]+)(\[(?P<index>\d{1,6}|\*)\])?$")
# sensor/NAME/noise[INDEX]: the noise scale of a channel, which is no number of the model.
_NOISE = re.compile(r"^sensor/(?P<name>.+)/noise(?P<index>\[\d{1,6}\])?$")
# log/NAME/KIND/NAME/FIELD: a separate value for one recording.
_LOG = re.compile(r"^log/(?P<name>[^/]+)/(?P<path>[a-z]+/.+/.+)$")
_NUMBER = r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|inf|nan)"


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One free parameter: a path (with wildcards) and, when given, start value, bounds and prior.

    prior: mean and standard deviation. With `log_prior`: median, and standard deviation of the logarithm.
    """

    path: str
    init: float | None = None
    low: float | None = None
    high: float | None = None
    prior: tuple[float, float] | None = None
    log_prior: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """One number (or, for the full inertia, one body) of one object that a path points to.

    value: the current value, if the model does not hold it.
    """

    path: str
    family: Family
    object_id: int
    component: int
    value: float | None = None

    def nominal(self, robot: Robot) -> float:
        """The current value."""
        if self.value is not None:
            return self.value
        slots = self.family.places(robot.mj, self.object_id, self.component)
        return (
            float(nominal(robot.mj, slots[0].field).ravel()[slots[0].at[0]]) / slots[0].factor + 0.0 if slots else 0.0
        )


def parse(text: str) -> Declaration:
    """Read `PATH[=INIT][@LOW:HIGH]`.

    Raises:
      DsoError: the text does not have that form, or it contains an invalid number.
    """
    numbered = rf"(=(?P<init>{_NUMBER}))?(@(?P<low>{_NUMBER})?:(?P<high>{_NUMBER})?)?$"
    match = re.match(r"^(?P<path>(?:\\.|[^=@\\])+)" + numbered, text)
    if match is None:
        raise DsoError(
            f"{text}: cannot read this. Write PATH[=INIT][@LOW:HIGH], for example joint/elbow/damping=0.1@0:2."
        )
    numbers = {k: None if match[k] is None else float(match[k]) for k in ("init", "low", "high")}
    for key, value in numbers.items():
        if value is not None and (math.isnan(value) or (key == "init" and math.isinf(value))):
            raise DsoError(f"{text}: {value} is not a usable number for {key}; give a finite one.")
    if numbers["low"] is not None and numbers["high"] is not None and not numbers["low"] < numbers["high"]:
        raise DsoError(
            f"{text}: the lower bound {numbers['low']:g} is not below the upper bound {numbers['high']:g}; "
            "write @LOW:HIGH."
        )
    return Declaration(match["path"].strip(), numbers["init"], numbers["low"], numbers["high"])


def escape(name: str) -> str:
    """`name` as written in a path: special characters get a backslash before them."""
    return re.sub(r"([\\*?=@+])", r"\\\1", name)


def matches(name: str, pattern: str) -> bool:
    """Whether `name` matches `pattern`: `*` is any text, `?` any character, a backslash escapes, brackets are literal."""
    wild = {"*": ".*", "?": "."}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return re.fullmatch("".join(wild.get(p) or re.escape(p[-1]) for p in parts), name, re.DOTALL) is not None


def noise_path(sensor: str, component: str) -> str:
    """The path of the noise scale of one channel: of `sensor`, and of its `component` "[k]", or "" if it has one only."""
    return f"sensor/{escape(sensor)}/noise{component}"


def noise_named(path: str) -> tuple[str, str | None] | None:
    """Pattern and index of the channels whose noise scale `path` names; None if the path is not of a noise scale."""
    found = _NOISE.match(path)
    return None if found is None else (found["name"], found["index"])


def has_noise(named: tuple[str, str | None], sensor: str, component: str) -> bool:
    """Whether `noise_named` means the channel of `sensor` and `component`; without an index, all components."""
    name, index = named
    if index is not None:
        return matches(sensor, name) and component == index
    return matches(sensor, name) or matches(sensor + component, name)


def tied(path: str) -> list[str]:
    """The paths that are joined by `+`."""
    return [part.strip() for part in re.split(r"(?<!\\)\+", path)]


def recordings(path: str, rollouts: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The recordings that `log/NAME/PATH` names, and PATH. For a path shared by all: no recordings, and `path` itself.

    Raises:
      DsoError: no recording has that name.
    """
    match = _LOG.match(path)
    if match is None:
        return (), path
    found = tuple(name for name in rollouts if matches(name, match["name"]))
    if not found:
        hint = f"the recordings to fit are {nearest(match['name'], rollouts, 8)}" if rollouts else "there is no log"
        raise DsoError(f"{path}: no recording is called '{match['name']}'; {hint}.")
    return found, match["path"]


def resolve(path: str, robot: Robot, gains: Gains = NO_GAINS) -> tuple[Target, ...]:
    """Every number that `path` names in `robot`, in model order, or in the `gains` of its controllers.

    Raises:
      DsoError: the path does not exist (the nearest valid paths are listed), or it cannot be freed (with the reason).
    """
    head, _, tail = path.partition("/")
    match = _PATH.match(f"{OPTION}/{OPTION}/{tail}" if head == OPTION and "/" not in tail else path)
    if head == "controller":
        return _of_controllers(path, tail, gains)
    if (head, tail) in REFUSED:
        raise DsoError(f"{path}: this cannot be freed: {REFUSED[head, tail]}.")
    if match is None:
        raise DsoError(
            f"{path}: not a parameter path. Write KIND/NAME/FIELD or KIND/NAME/FIELD[i], where i may be *, such as "
            f"{_examples(robot)}."
        )
    kind, name, field = match["kind"], match["name"], match["field"]
    kind, field = SYNONYMS.get((kind, field), (kind, field))
    if (kind, field) in REFUSED:
        raise DsoError(f"{path}: this cannot be freed: {REFUSED[kind, field]}.")
    inertia, label = (kind, field) == ("body", "inertia"), f"{kind}/{field}"
    if not inertia and label not in FAMILIES:
        raise DsoError(_unknown_field(path, kind, field))
    family = PSEUDO_INERTIA if inertia else FAMILIES[label]
    index = int(match["index"]) if (match["index"] or "*") != "*" else None
    wildcard = re.search(r"(?<!\\)[*?]", name) is not None
    found = [i for i, n in enumerate(robot.names(kind)) if n and matches(n, name)]
    if not found:
        known = [n for n in robot.names(kind) if n]
        hint = f"the {kind} names are {nearest(name, known, 8)}" if known else f"the model has no named {kind}"
        raise DsoError(f"{path}: {robot.source} has no {kind} called '{name}'; {hint}.")
    reasons = {i: family.refuse(robot.mj, i) for i in found}
    usable = [i for i in found if not reasons[i]]
    if not usable or (not wildcard and reasons[found[0]]):
        raise DsoError(f"{path}: {robot.names(kind)[found[0]]} has no such parameter: {reasons[found[0]]}.")
    least = min(family.count(robot.mj, i) for i in usable)
    if index is not None and index >= least:
        raise DsoError(f"{path}: '{field}' has {least} number(s), so the index must be below {least}.")
    if match["index"] is None and family.whole is not None:
        for i in usable:
            if reason := family.whole(robot.mj, i):
                raise DsoError(f"{path}: {robot.names(kind)[i]} has no such parameter: {reason}.")
        return tuple(Target(_spell(family, robot, i, WHOLE), family, i, WHOLE) for i in usable)
    return tuple(
        Target(_spell(family, robot, i, k), family, i, k)
        for i in usable
        for k in ([index] if index is not None else family.components(robot.mj, i))
    )


def _of_controllers(path: str, pattern: str, gains: Gains) -> tuple[Target, ...]:
    if not len(gains):
        raise DsoError(
            f"{path}: no controller is declared, so it has no numbers; write [controller.ACTUATOR] with gains in a study file."
        )
    names = gains.names()
    found = [g for g, name in enumerate(names) if matches(name, pattern)]
    if not found:
        raise DsoError(f"{path}: no controller has this number; they have {nearest(pattern, names, 8)}.")
    family = Family(
        "controller",
        "gain",
        lambda model, g, k: gains.units[g],
        lambda model, g, k: (Slot("controller_gain", (g,)),),
        "factor of a signal in a control",
        low=-math.inf,
        scale=lambda model, g: float(gains.scales[g]),
    )
    spelt = [f"controller/{escape(a)}/{escape(s)}" for a, s in zip(gains.actuators, gains.signals, strict=True)]
    return tuple(Target(spelt[g], family, g, 0, float(gains.values[g])) for g in found)


def every(robot: Robot) -> tuple[Target, ...]:
    """Every number of the model that can be freed, in the order of `FAMILIES`."""
    targets = []
    for family in FAMILIES.values():
        for i, name in enumerate(robot.names(family.kind)):
            if name and not family.refuse(robot.mj, i):
                one = family.whole is not None and not family.whole(robot.mj, i)
                found = (WHOLE,) if one else family.components(robot.mj, i)
                targets += [Target(_spell(family, robot, i, k), family, i, k) for k in found]
    return tuple(targets)


def _spell(family: Family, robot: Robot, index: int, component: int) -> str:
    several = family.count(robot.mj, index) > 1 or family.field == "gear"
    name = "" if family.kind == OPTION else f"{escape(robot.names(family.kind)[index])}/"
    return f"{family.kind}/{name}{family.field}{f'[{component}]' if several and component != WHOLE else ''}"


def _unknown_field(path: str, kind: str, field: str) -> str:
    kinds = sorted({family.kind for family in FAMILIES.values()})
    if kind not in kinds:
        return f"{path}: there is no kind '{kind}' of parameter; the kinds are {', '.join(kinds)}."
    fields = [f.field for f in FAMILIES.values() if f.kind == kind] + (["inertia"] if kind == "body" else [])
    return f"{path}: a {kind} has no parameter '{field}'; it has {nearest(field, fields, len(fields))}."


def _examples(robot: Robot) -> str:
    return ", ".join(target.path for target in every(robot)[:2]) or "joint/hinge/damping"
