"""The implicit derivative of the constraint solve: higher orders, zero friction loss, full inertia, single precision."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from physics_oracle import c_sensors, c_step, differences, mismatch, rollout, start
from physics_scenes import ARM, BODY, HOPPER, PUCK, scene

from dso_robotics.physics import step as physics
from dso_robotics.physics.constraint import Balance, force, hessian, residual
from dso_robotics.physics.device import put_model


def puck_step(model, x):
    """State after a step of the puck; `x` stacks (x, z, vx, vz, push, friction, gear)."""
    friction, gear = model.geom_friction.at[0, 0].set(x[5]), model.actuator_gear.at[0, 0].set(x[6])
    model = model.replace(geom_friction=friction, actuator_gear=gear)
    after = physics.advance(model, physics.make_state(model, x[:2], x[2:4]), x[4:5])
    return jnp.concatenate([after.qpos, after.qvel])


STATES = {
    "sliding": [0.0, -1e-4, 0.7, -0.05, 0.1, 0.4, 1.2],
    "at-rest": [0.0, -1e-4, 0.0, 0.0, 0.0, 0.4, 1.2],
    "sticking": [0.0, -2e-4, 0.0, 0.0, 0.3, 0.4, 1.2],
    "airborne": [0.0, 0.1, 0.3, 0.1, 0.2, 0.4, 1.2],
}


@pytest.fixture(scope="module")
def puck():
    """The elliptic puck: its step, Jacobian, and the Jacobian's derivative along a direction, each compiled once."""
    compiled = mujoco.MjModel.from_xml_string(scene(PUCK, cone="elliptic"))
    model = put_model(compiled)

    def weighted(x, w):
        return jnp.dot(w, puck_step(model, x))

    def second(x, w, v):
        return jax.jvp(lambda y: jax.grad(weighted)(y, w), (x,), (v,))[1]

    return compiled, jax.jit(jax.jacrev(lambda x: puck_step(model, x))), jax.jit(second)


@pytest.mark.parametrize("case", STATES)
def test_elliptic_cone_has_the_derivative_of_c_sliding_sticking_and_at_rest(puck, case):
    compiled, jacobian, _ = puck
    at = np.array(STATES[case])

    def c(x):
        compiled.geom_friction[0, 0], compiled.actuator_gear[0, 0] = x[5], x[6]
        return c_step(compiled, x[:4], x[4:5])

    assert mismatch(jacobian(at), differences(c, at)) < 1e-6


@pytest.mark.parametrize("case", ["sliding", "sticking"])
def test_second_derivatives_equal_differences_of_first(puck, case):
    _, jacobian, second = puck
    at, rng = np.array(STATES[case]), np.random.default_rng(0)
    weights, direction = rng.normal(size=4), rng.normal(size=7) * np.array([1, 1e-2, 1, 1, 1, 1, 1])
    size = 1e-6
    want = weights @ (np.asarray(jacobian(at + size * direction)) - np.asarray(jacobian(at - size * direction)))
    assert mismatch(second(at, weights, direction), want / (2 * size)) < 1e-5


def test_hessian_of_the_balance_is_the_derivative_of_its_residual():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 4))
    balance = Balance(
        mass=jnp.array(root @ root.T + 4 * np.eye(4)),
        smooth=jnp.array(rng.normal(size=4)),
        jacobian=jnp.array(rng.normal(size=(9, 4))),
        reference=jnp.array(rng.normal(size=9)),
        weight=jnp.array(rng.uniform(0.5, 2.0, 9)),
        loss=jnp.array([0.3, 5.0]),
        friction=(jnp.array([[0.8, 0.9, 0.9], [0.5, 0.6, 0.6]]),),
        equalities=1,
        cones=(((3, 4, 5), (6, 7, 8)),),
    )
    check = jax.jit(lambda a: (jax.jacfwd(residual, argnums=1)(balance, a), hessian(balance, a), force(balance, a)))
    seen = []
    for _ in range(30):
        derivative, direct, forces = check(rng.normal(size=4))
        assert mismatch(direct, derivative) < 1e-12
        seen.append(np.asarray(forces) != 0)
    assert np.any(seen, axis=0).all(), "some row was never active"


