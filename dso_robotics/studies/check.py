"""The contents of a model, the engines that can simulate it, and the parts that have no gradient."""

import dataclasses
from collections.abc import Sequence

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.extras import require_mjx
from dso_robotics.physics.model import KINDS, Robot
from dso_robotics.physics.refuse import unsupported

_SLOW_SOLVER = 5
# An explicitly integrated damping d on an inertia m is stable for dt d/m < 2; well below that it is inaccurate already.
_FAST_DAMPING = 0.5


@dataclasses.dataclass(frozen=True)
class Overview:
    """The output of `dso check` for a model.

    contents, options: (word, value) rows.
    engines: for each engine the reasons why it cannot simulate the model, empty if it can.
    warnings: sentences, each with a remedy.
    """

    contents: list[tuple[str, str]]
    options: list[tuple[str, str]]
    engines: dict[str, list[str]]
    warnings: list[str]


def overview(robot: Robot) -> Overview:
    """Examine the model, and load it into the differentiable engine to see whether it is supported (imports JAX)."""
    return Overview(_contents(robot.mj), _options(robot.mj), {"mujoco": [], "mjx": _mjx(robot)}, _warnings(robot))


def silent(model: mujoco.MjModel, states: np.ndarray, ctrls: np.ndarray) -> list[str]:
    """Sentences on the parts without effect, hence without gradient, at all `states` (n, nq+nv+na) and `ctrls` (n, nu).

    The derivative there is correctly zero. A gradient method cannot leave such a region by itself.
    """
    data = mujoco.MjData(model)
    touched, limited = np.zeros(model.ngeom, bool), np.zeros(model.njnt, bool)
    clipped, commanded, bounded_act = (np.ones(model.nu, bool) for _ in range(3))
    low, high = model.actuator_forcerange.T
    last = np.maximum(model.actuator_actadr + model.actuator_actnum - 1, 0)  # used only where there is an activation
    for state, ctrl in zip(states, ctrls, strict=True):
        data.qpos[:], data.qvel[:], data.act[:] = np.split(state, [model.nq, model.nq + model.nv])
        data.ctrl[:] = ctrl
        mujoco.mj_forward(model, data)
        for contact in data.contact:
            touched[contact.geom[contact.geom >= 0]] = True
        limited[data.efc_id[data.efc_type == mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT]] = True
        force = data.actuator_force
        clipped &= (model.actuator_forcelimited != 0) & ((force <= low) | (force >= high))
        commanded &= (model.actuator_ctrllimited != 0) & _outside(ctrl, model.actuator_ctrlrange)
        if model.na:
            bounded_act &= (model.actuator_actlimited != 0) & _outside(data.act[last], model.actuator_actrange)
    collides = _colliding(model)
    out = []
    if clipped.any():
        out.append(
            f"The force of actuator {_named(model, 'actuator', clipped)} was at its limit on every state: no gradient by "
            "its control or its gain. Widen forcerange or start with smaller controls."
        )
    if commanded.any():
        out.append(
            f"The control of actuator {_named(model, 'actuator', commanded)} was at or beyond ctrlrange on every state: no "
            "gradient by it. Widen ctrlrange or start with smaller controls."
        )
    if model.na and bounded_act.any():
        out.append(
            f"The activation of actuator {_named(model, 'actuator', bounded_act)} was at its limit on every state: no gradient "
            "by its control. Widen actrange or start from another activation."
        )
    if (collides & ~touched).any():
        out.append(
            f"Geom {_named(model, 'geom', collides & ~touched)} touched nothing on any state: no gradient by its size, "
            "friction or place, not even towards a contact that is near. Start from states in contact."
        )
    bounded = model.jnt_limited.astype(bool)
    if (bounded & ~limited).any():
        out.append(
            f"Joint {_named(model, 'joint', bounded & ~limited)} never met its limits: no gradient by its range."
        )
    return out


