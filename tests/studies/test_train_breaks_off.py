"""A training that breaks off late ends with the best that it had, and says what happened."""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.studies.train import train
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

LATE = 6
STEP = ShortHorizon.step


def broken_step(kind, late):
    def step(self, state):
        if int(state.iteration) < late:
            return STEP(self, state)
        if kind == "raises":
            raise FloatingPointError("overflow in the cost")
        following, record = STEP(self, state)
        nan = type(record)(float("nan"), record.terms * np.nan, float("nan"), float("nan"), 1.0, False)
        return eqx.tree_at(lambda s: (s.lost, s.theta), following, (jnp.asarray(99), state.theta)), nan

    return step


@pytest.mark.parametrize(("kind", "status"), [("nan", "diverged"), ("raises", "failed")])
def test_the_best_iterate_is_the_result(tmp_path, monkeypatch, capsys, kind, status):
    path = write(tmp_path, iterations=20)
    monkeypatch.setattr(ShortHorizon, "step", broken_step(kind, LATE))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    assert "broke off" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["status"], summary["converged"]) == (status, False)
    assert "broke off" in summary["warnings"][0]
    assert 0 < summary["kept"]["iteration"] <= LATE
    assert summary["cost"]["total"] < summary["cost"]["before"]
    tree, _, _ = read_run(tmp_path / "out" / "run.h5")
    np.testing.assert_array_equal(
        tree["best"]["kept"]["theta"][: len(tree["theta"]["policy"])], tree["theta"]["policy"]
    )
    assert (tmp_path / "out" / "model.xml").exists()
    with pytest.raises(DsoError, match="finished already"):
        train(TrainStudy.read(path), tmp_path / "out", resume=True)


def test_a_training_that_never_takes_a_step_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, iterations=20)
    monkeypatch.setattr(ShortHorizon, "step", broken_step("nan", 0))
    with pytest.raises(DsoError, match="every window blows up"):
        train(TrainStudy.read(path), tmp_path / "out")
