"""The ten inertial parameters of a body, in log-Cholesky coordinates: any real vector is a physically possible body.

The 4x4 pseudo-inertia is J = [[Sigma, m c], [m c^T, m]], with Sigma = tr(I_o)/2 1 - I_o and I_o the inertia about the body
origin. It is positive definite if and only if some positive mass density has that mass m, centre of mass c and inertia.
J = U U^T with U upper triangular gives unconstrained coordinates (Rucker and Wensing, "Smooth parameterization of rigid-body
inertia", IEEE RA-L 7(2), 2022). They are relative to a nominal body: zero is the nominal body, one is a factor e.

Functions accept NumPy and JAX arrays and broadcast over leading axes.
"""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

Array = Any  # a NumPy or a JAX array

COORDINATES = ("alpha", "d1", "d2", "d3", "s12", "s23", "s13", "t1", "t2", "t3")
NUMBERS = ("mass", "com_x", "com_y", "com_z", "Ixx", "Iyy", "Izz", "Ixy", "Ixz", "Iyz")
UNITS = ("kg", "m", "m", "m", *("kg*m^2",) * 6)

# Products of inertia below this share of the largest moment are rounding.
_STILL_PRINCIPAL = 1e-13


def upper_factor(z: Array) -> Array:
    """U(z) (..., 4, 4) from log-Cholesky coordinates z (..., 10), equation (10) of Rucker and Wensing."""
    xp = z.__array_namespace__()
    alpha, d1, d2, d3, s12, s23, s13, t1, t2, t3 = (z[..., i] for i in range(10))
    zero = xp.zeros_like(alpha)
    rows = (
        (xp.exp(d1), s12, s13, t1),
        (zero, xp.exp(d2), s23, t2),
        (zero, zero, xp.exp(d3), t3),
        (zero, zero, zero, xp.ones_like(alpha)),
    )
    return xp.exp(alpha)[..., None, None] * xp.stack([xp.stack(row, -1) for row in rows], -2)


def pseudo_inertia(mass: Array, com: Array, inertia: Array) -> Array:
    """J (..., 4, 4) from mass [kg] (...), centre of mass [m] (..., 3) and inertia about it [kg m^2] (..., 3, 3)."""
    xp = com.__array_namespace__()
    outer = com[..., :, None] * com[..., None, :]
    trace = xp.trace(inertia, axis1=-2, axis2=-1)[..., None, None]
    sigma = trace / 2 * xp.eye(3) - inertia + mass[..., None, None] * outer
    h = (mass[..., None] * com)[..., None]
    top = xp.concatenate([sigma, h], -1)
    bottom = xp.concatenate([xp.swapaxes(h, -1, -2), mass[..., None, None]], -1)
    return xp.concatenate([top, bottom], -2)


def from_pseudo_inertia(pseudo: Array) -> tuple[Array, Array, Array]:
    """Mass (...), centre of mass (..., 3) and inertia about it (..., 3, 3), the inverse of `pseudo_inertia`."""
    xp = pseudo.__array_namespace__()
    mass = pseudo[..., 3, 3]
    com = pseudo[..., :3, 3] / mass[..., None]
    sigma = pseudo[..., :3, :3] - mass[..., None, None] * com[..., :, None] * com[..., None, :]
    trace = xp.trace(sigma, axis1=-2, axis2=-1)[..., None, None]
    return mass, com, trace * xp.eye(3) - sigma


def nominal_factor(mass: float, com: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """Upper-triangular U0 (4, 4) with J = U0 U0^T of a nominal body.

    Raises:
      numpy.linalg.LinAlgError: the ten numbers are not a physical body (J is not positive definite).
    """
    reverse = np.eye(4)[::-1]
    pseudo = pseudo_inertia(np.asarray(float(mass)), np.asarray(com, float), np.asarray(inertia, float))
    return reverse @ np.linalg.cholesky(reverse @ pseudo @ reverse) @ reverse


def body_from_coordinates(z: Array, factor: np.ndarray) -> tuple[Array, Array, Array]:
    """Mass, centre of mass and inertia (as in `from_pseudo_inertia`) at coordinates z (..., 10) relative to `factor`."""
    xp = z.__array_namespace__()
    upper = xp.matmul(xp.asarray(factor), upper_factor(z))
    return from_pseudo_inertia(xp.matmul(upper, xp.swapaxes(upper, -1, -2)))


def numbers(mass: Array, com: Array, inertia: Array) -> Array:
    """The ten physical numbers (..., 10) in the order of `NUMBERS`; products of inertia as tensor entries."""
    xp = com.__array_namespace__()
    entries = [inertia[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))]
    return xp.concatenate([mass[..., None], com, xp.stack(entries, -1)], -1)


