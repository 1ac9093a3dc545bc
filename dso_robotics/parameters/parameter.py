"""One block of theta for a path: where the model stores its numbers, and their bounds, prior and typical size."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.parameters.families import PSEUDO_INERTIA
from dso_robotics.parameters.family import Slot
from dso_robotics.parameters.gains import NO_GAINS, Gains
from dso_robotics.parameters.path import Declaration, Target, recordings, resolve, tied
from dso_robotics.parameters.theta import Block, Prior
from dso_robotics.physics import inertia
from dso_robotics.physics.model import Robot

# Bound on log-Cholesky coordinates, only against overflow: a factor exp(6) = 400 from the nominal body.
_LOG_LIMIT = 6.0
# Standard deviation of the weak prior that keeps unobserved inertial directions at the nominal body.
_LOG_PRIOR = 1.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Parameter(Block):
    """The block of a path: k coordinates, k = 1 for plain numbers and 10 for a body's full inertia.

    For a plain number the coordinate is the number itself, in `units[0]`. For a full inertia it is the log-Cholesky
    vector relative to the model's body, and `report` gives the ten physical numbers.

    nominal: (k,) the value in the model file.
    slots: where the model stores the number.
    body: the body of a full inertia.
    factor: the nominal factor of a full inertia.
    rollout: the recording that it belongs to, or "" if all recordings share it.
    """

    nominal: np.ndarray
    slots: tuple[Slot, ...] = ()
    body: int = -1
    factor: np.ndarray | None = None
    rollout: str = ""

    @property
    def path(self) -> str:
        """The block's name."""
        return self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The path, with the log-Cholesky coordinate of a full inertia."""
        return (self.name,) if self.factor is None else tuple(f"{self.name}[{c}]" for c in inertia.COORDINATES)

    @property
    def reported(self) -> dict[str, str]:
        """Names and units of the physical numbers."""
        if self.factor is None:
            return {self.name: self.units[0]}
        return {f"{self.name}[{name}]": unit for name, unit in zip(inertia.NUMBERS, inertia.UNITS, strict=True)}

    def report(self, coordinates: Any) -> Any:
        """The physical numbers (..., len(reported)) at coordinates (..., k)."""
        if self.factor is None:
            return coordinates
        return inertia.numbers(*inertia.body_from_coordinates(coordinates, self.factor))


def declare(
    declaration: Declaration, robot: Robot, rollouts: Sequence[str] = (), gains: Gains = NO_GAINS
) -> tuple[Parameter, ...]:
    """The blocks that one declaration frees in `robot` or in `gains`. Paths joined by `+` share one number.

    `log/NAME/PATH` frees PATH once for each recording in `rollouts` that NAME matches, each with its own value.

    Raises:
      DsoError: an unknown path or recording, bounds the quantity cannot have, or a start value outside the bounds.
    """
    names, path = recordings(declaration.path, rollouts)
    shared = dataclasses.replace(declaration, path=path)
    parts = tied(path)
    targets = [t for part in parts for t in resolve(part, robot, gains)]
    if len(parts) > 1:
        found = (_tie([_number(t, shared, robot, alone=False) for t in targets], shared),)
    else:
        found = tuple(
            _full_inertia(t, shared, robot) if t.family is PSEUDO_INERTIA else _number(t, shared, robot)
            for t in targets
        )
    return tuple(_of_recording(p, name) for name in names for p in found) if names else found


def _of_recording(parameter: Parameter, name: str) -> Parameter:
    return dataclasses.replace(parameter, name=f"log/{name}/{parameter.path}", rollout=name)


def _tie(parts: list[Parameter], declaration: Declaration) -> Parameter:
    """One number that is written to every slot of `parts`. All parts must be the same kind of quantity."""
    # The model's author chose the unit of control, so a force and a force per unit of control may be the same number.
    if len({p.units[0].removesuffix("/ctrl") for p in parts}) > 1 or any(p.factor is not None for p in parts):
        raise DsoError(
            f"{declaration.path}: only plain numbers of the same unit can be tied; these have "
            f"{', '.join(sorted({p.units[0] for p in parts}))}."
        )
    if parts[0].units[0] == "1" and len({tuple(slot.field for slot in p.slots) for p in parts}) > 1:
        raise DsoError(
            f"{declaration.path}: these are pure numbers of different things, such as a ratio and a coefficient of "
            "friction; tie only numbers of one kind."
        )
    slots: list[Slot] = []
    for slot in (slot for p in parts for slot in p.slots):
        # The first sliding direction of a pair may move the second one too, which may then be named as well.
        if not any(s.field == slot.field and s.factor == slot.factor and {*slot.at} <= {*s.at} for s in slots):
            slots.append(slot)
    return dataclasses.replace(parts[0], name="+".join(p.path for p in parts), slots=tuple(slots))


def _number(target: Target, given: Declaration, robot: Robot, *, alone: bool = True) -> Parameter:
    if target.family is PSEUDO_INERTIA:
        raise DsoError(f"{target.path}: a full inertia has ten numbers and cannot be tied with +.")
    family, model = target.family, robot.mj
    slots = family.places(model, target.object_id, target.component)
    nominal = target.nominal(robot)
    initial = nominal if given.init is None else given.init
    possible = family.bounds(model, target.object_id, target.component)
    if family.field == "diaginertia" and alone:
        # A principal moment cannot exceed the sum of the other two, and MuJoCo's compiler refuses such a body.
        others = np.delete(model.body_inertia[target.object_id], target.component)
        possible = float(abs(others[0] - others[1])), float(others.sum())
    low = possible[0] if given.low is None else given.low
    high = min(possible[1], max(family.reach, 2 * nominal)) if given.high is None else given.high
    if low < possible[0] or high > possible[1]:
        reason = "the sum or difference of the other two moments" if family.field == "diaginertia" else "physics"
        raise DsoError(
            f"{target.path}: the bounds {low:g} to {high:g} go beyond {possible[0]:g} to {possible[1]:g}, which {reason} "
            "allows; write bounds within that."
        )
    if not low < high:
        raise DsoError(
            f"{target.path}: the lower bound {low:g} is not below the upper bound {high:g}; write @LOW:HIGH."
        )
    if not low <= initial <= high:
        source = "the model's value" if given.init is None else "the start value"
        if family.field == "diaginertia":
            body = target.path.split("/")[1]
            source = f"a moment stays within what the other two allow (body/{body}/inertia frees all three together); {source}"
        raise DsoError(
            f"{target.path}: {source} {initial:g} lies outside the bounds {low:g} to {high:g}; "
            "give another start with =INIT or other bounds with @LOW:HIGH."
        )
    if target.family.field == "mass" and initial <= 0:
        raise DsoError(f"{target.path}: a start value of {initial:g} kg is no mass; give a positive one with =INIT.")
    scale = max(abs(initial), abs(nominal), 1e-3 * family.scale(model, target.object_id))
    if initial == 0 or nominal == 0:
        scale = max(scale, family.scale(model, target.object_id))
    # A mass or moment of zero makes the equations of motion singular.
    floor = 1e-6 * scale if family.field in ("mass", "diaginertia") else -np.inf
    prior = None
    if given.prior is not None:
        prior = Prior(np.array([given.prior[0]]), np.array([given.prior[1]]), np.array([given.log_prior]))
        if given.log_prior and not (given.prior[0] > 0 and low >= 0):
            raise DsoError(
                f"{target.path}: a log-normal prior needs a positive median and a number that cannot be negative; write "
                "@0: or give a normal prior."
            )
    return Parameter(
        name=target.path,
        units=(family.unit(model, target.object_id, target.component),),
        nominal=np.array([nominal]),
        initial=np.array([initial]),
        low=np.array([max(low, floor)]),
        high=np.array([high]),
        scale=np.array([scale]),
        slots=slots,
        prior=prior,
    )


def _full_inertia(target: Target, given: Declaration, robot: Robot) -> Parameter:
    model, body = robot.mj, target.object_id
    if given.init is not None or given.low is not None or given.high is not None:
        raise DsoError(
            f"{target.path}: a full inertia has ten numbers, so =INIT and @LOW:HIGH do not apply; its start is the body in "
            "the model, and every value the search can reach is a possible body."
        )
    if given.prior is not None:
        raise DsoError(
            f"{target.path}: a full inertia has ten numbers and a weak prior of its own about the model's body, so one "
            "more does not apply; free body/NAME/mass, ipos or diaginertia to give those a prior."
        )
    axes = inertia.rotation(model.body_iquat[body])
    tensor = axes @ np.diag(model.body_inertia[body]) @ axes.T
    try:
        factor = inertia.nominal_factor(model.body_mass[body], model.body_ipos[body], tensor)
    except np.linalg.LinAlgError:
        raise DsoError(
            f"{target.path}: the model's inertia {model.body_inertia[body]} is that of no solid body (one moment must be "
            "smaller than the sum of the other two); correct the <inertial> element or leave it to the geoms."
        ) from None
    return Parameter(
        name=target.path,
        nominal=np.zeros(10),
        initial=np.zeros(10),
        low=np.full(10, -_LOG_LIMIT),
        high=np.full(10, _LOG_LIMIT),
        scale=np.ones(10),
        body=body,
        factor=factor,
        prior=Prior(np.zeros(10), np.full(10, _LOG_PRIOR), np.zeros(10, bool)),
    )