def test_friction_loss_is_identifiable_from_zero():
    text = scene(ARM).replace('frictionloss="0.2"', "").replace('frictionloss="0.1"', "")
    compiled = mujoco.MjModel.from_xml_string(text)
    model = put_model(compiled, friction_dofs=[0, 1])
    (state, ctrl), nq, nv = rollout(compiled, 21, kick=1.0)[-1], compiled.nq, compiled.nv

    def velocity(loss):
        begin = physics.make_state(model, state[:nq], state[nq : nq + nv], state[nq + nv :])
        return physics.advance(model.replace(dof_frictionloss=loss), begin, ctrl).qvel

    slope, value = jax.jit(jax.jacfwd(lambda x: (velocity(x),) * 2, has_aux=True))(jnp.zeros(2))
    nothing = c_step(compiled, state, ctrl)[nq : nq + nv]
    assert mismatch(value, nothing) < 1e-12
    for dof in range(2):
        compiled.dof_frictionloss[:] = 0
        compiled.dof_frictionloss[dof] = 1e-6
        want = (c_step(compiled, state, ctrl)[nq : nq + nv] - nothing) / 1e-6
        assert mismatch(slope[:, dof], want) < 1e-6


def test_products_of_inertia_equal_a_full_inertia_in_c():
    tensor = np.array([3e-3, 4e-3, 2e-3, 4e-4, -3e-4, 2e-4])  # xx yy zz xy xz yz, about the centre of mass

    def c(values):
        given = "0.003 0.004 0.002 0.0004 -0.0003 0.0002"
        text = scene(ARM).replace(given, " ".join(repr(float(v)) for v in values))
        return c_step(mujoco.MjModel.from_xml_string(text), state, ctrl)

    compiled = mujoco.MjModel.from_xml_string(scene(ARM))
    state, ctrl = rollout(compiled, 21, kick=1.0)[-1]
    model = put_model(compiled)
    model = model.replace(body_iquat=model.body_iquat.at[2].set(jnp.array([1.0, 0, 0, 0])))

    def after(values):
        changed = model.replace(body_inertia=model.body_inertia.at[2].set(values[:3]))
        products = jnp.zeros((compiled.nbody, 3)).at[2].set(values[3:])
        begin = physics.make_state(changed, state[:2], state[2:4], state[4:])
        end = physics.advance(changed, begin, ctrl, products=products)
        return jnp.concatenate([end.qpos, end.qvel, end.act])

    slope, value = jax.jit(jax.jacfwd(lambda v: (after(v),) * 2, has_aux=True))(jnp.array(tensor))
    # The weight of friction and limit rows comes from the inertia at compile time, so compare where they are slack.
    assert mismatch(value, c(tensor)) < 1e-10
    want = differences(c, tensor)
    assert np.abs(want).max() > 1e-2
    assert mismatch(slope, want) < 1e-2


@pytest.mark.parametrize(
    ("text", "options"), [(HOPPER, {}), (BODY, {"cone": "elliptic", "condim": 4})], ids=["velocity", "acceleration"]
)
def test_measure_runs_the_stages_the_sensors_need(text, options):
    compiled = mujoco.MjModel.from_xml_string(scene(text, **options))
    model = put_model(compiled)
    read = jax.jit(lambda s, u: physics.measure(model, physics.make_state(model, s[: model.nq], s[model.nq :]), u))
    for state, ctrl in rollout(compiled, 160, kick=0.5)[::20]:
        assert mismatch(read(state, ctrl), c_sensors(compiled, state, ctrl)) < 1e-11


def test_single_precision_step():
    with jax.enable_x64(False):
        compiled = mujoco.MjModel.from_xml_string(scene(PUCK, cone="elliptic").replace('tolerance="0"', ""))
        model = put_model(compiled)
        assert model.body_mass.dtype == jnp.float32
        at = jnp.array(STATES["sliding"], jnp.float32)
        slope, value = jax.jit(jax.jacfwd(lambda x: (puck_step(model, x),) * 2, has_aux=True))(at)
        assert value.dtype == jnp.float32
    x = np.array(STATES["sliding"])
    compiled.actuator_gear[0, 0] = x[6]
    assert mismatch(value, c_step(compiled, x[:4], x[4:5])) < 1e-5
    assert np.isfinite(slope).all()
    assert start(compiled).shape == (4,)
