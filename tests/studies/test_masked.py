"""A parameter of a contact that the model hides is named before the search, with what would show it."""

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.studies import masked

BOX = """<mujoco><worldbody><geom name="table" type="plane" size="2 2 .1" {table}/>{more}
<body name="box" pos="0 0 {height}"><freejoint/><geom name="box" type="box" size=".05 .05 .05" mass="1" {box}/></body>
</worldbody>
{contact}<sensor><framepos name="p" objtype="body" objname="box"/></sensor></mujoco>"""
PAIR = '<contact><pair name="foot" geom1="table" geom2="box"/></contact>'


def model(table="", box="", contact="", more="", height=0.05):
    return BOX.format(table=table, box=box, contact=contact, more=more, height=height)


def moves(text, component):
    """Whether MuJoCo's contact has another friction if the box's own friction is changed a little."""
    values = []
    for change in (0.0, 0.01):
        m = mujoco.MjModel.from_xml_string(text)
        m.geom_friction[m.geom("box").id, component] += change
        data = mujoco.MjData(m)
        data.qpos[2] = 0.0499
        mujoco.mj_forward(m, data)
        values.append(0.0 if not data.ncon else data.contact.friction[0, {0: 0, 1: 2, 2: 3}[component]])
    return values[0] != values[1]


CASES = [
    (model(contact=PAIR), 0, "@0:9", "<pair name='foot'>"),
    (model(contact=PAIR), 1, "@0:9", r"free pair/foot/friction\[2\]"),
    (model(box='contype="0" conaffinity="0"'), 0, "@0:9", "can touch nothing"),
    (model(table='priority="1"'), 0, "@0:9", "'table' has the higher priority"),
    (model(box='condim="3"'), 1, "@0:9", "condim 3, which has no torsional"),
    (model(box='friction=".2"'), 0, "@0:.9", "larger friction counts.*geom/box/friction.*geom/table/friction"),
]


@pytest.mark.parametrize(("text", "component", "bounds", "words"), CASES)
def test_what_can_never_be_seen_is_refused(text, component, bounds, words):
    robot, path = load(mujoco.MjSpec.from_string(text)), f"geom/box/friction[{component}]"
    if "condim" not in words:
        assert not moves(text, component)
    vector = pack([parse(path + bounds)], robot)
    with pytest.raises(DsoError, match=words):
        masked.refuse(vector, {path}, "box.xml")
    # One of several that a wildcard frees is only told.
    assert list(masked.refuse(vector, (), "box.xml")) == [path]


@pytest.mark.parametrize(
    "text",
    [
        model(),
        model(box='friction="1.5"'),
        model(box='friction=".2" priority="1"'),
        model(
            contact='<contact><pair geom1="table" geom2="side"/></contact>',
            more='<geom name="side" size=".1" pos="1 0 5"/>',
        ),
    ],
)
def test_what_can_be_seen_is_not(text):
    robot = load(mujoco.MjSpec.from_string(text))
    assert moves(text, 0)
    assert masked.refuse(pack([parse("geom/box/friction[0]")], robot), {"geom/box/friction[0]"}, "box.xml") == {}


def test_tied_geoms_hide_nothing():
    robot = load(mujoco.MjSpec.from_string(model(box='friction=".2"')))
    path = "geom/box/friction[0]+geom/table/friction[0]"
    assert masked.refuse(pack([parse(path)], robot), {path}, "box.xml") == {}


def test_contacts_that_never_happen_and_mocap_bodies_are_said_before_the_search(tmp_path, capsys):
    hand = '<body name="hand" mocap="true" pos="1 0 1"><geom size=".02"/></body>'
    (tmp_path / "box.xml").write_text(model(more=hand, height=3.0))
    data = mujoco.MjData(mujoco.MjModel.from_xml_path(str(tmp_path / "box.xml")))
    rows = []
    for _ in range(50):
        mujoco.mj_forward(data.model, data)
        rows.append(data.sensordata.copy())
        mujoco.mj_step(data.model, data, nstep=5)
    fall = np.array(rows) + 1e-4 * np.random.default_rng(0).normal(size=(50, 3))
    rollout = Rollout(name="fall", time=0.01 * np.arange(50), sensordata=fall, sensor_names=("p[0]", "p[1]", "p[2]"))
    write_log(tmp_path / "log.h5", Log("", "simulated for a test", "CC0", (rollout,)))
    given = [str(tmp_path / "box.xml"), str(tmp_path / "log.h5"), "--out", str(tmp_path / "out"), "--no-report"]
    main(["identify", *given, "--free", "geom/box/friction[0]", "--window", "0.2"])
    shown = capsys.readouterr().err
    before = shown[: shown.index("iteration")]
    assert "geom/box/friction[0] has no effect at the start: that contact never happens" in before
    assert "Mocap bodies never move" in before
    assert "hand" in before
