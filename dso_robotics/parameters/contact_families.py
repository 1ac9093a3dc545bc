"""The parameters of contacts and of equality constraints: of geoms, of contact pairs, and of closed loops."""

from collections.abc import Callable

import mujoco
import numpy as np

from dso_robotics.parameters.family import INF, Family, Slot, needs, row, units

_G, _E = mujoco.mjtGeom, mujoco.mjtEq
# How many numbers of `size` a shape has; a plane has no size that matters, a mesh has that of its file.
_SIZES = {
    int(_G.mjGEOM_SPHERE): 1,
    int(_G.mjGEOM_CAPSULE): 2,
    int(_G.mjGEOM_CYLINDER): 2,
    int(_G.mjGEOM_ELLIPSOID): 3,
    int(_G.mjGEOM_BOX): 3,
}
_CONNECT = int(_E.mjEQ_CONNECT)
_MAGNETOMETER = int(mujoco.mjtSensor.mjSENS_MAGNETOMETER)
_POLYNOMIALS = (int(_E.mjEQ_JOINT), int(_E.mjEQ_TENDON))


def _time_constant(field: str) -> Callable[[mujoco.MjModel, int], str]:
    return needs(
        lambda m, i: (getattr(m, field)[i] > 0).all(),
        f"its {field.partition('_')[2]} is in the direct format (negative stiffness and damping) or not given; write "
        "(timeconst, dampratio)",
    )


def _pair_friction(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    """Where both sliding, or both rolling, directions have one value, the first of the two indices moves both."""
    both = k in (0, 3) and model.pair_friction[i, k] == model.pair_friction[i, k + 1]
    return (Slot("pair_friction", tuple(5 * i + k + j for j in range(1 + both))),)


def _pair_directions(model: mujoco.MjModel, i: int) -> tuple[int, ...]:
    friction = model.pair_friction[i]
    same = [k + 1 for k in (0, 3) if friction[k] == friction[k + 1]]
    return tuple(k for k in range(5) if k not in same)


def _no_data(model: mujoco.MjModel, i: int) -> str:
    kind = int(model.eq_type[i])
    if kind in _POLYNOMIALS:
        return ""
    if kind == _CONNECT:
        bodies = model.eq_objtype[i] == int(mujoco.mjtObj.mjOBJ_BODY)
        return "" if bodies else "it connects sites, which hold its anchors; free site/NAME/pos instead"
    return "only <connect>, <joint> and <tendon> have such numbers; for a <weld> free body/NAME/pos and body/NAME/rot"


def _data_unit(model: mujoco.MjModel, i: int, k: int) -> str:
    return "m" if model.eq_type[i] == _CONNECT else "rad or m per rad or m, to the power of the index"


_SOLIMP = units("1", "1", "m", "1")
_SOLREF = units("s", "1")

CONTACTS = (
    Family("geom", "friction", units("1", "m"), row("geom_friction", 3),
           "sliding [1], torsional [m], rolling [m] friction", width=3, scale=lambda model, i: 0.1),
    Family("geom", "solref", _SOLREF, row("geom_solref", 2),
           "contact: time constant [s] and damping ratio [1]", width=2, scale=lambda model, i: 0.01,
           refuse=_time_constant("geom_solref")),
    Family("geom", "solimp", _SOLIMP, row("geom_solimp", 5),
           "contact: impedance d0, dwidth, width [m], midpoint, power", width=5, scale=lambda model, i: 0.01),
    Family("geom", "size", units("m"), row("geom_size", 3),
           "size of the shape, for contacts; mass and inertia of the body stay",
           width=lambda model, i: _SIZES.get(int(model.geom_type[i]), 1),
           scale=lambda model, i: float(model.geom_size[i].max()) or 1.0,
           refuse=needs(lambda m, i: int(m.geom_type[i]) in _SIZES, "only primitive shapes with an end have a size")),
    Family("pair", "friction", units("1", "1", "m"), _pair_friction,
           "sliding [0] and [1], torsional [2], rolling [3] and [4]; of two equal ones the first moves both", width=5,
           scale=lambda model, i: 0.1, listed=_pair_directions, mjcf=("pair_friction", "friction")),
    Family("pair", "solref", _SOLREF, row("pair_solref", 2), "contact: time constant [s] and damping ratio [1]", width=2,
           scale=lambda model, i: 0.01,
           refuse=_time_constant("pair_solref"), mjcf=("pair_solref", "solref")),
    Family("pair", "solreffriction", _SOLREF, row("pair_solreffriction", 2),
           "friction directions of a contact: time constant [s] and damping ratio [1]", width=2,
           scale=lambda model, i: 0.01,
           refuse=_time_constant("pair_solreffriction"), mjcf=("pair_solreffriction", "solreffriction")),
    Family("pair", "solimp", _SOLIMP, row("pair_solimp", 5), "contact: impedance d0, dwidth, width [m], midpoint, power",
           width=5, scale=lambda model, i: 0.01, mjcf=("pair_solimp", "solimp")),
    Family("pair", "margin", units("m"), row("pair_margin"), "distance at which the contact is found",
           scale=lambda model, i: 1e-3, mjcf=("pair_margin", "margin")),
    Family("pair", "gap", units("m"), row("pair_gap"), "part of the margin in which the contact has no force",
           scale=lambda model, i: 1e-3, mjcf=("pair_gap", "gap")),
    Family("equality", "data", _data_unit, row("eq_data", mujoco.mjNEQDATA),
           "anchor [m] of a connect in its first body, or polynomial coefficients of a joint or tendon equality",
           width=lambda model, i: 3 if model.eq_type[i] == _CONNECT else 5, low=-INF,
           scale=lambda model, i: 0.01 * float(model.stat.extent) if model.eq_type[i] == _CONNECT else 1.0,
           refuse=_no_data),
    Family("equality", "solref", _SOLREF, row("eq_solref", 2), "constraint: time constant [s] and damping ratio [1]", width=2,
           scale=lambda model, i: 0.01,
           refuse=_time_constant("eq_solref"), mjcf=("eq_solref", "solref")),
    Family("equality", "solimp", _SOLIMP, row("eq_solimp", 5), "constraint: impedance d0, dwidth, width [m], midpoint, power",
           width=5, scale=lambda model, i: 0.01, mjcf=("eq_solimp", "solimp")),
    Family("option", "gravity", units("m/s^2"), row("opt.gravity", 3),
           "gravity in the world's axes; its size is seen only beside a known mass or torque", width=3, low=-INF,
           scale=lambda model, i: max(float(np.linalg.norm(model.opt.gravity)), 1.0)),
    Family("option", "wind", units("m/s"), row("opt.wind", 3), "speed of the air or water", width=3, low=-INF,
           refuse=needs(lambda m, i: m.opt.density or m.opt.viscosity, "there is no fluid; write density in <option>")),
    Family("option", "density", units("kg/m^3"), row("opt.density"), "density of the air or water"),
    Family("option", "viscosity", units("Pa*s"), row("opt.viscosity"), "viscosity of the air or water",
           scale=lambda model, i: 1e-3),
    Family("option", "magnetic", units("gauss"), row("opt.magnetic", 3), "magnetic field in the world's axes", width=3,
           low=-INF, scale=lambda model, i: 0.5,
           refuse=needs(lambda m, i: _MAGNETOMETER in m.sensor_type, "the model has no magnetometer")),
)  # fmt: skip
