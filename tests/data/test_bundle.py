"""A result folder that is moved to where its source is not: models, policies and estimators load with their meshes."""

import json
import shutil

import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics import cli
from dso_robotics.data.bundle import bundled, load_text, write_bundled
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.report.replay import read_replay
from tests.data.meshes import write
from tests.robot.c_program import run as compiled
from tests.robot.c_program import with_mujoco
from tests.robot.test_estimator_c import MAIN

STUDY = """
model = "source/robot.xml"
seconds = 0.5
[policy]
kind = "linear"
observe = ["speed", "place"]
[start]
position = { x = 0.5 }
[cost.place]
kind = "square"
quantity = "joint/x/position"
[training]
environments = 4
horizon = 3
iterations = 1
critic_hidden = 4
keep = "last"
"""


ESTIMATE = """
model = "source/robot.xml"
corrector = "gain"
logs = ["{log}"]
"""


def same(one, other):
    """Whether two models move and look the same; where their files are differs."""
    names = ("body_mass", "body_inertia", "mesh_vert", "hfield_data", "tex_data", "geom_pos", "geom_quat", "qpos0")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_text_and_its_files_are_the_same_robot(tmp_path):
    robot = load(write(tmp_path / "source"))
    text, files = bundled(to_mjcf(robot, {}))
    assert sorted(files) == ["part-2.stl", "part.stl", "wood.png"]
    assert "source" not in text
    shutil.rmtree(tmp_path / "source")
    assert same(load_text(text, files=files, source="here").mj, robot.mj)
    # The same from a folder, and from another place of it; and once more from what came from files.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    made = load_text(text, files=files, source="here")
    for name, content in files.items():
        (tmp_path / "one" / "assets").mkdir(exist_ok=True)
        (tmp_path / "one" / "assets" / name).write_bytes(content)
    (tmp_path / "one" / "model.xml").write_text(text)
    shutil.copytree(tmp_path / "one", tmp_path / "two", dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "one")
    moved = load(tmp_path / "two" / "model.xml")
    assert same(moved.mj, made.mj)
    assert same(mujoco.MjModel.from_xml_path(str(tmp_path / "two" / "model.xml")), made.mj)
    again, more = bundled(to_mjcf(moved, {}))
    assert more == files
    assert again.count("assets") == text.count("assets")


