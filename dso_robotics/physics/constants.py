"""Derived constants of a model, recomputed differentiably: mj_setConst in JAX.

The step reads constants that MuJoCo derives from the reference configuration `qpos0`: the inverse weights that set the
softness of every constraint, subtree masses, tendon rest lengths, the strength of muscles, anchors of equality
constraints. They are stale after a change of mass, inertia, pose, armature, gear or reference, and the constrained dynamics
is then slightly wrong.

As in C, a weld's given relative pose and a tendon's spring length are not derived again: in a compiled model they are
parameters.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics import inertia, stages
from dso_robotics.physics.backend import mjx, mjx_math, smooth, support
from dso_robotics.physics.linear import solve_spd


def set_constants(model: mjx.Model, *, products: Float[Array, "nbody 3"] | None = None) -> mjx.Model:
    """`model` with every derived constant consistent with its masses, inertias, poses, armatures, gears and `qpos0`.

    `products` is explained in `step.py`. `geom_rbound` is also computed from `geom_size`, as MuJoCo's compiler does.
    """
    return model.replace(**_derived(model, products))


@jax.jit  # for its cache: a training traces its model several times
def _derived(model: mjx.Model, products: Float[Array, "nbody 3"] | None) -> dict[str, Array]:
    data = mjx.make_data(model).replace(qpos=model.qpos0)
    data = stages.configuration(model, data, products)
    data = smooth.crb(model, data)
    bare = jnp.diagonal(support.full_m(model, data))
    mass = support.full_m(model, smooth.tendon_armature(model, data))
    inverse = solve_spd(mass, jnp.eye(model.nv)) if model.nv else mass
    changed = {
        "body_subtreemass": _subtree_mass(model),
        "body_invweight0": _body_weight(model, data, inverse),
        "dof_invweight0": _dof_weight(model, inverse),
        "dof_M0": bare,
        "geom_rbound": _bounding_radius(model),
        "eq_data": _anchors(model, data),
    }
    if model.ntendon:
        arms = data._impl.ten_J
        changed["tendon_length0"] = data.ten_length
        changed["tendon_invweight0"] = jnp.einsum("ti,ij,tj->t", arms, inverse, arms)
    if model.nu:
        pushed = data._impl.actuator_moment @ inverse
        square = jnp.sum(pushed**2, axis=1)
        changed["actuator_acc0"] = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    if model.ncam:
        changed |= _cameras(model, data)
    return changed


def _subtree_mass(model: mjx.Model) -> Float[Array, " nbody"]:
    """Mass [kg] of each body and all its descendants."""
    belongs = np.eye(model.nbody)
    for body in range(model.nbody - 1, 0, -1):
        belongs[model.body_parentid[body]] += belongs[body]
    return jnp.asarray(belongs) @ model.body_mass


def _translates_only(model: mjx.Model) -> np.ndarray:
    """Bodies that MuJoCo treats as point masses: all their joints slide along the axes (body_simple 2)."""
    return np.asarray(model.body_simple) == 2


def _body_weight(model: mjx.Model, data: mjx.Data, inverse: Float[Array, "nv nv"]) -> Float[Array, "nbody 2"]:
    """Mean inverse inertia of each body's centre of mass: translation [1/kg], rotation [1/(kg m²)]."""
    jacobian = jax.vmap(lambda point, body: jnp.concatenate(support.jac(model, data, point, body), axis=1))(
        data.xipos, jnp.arange(model.nbody)
    )
    diagonal = jnp.einsum("bik,ij,bjk->bk", jacobian, inverse, jacobian)
    weight = diagonal.reshape(-1, 2, 3).mean(axis=2)
    point = jnp.stack([1 / jnp.maximum(model.body_mass, mujoco.mjMINVAL), jnp.zeros(model.nbody)], axis=1)
    weight = jnp.where(_translates_only(model)[:, None], point, weight)
    return jnp.where((np.asarray(model.body_weldid) == 0)[:, None], 0.0, weight)


def _dof_weight(model: mjx.Model, inverse: Float[Array, "nv nv"]) -> Float[Array, " nv"]:
    """Inverse inertia of each degree of freedom; for a free or ball joint the average over its degrees of freedom."""
    groups, number = np.zeros(model.nv, int), 0
    for kind, first in zip(model.jnt_type, model.jnt_dofadr, strict=True):
        for width in {mjx.JointType.FREE: (3, 3), mjx.JointType.BALL: (3,)}.get(kind, (1,)):
            groups[first : first + width] = number
            first, number = first + width, number + 1
    mean = (groups[:, None] == groups) / np.bincount(groups, minlength=1)[groups][:, None]
    weight = mean @ jnp.diagonal(inverse)
    point = 1 / jnp.maximum(model.body_mass, mujoco.mjMINVAL)[model.dof_bodyid]
    return jnp.where(_translates_only(model)[model.dof_bodyid], point, weight)


