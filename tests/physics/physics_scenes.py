"""Tiny models for the physics tests, as MJCF."""

ARM = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}" solver="{solver}" cone="{cone}" iterations="100" tolerance="0"/>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" damping="0.05" frictionloss="0.2" armature="0.01" stiffness="0.4"/>
      <inertial pos="0.01 0 -0.2" mass="0.6" diaginertia="0.004 0.003 0.001"/>
      <body name="lower" pos="0 0 -0.4">
        <joint name="elbow" axis="0 1 0.2" damping="0.02 0.05 0.03" frictionloss="0.1" limited="true" range="-60 60"
               solimplimit="0.8 0.95 0.3 0.4 1.7"/>
        <inertial pos="0 0.02 -0.15" mass="0.4" fullinertia="0.003 0.004 0.002 0.0004 -0.0003 0.0002"/>
        <site name="tip" pos="0 0 -0.3"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="lift" joint="shoulder" gear="2"/>
    <general name="servo" joint="elbow" dyntype="filter" dynprm="0.05" gaintype="fixed" gainprm="3" biastype="affine"
             biasprm="0.1 -3 -0.2"/>
  </actuator>
  <sensor>
    <jointpos joint="elbow"/> <jointvel joint="shoulder"/> <framepos objtype="site" objname="tip"/>
    <framequat objtype="site" objname="tip"/> <gyro site="tip"/> <accelerometer site="tip"/> <force site="tip"/>
    <actuatorfrc actuator="servo"/> <framelinvel objtype="site" objname="tip"/>
  </sensor>
</mujoco>
"""

HOPPER = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}" solver="{solver}" cone="{cone}" iterations="100" tolerance="0"
          impratio="1.3"/>
  <default><geom friction="0.9 0.02 0.01" solref="0.02 0.9" solimp="0.85 0.95 0.02 0.5 2"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" friction="0.5 0.01 0.004"/>
    <body name="torso" pos="0 0 0.75">
      <joint name="x" type="slide" axis="1 0 0"/> <joint name="z" type="slide" axis="0 0 1"/>
      <joint name="pitch" axis="0 1 0"/>
      <geom name="torso" type="capsule" fromto="0 0 0 0 0 0.3" size="0.05" mass="3" contype="0" conaffinity="0"/>
      <body name="leg">
        <joint name="hip" axis="0 1 0" damping="0.4 0.05 0.02" armature="0.02" limited="true" range="-50 50"/>
        <geom name="leg" type="capsule" fromto="0 0 0 0 0 -0.4" size="0.04" mass="1" contype="0" conaffinity="0"/>
        <body name="foot" pos="0 0 -0.4">
          <joint name="ankle" axis="0 1 0" damping="0.3" frictionloss="0.1"/>
          <geom name="foot" type="capsule" fromto="-0.1 0 -0.3 0.14 0 -0.3" size="0.05" mass="0.5" condim="{condim}"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor name="hip" joint="hip" gear="20"/> <position name="ankle" joint="ankle" kp="15" kv="1"/>
  </actuator>
  <sensor><jointpos joint="hip"/><jointvel joint="ankle"/></sensor>
</mujoco>
"""

BODY = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}" solver="{solver}" cone="{cone}" iterations="100" tolerance="0"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" condim="3" friction="0.4 0.004 0.002"/>
    <body name="body" pos="0 0 0.2">
      <freejoint/>
      <geom name="ball" type="sphere" size="0.1" pos="0.02 0 0" mass="0.7" friction="0.6 0.01 0.005" condim="{condim}"/>
      <geom name="side" type="sphere" size="0.08" pos="-0.1 0.1 0.05" mass="0.4" condim="{condim}"/>
      <site name="imu" pos="0.01 0.02 0.03" euler="10 20 30"/>
    </body>
  </worldbody>
  <sensor>
    <framepos objtype="site" objname="imu"/> <gyro site="imu"/> <accelerometer site="imu"/>
    <framequat objtype="body" objname="body"/> <velocimeter site="imu"/> <touch site="imu"/>
  </sensor>
