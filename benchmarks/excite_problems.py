"""The robots of benchmarks/excite.py: their models, what is free, and what they may do."""

import dataclasses
from pathlib import Path

import mujoco

from dso_robotics.studies.excite_study import ExciteStudy

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
SECONDS = 5.0
SERVO = """
<mujoco model="servo_arm"><option timestep="0.004" integrator="implicitfast"><flag contact="disable"/></option>
<default><geom mass="0" rgba="0.3 0.5 0.7 1"/></default>
<worldbody><light pos="0 -2 1" dir="0 1 -0.5"/>
<body name="upper"><joint name="shoulder" axis="0 -1 0" damping="0.6" frictionloss="0.3" armature="0.03"
 range="-115 115"/>
<inertial pos="0 0 -0.15" mass="0.8" diaginertia="0.006 0.006 0.0006"/>
<geom type="capsule" size="0.02" fromto="0 0 0 0 0 -0.3"/>
<body name="lower" pos="0 0 -0.3"><joint name="elbow" axis="0 -1 0" damping="0.3" frictionloss="0.15" armature="0.02"
 range="-115 115"/>
<inertial pos="0 0 -0.12" mass="0.5" diaginertia="0.003 0.003 0.0003"/>
<geom type="capsule" size="0.015" fromto="0 0 0 0 0 -0.25"/>
</body></body></worldbody>
<actuator><position name="shoulder_ref" joint="shoulder" kp="25" kv="0.5" ctrlrange="-2 2" forcerange="-9 9"/>
<position name="elbow_ref" joint="elbow" kp="15" kv="0.3" ctrlrange="-2 2" forcerange="-5 5"/></actuator>
<sensor><jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/></sensor></mujoco>"""
PUCK = """
<mujoco model="puck"><option timestep="0.004" integrator="implicitfast" cone="elliptic"/>
<worldbody><light pos="0 -2 2" dir="0 1 -1"/>
<geom name="floor" type="plane" size="3 3 0.1" friction="0.1 0.005 0.0001" rgba="0.8 0.8 0.8 1"/>
<body name="puck" pos="0 0 0.05"><freejoint name="base"/>
<inertial pos="0.03 0 0" mass="1.5" diaginertia="0.006 0.009 0.012"/>
<geom name="sole" type="box" size="0.15 0.1 0.05" friction="0.3 0.02 0.0001" condim="4" mass="0" rgba="0.3 0.5 0.7 1"/>
<site name="middle"/></body></worldbody>
<actuator><motor name="fx" site="middle" gear="1 0 0 0 0 0" ctrlrange="-12 12"/>
<motor name="fy" site="middle" gear="0 1 0 0 0 0" ctrlrange="-12 12"/>
<motor name="tz" site="middle" gear="0 0 0 0 0 1" ctrlrange="-1.2 1.2"/></actuator>
<sensor><framepos name="place" objtype="body" objname="puck"/><framequat name="turn" objtype="body" objname="puck"/>
<gyro name="gyro" site="middle"/></sensor></mujoco>"""
BALL = """
<mujoco model="ball"><option timestep="0.004" integrator="implicitfast" cone="elliptic"/>
<worldbody><light pos="0 -2 2" dir="0 1 -1"/>
<geom name="floor" type="plane" size="3 3 0.1" rgba="0.8 0.8 0.8 1"/>
<body name="ball" pos="0 0 0.1"><freejoint name="base"/>
<inertial pos="0.01 0.005 -0.03" mass="1.2" diaginertia="0.005 0.006 0.004"/>
<geom name="shell" type="sphere" size="0.1" friction="0.8 0.005 0.002" condim="6" mass="0" rgba="0.3 0.5 0.7 1"/>
<site name="middle"/></body></worldbody>
<actuator><motor name="tx" site="middle" gear="0 0 0 1 0 0" ctrlrange="-0.25 0.25"/>
<motor name="ty" site="middle" gear="0 0 0 0 1 0" ctrlrange="-0.25 0.25"/>
<motor name="tz" site="middle" gear="0 0 0 0 0 1" ctrlrange="-0.1 0.1"/></actuator>
<sensor><framepos name="place" objtype="body" objname="ball"/><framequat name="turn" objtype="body" objname="ball"/>
<gyro name="gyro" site="middle"/></sensor></mujoco>"""


