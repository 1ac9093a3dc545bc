"""The estimators' examples and studies, on logs of mechanisms richer than the models that are fitted to them."""

import json
import runpy

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.assets import asset
from dso_robotics.data.log import read_log
from tests.example_files import EXAMPLES, load


def test_the_arm_with_a_biased_imu(tmp_path):
    found = load("arm_estimator").main(tmp_path / "out", iterations=8)
    truth = read_log(asset("datasets/synthetic/arm_imu.h5")).attributes
    values = found["parameters"]
    assert values["joint/shoulder/frictionloss"] == pytest.approx(0.12, rel=0.05)
    assert values["body/lower/mass"] == pytest.approx(0.6, rel=0.05)
    assert values["sensor/gyro/bias[1]"] == pytest.approx(truth["truth.sensor/gyro[1]/bias"], abs=0.005)
    # The bias along the first axis also holds what two degrees of tilt make of gravity.
    tilt = -9.81 * np.sin(np.deg2rad(2.0))
    expected = truth["truth.sensor/accelerometer[0]/bias"] + tilt
    assert values["sensor/accelerometer/bias[0]"] == pytest.approx(expected, abs=0.05)
    assert (found["speeds"]["estimator"] < 0.3 * found["speeds"]["differences of encoders"]).all()


@pytest.mark.slow
def test_the_height_of_a_leg_that_measures_none(tmp_path):
    text = (EXAMPLES / "studies" / "estimate_hopping_leg.toml").read_text().replace("../..", str(EXAMPLES.parent))
    (tmp_path / "study.toml").write_text(text.replace('"linear"', '"gain"') + "iterations = 10\n")
    assert main(["estimate", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    height, _, speed, _ = summary["state"]["hold_out"]["rmse"]
    # The height moves by 160 mm and its speed by 1.2 m/s.
    assert height < 0.003
    assert speed < 0.03
    assert summary["parameters"]["body/torso/mass"]["value"] == pytest.approx(2.3, rel=0.03)


def test_the_logs_are_what_their_script_records():
    made = runpy.run_path(str(asset("datasets/record_estimates.py")))
    for name in ("arm_imu", "hopping_leg"):
        stored = read_log(asset(f"datasets/synthetic/{name}.h5"))
        for mine, theirs in zip(stored.rollouts, made[name]().rollouts, strict=True):
            np.testing.assert_allclose(mine.sensordata, theirs.sensordata, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(mine.qpos, theirs.qpos, rtol=1e-5, atol=1e-5)
