"""Parameters of contacts that a model hides: no motion can show them, whatever is recorded.

A <pair> has numbers of its own, and geoms behind it have none. Of two geoms, the one with the higher priority counts, or of
equal ones the larger friction.
"""

import warnings
from collections.abc import Collection

import mujoco
import numpy as np

from dso_robotics.data.windows import Windows
from dso_robotics.errors import DsoError
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.geom_pair import may_touch

_GEOMS = {"geom_friction": 3, "geom_solref": 2, "geom_solimp": 5}
_PAIRS = {
    "pair_friction": 5,
    "pair_solref": 2,
    "pair_solreffriction": 2,
    "pair_solimp": 5,
    "pair_margin": 1,
    "pair_gap": 1,
}
# A contact has torsional friction from condim 4 and rolling friction from condim 6.
_CONDIM = (3, 4, 6)
# States that are looked at for contacts.
_STATES = 20_000


def refuse(vector: ParameterVector, named: Collection[str], source: str) -> dict[str, str]:
    """Why parameters of contacts cannot be seen, by path.

    Raises:
      DsoError: one that is among the paths `named` can never be seen.
    """
    found = {}
    for p in vector.parameters:
        reason, always = _hidden(p, vector.mj)
        if reason and always and p.path in named:
            raise DsoError(f"{p.path}: in {source} this has no effect: {reason}.")
        if reason:
            found[p.path] = reason
    return found


def warn(vector: ParameterVector, windows: Windows, start: np.ndarray, hidden: dict[str, str]) -> list[str]:
    """Warn before a search of what is hidden, of contacts that do not happen, and of mocap bodies. Returns the warnings."""
    found = [f"{path} has no effect: {reason}." for path, reason in hidden.items()]
    numbers = [p for p in vector.parameters if p.path not in hidden and _touching(p, vector.mj) is not None]
    if numbers and not windows.single:
        seen = _contacts(vector, windows, start)
        for p in numbers:
            wanted = _touching(p, vector.mj)
            if seen is not None and wanted is not None and not any(wanted(pair) for pair in seen):
                found.append(
                    f"{p.path} has no effect at the start: that contact never happens, simulated from the recorded starts. "
                    "Leave it out, record a motion with that contact, or correct where the model puts the geoms."
                )
    model = vector.mj
    still = [model.body(i).name or f"number {i}" for i in np.flatnonzero(model.body_mocapid >= 0)]
    if still:
        found.append(
            f"Mocap bodies never move here, since a log has no place for their motion: {', '.join(still)}. What they push or "
            "pull is simulated as if they stood still; replace them by bodies with joints and position servos, and log the "
            "controls."
        )
    for text in found:
        warnings.warn(text, UserWarning, stacklevel=2)
    return found


