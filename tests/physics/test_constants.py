"""The differentiable mj_setConst against C's."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from physics_oracle import c_step, mismatch
from physics_scenes import PUCK, scene

from dso_robotics.physics import step as physics
from dso_robotics.physics.backend import smooth
from dso_robotics.physics.constants import set_constants
from dso_robotics.physics.device import put_model

ZOO = """
<mujoco>
  <default><geom contype="0" conaffinity="0"/></default>
  <worldbody>
    <camera name="still" pos="0 -2 1"/>
    <body name="base" pos="0.1 0 0.5" euler="10 20 0">
      <freejoint/>
      <inertial pos="0.02 0.01 0.03" mass="1.3" fullinertia="0.02 0.03 0.025 0.002 -0.001 0.003"/>
      <geom type="box" size="0.1 0.07 0.05"/> <site name="hook" pos="0.05 0.02 0"/>
      <camera name="chaser" mode="track" pos="0.3 0 0.1"/>
      <body name="arm" pos="0.1 0.05 0">
        <joint name="ball" type="ball" pos="0 0.01 0" armature="0.003"/>
        <inertial pos="0.1 0.01 0" mass="0.4" diaginertia="0.001 0.002 0.002"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.03"/>
        <body name="tip" pos="0.2 0 0">
          <joint name="hinge" axis="0 1 0.1" armature="0.01"/> <joint name="slide" type="slide" axis="1 0 0" ref="0.05"/>
          <inertial pos="0.03 0 0.02" mass="0.2" diaginertia="0.0004 0.0003 0.0005"/>
          <geom type="ellipsoid" size="0.03 0.04 0.05"/> <site name="end" pos="0.05 0 0.02"/>
        </body>
      </body>
    </body>
    <body name="wall" pos="1 0 0"><geom type="cylinder" size="0.05 0.2"/><site name="nail" pos="0 0 0.3"/></body>
    <body name="cart" pos="0 1 0.2">
      <joint name="rail" type="slide" axis="1 0 0"/>
      <geom type="sphere" size="0.1" mass="0.7"/>
      <body name="pole" pos="0 0 0.1">
        <joint name="pole" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.02"/>
      </body>
    </body>
    <body name="point" pos="0 -1 0.2">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/><geom size="0.05" mass="0.3"/>
    </body>
  </worldbody>
  <tendon>
    <spatial name="rope" armature="0.02" stiffness="3"><site site="nail"/><site site="hook"/><site site="end"/></spatial>
    <fixed name="sum"><joint joint="hinge" coef="0.3"/><joint joint="pole" coef="-0.5"/></fixed>
  </tendon>
  <equality>
    <connect body1="tip" body2="pole" anchor="0.02 0 0.01"/>
    <weld body1="cart" body2="wall"/> <weld body1="pole" body2="tip" relpose="0.1 0 0.2 0.8 0.6 0 0"/>
    <joint joint1="rail" joint2="pole" polycoef="0 0.1 0 0 0"/>
  </equality>
  <actuator>
    <motor joint="hinge" gear="3"/> <motor tendon="rope" gear="2"/> <motor site="end" refsite="hook" gear="1 0 0 0 0.3 0"/>
    <motor joint="ball" gear="0.2 0.3 1"/>
  </actuator>