def test_a_file_of_another_content_is_not_replaced(tmp_path):
    text = to_mjcf(load(write(tmp_path / "source")), {})
    out = tmp_path / "out"
    (out / "assets").mkdir(parents=True)
    (out / "assets" / "part.stl").write_bytes(b"mine")
    written = write_bundled(out, text)
    assert (out / "assets" / "part.stl").read_bytes() == b"mine"
    assert sorted(path.name for path in (out / "assets").iterdir()) == [
        "part-2-2.stl",
        "part-2.stl",
        "part.stl",
        "wood.png",
    ]
    assert same(load_text(written, out, source="here").mj, load(tmp_path / "source" / "robot.xml").mj)
    assert write_bundled(out, text) == written
    assert write_bundled(out, "<mujoco/>") == "<mujoco/>"
    (out / "assets" / "wood.png").unlink()
    with pytest.raises(DsoError, match=r"here: the model in it is damaged|cannot load"):
        load_text(written, out, source="here")


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Where the results of an identification and of a training are after their source was deleted, and a log."""
    pytest.importorskip("mujoco.mjx", reason="a training needs MJX")
    folder, other = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved")
    model = write(folder / "source")
    (folder / "study.toml").write_text(STUDY)
    run = lambda *words: cli.main([str(word) for word in words])  # noqa: E731
    assert run("simulate", model, "--out", other / "log.h5", "--amplitude", 0.5) == 0
    free = ["--free", "joint/x/damping=0.3@0:2"]
    assert run("identify", model, other / "log.h5", *free, "--out", folder / "found", "--no-report") == 0
    assert run("train", folder / "study.toml", "--out", folder / "trained", "--no-report") == 0
    (folder / "estimate.toml").write_text(ESTIMATE.format(log=other / "log.h5"))
    assert run("estimate", folder / "estimate.toml", "--out", folder / "estimated", "--no-report") == 0
    for name in ("found", "trained", "estimated"):
        shutil.move(folder / name, other / name)
    shutil.rmtree(folder)
    return other


def test_an_identification_is_replayed_elsewhere(moved):
    assert str(moved) not in (moved / "found" / "model.xml").read_text()
    model = mujoco.MjModel.from_xml_path(str(moved / "found" / "model.xml"))
    assert model.nmesh == 2
    assert model.dof_damping[0] == pytest.approx(0.1, rel=1e-3)
    assert read_replay(moved / "found").model.nmesh == 2


def test_policy_and_estimator_load_elsewhere(moved, tmp_path):
    estimator = dso.Estimator.load(moved / "estimated")
    assert estimator.model.nmesh == 2
    estimator.reset(qpos=[0.5])
    assert np.isfinite(estimator.update([0.1], [0.5, 0.0]).qpos).all()
    policy = dso.Policy.load(moved / "trained")
    kept = dso.Policy.load(policy.save(tmp_path / "kept"))
    assert same(kept.model, policy.model)
    assert kept.model.nmesh == 2
    np.testing.assert_array_equal(kept.act(qpos=[0.3]), policy.act(qpos=[0.3]))
    assert len(dso.simulate(policy=moved / "trained").rollouts[0].time) == 10
    assert read_replay(moved / "trained").model.nmesh == 2
    assert read_replay(moved / "trained", "untrained").model.nmesh == 2


def test_another_mesh_is_another_model(moved, tmp_path):
    shutil.copytree(moved / "estimated", tmp_path / "changed")
    part = tmp_path / "changed" / "assets" / "part.stl"
    part.write_bytes((tmp_path / "changed" / "assets" / "part-2.stl").read_bytes())
    with pytest.raises(DsoError, match="not the model that the run wrote"):
        dso.Estimator.load(tmp_path / "changed")


def test_exports_of_the_moved_results(moved, tmp_path, capsys):
    run = lambda *words: cli.main([str(word) for word in words])  # noqa: E731
    assert run("export", moved / "trained", "--to", "json", "--out", tmp_path / "p.json") == 0
    assert [entry["name"] for entry in json.loads((tmp_path / "p.json").read_text())["observation"]["entries"]] == [
        "speed",
        "place",
    ]
    assert run("export", moved / "estimated", "--to", "c", "--out", tmp_path / "e.h") == 0
    assert "The estimator loads e.xml, " in capsys.readouterr().err
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "e.xml"))
    estimator = dso.Estimator.load(moved / "estimated")
    assert same(model, estimator.model)
    code = MAIN.replace("estimator.h", "e.h")
    rng, rows, expected = np.random.default_rng(1), [], []
    for t in range(50):
        ctrl, y = rng.normal(size=1), rng.normal(size=2) * 0.1
        found = estimator.update(ctrl, y) if t else estimator.reset(measurement=y)
        rows.append(np.r_[ctrl, y])
        expected.append(np.r_[found.qpos, found.qvel])
    found = compiled(tmp_path, code, np.array(rows), 3 + 2 + 4, with_mujoco())
    np.testing.assert_allclose(found[:, 3:5], expected, rtol=1e-12, atol=1e-12)
    assert run("export", moved / "trained", "--to", "c") == 0
    assert "dso_policy_act" in (moved / "trained" / "deployed.h").read_text()
    assert run("export", moved / "estimated", "--to", "json") == 2
    assert "takes results of `dso train`" in capsys.readouterr().err


def test_the_error_of_an_onnx_model_is_told(moved, capsys):
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    arguments = ["export", str(moved / "trained"), "--to", "onnx", "--set", "precision=float32"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert "In float32 controls differ from Python's by at most" in captured.err
    assert captured.out.strip().endswith("policy.onnx")
