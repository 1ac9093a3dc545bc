"""The step, its sensors and its Jacobians against C MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from physics_oracle import c_sensors, c_step, differences, field_differences, mismatch, rollout
from physics_scenes import ARM, BODY, HOPPER, LOOP, MACHINE, scene

from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model

SMOOTH = ("dof_damping", "dof_armature", "jnt_stiffness", "body_mass", "body_inertia", "jnt_pos", "dof_invweight0")
ACTUATOR = ("actuator_gear", "actuator_gainprm", "actuator_biasprm", "actuator_dynprm")
CONTACT = ("geom_friction", "geom_size", "geom_solref", "geom_solimp", "body_invweight0")


def flat_step(model, state, ctrl):
    """One step on the stacked state, with what the sensors read before it."""
    qpos, qvel, act = jnp.split(state, [model.nq, model.nq + model.nv])
    after, sensed = physics.advance_measured(model, physics.make_state(model, qpos, qvel, act), ctrl)
    return jnp.concatenate([after.qpos, after.qvel, after.act]), sensed


def load(text, **options):
    compiled = mujoco.MjModel.from_xml_string(scene(text, **options))
    return compiled, put_model(compiled)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (ARM, {"integrator": "implicitfast"}),
        (ARM, {"integrator": "RK4"}),
        (HOPPER, {"integrator": "Euler", "cone": "elliptic", "condim": 6}),
        (BODY, {"integrator": "implicitfast", "cone": "pyramidal", "condim": 4}),
        (MACHINE, {"integrator": "implicitfast"}),
    ],
    ids=["arm-implicitfast", "arm-rk4", "hopper-elliptic6", "body-pyramidal4", "machine"],
)
def test_step_and_sensors_equal_c(text, options):
    compiled, model = load(text, **options)
    steps = rollout(compiled, 120, kick=1.0)[::3]
    after, sensed = jax.jit(jax.vmap(lambda s, u: flat_step(model, s, u)))(*map(np.stack, zip(*steps, strict=True)))
    for index, (state, ctrl) in enumerate(steps):
        assert mismatch(after[index], c_step(compiled, state, ctrl)) < 1e-11
        assert mismatch(sensed[index], c_sensors(compiled, state, ctrl)) < 1e-11


CASES = {
    "arm": (
        ARM,
        {},
        jax.jacfwd,
        (*SMOOTH, *ACTUATOR, "dof_dampingpoly", "dof_frictionloss", "jnt_range", "jnt_solimp", "body_pos"),
        60,
    ),
    "hopper-pyramidal": (
        HOPPER,
        {"integrator": "implicitfast"},
        jax.jacrev,
        (*SMOOTH, *ACTUATOR, *CONTACT, "dof_frictionloss"),
        120,
    ),
    "hopper-elliptic": (HOPPER, {"cone": "elliptic"}, jax.jacrev, (*SMOOTH, *CONTACT), 120),
    "body-elliptic": (
        BODY,
        {"cone": "elliptic", "condim": 4},
        jax.jacrev,
        ("body_mass", "body_inertia", *CONTACT),
        240,
    ),
    "loop-pyramidal": (LOOP, {}, jax.jacfwd, ("eq_data", "eq_solref", "geom_friction"), 8),
}


@pytest.mark.parametrize("case", CASES)
def test_jacobians_equal_central_differences_of_c(case):
    text, options, jacobian, names, horizon = CASES[case]
    compiled, model = load(text, **options)

    def after(fields, state, ctrl):
        return flat_step(model.replace(**fields), state, ctrl)[0]

    fields = {name: getattr(model, name) for name in names}
    derivative = jax.jit(jacobian(after, argnums=(0, 1, 2)))
    worst, rows = {}, 0
    for state, ctrl in rollout(compiled, horizon, kick=0.3)[horizon // 4 - 1 :: horizon // 4]:
        by_field, by_state, by_ctrl = derivative(fields, state, ctrl)
        found = mujoco.MjData(compiled)
        found.qpos[:], found.qvel[:], found.act[:] = np.split(state, [compiled.nq, compiled.nq + compiled.nv])
        mujoco.mj_forward(compiled, found)
        rows = max(rows, found.nefc)
        errors = {
            "state": mismatch(by_state, differences(lambda s: c_step(compiled, s, ctrl), state)),  # noqa: B023
        }
        if compiled.nu:
            errors["ctrl"] = mismatch(by_ctrl, differences(lambda u: c_step(compiled, state, u), ctrl))  # noqa: B023
        for name in names:
            # A step of 1e-6 in a friction loss of zero, or in a field C keeps only copies of, is no difference of C's.
            value = getattr(compiled, name).ravel()
            want = field_differences(compiled, name, lambda: c_step(compiled, state, ctrl))  # noqa: B023
            got = np.asarray(by_field[name]).reshape(state.size, -1)
            moving = value != 0 if name in ("dof_frictionloss", "dof_damping") else slice(None)
            errors[name] = mismatch(got[:, moving], want[:, moving])
        worst = {k: max(v, worst.get(k, 0.0)) for k, v in errors.items()}
    assert rows >= 2, "the states of this case never met a constraint"
    assert {k: v for k, v in worst.items() if v > 1e-6} == {}
