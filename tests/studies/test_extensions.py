"""The cost, corrector, design map, training method and parameter family of CONTRIBUTING.md: each is one file."""

import importlib
import json
import pathlib
import re

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.family import FAMILIES
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics import export
from dso_robotics.physics.model import load
from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

GUIDE = pathlib.Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory):
    """Every example of the guide as a file of its own, imported."""
    folder = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for i, block in enumerate(blocks):
            (folder / f"own_thing_{i}.py").write_text(block)
            importlib.import_module(f"own_thing_{i}")
        assert len(blocks) == 5
        yield
    del FAMILIES._things["joint/margin"], export.ATTRIBUTES["jnt_margin"]


def test_a_new_cost_is_asked_for_by_a_study(tmp_path):
    more = '[cost.own]\nkind = "soft"\nquantity = "joint/x/position"\nscale = 0.5\nweight = 3.0\n'
    study = TrainStudy.read(write(tmp_path, more=more))
    task = build(study)
    theta = jnp.asarray(task.chain.layout.initial)
    terms = task.scene_cost.terms(task.chain.scene(task.chain.rest(jnp.array([0.7])), theta))
    found = dict(zip(task.scene_cost.names, np.asarray(terms), strict=True))
    assert found["own"] == pytest.approx(3.0 * np.log(np.cosh(0.7 / 0.5)))
    assert study.as_dict()["cost"]["own"] == {
        "kind": "soft", "weight": 3.0, "quantity": "joint/x/position", "scale": 0.5,
    }  # fmt: skip
    assert TrainStudy.from_dict(json.loads(json.dumps(study.as_dict()))) == study
    with pytest.raises(DsoError, match=r"\[cost.own\] scale = -1.0: expected a positive number; write scale = 1.0"):
        TrainStudy.read(write(tmp_path, more=more.replace("0.5", "-1.0")))


def test_a_new_corrector_is_asked_for_by_a_study(pendulum, tmp_path):
    (tmp_path / "study.toml").write_text(
        f'model = "{pendulum}/pendulum.xml"\nlogs = "{pendulum}/pendulum.h5"\ncorrector = "bounded"\niterations = 3\n'
    )
    assert EstimateStudy.read(tmp_path / "study.toml").corrector == "bounded"
    assert main(["estimate", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    estimator = Estimator.load(tmp_path / "out")
    estimator.reset(qpos=[0.1])
    moved = estimator.update([0.0], [1e6, 0.0])
    gain = estimator.learned.corrector.split(estimator.learned.weights)["gain"]
    scales = estimator.learned.scales
    # An absurd reading moves the angle by the whole gain and no more.
    assert abs(moved.qpos[0] - moved.predicted[0]) <= np.abs(gain[0]).sum() * scales.change[0] * (1 + 1e-9)


def test_a_new_design_map_is_asked_for_by_a_study(tmp_path):
    more = '[design.own]\nkind = "damper"\nof = "x"\nlow = 0.01\nhigh = 1.0\n'
    task = build(TrainStudy.read(write(tmp_path, more=more)))
    assert task.chain.mechanism.names == ("joint/x/damping",)
    fields = task.chain.mechanism.fields(np.array([0.3]))
    assert fields["dof_damping"][0] == 0.3
    with pytest.raises(DsoError, match=r"\[design.own\] kind = 'dampr': expected one of .*damper"):
        TrainStudy.read(write(tmp_path, more=more.replace("damper", "dampr")))


def test_a_new_training_method_is_asked_for_by_a_study(tmp_path):
    path, iterations, rate = write(tmp_path, iterations=30), 30, 0.05
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "sign"'))
    assert main(["train", str(path), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cost"]["total"] < 0.9 * summary["cost"]["before"]
    # Its steps are of one size in every entry; those of no other method are.
    steps = rate * (1 - 0.9 * np.arange(iterations) / iterations)
    theta = read_run(tmp_path / "out" / "run.h5")[0]["state"]["theta"]
    start = np.asarray(build(TrainStudy.read(path)).chain.layout.initial)
    reachable = {round(float(s @ steps), 9) for s in (np.ones(iterations), -np.ones(iterations))}
    assert np.all(np.abs(theta - start) <= max(reachable) + 1e-9)
    assert np.any(np.abs(theta - start) > 5 * rate)


def test_an_unknown_method_is_refused_with_those_there_are(tmp_path, capsys):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "pathwize"'))
    assert main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "no training method 'pathwize'; did you mean 'pathwise'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_new_parameter_family_is_freed_and_written_back(pendulum):
    robot = load(pendulum / "pendulum.xml")
    vector = pack([parse("joint/hinge/margin=0.02@0:1")], robot)
    written = export.to_mjcf(robot, vector.written(vector.initial))
    assert mujoco.MjModel.from_xml_string(written).jnt_margin[0] == 0.02
