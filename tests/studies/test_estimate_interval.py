"""Intervals of the physics that is learned beside an estimator, against the truth and against an identification."""

import numpy as np
import pytest

from dso_robotics.core.covariance import Z95
from dso_robotics.data.log import write_log
from dso_robotics.report.table import estimation_table
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, record

DAMPING, MASS = "joint/hinge/damping", "body/pole/mass"
TRUTH = {DAMPING: 0.08, MASS: 0.7}
FREE = [f"{DAMPING}=0.16@0:2", f"{MASS}=1.0@0.1:10"]


def asked(folder, seed):
    (folder / "robot.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.05, mass=1.0))
    write_log(folder / "log.h5", record(seed, seconds=3.0))
    return {"model": str(folder / "robot.xml"), "logs": [str(folder / "log.h5")], "free": FREE}


def half(row):
    return (row["high95"] - row["low95"]) / 2


@pytest.mark.parametrize("corrector", ["kalman", "gain"])
def test_intervals_hold_the_truth_and_are_as_wide_as_those_of_an_identification(tmp_path, corrector):
    more, off = {"window": 0.3, "seed": 0}, []
    for seed in range(2):
        study = asked(tmp_path, seed)
        found = estimate(EstimateStudy.read(**study, corrector=corrector, **more), tmp_path / f"out{seed}")[
            "parameters"
        ]
        beside = identify(IdentifyStudy.read(**study, **more), tmp_path / f"beside{seed}").summary["parameters"]
        for path, value in TRUTH.items():
            assert 0.4 < half(found[path]) / half(beside[path]) < 2.5
            off.append((found[path]["value"] - value) / half(found[path]) * Z95)
    # Four standardised errors: none beyond 3.5, and of the size of one together.
    assert np.max(np.abs(off)) < 3.5
    assert 0.3 < np.sqrt(np.mean(np.square(off))) < 2.0


def test_a_number_at_its_bound_says_so_and_the_table_has_it(tmp_path):
    study = asked(tmp_path, 0) | {"free": [f"{DAMPING}=0.16@0.15:2", MASS]}
    summary = estimate(EstimateStudy.read(**study, window=0.3), tmp_path / "out")
    row = summary["parameters"][DAMPING]
    assert row["at_bound"]
    assert row["low95"] == pytest.approx(0.15)
    (line,) = [line for line in estimation_table(summary)[0].splitlines() if line.startswith(DAMPING)]
    assert "at bound" in line
    assert "0.15 .. " in line