def seven() -> str:
    """models/arm7.xml with dry friction and an encoder at each joint."""
    spec = mujoco.MjSpec.from_file(str(MODELS / "arm7.xml"))
    for joint, friction in zip(spec.joints, (0.8, 0.8, 0.6, 0.6, 0.3, 0.3, 0.2), strict=True):
        joint.frictionloss = friction
        spec.add_sensor(
            name=f"q_{joint.name}",
            type=mujoco.mjtSensor.mjSENS_JOINTPOS,
            objtype=mujoco.mjtObj.mjOBJ_JOINT,
            objname=joint.name,
        )
    return spec.to_xml()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A robot, what is free, and what it may do.

    follows: whether its plans may be trajectories of all joints, as figaroh makes them.
    gains: Kp [N*m/rad] and Kd [N*m*s/rad] of the controller that then adds torques to those of inverse dynamics, or None where
      the servos of the model follow the trajectory.
    """

    title: str
    model: str
    free: tuple[str, ...]
    noise: dict[str, float]
    study: dict
    trials: int = 600
    follows: bool = False
    gains: tuple[float, float] | None = None

    def text(self) -> str:
        """The MJCF of the model."""
        return self.model if self.model.lstrip().startswith("<") else Path(self.model).read_text()


PROBLEMS = {
    "arm": Problem(
        "two-joint arm, torques",
        str(MODELS / "two_joint_arm.xml"),
        (
            "joint/*/damping=0.02@0:1",
            "joint/*/frictionloss",
            "joint/elbow/armature",
            "body/*/mass",
            "body/lower/ipos[2]",
        ),
        {"*_pos": 0.002, "*_vel": 0.03},
        {"amplitude": {"*": 2.0}, "speed": {"*": 12.0}, "position": {"*": (-3.0, 3.0)}},
        follows=True,
        gains=(15.0, 0.6),
    ),
    "servo": Problem(
        "two-joint arm, position servos",
        SERVO,
        ("joint/*/damping", "joint/*/frictionloss", "joint/*/armature", "body/*/mass", "body/lower/ipos[2]"),
        {"*": 0.001},
        {"speed": {"*": 6.0}, "rate": {"*": 12.0}},
        follows=True,
    ),
    "seven": Problem(
        "seven-joint arm, full inertias",
        seven(),
        ("body/*/inertia", "joint/*/damping", "joint/*/frictionloss"),
        {"*": 0.0002},
        {"speed": {"*": 4.0}, "rate": {"*": 4.0}},
        trials=200,
        follows=True,
    ),
    "ball": Problem(
        "ball with an eccentric mass that rolls on a floor",
        BALL,
        (
            "geom/shell/friction[2]",
            "body/ball/mass",
            "body/ball/ipos[0]",
            "body/ball/ipos[2]",
            "body/ball/diaginertia[0]",
            "body/ball/diaginertia[2]",
        ),
        {"place": 0.001, "turn": 0.001, "gyro": 0.01},
        {"speed": {"base": 6.0}, "touch": ("shell:floor",)},
        trials=300,
    ),
    "puck": Problem(
        "box that slides on a floor, and chatters",
        PUCK,
        (
            "geom/sole/friction[0]",
            "geom/sole/friction[1]",
            "body/puck/mass",
            "body/puck/ipos[0]",
            "body/puck/diaginertia[2]",
        ),
        {"place": 0.001, "turn": 0.001, "gyro": 0.01},
        {"speed": {"base": 4.0}, "touch": ("sole:floor",)},
        trials=120,
    ),
}


def study(name: str, folder: Path, *, seed: int = 0) -> ExciteStudy:
    """The study of a plan; the model is written into `folder`."""
    problem, model = PROBLEMS[name], folder / f"{name}.xml"
    model.write_text(problem.text())
    given = {
        "free": list(problem.free),
        "noise": problem.noise,
        "seconds": SECONDS,
        "trials": problem.trials,
        "seed": seed,
    }
    given |= {"end": "any", "fade": 0.2, "still": 0.0}
    return ExciteStudy.read(None, model=str(model), draws=1, **given | problem.study)
