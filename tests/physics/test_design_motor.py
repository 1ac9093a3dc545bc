"""Motors of a table: fields against a recompiled description, derivatives, point masses, and what cannot have a motor."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics import step as physics
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.constants import with_fields
from dso_robotics.physics.design import LimbLength, compose
from dso_robotics.physics.design.motor import MotorChoice, with_motors
from dso_robotics.physics.device import put_model
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.physics.motor import Motor, available, beyond

SMALL = Motor("small", 0.2, 4e-6, 0.2, 0.6, 400.0, 2.0, 300.0, 0.03, 0.2, 40.0, (5.0, 10.0))
LARGE = Motor("large", 0.7, 3e-5, 0.8, 2.0, 250.0, 9.0, 600.0, 0.08, 0.1, 150.0, (4.0, 10.0, 20.0))
ROBOT = """<mujoco><option timestep="0.002"/><worldbody><body name="base" pos="0 0 1" quat=".8 .1 .5 .2"><freejoint/>
  <geom type="box" size=".1 .2 .05" pos=".02 0 .01" mass="3"/><site name="mount" pos=".1 .05 -.03"/>
  <body name="thigh" pos=".1 0 -.05" quat=".9 .2 0 .3"><joint name="hip" axis="0 1 0" pos="0 .01 .02" armature=".02"/>
    <geom type="capsule" fromto="0 0 0 .25 0 .1" size=".02" mass=".4"/>{thigh}
    <body name="shank" pos=".25 0 .1"><joint name="knee" axis="0 1 0"/>{shank}
      <geom type="capsule" fromto="0 0 0 .2 0 -.1" size=".015" mass=".2"/></body></body></body></worldbody>
  <actuator><motor name="hip" joint="hip" gear="7" ctrlrange="-2 2"/>
    <position name="knee" joint="knee" kp="30" kv="1" ctrlrange="-2 2" gear="1"/></actuator></mujoco>"""


def robot(text=ROBOT):
    return load(mujoco.MjSpec.from_string(text.format(thigh="", shank="")))


def design(drive="torque", text=ROBOT):
    ready = with_motors(robot(text), {"hip": drive, "knee": "torque"})
    hip = MotorChoice(ready, "hip", motors=(LARGE, SMALL), drive=drive)
    knee = MotorChoice(ready, "knee", motors=(LARGE, SMALL), site="mount")
    return compose([hip, LimbLength(ready, "thigh"), knee], ready)


def plain(fields):
    return {name: np.asarray(value) for name, value in fields.items()}


@pytest.mark.parametrize("drive", ["torque", "voltage"])
def test_a_row_is_the_model_with_that_motor_written_into_it(drive):
    """The hip's large motor with gear 20, the knee's small one with gear 5: masses as tiny bodies, the rest as attributes."""
    made = design(drive)
    numbers = np.array([1.0, 20.0, made.initial[2], 0.0, 5.0])
    text = to_mjcf(made.robot, plain(made(numbers)))
    found = mujoco.MjModel.from_xml_string(text)
    point = '<body name="{0}" pos="{1}"><inertial pos="0 0 0" mass="{2}" diaginertia="1e-12 1e-12 1e-12"/></body>'
    turn = mujoco.MjModel.from_xml_string(ROBOT.format(thigh="", shank=""))
    place = turn.body("thigh").pos + _turned(turn.body("thigh").quat, [0, 0.01, 0.02])
    bodies = point.format("hip motor", " ".join(map(repr, map(float, place))), 0.7)
    bodies += point.format("knee motor", ".1 .05 -.03", 0.2)
    wanted = ROBOT.format(thigh="", shank="").replace('<body name="thigh"', f'{bodies}<body name="thigh"')
    wanted = wanted.replace('armature=".02"', f'armature="{3e-5 * 400}"')
    wanted = wanted.replace(
        '<joint name="knee" axis="0 1 0"', f'<joint name="knee" axis="0 1 0" armature="{4e-6 * 25}"'
    )
    law = (
        'gainprm="1"' if drive == "torque" else 'gainprm="4.5" biastype="affine" biasprm="0 0 -0.036" forcerange="-2 2"'
    )
    general = f'<general name="hip" joint="hip" gear="20" ctrlrange="-2 2" {law}/>'
    wanted = wanted.replace('<motor name="hip" joint="hip" gear="7" ctrlrange="-2 2"/>', general)
    wanted = wanted.replace('ctrlrange="-2 2" gear="1"', 'ctrlrange="-2 2" gear="1" forcerange="-3 3"')
    other = mujoco.MjModel.from_xml_string(wanted)
    rng = np.random.default_rng(0)
    for _ in range(3):
        qpos, qvel, ctrl = rng.normal(size=found.nq), 3 * rng.normal(size=found.nv), rng.uniform(-2, 2, 2)
        ends = []
        for model in (found, other):
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, ctrl
            mujoco.mj_forward(model, data)
            ends.append(np.concatenate([data.qacc, data.actuator_force]))
        np.testing.assert_allclose(*ends, rtol=1e-6, atol=1e-6)


def _turned(quat, vector):
    out = np.zeros(3)
    mujoco.mju_rotVecQuat(out, np.asarray(vector, float), np.asarray(quat) / np.linalg.norm(quat))
    return out


@pytest.mark.parametrize("drive", ["torque", "voltage"])
def test_derivatives_in_jax_are_differences_in_numpy(drive):
    made = design(drive)
    numbers = np.array([0.3, 11.0, 0.31, 0.7, 6.0])
    slopes = jax.jacfwd(made)(jnp.asarray(numbers))
    for k in range(made.size):
        step = 1e-5 * np.eye(made.size)[k]
        ends = [plain(made(numbers + sign * step)) for sign in (1, -1)]
        for name, slope in slopes.items():
            wanted = np.nan_to_num(ends[0][name] - ends[1][name]) / 2e-5
            np.testing.assert_allclose(np.asarray(slope)[..., k], wanted, rtol=1e-6, atol=1e-8, err_msg=f"{name} {k}")


@pytest.mark.parametrize("drive", ["torque", "voltage"])
def test_a_step_on_mjx_and_its_derivative_are_those_of_c(drive):
    """A pendulum on a sprung base with a motor and a position drive, between the rows, near the ends of their forces."""
    text = """<mujoco><option timestep="0.01"><flag contact="disable"/></option><worldbody><body name="base">
      <joint name="z" type="slide" axis="0 0 1" stiffness="50"/><geom size=".1" mass="1" contype="0"/><body name="arm">
      <joint name="hip" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .1 0 -.3" size=".02" mass=".5"/>
      <body name="hand" pos=".1 0 -.3"><joint name="knee" axis="0 1 0"/><geom size=".03" pos=".1 0 0" mass=".2"/></body></body>
      </body></worldbody><actuator><motor name="hip" joint="hip" ctrlrange="-1 1"/>
      <position name="knee" joint="knee" kp="30" kv="1" ctrlrange="-2 2"/></actuator></mujoco>"""
    ready = with_motors(load(mujoco.MjSpec.from_string(text)), {"hip": drive, "knee": "torque"})
    choices = [MotorChoice(ready, name, motors=(SMALL, LARGE), drive=drive) for name in ("hip", "knee")]
    made, base = compose(choices, ready), put_model(ready.mj)
    qpos, qvel, ctrl = np.array([0.01, 0.3, -0.4]), np.array([0.2, 9.0, -1.0]), np.array([0.4, 0.2])

    def on_mjx(numbers):
        model, products = with_fields(base, ready.mj, made(numbers))
        state = physics.make_state(model, jnp.asarray(qpos), jnp.asarray(qvel))
        return physics.advance(model, state, jnp.asarray(ctrl), products=products).qvel

    def on_c(numbers):
        row = {name: np.asarray(value)[None] for name, value in made(numbers).items()}
        start = np.concatenate([qpos, qvel])[None]
        return BatchEngine(ready.mj).simulate(row, start, ctrl[None, None]).state[0, 0, ready.mj.nq :]

    numbers = np.array([0.4, 7.0, 0.6, 9.0])
    values, slopes = jax.jit(lambda n: (on_mjx(n), jax.jacfwd(on_mjx)(n)))(jnp.asarray(numbers))
    np.testing.assert_allclose(values, on_c(numbers), rtol=1e-8)
    steps = 1e-5 * np.eye(4)
    wanted = np.stack([(on_c(numbers + step) - on_c(numbers - step)) / 2e-5 for step in steps], 1)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-5, atol=1e-7)
    assert np.abs(wanted).max(0).min() > 1e-3  # every number matters


def test_many_rows_at_once():
    made = design()
    rows = np.array([[0.3, 11.0, 0.31, 0.7, 6.0], [1.0, 4.0, 0.25, 0.0, 5.0]])
    whole = made(rows)
    for i, row in enumerate(rows):
        for name, value in made(row).items():
            np.testing.assert_allclose(whole[name][i], value, rtol=1e-12, atol=0, err_msg=name)


def test_between_two_motors_numbers_are_geometric_means():
    choice = design().maps[0]
    found = choice.at(np.array([0.5, 7.0]))
    assert found["mass"] == pytest.approx(np.sqrt(0.2 * 0.7))
    assert found["rotor_inertia"] == pytest.approx(np.sqrt(4e-6 * 3e-5))
    assert found["gear"] == 7.0
    assert {name: value for name, value in choice.at(np.array([1.0, 20.0])).items() if name == "price"} == {
        "price": 150.0
    }


def test_the_nearest_pair_is_a_motor_with_a_gear_of_its_own():
    choice = design().maps[0]
    assert choice.chosen(np.array([0.1, 19.0])) == (SMALL, 10.0)  # the small one has no gear of 20
    assert choice.chosen(np.array([0.8, 18.0])) == (LARGE, 20.0)
    assert len(choice.choice.options) == 5
    assert choice.choice.labels[int(choice.choice.near(np.array([0.9, 4.1]))[0])] == "large, gear 4"


def test_available_torque_falls_with_speed():
    numbers = {"stall_torque": 4.0, "peak_torque": 3.0, "no_load_speed": 100.0}
    speed = np.array([-50.0, 0.0, 20.0, 25.0, 75.0, 100.0, 150.0])
    np.testing.assert_allclose(available(numbers, speed), [3, 3, 3, 3, 1, 0, 0])
    np.testing.assert_allclose(
        beyond(numbers, np.array([1.0, 2.5, -2.5, -3.6]), np.array([75.0, 75, 75, 75])), [0, 0.5, 0, 0.2]
    )


def test_what_cannot_have_a_motor_is_refused():
    muscle = ROBOT.replace(
        '<motor name="hip" joint="hip" gear="7" ctrlrange="-2 2"/>',
        '<muscle name="hip" joint="hip" lengthrange="0 1"/>',
    )
    with pytest.raises(DsoError, match="'hip' cannot have a motor of a table"):
        with_motors(robot(muscle), {"hip": "torque"})
    with pytest.raises(DsoError, match='write ctrlrange="-1 1"'):
        with_motors(robot(ROBOT.replace('gear="7" ctrlrange="-2 2"', 'gear="7" ctrlrange="-1 2"')), {"hip": "torque"})
    with pytest.raises(DsoError, match="drive the same joint"):
        with_motors(robot(ROBOT.replace('joint="knee" kp', 'joint="hip" kp')), {"hip": "torque", "knee": "torque"})
    ready = with_motors(robot(), {"hip": "torque"})
    with pytest.raises(DsoError, match="no motor to choose from"):
        MotorChoice(ready, "hip")
    with pytest.raises(DsoError, match=r"no site called 'mounts'.*'mount'"):
        MotorChoice(ready, "hip", motors=(SMALL,), site="mounts")
    with pytest.raises(DsoError, match="no motor 'tiny'"):
        MotorChoice(ready, "hip", motors=(SMALL, LARGE), start="tiny")