def _anchors(model: mjx.Model, data: mjx.Data) -> Float[Array, "neq 12"]:
    """Equality data. The second anchor of a connect follows from the first.

    A weld without a given relative pose keeps the pose at qpos0. MuJoCo marks such a weld in its last number.
    """
    values = model.eq_data
    body = np.asarray(model.eq_objtype) == int(mujoco.mjtObj.mjOBJ_BODY)
    for i in np.flatnonzero((model.eq_type == mjx.EqType.CONNECT) & body):
        one, two = model.eq_obj1id[i], model.eq_obj2id[i]
        anchor = data.xpos[one] + data.xmat[one] @ values[i, :3]
        values = values.at[i, 3:6].set(data.xmat[two].T @ (anchor - data.xpos[two]))
    for i in np.flatnonzero((model.eq_type == mjx.EqType.WELD) & body):
        one, two = model.eq_obj1id[i], model.eq_obj2id[i]
        anchor = data.xpos[two] + data.xmat[two] @ values[i, :3]
        local = data.xmat[one].T @ (anchor - data.xpos[one])
        turn = mjx_math.quat_mul(mjx_math.quat_inv(data.xquat[one]), data.xquat[two])
        given = values[i, 6:10] / jnp.linalg.norm(values[i, 6:10])
        derived = values[i, 11] != 0
        values = values.at[i, 3:6].set(jnp.where(derived, local, values[i, 3:6]))
        values = values.at[i, 6:10].set(jnp.where(derived, turn, given))
    return values


def _bounding_radius(model: mjx.Model) -> Float[Array, " ngeom"]:
    """Radius [m] of the sphere around each primitive geom; meshes, height fields and planes keep the model's."""
    one, two, three = model.geom_size.T
    corner = jnp.sqrt(jnp.where(one > 0, one**2 + two**2 + three**2, 1.0))
    rim = jnp.sqrt(jnp.where(one > 0, one**2 + two**2, 1.0))
    radius = model.geom_rbound
    for kind, value in (
        (mjx.GeomType.SPHERE, one),
        (mjx.GeomType.CAPSULE, one + two),
        (mjx.GeomType.CYLINDER, rim),
        (mjx.GeomType.BOX, corner),
        (mjx.GeomType.ELLIPSOID, jnp.maximum(jnp.maximum(one, two), three)),
    ):
        radius = jnp.where(np.asarray(model.geom_type) == kind, value, radius)
    return radius


def _cameras(model: mjx.Model, data: mjx.Data) -> dict[str, Array]:
    """Positions of tracking cameras relative to their bodies and centres of mass [m]."""
    body = model.cam_bodyid
    target = np.where(model.cam_targetbodyid >= 0, model.cam_targetbodyid, body)
    place, turn = jax.vmap(support.local_to_global)(data.xpos[body], data.xquat[body], model.cam_pos, model.cam_quat)
    return {"cam_pos0": place - data.xpos[body], "cam_poscom0": place - data.subtree_com[target], "cam_mat0": turn}


def with_fields(base: mjx.Model, mj: mujoco.MjModel, fields: Mapping[str, Any]) -> tuple[mjx.Model, Array | None]:
    """`base`, put on the device from `mj`, with other fields of the model, constants included; and the products of inertia.

    "body_inertia_full" (nbody, 3, 3) [kg m^2] stands for body_inertia, as in `inertia.diagonal_and_products`; without it there
    are no products: None.
    """
    plain, products = dict(fields), None
    full = plain.pop("body_inertia_full", None)
    if full is not None:
        plain["body_inertia"], products = inertia.diagonal_and_products(mj, full)
    options = {name.removeprefix("opt."): plain.pop(name) for name in list(plain) if name.startswith("opt.")}
    model = base.replace(**{name: jnp.asarray(value) for name, value in plain.items()})
    if options:
        model = model.replace(opt=model.opt.replace(**{name: jnp.asarray(value) for name, value in options.items()}))
    if any(name in mujoco.MjModel._setconst_inputs for name in plain):
        model = set_constants(model, products=products)
    return model, products
