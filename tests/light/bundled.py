"""What identification and a learned estimator come to on the bundled logs: `python bundled.py DIR` writes DIR/numbers.json.

Needs the installed package alone, no checkout, and runs in any environment, so that two can be compared.
"""

import json
import pathlib
import sys

import mujoco

import dso_robotics
from dso_robotics.cli import main
from dso_robotics.data.assets import asset
from dso_robotics.data.log import read_log
from dso_robotics.robot.estimator import Estimator

FREE = ("joint/*/damping=0.0015", "joint/*/frictionloss=0.1", "body/lower/mass=0.9", "actuator/tau2/gear=0.7")
SENSORS = ("shoulder_encoder", "elbow_encoder", "gyro[1]")
STUDY = """
model = {model}
logs = [{log}]
hold_out = "03"
corrector = "gain"
sensors = {sensors}
window = 1.0
iterations = 3
"""


def identified(folder: pathlib.Path) -> dict:
    log, model = asset("datasets/synthetic/two_joint_arm.h5"), asset("models/two_joint_arm.xml")
    free = [f"--free={path}" for path in FREE]
    out = folder / "identified"
    assert main(["identify", str(model), str(log), *free, "--hold-out=05", "--out", str(out)]) == 0
    assert (out / "report.html").stat().st_size > 10_000
    mujoco.MjModel.from_xml_path(str(out / "model.xml"))
    summary = json.loads((out / "summary.json").read_text())
    keys = ("parameters", "cost", "fit", "noise", "evaluations", "simulated_steps", "engine", "message")
    return {key: summary[key] for key in keys}


def estimated(folder: pathlib.Path) -> dict:
    log, model = asset("datasets/synthetic/arm_imu.h5"), asset("models/arm_imu.xml")
    study, out = folder / "study.toml", folder / "estimator"
    texts = {"model": json.dumps(str(model)), "log": json.dumps(str(log)), "sensors": json.dumps(SENSORS)}
    study.write_text(STUDY.format(**texts))
    assert main(["estimate", str(study), "--no-report", "--out", str(out)]) == 0
    estimator, rollout = Estimator.load(out), read_log(log).rollouts[0]
    columns = [rollout.sensor_names.index(name) for name in estimator.names]
    estimator.reset(measurement=rollout.sensordata[0, columns])
    states = []
    for k in range(1, 200):
        found = estimator.update(rollout.ctrl[k - 1], rollout.sensordata[k, columns])
        states.append([*found.qpos, *found.qvel])
    return {"fit": json.loads((out / "summary.json").read_text())["fit"], "states": states}


if __name__ == "__main__":
    here = pathlib.Path(sys.argv[1])
    numbers = {"identified": identified(here), "estimated": estimated(here)}
    about = {"mujoco": mujoco.__version__, "package": dso_robotics.__file__, "jax": "jax" in sys.modules}
    (here / "numbers.json").write_text(json.dumps(about | {"numbers": numbers}))
