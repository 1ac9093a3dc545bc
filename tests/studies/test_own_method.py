"""A training method is one file: a class that registers itself and is named in a study."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.short_horizon import ShortHorizon, Step
from tests.studies.train_robots import write


@TRAINING.register("sign")
class SignDescent(ShortHorizon):
    """Every entry of theta moves by its step size against the sign of its gradient."""

    def _moved(self, learner, estimate, progress):
        step = self.rates * self._fallen(progress) * jnp.sign(estimate.gradient)
        finite = jnp.all(jnp.isfinite(step))
        norm = jnp.linalg.norm(estimate.gradient)
        return Step(jnp.where(finite, learner.theta - step, learner.theta), learner.optimiser, finite, norm)


@pytest.mark.mjx
def test_a_method_of_ones_own_trains_from_a_study(tmp_path):
    path = write(tmp_path, iterations=30)
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "sign"'))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cost"]["total"] < 0.9 * summary["cost"]["before"]
    # Steps of equal size in every entry are what this method does, and no other.
    from dso_robotics.data.run_file import read_run

    tree = read_run(tmp_path / "out" / "run.h5")[0]
    moved = np.abs(tree["state"]["theta"] - 0.0)
    assert moved.max() <= 30 * 0.05


def test_an_unknown_method_is_refused_with_those_there_are(tmp_path, capsys):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("[training]", '[training]\nmethod = "pathwize"'))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "no training method 'pathwize'; did you mean 'pathwise'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
