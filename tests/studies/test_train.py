"""`dso train` and `dso design` end to end on the smallest robot, and what they refuse before they compile anything."""

import json

import mujoco
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write


def test_train_writes_a_result_that_c_confirms(tmp_path, capsys):
    study = write(tmp_path, iterations=40)
    assert cli.main(["train", str(study), "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cost"]["total"] < 0.7 * summary["cost"]["before"]
    assert sum(summary["cost"]["terms"].values()) == pytest.approx(summary["cost"]["total"])
    assert summary["environment_steps"] == 40 * 64
    assert mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml")).nu == 1
    tree, stored, _ = read_run(tmp_path / "out" / "run.h5")
    assert stored["seconds"] == 2.0
    # The policy of the run file, played by hand: the cost must be the reported one.
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "cart.xml"))
    data = mujoco.MjData(model)
    data.qpos[:] = 1.0
    weights, total = tree["theta"]["policy"], 0.0
    for _ in range(40):
        seen = (np.array([data.qpos[0], data.qvel[0]]) - tree["scaling"]["mean"]) / tree["scaling"]["spread"]
        data.ctrl[:] = weights[:2] @ seen + weights[2]
        mujoco.mj_step(model, data)
        total += data.qpos[0] ** 2 + 0.3 * data.ctrl[0] ** 2
    assert total == pytest.approx(summary["cost"]["total"], rel=1e-9)
    assert 'class="chart"' in (tmp_path / "out" / "report.html").read_text()
    assert "episode on C MuJoCo" in capsys.readouterr().err


def test_costs_that_an_episode_does_not_show_keep_the_last(tmp_path):
    more = '\n[design.drive]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0\n'
    more += '[cost.likely]\nkind = "prior"\nnumbers = { "actuator/push/gear[0]" = [2.0, 10.0] }\n'
    study = write(tmp_path, more=more)
    assert build(TrainStudy.read(study)).keep == "last"
    study.write_text(study.read_text().replace("horizon = 8", 'horizon = 8\nkeep = "best"'))
    assert build(TrainStudy.read(study)).keep == "best"
    assert build(TrainStudy.read(write(tmp_path))).keep == "best"


def test_design_moves_the_mechanism_within_its_bounds(tmp_path):
    more = '\n[design.drive]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0\n'
    more += '[cost.likely]\nkind = "prior"\nnumbers = { "actuator/push/gear[0]" = [2.0, 10.0] }\n'
    study = write(tmp_path, iterations=40, more=more)
    assert cli.main(["design", str(study), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = summary["parameters"]["actuator/push/gear[0]"]
    # A stronger gear pushes as hard for less control: the gradient must raise it.
    assert 2.05 < found["value"] < 4.0
    assert summary["cost"]["supervised"]["likely"] == pytest.approx(0.5 * ((found["value"] - 2.0) / 10.0) ** 2)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    assert model.actuator_gear[0, 0] == pytest.approx(found["value"], rel=1e-12)
    assert summary["cost"]["total"] < summary["cost"]["before"]
    # The prior is nothing that an episode shows, so that the last look is what is reported.
    assert summary["kept"] == {"rule": "last", "iteration": 40}
    looks = read_run(tmp_path / "out" / "run.h5")[0]["history"]["episode_cost"]
    assert summary["cost"]["total"] == pytest.approx(looks[-1], rel=1e-12)


def test_check_gradients_agrees_with_c(tmp_path):
    more = '\nfree = ["joint/x/damping"]\n[design.drive]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0\n'
    blocks = check_gradients(build(TrainStudy.read(write(tmp_path, more=more))))
    assert [block.block for block in blocks] == ["policy", "physics", "design"]
    for block in blocks:
        assert abs(block.exact) > 1e-4
        assert block.error < 1e-6


BAD = {
    'kind = "square"': [('kind = "sqare"', "'square'"), ('kind = "reward"', "costs are minimised")],
    "weight = 0.3": [("weight = -0.3", "reward"), ('weight = "much"', "expected a number"), ("weigth = 0.3", "weight")],
    "joint/x/position": [("joint/y/position", "'x'"), ("joint/x/angle", "velocity")],
    "cart.xml": [("none.xml", "no such model file")],
    "x = 1.0": [("y = 1.0", "'x'"), ('x = "here"', "expected a number")],
    "horizon = 8": [
        ("horizon = 0", "at least 1"),
        ("horison = 8", "horizon"),
        ("horizon = 0.5", "whole number"),
        ("keep = 3", "best or last"),
        ('keep = "worst"', "best or last"),
    ],
    'kind = "linear"': [('kind = "lienar"', "linear"), ('kind = "linear"\nobserve = ["gyro"]', "no sensor 'gyro'")],
    "seconds = 2.0": [
        ("seconds = -2.0", "positive"),
        ('free = ["joint/x/dampin"]', "'damping'"),
        ('[design.a]\nkind = "length"\nof = "arm"', "'cart'"),
        ('[design.a]\nkind = "gear"\nof = "push"\nlow = 3.0\nhigh = 4.0', "outside the bounds"),
        ("control_step = 0.07", "multiple"),
        ('[cost.c]\nkind = "cloning"\nlog = "none.h5"', "none.h5"),
        ('[cost.c]\nkind = "cloning"\nlog = "none.h5"\nfade = "soon"', "fade|none.h5"),
        ('[cost.c]\nkind = "identification"\nlog = "none.h5"', "none.h5"),
        ('[cost.c]\nkind = "prior"\nnumbers = {}\nfade = 2.0', "above 0 to 1"),
        ('[cost.c]\nkind = "python"\nfile = "none.py"', "no such Python file"),
        ('[cost.c]\nkind = "prior"\nnumbers = { "joint/x/damping" = [1.0, 0.1] }', "not a free number"),
    ],
}


@pytest.mark.parametrize(("old", "new", "told"), [(old, *case) for old, cases in BAD.items() for case in cases])
def test_a_bad_study_is_refused_before_anything_compiles(tmp_path, monkeypatch, old, new, told):
    study = write(tmp_path)
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new, 1))
    monkeypatch.setattr("jax.jit", lambda *a, **k: pytest.fail("compiled"))
    with pytest.raises(DsoError, match=told):
        build(TrainStudy.read(study))


def test_design_needs_a_design(tmp_path):
    study = write(tmp_path)
    assert cli.main(["design", str(study), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
