"""Features of a model that MJX silently ignores or does not support, each with what to change. Does not import JAX.

MJX 3.17 accepts most of these when the model is put on the device, and then simulates something else than C MuJoCo.
Differences that depend on the installed version of C MuJoCo are in versions.py.
"""

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics.versions import differences

_SOLVERS = {mujoco.mjtSolver.mjSOL_PGS: "PGS"}
_INTEGRATORS = {
    mujoco.mjtIntegrator.mjINT_IMPLICIT: "implicit",
    mujoco.mjtIntegrator.mjINT_DISCRETE: "discrete",
}
_OWN_GAINS = {
    mujoco.mjtGain.mjGAIN_DCMOTOR: "dcmotor",
    mujoco.mjtGain.mjGAIN_PID: "pid",
    mujoco.mjtGain.mjGAIN_SO3: "orientation servo",
}
_TRANSMISSIONS = {mujoco.mjtTrn.mjTRN_SLIDERCRANK: "slider-crank", mujoco.mjtTrn.mjTRN_BODY: "body (adhesion)"}


def unsupported(model: mujoco.MjModel) -> list[str]:
    """Every feature of `model` that the differentiable engine does not support, one sentence each; empty if there is none."""
    own = [*_options(model), *_forces(model), *_actuators(model), *_contacts(model), *_sensors(model)]
    return [*own, *differences(model)]


def refuse(model: mujoco.MjModel, source: str = "this model") -> None:
    """Raise a `DsoError` that lists `unsupported` features, if there are any."""
    found = unsupported(model)
    if found:
        raise DsoError(
            f"{source}: the differentiable engine (MJX) cannot simulate it faithfully. {' '.join(found)} "
            "The C engine (--engine mujoco) has all of these features."
        )


def _names(model: mujoco.MjModel, kind: mujoco.mjtObj, ids: np.ndarray) -> str:
    """Names of up to four objects; an unnamed object is given by its number."""
    named = [mujoco.mj_id2name(model, int(kind), int(i)) or f"number {i}" for i in np.atleast_1d(ids)[:4]]
    return ", ".join(f"'{n}'" for n in named) + (", ..." if np.size(ids) > 4 else "")


def _rows(values: np.ndarray) -> np.ndarray:
    """Numbers of the rows of `values` that are not all zero."""
    return np.flatnonzero(np.asarray(values).reshape(len(values), -1).any(axis=1)) if len(values) else np.zeros(0, int)


def _options(model: mujoco.MjModel) -> list[str]:
    option, out = model.opt, []
    if option.integrator in _INTEGRATORS:
        name = _INTEGRATORS[mujoco.mjtIntegrator(option.integrator)]
        out.append(f"option/integrator is '{name}': use 'implicitfast', 'Euler' or 'RK4'.")
    if option.solver in _SOLVERS:
        out.append("option/solver is 'PGS': use 'Newton' or 'CG'.")
    if option.noslip_iterations:
        out.append("option/noslip_iterations is ignored: set it to 0 (raise impratio against slip).")
    if option.disableactuator:
        out.append("option/actuatorgroupdisable is ignored: remove those actuators.")
    for bit, name in (("SLEEP", "sleep"), ("OVERRIDE", "override"), ("DIAGEXACT", "diagexact"), ("IPC", "ipc")):
        if option.enableflags & getattr(mujoco.mjtEnableBit, f"mjENBL_{bit}"):
            out.append(f"option/flag/{name} is ignored or missing: disable it.")
    fluid = option.density > 0 or option.viscosity > 0 or np.any(option.wind)
    if fluid and option.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST:
        out.append("Fluid drag does not work with the integrator 'implicitfast': use 'Euler' or 'RK4'.")
    if model.nplugin:
        out.append("Engine plugins are ignored: remove them.")
    if model.nflex:
        out.append("Flexes (deformable bodies) are missing: remove them.")
    return out


