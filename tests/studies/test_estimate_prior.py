"""A prior on physics holds it in `dso estimate`, by either engine."""

import pytest

from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy

# The model has a mass of 1.0 kg and the log was recorded with 0.7 kg.
PRIORS = [
    {"path": "body/pole/mass", "prior": [1.5, 0.0005]},
    {"path": "body/pole/mass", "log_prior": [1.5, 0.0005], "low": 0.1, "high": 3.0},
]


@pytest.mark.parametrize("engine", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("free", PRIORS)
def test_a_prior_far_from_the_truth_wins_where_it_is_narrow(pendulum, tmp_path, engine, free):
    files = {"model": str(pendulum / "pendulum.xml"), "logs": (str(pendulum / "pendulum.h5"),)}
    keys = {"window": 0.3, "engine": engine, "iterations": 12, "learning_rate": 0.05}
    summary = estimate(EstimateStudy(**files, **keys, free=(free,)), tmp_path / "out")
    mass = summary["parameters"]["body/pole/mass"]["value"]
    # Adam takes twelve steps of a twentieth towards the prior; Gauss-Newton arrives.
    assert mass > 1.2 if engine == "mjx" else abs(mass - 1.5) < 0.02
