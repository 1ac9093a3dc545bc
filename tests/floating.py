"""A small floating robot: a trunk on a free joint and two legs of one hinge each, above a floor."""

WALKER = """<mujoco model="walker"><option timestep="0.01" integrator="implicitfast"/>
<default><geom contype="0" conaffinity="0"/></default>
<worldbody><geom name="floor" type="plane" size="5 5 .1" contype="1" conaffinity="1"/>
<body name="trunk" pos="0 0 .5"><freejoint name="root"/><geom name="hull" type="box" size=".2 .1 .05" pos=".01 0 .02" mass="2"/>
  <site name="imu"/>
  <body name="left" pos="0 .1 0"><joint name="left" axis="0 1 0" damping=".1"/>
    <geom name="left" type="capsule" fromto="0 0 0 0 0 -.3" size=".02" mass=".3" contype="1" conaffinity="1"/></body>
  <body name="right" pos="0 -.1 0"><joint name="right" axis="0 1 0" damping=".1"/>
    <geom name="right" type="capsule" fromto="0 0 0 0 0 -.3" size=".02" mass=".3" contype="1" conaffinity="1"/></body>
</body></worldbody>
<actuator><motor name="left" joint="left" ctrlrange="-2 2"/><motor name="right" joint="right" ctrlrange="-2 2"/></actuator>
<sensor><gyro name="gyro" site="imu"/><framezaxis name="up" objtype="site" objname="imu"/>
  <touch name="contact" site="imu"/></sensor>
<keyframe><key name="home" qpos="0.5 0.2 0.4 0.92388 0 0 0.38268 0.3 -0.3" qvel="1 0 0 0 0 0.5 0 0"/></keyframe>
</mujoco>"""

STUDY = """
model = "walker.xml"
seconds = 0.2
control_step = 0.02
[policy]
kind = "linear"
noise = 0.2
{more}
[cost.up]
kind = "square"
quantity = "body/trunk/upright"
target = 1.0
[training]
environments = 4
horizon = 4
iterations = 2
critic_hidden = 8
"""


def write(folder, more="", model=WALKER):
    """The robot and a study of it in `folder`; the path of the study."""
    (folder / "walker.xml").write_text(model)
    (folder / "study.toml").write_text(STUDY.format(more=more))
    return folder / "study.toml"
