"""The page of parameter paths: every family, with the units that it has on a model with one of everything."""

import mujoco

from dso_robotics.parameters.families import PSEUDO_INERTIA
from dso_robotics.parameters.family import FAMILIES, Family
from dso_robotics.parameters.path import every
from dso_robotics.physics.model import load

# One of each kind of object that has parameters.
EVERYTHING = """
<mujoco>
  <option density="1" viscosity="1"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1"/>
    <site name="fixed" pos="0 0 2"/>
    <body name="base" pos="0 0 1"><freejoint name="root"/><geom name="ball" size=".1" fluidshape="ellipsoid"/></body>
    <body name="arm" pos="0 0 2">
      <joint name="hinge" axis="0 1 0" range="-1 1" limited="true" damping="1" stiffness="1" armature="1" frictionloss="1"
             actuatorfrcrange="-1 1" actuatorfrclimited="true"/>
      <geom name="link" type="capsule" fromto="0 0 0 0 0 -.4" size=".02"/><site name="tip" pos="0 0 -.4"/>
      <body name="cart" pos="0 0 -.4">
        <joint name="slide" type="slide" axis="0 0 1" range="-1 1" limited="true" damping="1" stiffness="1" armature="1"/>
        <geom name="block" type="box" size=".1 .1 .1"/><site name="imu"/>
      </body>
    </body>
    <body name="wrist" pos="1 0 2"><joint name="ball" type="ball" damping="1"/><geom name="hand" size=".1"/></body>
  </worldbody>
  <contact><pair name="pair" geom1="floor" geom2="ball"/></contact>
  <tendon>
    <spatial name="cable" damping="1" stiffness="1" frictionloss="1" range="0 1" limited="true" actuatorfrcrange="-1 1"
             actuatorfrclimited="true"><site site="fixed"/><site site="tip"/></spatial>
    <fixed name="sum"><joint joint="hinge" coef="1"/></fixed>
  </tendon>
  <equality><connect name="pin" body1="arm" body2="world" anchor="0 0 0"/><joint name="coupling" joint1="hinge" joint2="slide"/></equality>
  <actuator>
    <motor name="motor" joint="hinge" ctrlrange="-1 1" ctrllimited="true" forcerange="-1 1" forcelimited="true"/>
    <position name="servo" joint="hinge" kp="1" kv="1" ctrlrange="-1 1" forcerange="-1 1"/>
    <velocity name="speed" joint="slide" kv="1"/>
    <general name="filtered" joint="hinge" dyntype="filterexact" dynprm="1" gainprm="1" biastype="affine" biasprm="0 -1 -1"
             actlimited="true" actrange="-1 1"/>
    <muscle name="muscle" tendon="cable" ctrlrange="0 1" lengthrange="0.3 0.5"/>
    <dcmotor name="dcmotor" joint="hinge" motorconst="0.05" resistance="2"/>
  </actuator>
  <sensor>
    <jointpos name="encoder" joint="hinge"/><jointvel name="rate" joint="slide"/><gyro name="gyro" site="imu"/>
    <accelerometer name="accelerometer" site="imu"/><jointpos name="travel" joint="slide"/><torque name="torque" site="imu"/>
    <framequat name="attitude" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""

_HEAD = """\
# Parameter paths

Everything that `free` can name in a model, `KIND/NAME/FIELD`, with the unit of each number and its physical bounds. NAME is the name in
the model, with `*` and `?` as wildcards. A field of several numbers has `[0]`, `[1]` and so on; without a number all are freed. How
paths are written, tied, bounded and given priors: [files](../files.md#parameter-paths). `dso parameters MODEL` lists those of
a model with their values. `log/NAME/PATH` gives each recording a value of its own.

A unit in the table is that on a hinge, a slide or another kind of object; the bounds are those of a search when you give none.
"""

# Named in `free`, and no number of the model.
_OTHERS = """\
## Others

| path | is |
| --- | --- |
| `sensor/NAME/noise` | noise scale of a channel, in its unit; `dso identify` estimates it anyway, and the table then shows it |
| `log/NAME/initial_state` | start state of a recording; estimated anyway |
| `controller/ACTUATOR/SIGNAL`, `controller/ACTUATOR/bias` | a number of a [controller](../files.md#controls-that-were-not-recorded) that the study declares |
"""


def page() -> str:
    """The whole page, in Markdown."""
    robot = load(mujoco.MjSpec.from_string(EVERYTHING))
    seen: dict[str, dict[str, None]] = {}
    for target in every(robot):
        unit = target.family.unit(robot.mj, target.object_id, target.component)
        seen.setdefault(target.family.label, {})[unit] = None
    parts, kind = [_HEAD], ""
    inertia = ["body", "mass, centre of mass and full inertia together, ten numbers"]
    for family in sorted(FAMILIES.values(), key=lambda one: list(_kinds()).index(one.kind)):
        if family.field == PSEUDO_INERTIA:
            continue
        if family.kind != kind:
            kind = family.kind
            parts.append(f"\n## {kind}\n\n| path | is | unit | bounds |\n| --- | --- | --- | --- |")
            if kind == inertia[0]:
                parts.append(f"| `body/NAME/inertia` | {inertia[1]} | kg, kg\\*m, kg\\*m^2 | what a body can have |")
        parts.append(
            f"| `{_path(family)}` | {family.text} | {_units(seen.get(family.label) or _unit(family, robot.mj))} | {_bounds(family)} |"
        )
    return "\n".join(parts) + "\n\n" + _OTHERS


def _unit(family: Family, model: mujoco.MjModel) -> dict[str, None]:
    """The unit of a field that no object of the model can have as it is: on the last object of its kind."""
    last = {"actuator": model.nu, "pair": model.npair, "option": 1}[family.kind] - 1
    count = family.width if isinstance(family.width, int) else 1
    return dict.fromkeys(family.unit(model, last, k) for k in range(count))


def _kinds() -> dict[str, None]:
    return dict.fromkeys(family.kind for family in FAMILIES.values())


def _path(family: Family) -> str:
    several = callable(family.width) or family.width > 1
    place = family.kind if family.kind == "option" else f"{family.kind}/NAME"
    return f"{place}/{family.field}{'[i]' if several else ''}"


def _units(found: dict[str, None]) -> str:
    shown = [unit if unit else "1" for unit in found]
    return "; ".join(shown[:4]).replace("*", "\\*") or "the object's"


def _bounds(family: Family) -> str:
    if callable(family.low) or callable(family.high):
        return "depend on the object"
    low, high = family.low, family.high
    if low == float("-inf") and high == float("inf"):
        return ""
    return f"from {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
