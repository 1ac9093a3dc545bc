"""Designs of pulleys, sites and rest lengths of tendons against recompiled descriptions with other numbers."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from test_design import applied, assert_same_model

from dso_robotics.errors import DsoError
from dso_robotics.physics.design import LimbLength, PulleyRadius, RestLength, SiteX, SiteY, SiteZ, compose
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load


def routed(
    *,
    radius: float = 0.006,
    hook: tuple[float, float, float] = (0.004, 0.001, 0.02),
    rest: str = "-1",
    pulley: str = "",
    stiffness: str = "40",
    option: str = "",
    limits: str = "",
    more: str = "",
) -> mujoco.MjSpec:
    """Two links, a tendon round a pulley at their joint to a hook on the second, and `more` at the end."""
    return mujoco.MjSpec.from_string(f"""<mujoco><option timestep="0.002" {option}/><worldbody>
      <site name="palm" pos="0 0 -.02"/>
      <body name="first"><joint name="first" axis="0 1 0" springref="10" {limits}/>
        <geom name="first" type="capsule" fromto="0 0 0 0 0 .05" size=".008"/>
        <geom name="roll" type="cylinder" pos="0 0 .05" size="{radius!r} .005" euler="90 0 0" {pulley}/>
        <site name="side" pos=".015 0 .05"/><site name="guide" pos="0 0 .035"/>
        <body name="second" pos="0 0 .05"><joint name="second" axis="0 1 0" springref="20" {limits}/>
          <geom name="second" type="capsule" fromto="0 0 0 0 0 .04" size=".007"/>
          <site name="hook" pos="{hook[0]!r} {hook[1]!r} {hook[2]!r}"/></body></body></worldbody>
      <tendon><spatial name="rope" stiffness="{stiffness}" springlength="{rest}"><site site="palm"/><site site="guide"/>
        <geom geom="roll" sidesite="side"/><site site="hook"/></spatial>
        <fixed name="sum" stiffness="1"><joint joint="first" coef="1"/></fixed></tendon>{more}</mujoco>""")


def designed(robot, design, numbers):
    """The recompiled MJCF, which equals the model whose fields were changed."""
    fields = design(np.array(numbers, float))
    model = mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))
    assert_same_model(applied(robot.mj, fields), model)
    return model


@pytest.mark.parametrize("pulley", ["", 'mass="0"', 'mass="0.02"', 'density="0"'])
def test_a_pulley_takes_its_mass_and_the_automatic_rest_length_with_it(pulley):
    robot = load(routed(pulley=pulley))
    model = designed(robot, compose([PulleyRadius(robot, "roll")], robot), [0.009])
    assert_same_model(model, routed(radius=0.009, pulley=pulley).compile())
    assert model.tendon_lengthspring[0, 0] > 1.005 * robot.mj.tendon_lengthspring[0, 0]
    heavier = model.body("first").mass[0] > 1.01 * robot.mj.body("first").mass[0]
    assert heavier == (pulley == "")


def test_coordinates_of_a_site_are_designed_one_by_one():
    robot = load(routed())
    design = compose([SiteX(robot, "hook"), SiteY(robot, "hook"), SiteZ(robot, "hook")], robot)
    assert design.names == ("site/hook/pos[0]", "site/hook/pos[1]", "site/hook/pos[2]")
    np.testing.assert_array_equal(design.initial, [0.004, 0.001, 0.02])
    assert_same_model(designed(robot, design, [0.005, 0.002, 0.03]), routed(hook=(0.005, 0.002, 0.03)).compile())
    assert_same_model(
        designed(robot, compose([SiteZ(robot, "hook")], robot), [0.03]), routed(hook=(0.004, 0.001, 0.03)).compile()
    )


@pytest.mark.parametrize("rest", ["-1", "0.07"])
def test_a_designed_rest_length_is_not_replaced_by_the_automatic_one(rest):
    robot = load(routed(rest=rest))
    design = compose([LimbLength(robot, "second"), RestLength(robot, "rope")], robot)
    np.testing.assert_allclose(design.initial[1], robot.mj.tendon_lengthspring[0, 0])
    model = designed(robot, design, [0.05, 0.08])
    np.testing.assert_array_equal(model.tendon_lengthspring[0], 0.08)
    other = designed(robot, compose([LimbLength(robot, "second")], robot), [0.05])
    assert (other.tendon_lengthspring[0, 0] == robot.mj.tendon_lengthspring[0, 0]) == (rest != "-1")


def test_gradients_are_those_of_the_recompiled_tendon():
    robot = load(routed())
    design = compose([PulleyRadius(robot, "roll"), SiteZ(robot, "hook"), LimbLength(robot, "first")], robot)
    at = np.array([0.0065, 0.022, 0.055])
    slope = jax.jit(jax.jacfwd(lambda n: design(n)["tendon_lengthspring"][0, 0]))(jnp.asarray(at))

    def compiled(numbers):
        return mujoco.MjModel.from_xml_string(to_mjcf(robot, design(numbers))).tendon_lengthspring[0, 0]

    numeric = [(compiled(at + step) - compiled(at - step)) / 2e-6 for step in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)
    assert (np.abs(slope) > 0.1).all()


def test_an_automatic_rest_length_needs_nothing_of_mjx_but_kinematics():
    """A solver, an actuator and a sensor that MJX refuses: such a model is trained on the C engine."""
    more = (
        '<actuator><adhesion name="grip" body="second" ctrlrange="0 1"/></actuator><sensor><user dim="1"/></sensor>'
        '<equality><joint joint1="first" joint2="second" active="false"/></equality>'
    )
    robot = load(routed(option='solver="PGS" noslip_iterations="2"', more=more))
    design = compose([PulleyRadius(robot, "roll")], robot)
    numbers = np.array([0.009])
    found = jax.jit(design)(jnp.asarray(numbers))["tendon_lengthspring"]
    np.testing.assert_allclose(found, design(numbers)["tendon_lengthspring"], rtol=1e-12)
    np.testing.assert_allclose(found, routed(radius=0.009).compile().tendon_lengthspring, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PulleyRadius(load(routed()), "first"), ["no tendon wraps geom 'first'", "'roll'", '"radius"']),
        (lambda: PulleyRadius(load(routed()), "rol"), ["no geom called 'rol'", "'roll'"]),
        (lambda: PulleyRadius(load(routed()), "roll", bounds=(0, 0.1)), ["geom/roll/radius", "above 0"]),
        (lambda: SiteX(load(routed()), "nail"), ["no site called 'nail'"]),
        (lambda: RestLength(load(routed()), "sum"), ["'sum' is a fixed one", "springref"]),
        (lambda: RestLength(load(routed(stiffness="0")), "rope"), ["no stiffness", "give it a stiffness"]),
        (lambda: RestLength(load(routed(rest=".05 .07")), "rope"), ["slack from 0.05 to 0.07 m", "one number"]),
        (
            lambda: PulleyRadius(load(inertial(routed())), "roll"),
            ["<inertial>"],
        ),
    ],
)
def test_bad_input_is_refused_with_its_cure(make, words):
    with pytest.raises(DsoError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_a_muscle_whose_length_range_the_compiler_finds_is_refused_with_its_pulley():
    limits, muscle = 'range="-20 60" limited="true"', '<actuator><muscle name="pull" tendon="rope" {}/></actuator>'
    robot = load(routed(limits=limits, more=muscle.format('lengthrange=".05 .12"')))
    compose([PulleyRadius(robot, "roll")], robot)
    robot = load(routed(limits=limits, more=muscle.format("")))
    with pytest.raises(DsoError, match=r"muscle 'pull'.*write lengthrange=.LOW HIGH"):
        compose([PulleyRadius(robot, "roll")], robot)


def inertial(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    body = spec.body("first")
    body.mass, body.inertia, body.ipos, body.explicitinertial = 0.1, (1e-4, 1e-4, 1e-4), (0, 0, 0.02), True
    return spec


def test_a_pulley_without_mass_is_designed_on_a_body_with_an_inertial():
    robot = load(inertial(routed(pulley='mass="0"')))
    model = designed(robot, compose([PulleyRadius(robot, "roll")], robot), [0.009])
    np.testing.assert_allclose(model.body("first").mass, 0.1)
    np.testing.assert_allclose(model.geom("roll").size[0], 0.009)


def test_batches_and_jax_agree_with_single_calls():
    robot = load(routed())
    maps = (PulleyRadius(robot, "roll"), SiteX(robot, "hook"), LimbLength(robot, "first"), RestLength(robot, "rope"))
    design = compose(maps, robot)
    numbers = design.initial * np.random.default_rng(0).uniform(0.9, 1.1, (2, 3, design.size))
    many, device = design(numbers), jax.jit(jax.vmap(jax.vmap(design)))(jnp.asarray(numbers))
    for name, value in design(numbers[1, 2]).items():
        assert many[name].shape == (2, 3, *value.shape)
        np.testing.assert_allclose(many[name][1, 2], value, rtol=1e-12, atol=1e-14, err_msg=name)
        np.testing.assert_allclose(device[name][1, 2], value, rtol=1e-11, atol=1e-13, err_msg=name)
