"""Stages of the forward dynamics whose MJX version has a wrong derivative or a wrong value. All other stages are MJX's.

In `step.py` each function replaces the MJX function of the same purpose. MJX itself is not patched.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics import rotation
from dso_robotics.physics.backend import constraint, mjx, mjx_math, mjx_passive, replaced, smooth
from dso_robotics.physics.equality import velocity_acceleration
from dso_robotics.physics.impedance import stiffness_damping_impedance

_QUATERNION = (mjx.JointType.FREE, mjx.JointType.BALL)


def _addresses(model: mjx.Model) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Addresses in qpos and qvel of the translations and of the quaternions, and the joints that have a quaternion."""
    free = model.jnt_type == mjx.JointType.FREE
    turning = np.isin(model.jnt_type, _QUATERNION)
    straight = [(int(q), int(v)) for q, v in zip(model.jnt_qposadr[~turning], model.jnt_dofadr[~turning], strict=True)]
    for q, v in zip(model.jnt_qposadr[free], model.jnt_dofadr[free], strict=True):
        straight += [(int(q) + i, int(v) + i) for i in range(3)]
    joints = np.flatnonzero(turning)
    quats = model.jnt_qposadr[joints] + 3 * free[joints]
    omegas = model.jnt_dofadr[joints] + 3 * free[joints]
    pairs = np.array(straight, int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], quats[:, None] + np.arange(4), omegas[:, None] + np.arange(3), joints


@jax.jit  # for its cache: quantities, sensors and constants trace it many times, and tracing it takes long
def configuration(model: mjx.Model, data: mjx.Data, products: Float[Array, "nbody 3"] | None) -> mjx.Data:
    """Poses, inertias about the centre of mass, tendons and transmissions."""
    # In C the pose of the world is fixed, whatever the model says; MJX would move it.
    world = jnp.array([1.0, 0.0, 0.0, 0.0])
    model = model.replace(body_pos=model.body_pos.at[0].set(0.0), body_quat=model.body_quat.at[0].set(world))
    data = smooth.kinematics(model, data)
    data = smooth.com_pos(model, data)
    if products is not None:
        data = _add_products(data, products)
    data = smooth.tendon(model, data)
    return actuator_length(model, smooth.transmission(model, data))


