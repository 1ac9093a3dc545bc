"""Actuator configurations: a model built from the file moves as model.xml does."""

import dataclasses
import json
import re
import sys
import types

import mujoco
import numpy as np
import pytest

from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.report.export.finished import read_finished
from dso_robotics.report.export.format import write_export

ARM = """
<mujoco>
  <option timestep="0.002" integrator="implicitfast"/>
  <worldbody>
    <body><joint name="a[1]" axis="0 1 0" damping="0.05" armature="0.02" frictionloss="0.03"/><geom size="0.05" pos="0.2 0 0"/>
      <body pos="0.3 0 0"><joint name="b" axis="0 1 0" damping="0.01" armature="0.01" actuatorfrcrange="-2 2"/>
        <geom size="0.04" pos="0.1 0 0"/>
        <body pos="0.2 0 0"><joint name="c" axis="0 1 0" armature="0.003" damping="0.02"/>
          <geom size="0.03" pos="0.1 0 0"/></body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="p" joint="a[1]" kp="3" kv="0.2" gear="2" forcerange="-1.5 1.5"/>
    <velocity name="v" joint="b" kv="0.4"/>
    <motor name="m" joint="c" gear="3" ctrlrange="-0.2 0.2"/>
    {more}
  </actuator>
</mujoco>
"""
MORE = '<muscle name="x" joint="c" lengthrange="0 1"/><position name="y" joint="c" kp="2" timeconst="0.1"/>'
PATHS = ("actuator/p/kp", "joint/a[1]/frictionloss", "joint/c/damping_quadratic", "sensor/s/noise")


def result(folder, more="", paths=PATHS):
    folder.mkdir()
    (folder / "model.xml").write_text(ARM.format(more=more))
    summary = {"parameters": {path: {"value": 1.0, "unit": "1"} for path in paths}}
    write_run(folder / "run.h5", {"status": "finished", "summary": json.dumps(summary)}, {"command": "identify"}, "")
    return read_finished(folder)


def run(text, module, classes):
    """The value of ACTUATORS; `classes` are upstream's: name -> its fields."""
    stub, parent = types.ModuleType(module), types.ModuleType(module.split(".")[0])
    for name, fields in classes.items():
        setattr(stub, name, dataclasses.make_dataclass(name, [(f, object, None) for f in fields], kw_only=True))
    sys.modules |= {module.split(".")[0]: parent, module: stub}
    try:
        space = {}
        exec(text, space)
        return space["ACTUATORS"]
    finally:
        del sys.modules[module.split(".")[0]], sys.modules[module]


BASE = (
    "target_names_expr",
    "armature",
    "frictionloss",
    "viscous_damping",
    "delay_min_lag",
    "delay_max_lag",
    "effort_limit",
)
MJLAB = {
    "BuiltinPositionActuatorCfg": (*BASE, "stiffness", "damping"),
    "BuiltinVelocityActuatorCfg": (*BASE, "damping"),
    "BuiltinMotorActuatorCfg": (*BASE, "gear"),
}
ISAAC = dict.fromkeys(
    ("ImplicitActuatorCfg", "DelayedPDActuatorCfg"),
    (
        *(
            "joint_names_expr",
            "stiffness",
            "damping",
            "joint_effort_limit",
            "actuator_effort_limit",
            "armature",
            "friction",
        ),
        *("dynamic_friction", "viscous_friction", "min_delay", "max_delay"),
    ),
)


