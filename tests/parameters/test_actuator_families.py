"""Numbers of motors, muscles, contacts and loops: each moves what MuJoCo's own attribute moves, and is written back to it."""

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.parameters.family import FAMILIES
from dso_robotics.parameters.path import every, parse, resolve
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load, model_field

BENCH = """
<mujoco><compiler angle="radian"/><option timestep="0.002"/>{extra}
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <site name="fixed" pos="0 .02 .25"/>
    <body name="base" pos="0 0 {base}">
      <body name="arm"><joint name="hinge" axis="0 1 0" damping=".02" range="-1 {stop}" limited="true" {joint}/>
        <geom type="capsule" fromto="0 0 0 .2 0 0" size=".01" mass=".3"/><site name="moving" pos="-.05 .03 0"/></body>
      <body name="slave" pos="0 .3 0"><joint name="slave" axis="0 1 0"/><geom size=".02" pos=".1 0 0" mass=".1"/></body>
    </body>
    <body name="box" pos=".6 0 .039"><freejoint/><geom name="box" type="box" size="{half} .05 .04" mass=".2"/></body>
  </worldbody>
  <tendon><spatial name="string"><site site="fixed"/><site site="moving"/></spatial></tendon>
  <contact><pair name="feet" geom1="floor" geom2="box" {pair}/></contact>
  <equality><joint name="mirror" joint1="slave" joint2="hinge" polycoef="0 {ratio} 0 0 0"/></equality>
  <actuator>{actuator}</actuator>
  <sensor><jointpos name="q" joint="hinge"/></sensor>
</mujoco>
"""
DEFAULTS = {
    "extra": "",
    "base": 0.5,
    "stop": 1.0,
    "joint": "",
    "pair": 'friction=".3 .3"',
    "ratio": 0.8,
    "half": 0.05,
    "actuator": '<motor name="a" joint="hinge" gear=".2"/>',
}
MUSCLE = '<muscle name="a" tendon="string" lengthrange=".15 .2" force="80" {}/>'
DC = '<dcmotor name="a" joint="hinge" {}/>'


def bench(**parts) -> str:
    return BENCH.format(**DEFAULTS | parts)


def dc(resistance=2.0, motorconst=0.05, rest="") -> dict:
    return {"actuator": DC.format(f'resistance="{resistance}" motorconst="{motorconst}" {rest}')}