def _add_products(data: mjx.Data, products: Float[Array, "nbody 3"]) -> mjx.Data:
    """Rotate the products of inertia to the global frame and add them to `cinert` (first six: xx yy zz xy xz yz)."""
    xy, xz, yz = products.T
    zero = jnp.zeros_like(xy)
    local = jnp.stack([zero, xy, xz, xy, zero, yz, xz, yz, zero], axis=1).reshape(-1, 3, 3)
    turned = jnp.einsum("bij,bjk,blk->bil", data.ximat, local, data.ximat)
    part = turned[:, (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
    return replaced(data, {"_impl.cinert": data._impl.cinert.at[:, :6].add(part)})


def integrate_position(
    model: mjx.Model, qpos: Float[Array, " nq"], qvel: Float[Array, " nv"], dt: Float[Array, ""] | float
) -> Float[Array, " nq"]:
    """`qpos` [m, rad] after moving for `dt` [s] at constant `qvel` [m/s, rad/s]."""
    q, v, quats, omegas, _ = _addresses(model)
    moved = qpos.at[q].add(dt * qvel[v])
    if len(quats):
        turned = jax.vmap(rotation.integrate, in_axes=(0, 0, None))(qpos[quats], qvel[omegas], dt)
        moved = moved.at[quats].set(turned)
    return moved


def passive(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Springs, dampers, gravity compensation and fluid drag.

    MJX leaves all of them out when springs or dampers are disabled. It also loses the stiffness of a ball joint at rest.
    """
    flags = model.opt.disableflags
    springs, dampers = not flags & mjx.DisableBit.SPRING, not flags & mjx.DisableBit.DAMPER
    if not (springs or dampers):
        return data.replace(qfrc_passive=jnp.zeros(model.nv), qfrc_gravcomp=jnp.zeros(model.nv))
    total = jnp.zeros(model.nv)
    tendon = jnp.zeros(model.ntendon)
    if springs:
        total = total - _spring(model, data.qpos)
        below, above = model.tendon_lengthspring.T - data.ten_length
        tendon = model.tendon_stiffness * (jnp.maximum(below, 0.0) + jnp.minimum(above, 0.0))
    if dampers:
        total = total - damping_force(model, data.qvel)
        tendon = tendon - model.tendon_damping * data._impl.ten_velocity
    if model.ntendon:
        total = total + data._impl.ten_J.T @ tendon
    compensation = jnp.zeros(model.nv)
    if model.flg_gravcomp and not flags & mjx.DisableBit.GRAVITY:
        compensation = mjx_passive._gravcomp(model, data)
        total = total + compensation * (1 - model.jnt_actgravcomp[model.dof_jntid])
    if model.opt._impl.has_fluid_params:
        total = total + mjx_passive._fluid(model, data)
    return data.replace(qfrc_passive=total, qfrc_gravcomp=compensation)


def damping_force(model: mjx.Model, qvel: Float[Array, " nv"]) -> Float[Array, " nv"]:
    """(d0 + d1 |v| + d2 v²) v of every degree of freedom [N, N m]; MJX uses d0 only."""
    quadratic, cubic = model.dof_dampingpoly.T
    return (model.dof_damping + quadratic * jnp.abs(qvel) + cubic * qvel**2) * qvel


def damping_slope(model: mjx.Model, qvel: Float[Array, " nv"]) -> Float[Array, " nv"]:
    """Derivative of `damping_force` by velocity, for each degree of freedom."""
    quadratic, cubic = model.dof_dampingpoly.T
    return model.dof_damping + 2 * quadratic * jnp.abs(qvel) + 3 * cubic * qvel**2


def _spring(model: mjx.Model, qpos: Float[Array, " nq"]) -> Float[Array, " nv"]:
    """Stiffness times displacement from `qpos_spring`, by degree of freedom [N, N m]."""
    q, v, quats, omegas, joints = _addresses(model)
    stiffness = model.jnt_stiffness[model.dof_jntid]
    out = jnp.zeros(model.nv).at[v].set((qpos - model.qpos_spring)[q])
    if len(joints):
        unit = qpos[quats] / jnp.linalg.norm(qpos[quats], axis=1, keepdims=True)
        out = out.at[omegas].set(jax.vmap(rotation.difference)(unit, model.qpos_spring[quats]))
    return stiffness * out


def make_constraint(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Constraint rows: Jacobian, reference acceleration, regularisation. The velocity stage must have run.

    These are MJX's rows with an impedance that is safe to differentiate, and with the velocity-product acceleration of
    connects and welds.
    """
    made = _rows(model, data)
    if not made:
        empty = jnp.zeros(0)
        names = ("efc_D", "efc_aref", "efc_frictionloss", "efc_pos", "efc_margin")
        return replaced(data, {"_impl.efc_J": jnp.zeros((0, model.nv))} | {f"_impl.{n}": empty for n in names})
    efc = jax.tree.map(lambda *x: jnp.concatenate(x), *made)

    @jax.vmap
    def finish(row):
        stiffness, damping, impedance = stiffness_damping_impedance(model, row.solref, row.solimp, row.pos_imp)
        regular = jnp.maximum(row.invweight * (1 - impedance) / impedance, mujoco.mjMINVAL)
        reference = -damping * jnp.dot(row.J, data.qvel) - stiffness * impedance * row.pos_aref
        return reference, 1 / regular

    reference, weight = finish(efc)
    drift = velocity_acceleration(model, data)
    reference = reference.at[: drift.size].add(-drift)
    return replaced(
        data,
        {
            "_impl.efc_J": efc.J,
            "_impl.efc_D": weight,
            "_impl.efc_aref": reference,
            "_impl.efc_frictionloss": efc.frictionloss,
            "_impl.efc_pos": efc.pos_aref + efc.margin,
            "_impl.efc_margin": efc.margin,
        },
    )


def _rows(model: mjx.Model, data: mjx.Data) -> list:
    """MJX's constraint rows in its order: equalities, friction loss, limits, contacts."""
    if model.opt.disableflags & mjx.DisableBit.CONSTRAINT:
        return []
    made = [
        constraint._efc_equality_connect(model, data),
        constraint._efc_equality_weld(model, data),
        constraint._efc_equality_joint(model, data),
        constraint._efc_equality_tendon(model, data),
        constraint._efc_friction(model, data),
        constraint._efc_limit_ball(model, data),
        constraint._efc_limit_slide_hinge(model, data),
        constraint._efc_limit_tendon(model, data),
        constraint._efc_contact_frictionless(model, data),
    ]
    elliptic = model.opt.cone == mjx.ConeType.ELLIPTIC
    contact = constraint._efc_contact_elliptic if elliptic else constraint._efc_contact_pyramidal
    made += [contact(model, data, condim) for condim in (3, 4, 6)]
    return [rows for rows in made if rows is not None]


def actuator_length(model: mjx.Model, data: mjx.Data) -> mjx.Data:
    """Lengths of ball-joint and site-to-site actuators, with the correct derivative at aligned orientations (MJX: zero)."""
    joint = np.isin(model.actuator_trntype, (mjx.TrnType.JOINT, mjx.TrnType.JOINTINPARENT))
    target = np.where(joint, model.actuator_trnid[:, 0], 0)
    ball = np.flatnonzero(joint & (model.jnt_type[target] == mjx.JointType.BALL)) if model.njnt else np.zeros(0, int)
    site = np.flatnonzero((model.actuator_trntype == mjx.TrnType.SITE) & (model.actuator_trnid[:, 1] >= 0))
    length = data.actuator_length
    for i in ball:
        adr = model.jnt_qposadr[target[i]]
        quat, gear = data.qpos[adr : adr + 4], model.actuator_gear[i, :3]
        if model.actuator_trntype[i] == mjx.TrnType.JOINTINPARENT:
            gear = mjx_math.rotate(gear, mjx_math.quat_inv(quat))
        length = length.at[i].set(jnp.dot(rotation.rotation_vector(quat), gear))
    for i in site:
        here, there = model.actuator_trnid[i]
        turn = [mjx_math.quat_mul(data.xquat[model.site_bodyid[s]], model.site_quat[s]) for s in (here, there)]
        offset = data.site_xmat[there].T @ (data.site_xpos[here] - data.site_xpos[there])
        wrench = jnp.concatenate([offset, rotation.difference(turn[0], turn[1])])
        length = length.at[i].set(jnp.dot(wrench, model.actuator_gear[i]))
    return data.replace(actuator_length=length)
