"""`dso.estimate`: objects in, an estimator that runs without JAX out."""

import dataclasses
import inspect

import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.studies.estimate_study import EstimateStudy
from tests.pendulum import record


def test_an_estimator_is_learned_from_objects_and_kept(pendulum, tmp_path):
    log = record(0, runs=2, seconds=3.0)
    found = dso.estimate(
        dso.load(pendulum / "pendulum.xml"), log, corrector="gain", hold_out=0.5, free="body/pole/mass"
    )
    assert "one step ahead" in str(found)
    assert "State estimator" in found._repr_html_()
    row = found.parameters["body/pole/mass"]
    assert row["low95"] < row["value"] < row["high95"]
    estimator = found.estimator
    assert found.estimator is estimator
    rollout = log.rollouts[1]
    estimator.reset(measurement=rollout.sensordata[0])
    state = estimator.update(rollout.ctrl[0], rollout.sensordata[1])
    assert np.isfinite(state.qpos).all()
    kept = found.save(tmp_path / "kept")
    assert (kept / "report.html").is_file()
    assert dso.Estimator.load(kept).names == estimator.names


def test_every_key_of_a_study_is_an_argument():
    assert {field.name for field in dataclasses.fields(EstimateStudy)} <= set(
        inspect.signature(dso.estimate).parameters
    )


def test_errors_name_the_argument(pendulum):
    with pytest.raises(dso.DsoError, match="no log was given"):
        dso.estimate(pendulum / "pendulum.xml")
    with pytest.raises(dso.DsoError, match=r"corrector = 'magic': expected one of gain.*write corrector = .gain"):
        dso.estimate(pendulum / "pendulum.xml", record(0, runs=1), corrector="magic")