def rotation(quat: Array) -> Array:
    """Rotation matrix (..., 3, 3) of unit quaternions (..., 4), scalar first as in MuJoCo."""
    xp = quat.__array_namespace__()
    w, x, y, z = (quat[..., i] for i in range(4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def turned(quat: Array, vector: Array) -> Array:
    """Unit quaternions `quat` (..., 4) turned by rotation vectors (..., 3) [rad] in their own axes; smooth at zero."""
    xp = vector.__array_namespace__()
    square = (vector**2).sum(-1) / 4
    tiny = square < 1e-12
    half = xp.sqrt(xp.where(tiny, 1.0, square))
    sinc = xp.where(tiny, 1 - square / 6, xp.sin(half) / half) / 2
    c, (x, y, z) = xp.where(tiny, 1 - square / 2, xp.cos(half)), (sinc * vector[..., i] for i in range(3))
    a, b, d, e = (quat[..., i] for i in range(4))
    return xp.stack(
        [
            a * c - b * x - d * y - e * z,
            a * x + b * c + d * z - e * y,
            a * y - b * z + d * c + e * x,
            a * z + b * y - d * x + e * c,
        ],
        -1,
    )


def principal(inertia: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal moments (..., 3), largest first as in MuJoCo's compiler, and the quaternion (..., 4) of their frame.

    NumPy only: the axes have no derivative where moments are equal, so the MJX engine never calls this.
    """
    moments, axes = np.linalg.eigh(inertia)
    moments, axes = moments[..., ::-1], axes[..., ::-1]
    handed = np.linalg.det(axes)
    axes = axes * np.where(handed < 0, -1.0, 1.0)[..., None, None]
    return moments, _quaternion(axes)


def principal_fields(model: mujoco.MjModel, fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`fields` (N, *shape) with full inertia tensors replaced by the principal moments and axes that C MuJoCo stores.

    Axes of `model` that are still principal are kept: C MuJoCo assumes that a body compiled as simple is aligned with them.
    """
    plain = dict(fields)
    full = plain.pop("body_inertia_full", None)
    if full is not None:
        moments = np.tile(model.body_inertia, (len(full), 1, 1))
        axes = np.tile(model.body_iquat, (len(full), 1, 1))
        given = np.isfinite(full[0, :, 0, 0])
        found, turned = principal(full[:, given])
        own = rotation(model.body_iquat[given])
        local = np.swapaxes(own, -1, -2) @ full[:, given] @ own
        diagonal = np.diagonal(local, axis1=-2, axis2=-1)
        products = np.abs(local - diagonal[..., None] * np.eye(3)).max((-2, -1), initial=0.0)
        kept = products <= _STILL_PRINCIPAL * np.abs(diagonal).max(-1, initial=0.0)
        moments[:, given] = np.where(kept[..., None], diagonal, found)
        axes[:, given] = np.where(kept[..., None], model.body_iquat[given], turned)
        plain["body_inertia"], plain["body_iquat"] = moments, axes
    return plain


def diagonal_and_products(model: mujoco.MjModel, full: Array) -> tuple[Array, Array]:
    """`body_inertia` and `products` (see `step.py`), (..., nbody, 3) each [kg m^2], from full tensors (..., nbody, 3, 3).

    The tensors are in body axes about the centre of mass. A body whose tensor is NaN keeps the model's inertia. The step
    accepts any tensor in the model's frame `body_iquat`, so there is no eigendecomposition and every derivative exists.
    """
    xp = full.__array_namespace__()
    given = xp.isfinite(full[..., 0, 0])[..., None]
    axes = xp.asarray(rotation(model.body_iquat))
    local = xp.matmul(xp.matmul(xp.swapaxes(axes, -1, -2), xp.where(given[..., None], full, 0.0)), axes)
    diagonal = xp.stack([local[..., i, i] for i in range(3)], -1)
    products = xp.stack([local[..., 0, 1], local[..., 0, 2], local[..., 1, 2]], -1)
    return xp.where(given, diagonal, xp.asarray(model.body_inertia)), xp.where(given, products, 0.0)


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) of rotation matrices (..., 3, 3), as an eigenvector: this needs no case distinction."""
    m = matrix
    k = np.zeros((*m.shape[:-2], 4, 4))
    k[..., 0, 0] = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    for i, (j, n) in enumerate(((1, 2), (2, 0), (0, 1))):
        k[..., 0, i + 1] = k[..., i + 1, 0] = m[..., n, j] - m[..., j, n]
        k[..., i + 1, i + 1] = m[..., i, i] - m[..., j, j] - m[..., n, n]
        k[..., j + 1, n + 1] = k[..., n + 1, j + 1] = m[..., j, n] + m[..., n, j]
    quat = np.linalg.eigh(k)[1][..., :, -1]
    return quat * np.where(quat[..., :1] < 0, -1.0, 1.0)