def rebuilt(configs):
    """model.xml's mechanism with the actuators of mjlab's configurations, made as it makes them."""
    spec = mujoco.MjSpec.from_string(ARM.format(more=""))
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    for joint in spec.joints:
        joint.armature, joint.frictionloss, joint.damping, joint.actfrcrange = 0, 0, 0 * joint.damping, [0, 0]
        joint.actfrclimited = False
    for config in configs:
        (joint,) = (j for j in spec.joints if re.fullmatch(config.target_names_expr[0], j.name))
        joint.armature, joint.frictionloss = config.armature, config.frictionloss
        joint.damping[0] = config.viscous_damping
        actuator = spec.add_actuator(target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        kind = type(config).__name__
        if kind == "BuiltinPositionActuatorCfg":
            actuator.set_to_position(kp=config.stiffness, kv=config.damping)
        elif kind == "BuiltinVelocityActuatorCfg":
            actuator.set_to_velocity(kv=config.damping)
        else:
            actuator.set_to_motor()
        actuator.forcelimited, actuator.forcerange = True, [-config.effort_limit, config.effort_limit]
    return spec.compile()


def played(model, scale):
    data, rows = mujoco.MjData(model), []
    for i in range(500):
        # The controls of model.xml: a position before a gear of 2, a velocity, and a force before a gear of 3.
        data.ctrl[:] = np.array([1.0, -1.5, 0.3 * np.sin(0.02 * i)]) * scale
        mujoco.mj_step(model, data)
        rows.append(data.qpos.copy())
    return np.array(rows)


def test_a_model_built_from_the_file_moves_as_the_identified_one(tmp_path):
    found = result(tmp_path / "r")
    paths, notes = write_export("mjlab", found)
    text = paths[0].read_text()
    motion = played(found.robot.mj, [1, 1, 1])
    assert np.abs(motion).max() > 0.3
    np.testing.assert_allclose(played(rebuilt(run(text, "mjlab.actuator", MJLAB)), [0.5, 1, 3]), motion, atol=1e-9)
    marked = [line.split("=")[0].strip() for line in text.splitlines() if line.endswith("# identified")]
    assert marked == ["stiffness", "frictionloss"]
    assert any("joint/c/damping_quadratic" in note for note in notes)


def test_isaac_has_the_same_numbers(tmp_path):
    found = result(tmp_path / "r")
    paths, notes = write_export("isaac", found)
    drives = run(paths[0].read_text(), "isaaclab.actuators", ISAAC)
    servo, speed, motor = drives["p"], drives["v"], drives["m"]
    assert re.fullmatch(servo.joint_names_expr[0], "a[1]")
    assert (servo.stiffness, servo.damping, servo.joint_effort_limit) == pytest.approx((12.0, 0.8, 3.0))
    assert (servo.armature, servo.friction, servo.dynamic_friction, servo.viscous_friction) == (0.02, 0.03, 0.03, 0.05)
    assert (speed.stiffness, speed.damping, speed.joint_effort_limit) == (0.0, 0.4, 2.0)
    assert (motor.stiffness, motor.damping) == (0.0, 0.0)
    assert motor.joint_effort_limit == pytest.approx(0.6)
    assert any("3.0" in note for note in notes)


def test_a_delay_is_counted_in_steps_and_said(tmp_path):
    more = '<position name="d" joint="c" kp="1" delay="0.0101" nsample="8"/>'
    found = result(tmp_path / "r", more)
    paths, notes = write_export("isaac", found)
    drive = run(paths[0].read_text(), "isaaclab.actuators", ISAAC)["d"]
    assert type(drive).__name__ == "DelayedPDActuatorCfg"
    assert (drive.min_delay, drive.max_delay, drive.joint_effort_limit) == (5, 5, None)
    assert any("0.002 s" in note for note in notes)
    assert any("Several actuators drive c" in note for note in notes)


def test_what_is_no_drive_is_named_with_the_reason(tmp_path):
    found = result(tmp_path / "r", MORE)
    _, notes = write_export("mjlab", found)
    assert notes[0].startswith("Left out: x (")
    assert "y (it has a state of its own" in notes[0]


def test_a_model_without_drives_is_refused(tmp_path):
    found = result(tmp_path / "r")
    text = re.sub(r"<actuator>.*</actuator>", "", ARM, flags=re.DOTALL)
    (tmp_path / "r" / "model.xml").write_text(text)
    with pytest.raises(DsoError, match="no actuator"):
        write_export("isaac", found)
