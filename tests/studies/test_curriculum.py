"""Curricula: every number of a stage, and iterations that are those of the stage's own study."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.studies.curriculum import number_at, study_at
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

MORE = """
[curriculum.effort]
number = "cost.effort.weight"
first = 2.0
until = 1.0
stages = 2
"""


def asked(folder, more=MORE, iterations=4):
    path = write(folder, iterations)
    path.write_text(path.read_text() + "[explore]\nposition = { x = [-2.0, 2.0] }\n" + more)
    return TrainStudy.read(path)


def test_numbers_move_in_stages(tmp_path):
    more = MORE.replace("stages = 2", "stages = 4").replace("until = 1.0", "until = 0.5")
    more += '[curriculum.wide]\nnumber = "explore.position.x[1]"\nfirst = 0.0\nuntil = 1.0\nstages = 2\n'
    study = asked(tmp_path, more)
    found = [study_at(study, progress) for progress in (0.0, 0.124, 0.125, 0.49, 0.5, 0.9, 1.0)]
    weights = [stage.cost["effort"].weight for stage in found]
    np.testing.assert_allclose(weights, [2.0, 2.0, 1.575, 0.725, 0.3, 0.3, 0.3])
    np.testing.assert_allclose([number_at(stage, "explore.position.x[1]") for stage in found], [0, 0, 0, 0, 1, 1, 2])
    assert found[-1].explore.position["x"] == (-2.0, 2.0)


def test_its_iterations_are_those_of_the_stage(tmp_path):
    study = asked(tmp_path)
    train(study, tmp_path / "out")
    mine = read_run(tmp_path / "out" / "run.h5")[0]["records"]["cost"]
    cost = dict(study.cost)
    cost["effort"] = dataclasses.replace(cost["effort"], weight=2.0)
    train(dataclasses.replace(study, cost=cost, curriculum={}), tmp_path / "first")
    first = read_run(tmp_path / "first" / "run.h5")[0]["records"]["cost"]
    np.testing.assert_array_equal(mine[:2], first[:2])
    assert mine[2] != first[2]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("cost.effect.weight", "has no 'effect' there"),
        ("cost.effort.kind", r"\[curriculum.effort\] number = 'cost.effort.kind'"),
        ("policy.noise", r"only numbers in \[cost\], \[terminate\], \[task\]"),
        ("explore.position.x", "there is no number"),
        ("explore.position.x[2]", "has no '2' there"),
    ],
)
def test_what_cannot_move_is_named(tmp_path, place, told):
    with pytest.raises(DsoError, match=told):
        build(asked(tmp_path, MORE.replace("cost.effort.weight", place)))