def _outside(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return (values <= limits[:, 0]) | (values >= limits[:, 1])


def _mjx(robot: Robot) -> list[str]:
    reasons = unsupported(robot.mj)
    if not reasons:
        try:
            require_mjx("it")
            from dso_robotics.physics.device import put_model

            put_model(robot.mj, source=robot.source)
        except DsoError as error:
            reasons = [str(error)]
    return reasons


def _contents(model: mujoco.MjModel) -> list[tuple[str, str]]:
    kinds = {int(v): v.name.rpartition("_")[2].lower() for v in mujoco.mjtJoint.__members__.values()}
    joints = [kinds[int(k)] for k in model.jnt_type]
    split = ", ".join(f"{joints.count(k)} {k}" for k in dict.fromkeys(joints))
    rows = [
        ("bodies", f"{model.nbody - 1}, {model.body_mass.sum():.4g} kg"),
        ("joints", f"{model.njnt}" + (f" ({split}), {model.nv} degrees of freedom" if joints else "")),
        ("actuators", f"{model.nu}" + (f", {model.na} activations" if model.na else "")),
        ("sensors", f"{model.nsensor}, {model.nsensordata} channels"),
        ("geoms", f"{model.ngeom}, {int(_colliding(model).sum())} can collide"),
        ("geom pairs", f"{_pairs(model)} may touch"),
    ]
    optional = (("tendons", model.ntendon), ("equalities", model.neq), ("explicit contact pairs", model.npair))
    return rows + [(word, f"{count}") for word, count in optional if count]


def _options(model: mujoco.MjModel) -> list[tuple[str, str]]:
    option = model.opt

    def word(kind: type, value: int) -> str:
        return kind(value).name.rpartition("_")[2]

    return [
        ("time step", f"{option.timestep:g} s"),
        ("integrator", word(mujoco.mjtIntegrator, option.integrator).lower()),
        ("solver", f"{word(mujoco.mjtSolver, option.solver)}, {option.iterations} iterations, to {option.tolerance:g}"),
        ("line search", f"{option.ls_iterations} iterations, to {option.ls_tolerance:g}"),
        ("friction cone", f"{word(mujoco.mjtCone, option.cone).lower()}, impratio {option.impratio:g}"),
    ]


def _warnings(robot: Robot) -> list[str]:
    return [*_unnamed(robot), *_solver(robot.mj), *_damping(robot.mj), *_softness(robot.mj), *_contacts(robot.mj)]


def _unnamed(robot: Robot) -> list[str]:
    found = []
    for kind, loss in (
        ("joint", "cannot be freed or given a start value"),
        ("actuator", "cannot be freed or matched to a log"),
        ("sensor", "cannot be matched to a log"),
    ):
        count = sum(not name for name in robot.names(kind))
        if count:
            found.append(f"{count} {kind}(s) without a name {loss}: give each a name in the model.")
    return found


def _solver(model: mujoco.MjModel) -> list[str]:
    option = model.opt
    constrained = model.jnt_limited.any() or model.dof_frictionloss.any() or _pairs(model) or model.neq
    if constrained and option.iterations < _SLOW_SOLVER:
        return [
            f"option/iterations is {option.iterations}: the constraint solver stops before it converges, and the derivative "
            "is taken as if it had. Use the default 100; the solver stops early by itself."
        ]
    return []


def _damping(model: mujoco.MjModel) -> list[str]:
    """Damping so strong that an explicit integrator is inaccurate or unstable with it."""
    kind, flags, dt = model.opt.integrator, model.opt.disableflags, model.opt.timestep
    if kind == mujoco.mjtIntegrator.mjINT_IMPLICITFAST or model.nv == 0:
        return []
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    inertia = np.maximum(np.diag(_mass_matrix(model, data)), mujoco.mjMINVAL)
    rate = np.zeros(model.nv)
    implicit = kind == mujoco.mjtIntegrator.mjINT_EULER and not flags & mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    if not implicit:
        rate += model.dof_damping
    for i in np.flatnonzero(model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT):
        joint = model.actuator_trnid[i, 0]
        rate[model.jnt_dofadr[joint]] -= min(model.actuator_biasprm[i, 2], 0.0) * model.actuator_gear[i, 0] ** 2
    joints = np.zeros(model.njnt, bool)
    joints[model.dof_jntid[dt * rate / inertia > _FAST_DAMPING]] = True
    if not joints.any():
        return []
    name = {int(mujoco.mjtIntegrator.mjINT_EULER): "Euler", int(mujoco.mjtIntegrator.mjINT_RK4): "RK4"}.get(
        kind, "this"
    )
    return [
        f"The damping of joint {_named(model, 'joint', joints)} acts within a time step, and integrator {name} takes it "
        "explicitly: values and derivatives depend on the time step. Use integrator 'implicitfast' or a smaller time step."
    ]


def _softness(model: mujoco.MjModel) -> list[str]:
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_REFSAFE:
        return []
    constant = model.geom_solref[:, 0]
    stiff = _colliding(model) & (constant > 0) & (constant < 2 * model.opt.timestep)
    if not stiff.any():
        return []
    return [
        f"The contact time constant solref[0] of geom {_named(model, 'geom', stiff)} is below two time steps and is raised "
        "to that: it has no gradient, and contacts soften with the time step. Use a smaller time step."
    ]


def _contacts(model: mujoco.MjModel) -> list[str]:
    """Pairs of shapes whose contacts MJX computes by a different method than C."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return []
    kind = np.asarray(model.geom_type)
    plane, mesh = (kind == int(k) for k in (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_MESH))
    round_ = np.isin(kind, [int(mujoco.mjtGeom.mjGEOM_SPHERE), int(mujoco.mjtGeom.mjGEOM_CAPSULE)])
    exact = np.outer(round_, round_) | np.outer(plane, ~mesh) | np.outer(~mesh, plane)
    pairs = np.argwhere(np.triu(_allowed(model) & ~exact, 1))
    if not len(pairs):
        return []
    words = sorted({tuple(sorted(_shape(model, int(geom)) for geom in pair)) for pair in pairs})
    named = np.zeros(model.ngeom, bool)
    named[pairs] = True
    return [
        f"Contacts of {'; '.join(' with '.join(pair) for pair in words)} (geom {_named(model, 'geom', named)}) are found by "
        "another method in the differentiable engine than in the C engine: while such geoms touch, states and derivatives "
        "differ, by 1e-6 to 1e-2 of the velocity (docs/models.md). Use spheres or capsules there, or keep them apart."
    ]


def _shape(model: mujoco.MjModel, geom: int) -> str:
    return mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()


def _mass_matrix(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    full = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, full)
    return full


def _colliding(model: mujoco.MjModel) -> np.ndarray:
    """Geoms (ngeom,) that may take part in a contact."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return np.zeros(model.ngeom, bool)
    return np.asarray(_allowed(model).any(axis=1))


def _pairs(model: mujoco.MjModel) -> int:
    """Pairs of geoms that may touch."""
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return 0
    return int(np.triu(_allowed(model), 1).sum())


def _allowed(model: mujoco.MjModel) -> np.ndarray:
    """Which geoms (ngeom, ngeom) MuJoCo's filters let collide: bits, welded and parent bodies, excludes, explicit pairs."""
    kind, affinity = model.geom_contype, model.geom_conaffinity
    allowed = np.array((kind[:, None] & affinity) | (kind & affinity[:, None]), bool)
    weld = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[weld]]
    allowed[weld[:, None] == weld] = False
    if not model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT:
        child = (parent[:, None] == weld) & (weld[:, None] != 0) & (weld != 0)
        allowed[child | child.T] = False
    for signature in model.exclude_signature:
        one, two = (model.geom_bodyid == body for body in (signature >> 16, signature & 0xFFFF))
        allowed[np.outer(one, two) | np.outer(two, one)] = False
    allowed[model.pair_geom1, model.pair_geom2] = allowed[model.pair_geom2, model.pair_geom1] = True
    return allowed


def _named(model: mujoco.MjModel, kind: str, chosen: Sequence[bool] | np.ndarray, most: int = 6) -> str:
    ids = np.flatnonzero(chosen)
    names = [mujoco.mj_id2name(model, KINDS[kind], int(i)) for i in ids[:most]]
    words = [f"'{name}'" if name else f"number {i}" for name, i in zip(names, ids, strict=False)]
    return ", ".join(words) + (f" and {len(ids) - most} more" if len(ids) > most else "")
