"""What a model declares is bounded before MuJoCo allocates it, and what no XML can hold is refused at once."""

import struct

import mujoco
import pytest

from dso_robotics.cli import main
from dso_robotics.errors import DsoError
from dso_robotics.physics.markup import files
from dso_robotics.physics.model import load

BODY = '<body name="b"><joint name="j"/><geom size="0.1"/></body>'
PLAIN = f"<mujoco><worldbody>{BODY}</worldbody></mujoco>"


def model(assets: str = "", world: str = "", more: str = "") -> str:
    return f"<mujoco>{assets}<worldbody>{world}{BODY}</worldbody>{more}</mujoco>"


def nested(depth: int, count: int) -> str:
    return f'<replicate count="{count}">' * depth + '<geom size="0.1"/>' + "</replicate>" * depth


@pytest.fixture
def forbidden(monkeypatch):
    """MuJoCo must not see the model."""
    monkeypatch.setattr(mujoco.MjSpec, "from_file", lambda *a, **k: pytest.fail("MuJoCo was given the model"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (model('<asset><hfield name="h" nrow="30000" ncol="30000" size="1 1 1 1"/></asset>'), "hfield 'h'"),
        (model('<asset><texture name="t" type="2d" builtin="flat" width="30000" height="30000"/></asset>'), "texture"),
        (model('<asset><texture name="t" type="cube" builtin="flat" width="9000"/></asset>'), "texture"),
        (model('<size nuser_body="1000000000"/>'), "nuser_body"),
        (model('<size memory="1T"/>'), "memory"),
        (model(world=nested(5, 100)), "replicate"),
        (model(world='<replicate count="1e9"><geom size="0.1"/></replicate>'), "replicate"),
        (model(world='<composite type="cable" count="100000000 1 1" size="1"/>'), "count"),
        (model('<asset><mesh name="m" builtin="supersphere" params="30000 1 1"/></asset>'), "params"),
        (model('<asset><mesh name="m" builtin="sphere" params="20"/></asset>'), "params"),
        (model(more='<sensor><user name="u" dim="1000000000"/></sensor>'), "dim"),
        (model(more='<custom><numeric name="n" size="1000000000"/></custom>'), "size"),
        (model(world="<body>" * 5000 + "</body>" * 5000), "deep"),
        (PLAIN.replace('"j"', '"a&#7;b"'), "XML"),
        (PLAIN.replace("<mujoco>", "<mujoco"), "XML"),
    ],
)
def test_too_much_is_refused_before_mujoco(tmp_path, text, word, forbidden, capsys):
    path = tmp_path / "model.xml"
    path.write_text(text)
    assert main(["parameters", str(path)]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert str(path) in said
    assert said.count("\n") == 1


def test_included_files_and_headers_of_assets_count(tmp_path, forbidden):
    (tmp_path / "part.xml").write_text('<mujocoinclude><size nuser_geom="1000000"/></mujocoinclude>')
    (tmp_path / "main.xml").write_text(model('<include file="part.xml"/>'))
    with pytest.raises(DsoError, match=r"part\.xml.*nuser_geom"):
        load(tmp_path / "main.xml")
    (tmp_path / "assets").mkdir()
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 30000, 30000) + b"\x08\x02\0\0\0" + bytes(4)
    (tmp_path / "assets" / "big.png").write_bytes(header)
    (tmp_path / "main.xml").write_text(
        model('<compiler texturedir="assets"/><asset><texture name="t" type="2d" file="big.png"/></asset>')
    )
    with pytest.raises(DsoError, match=r"big\.png unpacks"):
        load(tmp_path / "main.xml")


def test_ordinary_models_pass(tmp_path, models):
    for path in models.glob("*.xml"):
        assert load(path).mj.nq
    path = tmp_path / "model.xml"
    path.write_text(
        model(
            '<size memory="64M" nuser_body="3"/><asset><hfield name="h" nrow="200" ncol="200" size="1 1 1 1"/></asset>',
            nested(2, 10),
        )
    )
    assert load(path).mj.ngeom == 101


def test_models_made_in_memory_are_bounded_too():
    spec = mujoco.MjSpec.from_string(PLAIN)
    spec.add_hfield(name="h", nrow=30000, ncol=30000, size=[1, 1, 1, 1])
    with pytest.raises(DsoError, match="height fields"):
        load(spec)


def test_a_name_that_no_xml_can_hold_is_refused():
    spec = mujoco.MjSpec.from_string(PLAIN)
    spec.joint("j").name = "a\x07b"
    with pytest.raises(DsoError, match=r"a\\x07b"):
        load(spec)


def test_files_that_a_model_names_are_found(tmp_path):
    (tmp_path / "part.xml").write_text('<mujocoinclude><asset><mesh file="m.obj"/></asset></mujocoinclude>')
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "m.obj").write_text("")
    (tmp_path / "main.xml").write_text(model('<compiler meshdir="meshes"/><include file="part.xml"/>'))
    assert {p.name for p in files(tmp_path / "main.xml")} == {"part.xml", "m.obj"}


def test_a_number_that_is_nan_is_named(tmp_path, monkeypatch):
    """MuJoCo only warns of it, in a file in the user's folder, and every simulation is NaN."""
    monkeypatch.chdir(tmp_path)
    body = '<body><joint name="nan" damping="{}" axis="0 {} 1"/><geom size=".1"/></body>'
    for damping, axis, named in (("NaN", "0", r"<joint damping> is NaN"), ("1", "inf", "NaN in jnt_axis")):
        text = f"<mujoco><worldbody>{body.format(damping, axis)}</worldbody></mujoco>"
        (tmp_path / "model.xml").write_text(text)
        with pytest.raises(DsoError, match=named):
            load(tmp_path / "model.xml")
    (tmp_path / "outer.xml").write_text('<mujoco><include file="model.xml"/></mujoco>')
    (tmp_path / "model.xml").write_text(
        f"<mujocoinclude><worldbody>{body.format('nan', '0')}</worldbody></mujocoinclude>"
    )
    with pytest.raises(DsoError, match=r"model\.xml: <joint damping> is NaN"):
        load(tmp_path / "outer.xml")
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()
