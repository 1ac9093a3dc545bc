"""Hard constraints: the multiplier of a problem whose solution is known, and a training that keeps a limit or says that not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.robot.constraints import TOLERANCE, constrained
from dso_robotics.robot.observation import no_scaling
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write


def test_the_multiplier_of_a_known_problem():
    """min (x - 2)^2 with x^2 <= 1: x = 1, multiplier 1. With x^2 <= 9 the constraint does nothing."""
    for limit, x_best, multiplier in ((1.0, 1.0, 1.0), (9.0, 2.0, 0.0)):

        @jax.jit
        def step(x, memory, limit=limit):
            slope = 2 * (x - 2) + memory.weights[0] * 2 * x
            x = x - 0.02 * slope
            return x, memory.moved(jnp.array([x**2 - limit]))

        x, memory = jnp.zeros(()), constrained(no_scaling(1), [1.0])
        for _ in range(2000):
            x, memory = step(x, memory)
        assert float(x) == pytest.approx(x_best, abs=2e-3)
        assert float(memory.weights[0]) == pytest.approx(multiplier, abs=5e-3)


def limited(folder, limit, iterations=200, **replaced):
    text = write(folder, iterations).read_text()
    text = text.replace("weight = 0.3", f"limit = {limit}").replace("learning_rate = 0.05", "learning_rate = 0.03")
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    return TrainStudy.read(folder / "study.toml")


def test_a_training_keeps_its_limit(tmp_path):
    """Mean squared control at most 0.02: far less than a policy that only minimises the place takes."""
    found = train(limited(tmp_path, 0.02), tmp_path / "out")
    row = found.summary["constraints"]["effort"]
    controls = np.mean([np.mean(episode.ctrl**2) for episode in found.episodes])
    assert row["mean"] == pytest.approx(controls, rel=1e-9)
    assert row["met"]
    assert row["mean"] <= 0.02 + TOLERANCE
    assert found.summary["converged"]
    place = np.mean([np.sum(episode.qpos[1:] ** 2) for episode in found.episodes])
    assert found.summary["cost"]["total"] == pytest.approx(place, rel=1e-9)
    assert place < np.mean([len(episode.ctrl) for episode in found.episodes])  # standing still


def test_a_limit_that_cannot_be_kept_is_said(tmp_path):
    text = '[cost.still]\nkind = "square"\nquantity = "joint/x/position"\ntarget = 9.0\nlimit = 1.0\n[training]'
    found = train(limited(tmp_path, 0.02, 3, **{"[training]": text}), tmp_path / "out")
    assert not found.summary["converged"]
    assert not found.summary["constraints"]["still"]["met"]
    assert any("The constraint cost.still is not met" in text for text in found.summary["warnings"])


def test_a_result_that_is_the_start_is_said(tmp_path):
    """Too few small steps: no look keeps the limit, and only the untrained policy, which does nothing, does."""
    found = train(limited(tmp_path, 1e-9, 4), tmp_path / "out")
    assert found.summary["kept"]["iteration"] == 0
    assert not found.summary["converged"]
    assert any("found a lower cost than before" in text for text in found.summary["warnings"])


def test_what_has_no_constraints_is_refused(tmp_path):
    with pytest.raises(DsoError, match="'pco' has no hard constraints"):
        build(limited(tmp_path, 0.02, **{"[training]": '[training]\nmethod = "pco"'}))
    with pytest.raises(DsoError, match="is to be its first penalty"):
        limited(tmp_path, "0.02\nweight = 0.0")
