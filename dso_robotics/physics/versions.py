"""Differences between versions of MuJoCo, in one table: where MJX 3.17 computes something else than the installed C MuJoCo.

Each row was measured: one step of a small model on C 3.17.0, C 4.0.0 and MJX 3.17.0 (tests/light/steps.py has the models).
Where no row applies, the three agree to rounding, except for contacts from a general convex method (of meshes, height fields,
ellipsoids, cylinders). There MJX is as far from C 3.17 as from C 4.0, and `dso check` warns of them on any version.
Contact pairs without their own solref are the same in all three.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from dso_robotics.errors import DsoError

Version = tuple[int, ...]
INSTALLED: Version = tuple(int(part) for part in mujoco.__version__.split(".")[:3])


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference between MJX 3.17 and C MuJoCo.

    since: first version of C MuJoCo with the difference.
    until: first version without it.
    where: function of a model that returns the names of the elements concerned.
    text: a sentence with {names} and the cure.
    """

    since: Version
    until: Version
    where: Callable[[mujoco.MjModel], list[str]]
    text: str


def differences(model: mujoco.MjModel, version: Version = ()) -> list[str]:
    """Differences for `model` between MJX 3.17 and C MuJoCo of `version` (empty: the one installed), one sentence each."""
    version = version or INSTALLED
    out = []
    for row in TABLE:
        names = row.where(model) if row.since <= version < row.until else []
        if names:
            out.append(row.text.format(names=", ".join(names[:4]) + (", ..." if len(names) > 4 else "")))
    return out


def refuse_faults(model: mujoco.MjModel, source: str, version: Version = ()) -> None:
    """Raise a `DsoError` if C MuJoCo of `version` (empty: the one installed) is wrong for `model`, or no time passes in it."""
    version = version or INSTALLED
    timestep = float(model.opt.timestep)
    if not 0 < timestep < math.inf:
        raise DsoError(
            f"{source}: its <option timestep> is {timestep:g} s; a simulation needs a positive one, such as 0.002."
        )
    newton = model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON
    if version == (4, 0, 0) and newton and mujoco.mj_isSparse(model):
        raise DsoError(
            f"{source}: MuJoCo 4.0.0 solves contacts and limits wrongly with a sparse constraint Jacobian (mujoco#3767), which "
            'this model has: write <option jacobian="dense"/>, or install another version of MuJoCo.'
        )
    plastic = _yielding(model)
    if plastic:
        raise DsoError(
            f"{source}: springyield of {', '.join(plastic[:4])}: the yield is a state in addition to positions, velocities and "
            "activations, and logs do not contain it: remove springyield."
        )


def _named(model: mujoco.MjModel, kind: str, chosen: Sequence[bool] | np.ndarray) -> list[str]:
    """The chosen objects of `kind`, by name or number."""
    obj = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
    names = ((i, mujoco.mj_id2name(model, int(obj), int(i))) for i in np.flatnonzero(chosen))
    return [f"{kind} '{name}'" if name else f"{kind} number {i}" for i, name in names]


def _saturating(model: mujoco.MjModel) -> list[str]:
    """Joints and tendons with a limited actuator force, if an actuator's force depends on velocity and is implicit."""
    if model.opt.integrator != mujoco.mjtIntegrator.mjINT_IMPLICITFAST:
        return []
    damped = np.zeros(len(model.actuator_gaintype), bool)
    for kind, none, affine, numbers in (
        (model.actuator_gaintype, mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE, model.actuator_gainprm),
        (model.actuator_biastype, mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE, model.actuator_biasprm),
    ):
        damped |= np.where(kind == affine, numbers[:, 2] != 0, kind != none)
    pulled = model.actuator_trnid[damped & (model.actuator_trntype == mujoco.mjtTrn.mjTRN_TENDON), 0]
    tendons = np.asarray(model.tendon_actfrclimited, bool) & np.isin(np.arange(model.ntendon), pulled)
    return [*_named(model, "joint", model.jnt_actfrclimited * damped.any()), *_named(model, "tendon", tendons)]


