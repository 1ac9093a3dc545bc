"""Base parameters: the combinations of mass, first moment and inertia that the data of full inertias determine.

A motion shows ten numbers of a body only together with those of its neighbours and of the rotors (Gautier and Khalil, 1990). Of
numbers that act alike, one leads a combination; the others join it with the factor by which they act.
"""

import dataclasses
from typing import Any

import numpy as np

from dso_robotics.core.covariance import Uncertainty
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.inertia import body_from_coordinates
from dso_robotics.physics.regressor import inertial_numbers

_LABELS = (
    "mass",
    *(f"first moment {axis}" for axis in "xyz"),
    *(f"inertia {pair}" for pair in ("xx", "yy", "zz", "xy", "xz", "yz")),
)
_UNITS = ("kg", *("kg*m",) * 3, *("kg*m^2",) * 6)
# What leads a combination: other numbers, then inertias, then first moments, then masses.
_RANK = (3, *(2,) * 3, *(1,) * 6)
# A combination is determined if its standard deviation is below this share of its usual size.
_VAGUE = 0.5
# A number joins a combination if it weighs this share of the leading one.
_LEAST = 0.01


@dataclasses.dataclass(frozen=True)
class _Number:
    label: str
    unit: str
    size: float
    rank: int


def base_parameters(vector: ParameterVector, solution: Solution, spread: Uncertainty) -> dict[str, Any]:
    """`combinations`, each with "name", "value", "low95", "high95" and "unit", and `unseen`: numbers that act on nothing.

    Inertias are about the origin of the body's frame, in its axes. Empty without a full inertia.
    """
    if all(p.factor is None for p in vector.parameters):
        return {}
    values, slope, numbers = _numbers(vector, solution.z)
    back = np.linalg.inv(slope)
    size = np.array([number.size for number in numbers])
    data = solution.information - solution.prior_information
    scaled = size[:, None] * (back.T @ data @ back) * size
    curvature, axes = np.linalg.eigh((scaled + scaled.T) / 2)
    seen = curvature > _VAGUE**-2
    rows = np.sqrt(curvature[seen])[:, None] * axes[:, seen].T
    order = sorted(range(len(numbers)), key=lambda k: (numbers[k].rank, -k))
    lead, basis = [], np.zeros((rows.shape[0], 0))
    for k in order:
        rest = rows[:, k] - basis @ (basis.T @ rows[:, k])
        rest -= basis @ (basis.T @ rest)
        length = float(np.linalg.norm(rest))
        if length > max(1 / _VAGUE, 1e-4 * float(np.linalg.norm(rows[:, k]))) and len(lead) < len(rows):
            lead.append(k)
            basis = np.column_stack([basis, rest / length])
    join = np.linalg.lstsq(rows[:, lead], rows, rcond=None)[0] if lead else np.zeros((0, len(numbers)))
    covariance = slope @ spread.covariance @ slope.T
    found = []
    for row, k in sorted(zip(join, lead, strict=True), key=lambda pair: pair[1]):
        weights = np.where(np.abs(row) > _LEAST, row, 0.0) * size[k] / size
        weights[lead] = 0.0
        weights[k] = 1.0
        value, half = (
            float(weights @ values),
            spread.quantile * float(np.sqrt(max(weights @ covariance @ weights, 0.0))),
        )
        entry = {"name": _text(weights, k, numbers), "value": value, "low95": value - half, "high95": value + half}
        found.append(entry | {"unit": numbers[k].unit})
    still = [n.label for n, column in zip(numbers, rows.T, strict=True) if np.linalg.norm(column) < 1e-3 / _VAGUE]
    return {"combinations": found, "unseen": still}


def _text(weights: np.ndarray, lead: int, numbers: list[_Number]) -> str:
    text = numbers[lead].label
    for j in np.flatnonzero(weights):
        if j != lead:
            factor = "" if abs(abs(weights[j]) - 1) < 1e-3 else f"{abs(weights[j]):.3g} "
            text += f" {'+' if weights[j] > 0 else '-'} {factor}{numbers[j].label}"
    return text


def _numbers(vector: ParameterVector, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[_Number]]:
    """Values (n,), their derivative by z (n, n), and what they are: ten numbers of each full inertia, and the plain ones."""
    values, slope, numbers = np.array(z, float), np.eye(len(z)), []
    for p, here in vector.places():
        if p.factor is None:
            numbers += [
                _Number(label, unit, float(p.scale[i]), 0) for i, (label, unit) in enumerate(p.reported.items())
            ]
            continue
        h = 1e-6 * np.eye(10)
        values[here] = _inertial(p, z[here])
        slope[here, here] = np.stack([(_inertial(p, z[here] + d) - _inertial(p, z[here] - d)) / 2e-6 for d in h], -1)
        mass = float(values[here][0])
        # The radius of a body about its frame.
        reach = float(np.sqrt(max(values[here][4:7].sum() / 2, 1e-12) / mass))
        sizes = (mass, *(mass * reach,) * 3, *(mass * reach**2,) * 6)
        body = p.path.removeprefix("body/").removesuffix("/inertia")
        numbers += [
            _Number(f"{n} of {body}", u, s, r) for n, u, s, r in zip(_LABELS, _UNITS, sizes, _RANK, strict=True)
        ]
    return values, slope, numbers


def _inertial(p: Parameter, z: np.ndarray) -> np.ndarray:
    assert p.factor is not None
    mass, com, tensor = body_from_coordinates(z, p.factor)
    return inertial_numbers(np.atleast_1d(mass), com[None], tensor[None])[0]
