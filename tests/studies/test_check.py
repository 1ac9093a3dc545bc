"""What `dso check` says, on models built to have the trouble."""

import mujoco
import numpy as np
import pytest

from dso_robotics.physics.model import load
from dso_robotics.physics.refinement import Refinement
from dso_robotics.studies.check import overview, silent

BALLS = """
<mujoco>
  <option timestep="{dt}" integrator="{integrator}" iterations="{iterations}"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1"/>
    <body name="low" pos="0 0 0.099"><joint name="low" type="slide" axis="0 0 1" damping="{damping}"/>
      <geom name="low" size="0.1" mass="1"/></body>
    <body name="high" pos="1 0 3">
      <joint {name} type="slide" axis="0 0 1" limited="true" range="-1 1"/><geom name="high" size="0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="low" gear="3" forcelimited="true" forcerange="-1 1"/></actuator>
</mujoco>
"""


def balls(*, dt=0.002, integrator="implicitfast", iterations=100, damping=0.0, name='name="high"'):
    text = BALLS.format(dt=dt, integrator=integrator, iterations=iterations, damping=damping, name=name)
    return mujoco.MjModel.from_xml_string(text)


def warnings(**options):
    return overview(load(balls(**options))).warnings


def test_contents_are_counted():
    seen = overview(load(balls()))
    contents = dict(seen.contents)
    assert contents["bodies"] == "2, 2 kg"
    assert contents["joints"] == "2 (2 slide), 2 degrees of freedom"
    assert contents["geom pairs"].startswith("3 ")
    assert seen.engines == {"mujoco": [], "mjx": []}
    assert seen.warnings == []


def test_pairs_are_those_that_the_differentiable_engine_compiles(models):
    from dso_robotics.physics.backend import collision_driver
    from dso_robotics.studies.check import _pairs

    for model in (balls(), load(models / "two_joint_arm.xml").mj):
        assert _pairs(model) == len(list(collision_driver.geom_pairs(model)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iterations": 1}, ["iterations is 1", "converges"]),
        ({"name": ""}, ["1 joint(s) without a name", "freed"]),
        ({"integrator": "RK4", "damping": 400}, ["'low'", "RK4", "implicitfast"]),
        ({"dt": 0.02}, ["solref", "'floor'", "smaller time step"]),
    ],
)
def test_each_trouble_is_named_with_its_cure(options, words):
    (text,) = warnings(**options)
    for word in words:
        assert word in text


def test_shapes_whose_contacts_differ_from_c_are_named():
    text = BALLS.format(dt=0.002, integrator="implicitfast", iterations=100, damping=0, name='name="high"')
    one = text.replace('name="low" size="0.1"', 'name="low" type="box" size="0.1 0.1 0.1"')
    (told,) = overview(load(mujoco.MjModel.from_xml_string(one))).warnings
    assert "box with sphere (geom 'low', 'high')" in told  # not the floor: a plane meets every shape as in C
    two = one.replace('name="high" size="0.1"', 'name="high" type="box" size="0.1 0.1 0.1"')
    (told,) = overview(load(mujoco.MjModel.from_xml_string(two))).warnings
    assert "box with box (geom 'low', 'high')" in told


def test_damping_that_euler_takes_implicitly_is_no_trouble():
    assert warnings(integrator="Euler", damping=400) == []


def test_a_feature_the_differentiable_engine_lacks_is_reported():
    model = balls()
    model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
    assert "Newton" in overview(load(model)).engines["mjx"][0]


def test_what_had_no_effect_is_named():
    model = balls()
    states = np.array([[0.0, 0.0, 0.0, 0.0]] * 2)
    told = silent(model, states, np.array([[1.0], [-1.0]]))
    assert len(told) == 3
    assert "'push'" in told[0]
    assert "'high'" in told[1]
    assert "'low'" not in told[1]
    assert "'high'" in told[2]
    assert not [text for text in silent(model, states, np.array([[0.1], [1.0]])) if "push" in text]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((1.0, 1.02, 1.01, 1.011), "has settled"),
        ((3.24, -0.6, 0.17, 0.171), "off by"),
        ((-3.24, -0.6, 0.17, 0.171), "WRONG SIGN"),
        ((1.0, 1.0, 1.0, -1.0), "NOT settled: its sign"),
        ((1.0, 2.0, 4.0, 8.0), "Do not trust it"),
        (
            (1.76, 1.54, 1.72, 1.59),
            "NOT settled: its magnitude still changes (by 8%) at the smallest time steps. Its sign is stable",
        ),
        ((-1.76, 1.54, 1.72, 1.59), "Do not trust it"),
        ((0.0, 0.0, 0.0, 0.0), "exactly zero"),
        ((1.0, np.nan, 1.0, 1.0), "not finite"),
    ],
)
def test_the_verdict_on_a_refinement_is_plain(values, words):
    found = Refinement(0.1, (4e-3, 2e-3, 1e-3, 5e-4), {"x": values}, 0.5, 3)
    assert words in found.verdict("x")


def test_controls_and_activations_at_their_limits_are_named():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><joint name="a"/><geom size="0.1" contype="0" conaffinity="0"/></body></worldbody><actuator>
        <motor name="eager" joint="a" ctrllimited="true" ctrlrange="-1 1"/> <motor name="free" joint="a"/>
        <general name="full" joint="a" dyntype="integrator" actlimited="true" actrange="0 2"/></actuator></mujoco>"""
    )
    ctrls = np.array([[1.5, 9.0, 0.0], [-1.0, 0.0, 0.1]])
    told = silent(model, np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]), ctrls)
    assert len(told) == 2
    assert "control of actuator 'eager' " in told[0]
    assert "activation of actuator 'full' " in told[1]
    assert silent(model, np.array([[0.0, 0.0, 1.0]] * 2), 0.3 * ctrls) == []