</mujoco>
"""
# Moved parameters, and by how much: multiplied where a sign or zero carries a meaning, added elsewhere.
SCALED = ("body_mass", "body_inertia", "dof_armature", "tendon_armature", "actuator_gear", "geom_size")
SHIFTED = ("body_pos", "body_ipos", "jnt_pos", "site_pos", "qpos0", "body_quat", "body_iquat", "jnt_axis")
DERIVED = (
    *("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "tendon_length0", "tendon_invweight0"),
    *("actuator_acc0", "eq_data", "cam_pos0", "cam_poscom0", "cam_mat0"),
)


@pytest.fixture(scope="module")
def zoo():
    compiled = mujoco.MjModel.from_xml_string(ZOO)
    model = put_model(compiled)

    def derive(fields):
        made = set_constants(model.replace(**fields))
        return {name: getattr(made, name) for name in DERIVED}

    return compiled, jax.jit(lambda fields, moves: jax.jvp(derive, (fields,), (moves,)))


def moved(compiled: mujoco.MjModel, seed: int, size: float) -> dict[str, np.ndarray]:
    """Random values of all parameters; the point mass, which C treats as one, keeps its place and shape."""
    rng, out = np.random.default_rng(seed), {}
    for name in SCALED:
        value = getattr(compiled, name)
        out[name] = value * np.exp(size * rng.normal(size=value.shape))
    for name in SHIFTED:
        value = getattr(compiled, name)
        out[name] = value + 0.2 * size * rng.normal(size=value.shape)
    for name in ("body_quat", "body_iquat", "jnt_axis"):
        out[name] = out[name] / np.linalg.norm(out[name], axis=1, keepdims=True)
    for joint in range(compiled.njnt):
        width = {0: 7, 1: 4}.get(int(compiled.jnt_type[joint]), 0)
        adr = compiled.jnt_qposadr[joint] + (3 if width == 7 else 0)
        if width:
            out["qpos0"][adr : adr + 4] /= np.linalg.norm(out["qpos0"][adr : adr + 4])
    simple = np.flatnonzero(compiled.body_simple > 0)
    joints = np.flatnonzero(np.isin(compiled.jnt_bodyid, simple))
    for name, rows in (("body_ipos", simple), ("body_iquat", simple), ("jnt_pos", joints), ("jnt_axis", joints)):
        out[name][rows] = getattr(compiled, name)[rows]
    return out


def c_constants(compiled: mujoco.MjModel, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = mujoco.MjModel.from_xml_string(ZOO)
    for name, value in fields.items():
        getattr(model, name)[...] = value
    mujoco.mj_setConst(model, mujoco.MjData(model))
    out = {name: np.array(getattr(model, name)) for name in DERIVED}
    out["cam_mat0"] = out["cam_mat0"].reshape(-1, 3, 3)
    return out


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=25, deadline=None)
def test_every_derived_constant_equals_c(zoo, seed, size):
    compiled, derive = zoo
    fields = moved(compiled, seed, size)
    got, _ = derive(fields, {k: np.zeros_like(v) for k, v in fields.items()})
    want = c_constants(compiled, fields)
    assert {k: v for k in want if (v := mismatch(got[k], want[k])) > 1e-9} == {}


def test_derivative_of_every_constant_equals_differences_of_c(zoo):
    compiled, derive = zoo
    fields, size = moved(compiled, 7, 0.2), 1e-5
    rng = np.random.default_rng(1)
    moves = {k: rng.normal(size=v.shape) * (np.abs(v) if k in SCALED else 0.0) for k, v in fields.items()}
    simple = np.flatnonzero(compiled.body_simple > 0)
    moves["body_ipos"] = 0.1 * rng.normal(size=compiled.body_ipos.shape)
    moves["body_ipos"][simple] = 0
    _, got = derive(fields, moves)
    ahead, behind = (
        c_constants(compiled, {k: v + sign * size * moves[k] for k, v in fields.items()}) for sign in (1, -1)
    )
    errors = {k: mismatch(got[k], (ahead[k] - behind[k]) / (2 * size)) for k in ahead}
    assert {k: v for k, v in errors.items() if v > 1e-6} == {}


def test_bounding_radius_equals_the_compilers():
    spec = mujoco.MjSpec.from_string(ZOO)
    compiled = spec.compile()
    for geom in spec.geoms:
        geom.size = np.array(geom.size) * 1.3
    grown = spec.compile()
    model = put_model(compiled)
    radius = jax.jit(lambda size: set_constants(model.replace(geom_size=size)).geom_rbound)(grown.geom_size)
    assert mismatch(radius, grown.geom_rbound) < 1e-12


def test_mass_of_a_sliding_body_moves_the_step_as_in_c():
    """The whole derivative of a step in contact by a mass: directly and through the weights of its constraints."""
    compiled = mujoco.MjModel.from_xml_string(scene(PUCK, cone="elliptic"))
    model = put_model(compiled)
    state = np.array([0.0, -1e-4, 0.7, -0.05])

    def velocity(mass):
        heavier = set_constants(model.replace(body_mass=model.body_mass.at[1].set(mass)))
        return physics.advance(heavier, physics.make_state(model, state[:2], state[2:]), jnp.array([0.1])).qvel

    def c(mass):
        compiled.body_mass[1] = mass
        mujoco.mj_setConst(compiled, mujoco.MjData(compiled))
        return c_step(compiled, state, np.array([0.1]))[2:]

    value, slope = jax.jit(lambda x: jax.jvp(velocity, (x,), (1.0,)))(0.5)
    assert mismatch(value, c(0.5)) < 1e-12
    assert mismatch(slope, (c(0.5 + 1e-5) - c(0.5 - 1e-5)) / 2e-5) < 1e-6


def test_poses_are_traced_once_for_a_model(monkeypatch):
    """Tracing MJX's kinematics takes longer than most of what follows, and a training needs poses dozens of times."""
    fresh = ZOO.replace("<worldbody>", "<worldbody><site name='new to this process'/>", 1)
    model = put_model(mujoco.MjModel.from_xml_string(fresh))
    state, traced = physics.make_state(model), []
    monkeypatch.setattr(smooth, "kinematics", lambda *given, plain=smooth.kinematics: traced.append(1) or plain(*given))
    for mass in ("body_mass", "dof_armature"):

        def constant(value, mass=mass):
            changed = set_constants(model.replace(**{mass: value}))
            return physics.actuation(changed, state, jnp.zeros(model.nu))[1].sum() + changed.dof_invweight0.sum()

        jax.eval_shape(jax.grad(constant), getattr(model, mass))
    assert len(traced) == 1