# path -> the model with the value x, and two values.
CASES = {
    "actuator/a/forcerange": (
        lambda x: {"actuator": f'<position name="a" joint="hinge" kp="4" forcerange="-{x} {x}"/>'},
        0.5,
        0.2,
    ),
    "actuator/a/forcerange[1]": (
        lambda x: {"actuator": f'<position name="a" joint="hinge" kp="4" forcerange="-.3 {x}"/>'},
        0.5,
        0.1,
    ),
    "actuator/a/ctrlrange": (
        lambda x: {"actuator": f'<position name="a" joint="hinge" kp="4" ctrlrange="-{x} {x}"/>'},
        0.6,
        0.3,
    ),
    "joint/hinge/actuatorfrcrange": (lambda x: {"joint": f'actuatorfrcrange="-{x} {x}"'}, 0.15, 0.05),
    "joint/hinge/range[1]": (lambda x: {"stop": x}, 0.5, 0.2),
    "actuator/a/kp": (
        lambda x: {
            "actuator": f'<general name="a" joint="hinge" gainprm="{0.1 * x}" biastype="affine" biasprm="0 -{x} -.1"/>'
        },
        4.0,
        2.5,
    ),
    "actuator/a/kv": (lambda x: {"actuator": f'<velocity name="a" joint="hinge" kv="{x}"/>'}, 0.2, 0.4),
    "actuator/a/ki": (lambda x: {"actuator": f'<pid name="a" joint="hinge" kp="2" kv=".1" ki="{x}"/>'}, 1.0, 9.0),
    "actuator/a/force": (lambda x: {"actuator": MUSCLE.replace("80", str(x)).format("")}, 80.0, 55.0),
    "actuator/a/timeconst[1]": (lambda x: {"actuator": MUSCLE.format(f'timeconst=".01 {x}"')}, 0.04, 0.09),
    "actuator/a/range[0]": (lambda x: {"actuator": MUSCLE.format(f'range="{x} 1.05"')}, 0.75, 0.6),
    **{
        f"actuator/a/{name}": (lambda x, name=name: {"actuator": MUSCLE.format(f'{name}="{x}"')}, *values)
        for name, values in {
            "lmax": (1.6, 1.2),
            "vmax": (1.5, 0.4),
            "fpmax": (1.3, 0.2),
            "fvmax": (1.2, 1.8),
        }.items()
    },
    "actuator/a/lmin": (
        lambda x: {"actuator": MUSCLE.replace(".15 .2", ".2 .6").format(f'lmin="{x}"')},
        0.5,
        0.75,
    ),
    "actuator/a/scale": (lambda x: {"actuator": MUSCLE.replace("80", "-1").format(f'scale="{x}"')}, 200.0, 90.0),
    "actuator/a/resistance": (lambda x: dc(resistance=x), 2.0, 0.7),
    "actuator/a/motorconst": (lambda x: dc(motorconst=x), 0.05, 0.2),
    "actuator/a/inductance": (lambda x: dc(rest=f'inductance="{x}"'), 0.01, 0.2),
    "actuator/a/cogging[0]": (lambda x: dc(rest=f'cogging="{x} 7 .3"'), 0.1, 0.3),
    "actuator/a/lugre[2]": (lambda x: dc(rest=f'lugre="100 1 {x} .2 .05"'), 0.05, 0.15),
    "actuator/a/thermal_resistance": (lambda x: dc(rest=f'thermal="{x} .001 0 .04 25 25"'), 1.0, 90.0),
    "pair/feet/friction[0]": (lambda x: {"pair": f'friction="{x} {x}"'}, 0.3, 0.6),
    "pair/feet/solref[0]": (lambda x: {"pair": f'solref="{x} 1"'}, 0.02, 0.05),
    "equality/mirror/data[1]": (lambda x: {"ratio": x}, 0.8, 1.3),
    "body/base/pos[2]": (lambda x: {"base": x, "actuator": MUSCLE.format("")}, 0.3, 0.32),
    "option/gravity[2]": (lambda x: {"extra": f'<option gravity="0 0 {x}"/>'}, -9.81, -3.0),
}


def rolled(model, fields):
    start = np.concatenate([model.qpos0, np.zeros(model.nv + model.na)])
    start[model.nq : model.nq + model.nv] = 0.5
    ctrl = np.full((1, 150, model.nu), 0.9)
    ctrl[:, 100:] = 0.0
    tiled = {name: np.asarray(value)[None] for name, value in fields.items()}
    return BatchEngine(model, threads=1).simulate(tiled, start[None], ctrl).state[0]


@pytest.mark.parametrize("path", CASES)
def test_a_number_does_what_its_attribute_does_and_is_written_back(path):
    build, begin, end = CASES[path]
    robot, other = (load(mujoco.MjSpec.from_string(bench(**build(x)))) for x in (begin, end))
    vector = pack([parse(path)], robot)
    assert vector.size == 1
    assert vector.initial[0] == pytest.approx(begin, rel=1e-6)
    fields = vector.fields(np.array([end]))
    moved = rolled(robot.mj, fields)
    assert np.abs(moved - rolled(robot.mj, {})).max() > 1e-6
    np.testing.assert_allclose(moved, rolled(other.mj, {}), rtol=1e-7, atol=1e-9)
    written = mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))
    np.testing.assert_allclose(rolled(written, {}), moved, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "actuator",
    [
        '<position name="a" joint="hinge" kp="4" kv=".1" ctrlrange="-1 1" forcerange="-3 2"/>',
        '<intvelocity name="a" joint="hinge" kp="4" kv=".1" actrange="-1 1"/>',
        '<damper name="a" joint="hinge" kv=".1" ctrlrange="0 1"/>',
        '<pid name="a" joint="hinge" kp="2" kv=".1" ki="1" imax="2" slewmax="5"/>',
        MUSCLE.format('tausmooth=".01"'),
        dc(rest='inductance=".01" cogging=".1 7 .3" lugre="100 1 .1 .2 .05" thermal="1 2 0 .004 25 20"')["actuator"],
    ],
)
def test_every_listed_number_is_written_and_read_back(actuator):
    robot = load(mujoco.MjSpec.from_string(bench(actuator=actuator, joint='actuatorfrcrange="-3 3"')))
    for target in every(robot):
        if target.family.kind == "sensor" or target.family.field in ("diaginertia", "delay"):
            continue
        vector = pack([parse(target.path)], robot)
        z = vector.initial * 0.99 + 0.001 * vector.scale
        to_mjcf(robot, vector.fields(np.clip(z, vector.low, vector.high)))  # raises unless MuJoCo reads the values back