def _rows(p: Parameter, widths: dict[str, int]) -> list[tuple[str, int, int]]:
    """Field, object and component of each number that a parameter writes; empty if it writes others."""
    rows = [(s.field, i // widths[s.field], i % widths[s.field]) for s in p.slots if s.field in widths for i in s.at]
    return rows if p.slots and all(s.field in widths for s in p.slots) else []


def _hidden(p: Parameter, model: mujoco.MjModel) -> tuple[str, bool]:
    """Why a parameter of geoms is hidden, or an empty text; and whether whatever its value."""
    rows = _rows(p, _GEOMS)
    own, reasons = {geom for _, geom, _ in rows}, []
    for field, geom, component in rows:
        reason, always = _hidden_number(field, geom, component, own, p, model)
        if not reason:
            return "", False
        reasons.append((reason, always))
    return reasons[0] if reasons else ("", False)


def _hidden_number(
    field: str, geom: int, component: int, own: set[int], p: Parameter, model: mujoco.MjModel
) -> tuple[str, bool]:
    explicit = [i for i in range(model.npair) if geom in (model.pair_geom1[i], model.pair_geom2[i])]
    others = [g for g in range(model.ngeom) if _collide(model, geom, g)]
    name = _name(model, geom)
    if not others and explicit:
        pair = explicit[0]
        path = model.pair(pair).name or "NAME"
        label = f"<pair name='{path}'>" if model.pair(pair).name else "an unnamed <pair>, to be given a name"
        part = field.partition("_")[2]
        index = {0: 0, 1: 2, 2: 3}[component] if part == "friction" else component
        return (
            f"geom {name} touches only by {label}, which has {part} of its own; free pair/{path}/{part}[{index}]",
            True,
        )
    if not others:
        return f"geom {name} can touch nothing; give it and another geom contype and conaffinity that match", True
    if field != "geom_friction":
        return "", False
    dims = [_condim(model, geom, g) for g in others]
    if max(dims) < _CONDIM[component]:
        word = ("sliding", "torsional", "rolling")[component]
        return (
            f"its contacts have condim {max(dims)}, which has no {word} friction; write condim {_CONDIM[component]}",
            True,
        )
    mine, here = float(p.initial[0]), int(model.geom_priority[geom])
    for g in others:
        theirs, there = float(model.geom_friction[g, component]), int(model.geom_priority[g])
        if g in own or here > there or (here == there and mine >= theirs):
            return "", False
    first = max(others, key=lambda g: (model.geom_priority[g], model.geom_friction[g, component]))
    other, value = _name(model, first), float(model.geom_friction[first, component])
    both = f"geom/{model.geom(geom).name}/friction[{component}]+geom/{model.geom(first).name}/friction[{component}]"
    if model.geom_priority[first] > here:
        return f"geom {other} has the higher priority, so its friction counts; free that of {other}", True
    return (
        f"of two geoms the larger friction counts, and that of {other} is {value:g} where {name} has {mine:g}; free both as "
        f"one number, {both}, or write a lower friction for {other} or a higher priority for {name}"
    ), bool(p.high[0] <= value)


def _name(model: mujoco.MjModel, geom: int) -> str:
    return f"'{model.geom(geom).name}'" if model.geom(geom).name else f"number {geom}"


def _condim(model: mujoco.MjModel, one: int, two: int) -> int:
    first, second = int(model.geom_priority[one]), int(model.geom_priority[two])
    dims = int(model.geom_condim[one]), int(model.geom_condim[two])
    return max(dims) if first == second else dims[first < second]


def _collide(model: mujoco.MjModel, one: int, two: int) -> bool:
    """Whether MuJoCo looks for contacts of two geoms by itself, and no <pair> does."""
    paired = ({int(a), int(b)} == {one, two} for a, b in zip(model.pair_geom1, model.pair_geom2, strict=True))
    return not any(paired) and may_touch(model, one, two)


def _touching(p: Parameter, model: mujoco.MjModel):
    """A test of pairs of geoms: whether their contact has a parameter's numbers. None if it is none of a contact."""
    if pairs := _rows(p, _PAIRS):
        wanted = [{int(model.pair_geom1[i]), int(model.pair_geom2[i])} for _, i, _ in pairs]
        return lambda pair: set(pair) in wanted
    if geoms := {geom for _, geom, _ in _rows(p, _GEOMS)}:
        return lambda pair: not geoms.isdisjoint(pair)
    return None


def _contacts(vector: ParameterVector, windows: Windows, start: np.ndarray) -> set[tuple[int, int]] | None:
    """Pairs of geoms that touch in the windows, simulated at the start values; None if that is too long to look at."""
    model = vector.mj
    fields = {k: np.repeat(v[None], len(start), axis=0) for k, v in vector.fields(vector.initial).items()}
    out = BatchEngine(model).simulate(fields, start, windows.ctrl)
    states = out.state[out.touched].reshape(-1, start.shape[1])
    if len(states) > _STATES or out.ended.any():
        return None
    data, found = mujoco.MjData(model), set()
    for state in np.concatenate([start, states]):
        data.qpos[:] = state[: model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        found |= {(int(a), int(b)) for a, b in data.contact.geom}
    return found