def _forces(model: mujoco.MjModel) -> list[str]:
    out = []
    for field, kind, word in (
        ("jnt_stiffnesspoly", mujoco.mjtObj.mjOBJ_JOINT, "stiffness of joint"),
        ("tendon_stiffnesspoly", mujoco.mjtObj.mjOBJ_TENDON, "stiffness of tendon"),
        ("tendon_dampingpoly", mujoco.mjtObj.mjOBJ_TENDON, "damping of tendon"),
    ):
        rows = _rows(getattr(model, field))
        if rows.size:
            out.append(
                f"The polynomial {word} {_names(model, kind, rows)} is ignored: give one number, the linear term."
            )
    fluid = _rows(model.geom_fluid[:, :1])
    if fluid.size and (model.opt.density > 0 or model.opt.viscosity > 0):
        names = _names(model, mujoco.mjtObj.mjOBJ_GEOM, fluid)
        out.append(f"The ellipsoid fluid model of geom {names} is ignored: remove fluidshape.")
    return out


def _actuators(model: mujoco.MjModel) -> list[str]:
    out = []
    for field, word, cure in (
        ("actuator_damping", "damping", "give it to the joint"),
        ("actuator_dampingpoly", "damping", "give it to the joint"),
        ("actuator_armature", "armature", "give it to the joint"),
        ("actuator_delay", "delay", "remove it, and free actuator/NAME/delay instead"),
        ("actuator_actearly", "actearly", "set it to false"),
    ):
        rows = _rows(getattr(model, field))
        if rows.size:
            names = _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, rows)
            out.append(f"The {word} of actuator {names} is ignored: {cure}.")
    for kind, word in _TRANSMISSIONS.items():
        rows = np.flatnonzero(model.actuator_trntype == kind)
        if rows.size:
            names = _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, rows)
            out.append(f"The {word} transmission of actuator {names} is missing: use joint, tendon or site.")
    for kind, word in _OWN_GAINS.items():
        rows = np.flatnonzero(model.actuator_gaintype == kind)
        if rows.size:
            names = _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, rows)
            out.append(f"Actuator {names} is a {word}, which is missing: use motor, position, velocity or muscle.")
    several = np.flatnonzero((model.actuator_ctrlnum != 1) | (model.actuator_outnum != 1))
    if several.size:
        names = _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, several)
        out.append(f"Actuator {names} has several inputs or outputs: use one actuator for each.")
    return out


def _contacts(model: mujoco.MjModel) -> list[str]:
    out = []
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return out
    for field, word, cure in (
        ("geom_surfacevel", "surfacevel", "move the body by a joint instead"),
        ("geom_adhesion", "adhesion", "set it to 0"),
    ):
        rows = _rows(getattr(model, field))
        if rows.size:
            names = _names(model, mujoco.mjtObj.mjOBJ_GEOM, rows)
            out.append(f"The {word} of geom {names} is ignored: {cure}.")
    if np.any(model.pair_adhesion):
        out.append("The adhesion of contact pairs is ignored: set it to 0.")
    for name in ("max_contact_points", "max_geom_pairs"):
        if mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_NUMERIC), name) >= 0:
            out.append(f"The custom numeric '{name}' makes MJX drop contacts that C keeps: remove it.")
    elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    colliding = (model.geom_contype | model.geom_conaffinity) != 0
    slippery = np.flatnonzero((model.geom_condim == 1) & colliding)
    if elliptic and (np.any(model.pair_dim == 1) or slippery.size > 1):
        names = _names(model, mujoco.mjtObj.mjOBJ_GEOM, slippery)
        out.append(
            f"Elliptic cones cannot have frictionless contacts (geom {names}): use condim 3 with a small friction, "
            "or the pyramidal cone."
        )
    return out


def _sensors(model: mujoco.MjModel) -> list[str]:
    out = []
    for field, word in (("sensor_delay", "delay"), ("sensor_interval", "interval")):
        rows = _rows(getattr(model, field))
        if rows.size:
            names = _names(model, mujoco.mjtObj.mjOBJ_SENSOR, rows)
            out.append(f"The {word} of sensor {names} is ignored: set it to 0.")
    tactile = np.flatnonzero(model.sensor_type == mujoco.mjtSensor.mjSENS_TACTILE)
    if tactile.size:
        out.append(f"The tactile sensor {_names(model, mujoco.mjtObj.mjOBJ_SENSOR, tactile)} reads nothing: remove it.")
    return out