def test_a_size_leaves_mass_and_inertia():
    robot = load(mujoco.MjSpec.from_string(bench()))
    fields = pack([parse("geom/box/size[0]")], robot).fields(np.array([0.09]))
    written = mujoco.MjModel.from_xml_string(to_mjcf(robot, fields))
    np.testing.assert_allclose(written.body_inertia, robot.mj.body_inertia, rtol=1e-9)
    assert written.geom("box").size[0] == 0.09


def test_ranges_and_pairs_name_their_numbers():
    text = bench(actuator='<position name="a" joint="hinge" kp="4" forcerange="-3 2"/>')
    robot = load(mujoco.MjSpec.from_string(text))
    with pytest.raises(DsoError, match=r"-3 to 2.*forcerange\[0\], forcerange\[1\], or forcerange\[\*\]"):
        resolve("actuator/a/forcerange", robot)
    assert [t.path for t in resolve("actuator/a/forcerange[*]", robot)] == [
        f"actuator/a/forcerange[{i}]" for i in (0, 1)
    ]
    assert [t.path for t in resolve("body/arm/diaginertia[*]", robot)] == [
        f"body/arm/diaginertia[{i}]" for i in range(3)
    ]
    assert [t.path for t in resolve("pair/feet/friction", robot)] == [f"pair/feet/friction[{i}]" for i in (0, 2, 3)]
    both = pack([parse("pair/feet/friction[0]+pair/feet/friction[1]=0.5")], robot)
    np.testing.assert_array_equal(both.fields(both.initial)["pair_friction"][0, :2], [0.5, 0.5])
    assert pack([parse("option/gravity[*]")], robot).size == 3
    for path, words in {
        "body/box/pos": "free joint",
        "geom/floor/size": "primitive",
        "actuator/a/force": "not a muscle",
        "actuator/a/resistance": "not a <dcmotor>",
        "tendon/string/actuatorfrcrange": "not limited",
    }.items():
        with pytest.raises(DsoError, match=words):
            resolve(path, robot)


def test_a_new_resistance_keeps_the_inductance_that_is_freed_with_it():
    robot = load(mujoco.MjSpec.from_string(bench(**dc(rest='inductance=".01"'))))
    vector = pack([parse("actuator/a/resistance"), parse("actuator/a/inductance")], robot)
    fields = vector.fields(np.array([[4.0, 0.02], [2.0, 0.02]]))
    np.testing.assert_allclose(fields["actuator_dynprm"][:, 0, 0], [0.005, 0.01])
    assert model_field(robot.mj, "opt.density") == 0


def test_the_unit_of_a_gain_is_that_of_its_joint():
    slide = '<position name="a" joint="{}" kp="5" kv="1" forcerange="-1 1"/>'
    text = bench(actuator=slide.format("hinge")).replace('<joint name="slave"', '<joint name="slave" type="slide"')
    for joint, expected in (("hinge", ["N*m/rad", "N*m*s/rad", "N*m"]), ("slave", ["N/m", "N*s/m", "N"])):
        robot = load(mujoco.MjSpec.from_string(text.replace('joint="hinge" kp', f'joint="{joint}" kp')))
        families = (FAMILIES[f"actuator/{field}"] for field in ("kp", "kv", "forcerange"))
        assert [family.unit(robot.mj, 0, 0) for family in families] == expected
    robot = load(mujoco.MjSpec.from_string(bench(actuator='<position name="a" tendon="string" kp="5"/>')))
    assert FAMILIES["actuator/kp"].unit(robot.mj, 0, 0) == "N*m/rad or N/m"
