"""Estimates the state of an arm from coarse encoders and a biased IMU at its tip.

The estimator is learned from measurements and then runs sample by sample. The log comes from an arm with dry friction,
a heavier lower link and a rotated, biased IMU; the model has none of these. The estimated joint speeds are compared
with differences of the encoders and with the recorded truth.

Run: python examples/arm_estimator.py
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.log import read_log
from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy

STUDY = Path(__file__).parent / "studies" / "estimate_arm_imu.toml"


def main(out: str | Path, iterations: int = 30) -> dict[str, dict]:
    # Model, parameters, data and cost are in the study; optimise.
    study = replace(EstimateStudy.read(STUDY), iterations=iterations)
    summary = estimate(study, out, force=True)
    for path, entry in summary["parameters"].items():
        print(f"{path:32s} {entry['initial']:8.4f} -> {entry['value']:8.4f} {entry['unit']}")

    # Run: one control and one measurement at a time, on the rollout that was held out.
    rollout = read_log(asset("datasets/synthetic/arm_imu.h5"))[study.hold_out]
    columns = [rollout.sensor_names.index(name) for name in study.sensors]
    estimator, speeds = Estimator.load(out), []
    estimator.reset(measurement=rollout.sensordata[0, columns])
    for ctrl, measured in zip(rollout.ctrl[:-1], rollout.sensordata[1:, columns], strict=True):
        speeds.append(estimator.update(ctrl, measured, dt=0.01).qvel)

    # Show.
    truth, skip = rollout.qvel[1:], 20
    differences = np.diff(rollout.sensordata[:, columns[:2]], axis=0) / 0.01
    errors = {"estimator": np.array(speeds) - truth, "differences of encoders": differences - truth}
    found = {name: np.sqrt(np.mean(error[skip:] ** 2, 0)) for name, error in errors.items()}
    for name, error in found.items():
        print(f"{name:24s} error of the speeds: shoulder {error[0]:.4f} rad/s, elbow {error[1]:.4f} rad/s")
    return {"speeds": found, "parameters": {path: e["value"] for path, e in summary["parameters"].items()}}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "result")
