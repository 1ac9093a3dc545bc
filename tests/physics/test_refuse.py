"""Features MJX would ignore are refused by name, with a cure."""

import jax
import jax.numpy as jnp
import mujoco
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.device import put_model
from dso_robotics.physics.refuse import refuse, unsupported

BASE = """
<mujoco>
  <option {option}><flag {flag}/></option>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 0.1" {floor}/> <site name="nail" pos="0 0 1"/>
    <body name="link" pos="0 0 0.5">
      <joint name="hinge" axis="0 1 0" {joint}/> <geom name="ball" type="sphere" size="0.1" pos="0.2 0 0" {geom}/>
      <site name="end" pos="0.3 0 0"/>
    </body>
  </worldbody>
  <tendon><spatial name="rope" {tendon}><site site="nail"/><geom geom="ball"/><site site="end"/></spatial></tendon>
  <actuator><general name="motor" {transmission} {actuator}/></actuator>
  <sensor><jointpos name="angle" joint="hinge" {sensor}/></sensor>
</mujoco>
"""
PARTS = dict.fromkeys(("option", "flag", "floor", "joint", "geom", "tendon", "transmission", "actuator", "sensor"), "")
CASES = [
    ({"option": 'integrator="implicit"'}, "option/integrator is 'implicit'", "implicitfast"),
    ({"option": 'integrator="discrete"'}, "option/integrator is 'discrete'", "implicitfast"),
    ({"option": 'solver="PGS"'}, "PGS", "Newton"),
    ({"option": 'noslip_iterations="3"'}, "noslip_iterations", "set it to 0"),
    ({"option": 'actuatorgroupdisable="1"'}, "actuatorgroupdisable", "remove those actuators"),
    ({"option": 'density="1.2" integrator="implicitfast"'}, "Fluid drag", "Euler"),
    ({"flag": 'sleep="enable"'}, "flag/sleep", "disable it"),
    ({"joint": 'stiffness="1 2 3"'}, "stiffness of joint 'hinge'", "one number"),
    ({"tendon": 'stiffness="1 2 3"'}, "stiffness of tendon 'rope'", "one number"),
    ({"tendon": 'damping="1 2 3"'}, "damping of tendon 'rope'", "one number"),
    (
        {"geom": 'fluidshape="ellipsoid"', "option": 'density="1.2"'},
        "ellipsoid fluid model of geom 'ball'",
        "fluidshape",
    ),
    ({"geom": 'surfacevel="1 0 0 0 0 0"'}, "surfacevel of geom 'ball'", "joint"),
    ({"geom": 'adhesion="1"'}, "adhesion of geom 'ball'", "set it to 0"),
    ({"geom": 'condim="1"', "floor": 'condim="1"', "option": 'cone="elliptic"'}, "frictionless", "pyramidal"),
    ({"actuator": 'damping="1"'}, "damping of actuator 'motor'", "joint"),
    ({"actuator": 'armature="1"'}, "armature of actuator 'motor'", "joint"),
    ({"actuator": 'delay="0.02" nsample="4"'}, "delay of actuator 'motor'", "actuator/NAME/delay"),
    ({"actuator": 'dyntype="integrator" actearly="true"'}, "actearly of actuator 'motor'", "false"),
    ({"sensor": 'delay="0.02" nsample="4"'}, "delay of sensor 'angle'", "set it to 0"),
    ({"sensor": 'interval="0.02" nsample="4"'}, "interval of sensor 'angle'", "set it to 0"),
]


def build(parts: dict[str, str]) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BASE.format(**(PARTS | {"transmission": 'joint="hinge"'} | parts)))


@pytest.mark.parametrize(("parts", "named", "cure"), CASES, ids=[c[1] for c in CASES])
def test_a_feature_mjx_ignores_is_refused_by_name_with_its_cure(parts, named, cure):
    model = build(parts)
    found = unsupported(model)
    assert len(found) == 1
    assert named in found[0]
    assert cure in found[0]
    with pytest.raises(DsoError, match=r"robot\.xml: .*--engine mujoco"):
        put_model(model, source="robot.xml")


def test_a_plain_model_is_not_refused():
    refuse(build({"joint": 'stiffness="1" damping="0.1"', "option": 'density="1.2"'}))


def test_body_transmission_is_refused():
    text = BASE.format(**(PARTS | {"transmission": 'body="link"'}))
    assert "body (adhesion) transmission of actuator 'motor'" in unsupported(mujoco.MjModel.from_xml_string(text))[0]


def test_a_collision_mjx_lacks_is_refused_with_its_reason():
    text = "<mujoco><worldbody><body><freejoint/><geom type='ellipsoid' size='1 2 3'/></body>{}</worldbody></mujoco>"
    other = "<body pos='9 0 0'><freejoint/><geom type='box' size='1 2 3'/></body>"
    with pytest.raises(DsoError, match="ELLIPSOID"):
        put_model(mujoco.MjModel.from_xml_string(text.format(other)))


def test_pairs_that_cannot_collide_are_not_refused():
    text = "<mujoco><option><flag contact='disable'/></option><worldbody>{}{}</worldbody></mujoco>"
    body = "<body pos='{} 0 0'><freejoint/><geom type='{}' size='1 2 3'/></body>"
    model = mujoco.MjModel.from_xml_string(text.format(body.format(0, "ellipsoid"), body.format(9, "box")))
    assert put_model(model).ngeom == 2
    assert model.geom_contype.all()


def test_a_limit_on_contacts_is_refused():
    text = "<mujoco><custom><numeric name='max_contact_points' data='4'/></custom></mujoco>"
    assert "max_contact_points" in unsupported(mujoco.MjModel.from_xml_string(text))[0]


@pytest.mark.parametrize(
    ("option", "sensor", "named"),
    [('density="1.2"', "", "fluid drag"), ("", '<subtreeangmom body="link"/>', "subtreeangmom sensor")],
)
def test_what_needs_principal_axes_is_refused_with_products_of_inertia(option, sensor, named):
    text = BASE.format(**(PARTS | {"transmission": 'joint="hinge"', "option": option}))
    model = put_model(mujoco.MjModel.from_xml_string(text.replace("</sensor>", sensor + "</sensor>")))
    products = jnp.zeros((model.nbody, 3))
    for read in (physics.advance_measured, physics.measure):
        if read is physics.measure and option:
            continue  # no force is evaluated
        with pytest.raises(DsoError, match=named):
            jax.eval_shape(lambda: read(model, physics.make_state(model), jnp.zeros(1), products=products))  # noqa: B023