</mujoco>
"""


PUCK = """
<mujoco>
  <option timestep="0.004" cone="{cone}" integrator="{integrator}" solver="{solver}" iterations="50" tolerance="0"/>
  <worldbody>
    <geom type="plane" size="5 5 0.1" condim="{condim}" friction="0.4 0.01 0.01"/>
    <body pos="0 0 0.0995">
      <joint name="slide" type="slide" axis="1 0 0"/> <joint type="slide" axis="0 0 1"/>
      <geom type="sphere" size="0.1" mass="0.5" friction="0.3 0.01 0.01"/>
    </body>
  </worldbody>
  <actuator><motor joint="slide"/></actuator>
</mujoco>
"""

MACHINE = """
<mujoco>
  <option timestep="0.01" integrator="{integrator}" solver="{solver}" cone="{cone}" iterations="100" tolerance="0">
    <flag contact="disable"/>
  </option>
  <worldbody>
    <site name="nail" pos="0.2 0 1"/>
    <body>
      <joint name="a" axis="0 1 0" damping="0.1"/> <geom size="0.1" pos="0.3 0 0"/>
      <body pos="0.5 0 0">
        <joint name="b" axis="0 1 0"/> <geom size="0.1" pos="0.3 0 0"/> <site name="end" pos="0.4 0 0"/>
      </body>
    </body>
    <body pos="0 1 0"><freejoint/><geom type="box" size="0.1 0.2 0.3" pos="0.05 0.02 0"/></body>
  </worldbody>
  <tendon>
    <spatial name="rope" damping="0.3" stiffness="2" frictionloss="0.2"><site site="nail"/><site site="end"/></spatial>
  </tendon>
  <actuator>
    <general joint="a" gaintype="affine" gainprm="2 0.3 -1.5" biastype="affine" biasprm="0.1 -2 -3" ctrllimited="true"
             ctrlrange="-0.5 0.5"/>
    <general joint="b" gaintype="affine" gainprm="2 0.3 -1.5" biastype="affine" biasprm="0.1 -2 -3" forcelimited="true"
             forcerange="-0.5 0.5"/>
    <general joint="b" gaintype="affine" gainprm="2 0.3 -1.5" dyntype="integrator" actlimited="true" actrange="-0.2 0.2"/>
    <muscle tendon="rope" lengthrange="0.3 2"/>
  </actuator>
  <sensor><accelerometer site="end"/><tendonpos tendon="rope"/><tendonvel tendon="rope"/></sensor>
</mujoco>
"""

LOOP = """
<mujoco>
  <option timestep="0.004" integrator="{integrator}" solver="{solver}" cone="{cone}" iterations="100" tolerance="0"/>
  <default><equality solref="0.1 1"/></default>
  <worldbody>
    <geom type="plane" size="5 5 0.1" friction="0.5 0.01 0.01"/>
    <body name="crank" pos="0 0 0.6">
      <joint name="crank" axis="0 1 0.3"/> <inertial pos="0.1 0 0" mass="0.3" diaginertia="0.002 0.003 0.002"/>
    </body>
    <body name="wheel" pos="0.3 0.4 0.6">
      <joint name="wheel" axis="1 0 0.1"/> <inertial pos="0 0.1 0" mass="0.3" diaginertia="0.002 0.003 0.002"/>
      <site name="pin" pos="0 0.1 0.05" euler="20 0 10"/>
    </body>
    <body name="rod" pos="0.2 0.1 0.19" euler="12 18 0">
      <freejoint/>
      <geom name="rod" type="capsule" fromto="0 0 -0.15 0 0 0.15" size="0.06" mass="0.4" friction="0.4 0.01 0.01"/>
      <site name="eye" pos="0 0 0.2"/>
    </body>
  </worldbody>
  <equality>
    <connect body1="crank" body2="rod" anchor="0.2 0 0.1"/>
    <weld body1="rod" body2="wheel" torquescale="0.3" relpose="0.1 0.2 0.3 0.8 0 0.6 0"/>
    <weld site1="eye" site2="pin" solref="0.5 1"/>
  </equality>
</mujoco>
"""


def scene(
    text: str, *, integrator: str = "Euler", solver: str = "Newton", cone: str = "pyramidal", condim: int = 3
) -> str:
    """One of the models above with its options filled in."""
    return text.format(integrator=integrator, solver=solver, cone=cone, condim=condim)
