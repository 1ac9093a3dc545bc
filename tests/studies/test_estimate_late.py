"""`dso estimate` with late sensors and on MJX: the delay is found, the runtime knows it, both engines learn the same."""

import json

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.physics.model import load
from dso_robotics.robot.estimator import Estimator
from tests.pendulum import PENDULUM, TRUTH, record

LATE = 3  # samples of 0.01 s


def write(folder, *, late: int, model: dict[str, float]) -> None:
    """pendulum.xml and pendulum.h5 whose speed sensor shows what it read `late` samples ago."""
    (folder / "pendulum.xml").write_text(PENDULUM.format(**model))
    runs = []
    for r in record(3, seconds=3.0).rollouts:
        assert r.sensordata is not None
        shown = r.sensordata.copy()
        shown[late:, 1] = r.sensordata[: len(shown) - late, 1]
        fields = {name: getattr(r, name) for name in ("name", "time", "ctrl", "ctrl_names", "ctrl_units")}
        fields |= {name: getattr(r, name) for name in ("sensor_names", "sensor_units")}
        runs.append(Rollout(sensordata=shown, **fields))
    write_log(folder / "pendulum.h5", Log("", "test", "CC0", tuple(runs)))


def estimate(folder, name: str, study: str) -> dict:
    base = 'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nhold_out = "run2"\ncorrector = "gain"\n'
    (folder / f"{name}.toml").write_text(base + study)
    assert main(["estimate", str(folder / f"{name}.toml"), "--out", str(folder / name), "--no-report"]) == 0
    return json.loads((folder / name / "summary.json").read_text())


def test_the_delay_of_a_sensor_is_found_and_known_at_run_time(tmp_path):
    write(tmp_path, late=LATE, model=TRUTH)
    prompt = estimate(tmp_path, "prompt", "")
    late = estimate(tmp_path, "late", 'free = ["sensor/speed/delay"]')
    assert abs(late["parameters"]["sensor/speed/delay"]["value"] - 0.01 * LATE) < 1e-3
    assert not any("no place" in text for text in late["warnings"])
    rmse = {s: result["fit"]["hold_out"][s]["rmse"] for s in ("angle", "speed") for result in (late,)}
    assert rmse["speed"] < 0.6 * prompt["fit"]["hold_out"]["speed"]["rmse"]
    # The model written holds the delay as MuJoCo's own, and the runtime takes it from there to itself.
    assert load(tmp_path / "late" / "model.xml").mj.sensor_delay[1] == pytest.approx(0.01 * LATE, abs=1e-3)
    run, estimator = read_log(tmp_path / "pendulum.h5")["run2"], Estimator.load(tmp_path / "late")
    assert run.sensordata is not None
    assert run.ctrl is not None
    estimator.reset(measurement=run.sensordata[0])
    errors = [estimator.update(u, y).innovation for u, y in zip(run.ctrl[:-1], run.sensordata[1:], strict=True)]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors)[20:], 0)), list(rmse.values()), rtol=0.03)
    # A model that declares the delay needs none freed: the study begins where the other ended.
    (tmp_path / "pendulum.xml").write_text((tmp_path / "late" / "model.xml").read_text())
    declared = estimate(tmp_path, "declared", "")
    assert declared["fit"]["hold_out"]["speed"]["rmse"] == pytest.approx(rmse["speed"], rel=0.02)


@pytest.mark.slow
def test_the_mjx_engine_learns_what_the_c_engine_learns(tmp_path):
    write(tmp_path, late=0, model={**TRUTH, "mass": 1.0})
    study = 'free = ["body/pole/mass"]\nwindow = 0.3\nahead = 2\n'
    c = estimate(tmp_path, "c", study)
    mjx = estimate(tmp_path, "mjx", study + 'engine = "mjx"\niterations = 60\nlearning_rate = 0.1\n')
    assert mjx["engine"] == "mjx"
    assert abs(mjx["parameters"]["body/pole/mass"]["value"] / TRUTH["mass"] - 1) < 0.1
    for name, fit in c["fit"]["hold_out"].items():
        assert mjx["fit"]["hold_out"][name]["rmse"] == pytest.approx(fit["rmse"], rel=0.05)
        assert mjx["noise_ahead"][name] == pytest.approx(c["noise_ahead"][name], rel=0.1)