def _turning(model: mujoco.MjModel) -> list[str]:
    """Joints with a quaternion, under RK4."""
    if model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
        return []
    return _named(model, "joint", np.isin(model.jnt_type, [mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL]))


def _one_sided(model: mujoco.MjModel) -> list[str]:
    """Tendons that wrap a sphere or cylinder on the side of a site."""
    wraps = np.isin(model.wrap_type, [mujoco.mjtWrap.mjWRAP_SPHERE, mujoco.mjtWrap.mjWRAP_CYLINDER])
    sided = wraps & (np.asarray(model.wrap_prm) >= 0)
    spans = zip(model.tendon_adr, model.tendon_num, strict=True)
    return _named(model, "tendon", [bool(sided[begin : begin + count].any()) for begin, count in spans])


def _yielding(model: mujoco.MjModel) -> list[str]:
    fields = (("joint", "jnt_springyield"), ("tendon", "tendon_springyield"))  # unknown to MuJoCo 3
    return [name for kind, field in fields for name in _named(model, kind, np.asarray(getattr(model, field, [])) > 0)]


def _speculative(model: mujoco.MjModel) -> list[str]:
    flag = getattr(mujoco.mjtEnableBit, "mjENBL_SPECULATIVE", None)
    return ["option/flag/speculative"] if flag is not None and model.opt.enableflags & int(flag) else []


def _weighing(model: mujoco.MjModel) -> list[str]:
    """Sensors of the acceleration of bodies that no joint moves."""
    still = model.body_dofnum[model.body_weldid] == 0
    bodies = np.full(model.nsensor, -1)
    of = {mujoco.mjtObj.mjOBJ_BODY: None, mujoco.mjtObj.mjOBJ_XBODY: None}
    of |= {mujoco.mjtObj.mjOBJ_SITE: model.site_bodyid, mujoco.mjtObj.mjOBJ_GEOM: model.geom_bodyid}
    of |= {mujoco.mjtObj.mjOBJ_CAMERA: model.cam_bodyid}
    kinds = [mujoco.mjtSensor.mjSENS_ACCELEROMETER, mujoco.mjtSensor.mjSENS_FRAMELINACC]
    for i in np.flatnonzero(np.isin(model.sensor_type, kinds)):
        body = of[mujoco.mjtObj(model.sensor_objtype[i])]
        bodies[i] = model.sensor_objid[i] if body is None else body[model.sensor_objid[i]]
    return _named(model, "sensor", (bodies >= 0) & still[bodies])


_FIRST, _FOUR, _EVER = (0,), (4,), (5,)
TABLE = (
    # One step of 2 ms: 0.2 rad/s with a position servo at the limit; equal where no actuator is at its limit.
    Difference(
        _FOUR,
        _EVER,
        _saturating,
        "Since MuJoCo 4 'implicitfast' integrates differently when the actuatorfrcrange of {names} is reached: use "
        "'Euler' or 'RK4', or MuJoCo 3.17.",
    ),
    # 2e-7 rad/s, 4e-7 rad in one step.
    Difference(
        _FOUR,
        _EVER,
        _turning,
        "Since MuJoCo 4 RK4 rotates {names} differently: use 'implicitfast' or 'Euler', or MuJoCo 3.17.",
    ),
    # 5 cm of a tendon's length: the other side is chosen, or the geom is wrapped although the straight line misses it.
    Difference(
        _FOUR,
        _EVER,
        _one_sided,
        "Since MuJoCo 4 the sidesite of {names} chooses the side differently: leave sidesite out, or use MuJoCo 3.17.",
    ),
    Difference(_FOUR, _EVER, _yielding, "The springyield of {names} is unknown to MJX: remove it."),
    Difference(_FOUR, _EVER, _speculative, "{names} is unknown to MJX: disable it."),
    # 9.81 m/s^2: C MuJoCo 3 reads zero.
    Difference(
        _FIRST,
        _FOUR,
        _weighing,
        "MJX reads gravity at {names}, whose body is fixed; MuJoCo 3 reads zero: remove it, or use the C engine.",
    ),
)
