"""Velocity-implicit integration: the acceleration with damping forces evaluated at the end of the step.

See MuJoCo documentation, "Computation", "Numerical integration". It equals the C engine also where MJX does not: actuators at
their force limit, muscles, and free bodies without children, whose gyroscopic forces C integrates implicitly.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics.backend import mjx, support
from dso_robotics.physics.linear import solve_spd
from dso_robotics.physics.stages import damping_slope


def end_of_step_acceleration(model: mjx.Model, data: mjx.Data) -> Float[Array, " nv"]:
    """The a [m/s², rad/s²] that solves (M − h D) a = all forces; D is the derivative of the smooth forces by velocity."""
    total = data.qfrc_smooth + data.qfrc_constraint
    dt, flags = model.opt.timestep, model.opt.disableflags
    if model.opt.integrator == mjx.IntegratorType.EULER:
        if flags & (mjx.DisableBit.EULERDAMP | mjx.DisableBit.DAMPER):
            return data.qacc
        return solve_spd(support.full_m(model, data) + jnp.diag(dt * damping_slope(model, data.qvel)), total)
    change = _derivative(model, data)
    alone = _free_bodies(model)
    if change is None and not alone:
        return data.qacc
    mass = support.full_m(model, data)
    change = jnp.zeros_like(mass) if change is None else change
    bodies = np.array([dof for _, first in alone for dof in range(first, first + 6)], int)
    coupled = np.ones(model.nv, bool)
    coupled[bodies] = False
    acceleration = solve_spd(mass - dt * change * np.outer(coupled, coupled), total)
    for body, first in alone:
        rows = slice(first, first + 6)
        block = mass[rows, rows] - dt * (change[rows, rows] - _bias_derivative(data, body, first))
        acceleration = acceleration.at[rows].set(jnp.linalg.solve(block, total[rows]))
    return acceleration


def _derivative(model: mjx.Model, data: mjx.Data) -> Float[Array, "nv nv"] | None:
    """Derivative of actuator and passive forces by velocity, without fluid forces; None if all are disabled."""
    out = None
    if model.nu and not model.opt.disableflags & mjx.DisableBit.ACTUATION:
        moment = data._impl.actuator_moment
        out = moment.T @ (_actuator_slope(model, data)[:, None] * moment)
    if not model.opt.disableflags & mjx.DisableBit.DAMPER:
        damping = -jnp.diag(damping_slope(model, data.qvel))
        if model.ntendon:
            damping = damping - data._impl.ten_J.T @ (model.tendon_damping[:, None] * data._impl.ten_J)
        out = damping if out is None else out + damping
    return out


def _actuator_slope(model: mjx.Model, data: mjx.Data) -> Float[Array, " nu"]:
    """Derivative of each actuator's force by its velocity, zero at the force limit."""
    gain = jnp.where(model.actuator_gaintype == mjx.GainType.AFFINE, model.actuator_gainprm[:, 2], 0.0)
    muscle = np.flatnonzero(model.actuator_gaintype == mjx.GainType.MUSCLE)
    if muscle.size:
        slope = jax.vmap(jax.grad(support.muscle_gain, argnums=1))(
            data.actuator_length[muscle],
            data._impl.actuator_velocity[muscle],
            model.actuator_lengthrange[muscle],
            model.actuator_acc0[muscle],
            model.actuator_gainprm[muscle],
        )
        gain = gain.at[muscle].set(slope)
    signal = data.ctrl
    if not model.opt.disableflags & mjx.DisableBit.CLAMPCTRL:
        clipped = jnp.clip(signal, model.actuator_ctrlrange[:, 0], model.actuator_ctrlrange[:, 1])
        signal = jnp.where(model.actuator_ctrllimited, clipped, signal)
    if model.na:
        last = jnp.take(data.act, model.actuator_actadr + model.actuator_actnum - 1, mode="clip")
        signal = jnp.where(model.actuator_dyntype == mjx.DynType.NONE, signal, last)
    bias = jnp.where(model.actuator_biastype == mjx.BiasType.AFFINE, model.actuator_biasprm[:, 2], 0.0)
    low, high = model.actuator_forcerange.T
    saturated = model.actuator_forcelimited & ((data.actuator_force <= low) | (data.actuator_force >= high))
    return jnp.where(saturated, 0.0, bias + gain * signal)


def _free_bodies(model: mjx.Model) -> list[tuple[int, int]]:
    """Bodies with a free joint and no children, with their first degree of freedom."""
    parents = set(model.body_parentid[1:].tolist())
    free = np.flatnonzero(model.jnt_type == mjx.JointType.FREE)
    found = [(int(model.jnt_bodyid[j]), int(model.jnt_dofadr[j])) for j in free]
    return [(body, first) for body, first in found if body not in parents]


def _bias_derivative(data: mjx.Data, body: int, first: int) -> Float[Array, "6 6"]:
    """Derivative of a free body's Coriolis and gyroscopic forces by its velocity (linear global, angular in body axes).

    The forces are m ω×(ω×r) and the torques ω×Iω: ω is the global angular velocity, r points from the body's origin to its
    centre of mass, and I is the inertia about the origin.
    """
    frame = data.xmat[body]
    omega = frame @ data.qvel[first + 3 : first + 6]
    xx, yy, zz, xy, xz, yz, _, _, _, mass = data._impl.cinert[body]
    about_centre = jnp.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz]).reshape(3, 3)
    arm = data.xipos[body] - data.xpos[body]
    eye = jnp.eye(3)
    inertia = about_centre + mass * (jnp.dot(arm, arm) * eye - jnp.outer(arm, arm))
    force = mass * (jnp.dot(omega, arm) * eye + jnp.outer(omega, arm) - 2 * jnp.outer(arm, omega)) @ frame
    torque = frame.T @ (_cross(omega) @ inertia - _cross(inertia @ omega)) @ frame
    return jnp.zeros((6, 6)).at[:3, 3:].set(force).at[3:, 3:].set(torque)


def _cross(vector: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The matrix of the cross product with `vector`."""
    x, y, z = vector
    zero = jnp.zeros_like(x)
    return jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
