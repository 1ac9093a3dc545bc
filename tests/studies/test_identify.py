"""Identification end to end: truth recovered, intervals honest, files as the contract says, resume to the same numbers."""

import dataclasses
import json

import h5py
import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import write_log
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import NOISE, PENDULUM, TRUTH, record

FREE = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")


def study(folder, **changes):
    settings = {
        "model": str(folder / "pendulum.xml"),
        "logs": (str(folder / "pendulum.h5"),),
        "free": tuple(map(parse, FREE)),
        "hold_out": "run2",
    }
    return IdentifyStudy(**(settings | changes))


@pytest.fixture(scope="module")
def result(pendulum, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "result"
    return out, identify(study(pendulum), out)


def test_the_truth_lies_in_narrow_intervals(result):
    _, found = result
    table = found.summary["parameters"]
    for path, truth in zip(FREE, TRUTH.values(), strict=True):
        entry = table[path]
        # Three intervals of one fixed draw: each within twice its half-width, and no wider than a tenth of the value.
        half = (entry["high95"] - entry["low95"]) / 2
        assert abs(entry["value"] - truth) < 2 * half
        assert half < 0.1 * truth
    for name, sigma in zip(("angle", "speed"), NOISE, strict=True):
        assert found.summary["noise"][name]["value"] == pytest.approx(sigma, rel=0.1)
    assert found.summary["converged"]


@pytest.mark.slow
def test_intervals_cover_over_noise_draws(tmp_path):
    """The start is near the truth, which saves steps and changes no optimum."""
    (tmp_path / "near.xml").write_text(PENDULUM.format(**{name: 1.1 * value for name, value in TRUTH.items()}))
    errors = []
    for seed in range(20):
        write_log(tmp_path / "log.h5", record(seed + 1, runs=4, seconds=1.5))
        given = {"model": str(tmp_path / "near.xml"), "logs": (str(tmp_path / "log.h5"),), "hold_out": None}
        table = identify(study(tmp_path, **given), tmp_path / f"out{seed}").summary["parameters"]
        for path, truth in zip(FREE, TRUTH.values(), strict=True):
            entry = table[path]
            half = (entry["high95"] - entry["low95"]) / 2
            errors.append((entry["value"] - truth) / half)
    # 60 intervals, nearly independent between parameters: 0.95 within four standard errors.
    errors = np.array(errors)
    assert abs(np.mean(np.abs(errors) < 1) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 60)
    # Nor are they too wide: in standard deviations the errors have a mean square of 1 within four standard errors.
    assert abs(np.mean((1.96 * errors) ** 2) - 1) < 4 * np.sqrt(2 / 60)


def test_the_files_are_those_of_the_contract(result):
    out, found = result
    summary = json.loads((out / "summary.json").read_text())
    for key in (
        "command",
        "version",
        "engine",
        "engine_reason",
        "seed",
        "seconds",
        "converged",
        "message",
        "evaluations",
    ):
        assert key in summary
    assert set(summary["cost"]) == {"total", "terms"}
    assert sum(summary["cost"]["terms"].values()) == pytest.approx(summary["cost"]["total"], rel=1e-6)
    keys = {"value", "initial", "unit", "low95", "high95", "at_bound", "determined"}
    assert set(summary["parameters"][FREE[0]]) == keys
    assert summary["fit"]["hold_out"]["angle"]["unit"] == "rad"
    model = mujoco.MjModel.from_xml_path(str(out / "model.xml"))
    assert model.body_mass[1] == pytest.approx(summary["parameters"]["body/pole/mass"]["value"], rel=1e-12)
    tree, stored, mjcf = read_run(out / "run.h5")
    assert tree["theta"]["body/pole/mass"][0] == model.body_mass[1]
    assert stored["hold_out"] == "run2"
    assert mujoco.MjModel.from_xml_string(mjcf).body_mass[1] == 1.0
    np.testing.assert_array_equal(tree["history"]["z"][-1], found.solution.z)


def test_the_exported_model_scores_what_the_summary_says(result, pendulum):
    """An independent loop over mj_step on model.xml, windows of the hold-out from measured states."""
    out, found = result
    model = mujoco.MjModel.from_xml_path(str(out / "model.xml"))
    rollout = record(0).rollouts[2]
    errors = []
    for begin in range(0, len(rollout.time) - 50, 25):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = rollout.sensordata[begin]
        path = []
        for k in range(begin, begin + 49):
            data.ctrl[:] = rollout.ctrl[k]
            mujoco.mj_step(model, data)
            path.append([data.qpos[0], data.qvel[0]])
        errors.append(np.sqrt(np.mean((np.array(path) - rollout.sensordata[begin + 1 : begin + 50]) ** 2, 0)))
    expected = np.mean(errors, 0)
    fit = found.summary["fit"]["hold_out"]
    np.testing.assert_allclose([fit["angle"]["rmse"], fit["speed"]["rmse"]], expected, rtol=1e-6)


def test_a_killed_run_resumes_to_the_same_numbers(pendulum, result, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(news):
        if news.stage == "start states estimated" and news.iteration == 1:
            raise Killed

    out = tmp_path / "out"
    with pytest.raises(Killed):
        identify(study(pendulum), out, progress=kill)
    assert not (out / "summary.json").exists()
    with pytest.raises(DsoError, match="not empty"):
        identify(study(pendulum), out)
    with pytest.raises(DsoError, match="window differ"):
        identify(study(pendulum, window=0.4), out, resume=True)
    resumed = identify(study(pendulum), out, resume=True)
    np.testing.assert_array_equal(resumed.solution.z, result[1].solution.z)
    with h5py.File(out / "run.h5") as a, h5py.File(result[0] / "run.h5") as b:
        np.testing.assert_array_equal(a["history/cost"][()], b["history/cost"][()])
    with pytest.raises(DsoError, match="finished already"):
        identify(study(pendulum), out, resume=True)


def test_what_the_log_cannot_see_is_said(pendulum, tmp_path):
    """Gear and mass, damping, friction together only set a scale that torque-driven motion of one joint cannot show."""
    text = (
        (pendulum / "pendulum.xml")
        .read_text()
        .replace("1e-2", "0")
        .replace('diaginertia="0.01 0.01 0.001"', 'diaginertia="1e-6 1e-6 1e-6"')
    )
    (tmp_path / "point.xml").write_text(text)
    free = tuple(map(parse, (*FREE, "actuator/motor/gear")))
    found = identify(study(pendulum, model=str(tmp_path / "point.xml"), free=free), tmp_path / "out")
    assert any("do not determine" in w for w in found.summary["warnings"])
    assert any("body/pole/mass" in w and "actuator/motor/gear[0]" in w for w in found.summary["warnings"])


def test_a_bound_that_holds_is_said(pendulum, tmp_path):
    found = identify(study(pendulum, free=(parse("joint/hinge/damping=0.02@0:0.04"), parse(FREE[2]))), tmp_path / "out")
    assert found.summary["parameters"]["joint/hinge/damping"]["at_bound"]
    assert any(w.startswith("At a bound: joint/hinge/damping") for w in found.summary["warnings"])


def test_auto_says_why_and_counts_what_it_simulates(result):
    summary = result[1].summary
    assert summary["engine"] == "mujoco"
    assert "3 free numbers" in summary["engine_reason"]
    assert summary["simulated_steps"] > 0


def test_a_study_file_gives_the_same_study(pendulum, tmp_path):
    path = pendulum / "study.toml"
    path.write_text(
        'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nhold_out = ["run2"]\n'
        'free = ["joint/hinge/damping", {path = "body/pole/mass", init = 0.9, prior = [0.8, 0.1]}]\n'
    )
    found = IdentifyStudy.read(path)
    assert found.hold_out == "run2"
    assert found.free[1].prior == (0.8, 0.1)
    assert found.model == str(pendulum / "pendulum.xml")
    path.write_text('modle = "pendulum.xml"\n')
    with pytest.raises(DsoError, match=r"unknown key 'modle'.*'model'"):
        IdentifyStudy.read(path)


def test_a_damaged_run_file_is_refused(pendulum, result, tmp_path):
    for name in ("state", "records", "study", "status"):
        out = tmp_path / name
        out.mkdir()
        (out / "run.h5").write_bytes((result[0] / "run.h5").read_bytes())
        with h5py.File(out / "run.h5", "r+") as file:
            if name != "status":
                file["status"][()] = "running"
            del file[name]
        with pytest.raises(DsoError, match="damaged"):
            identify(study(pendulum), out, resume=True)


def test_a_recorded_state_of_another_model_is_refused(pendulum, tmp_path):
    log = record(0)
    wide = [dataclasses.replace(r, qpos=np.zeros((len(r.time), 3))) for r in log.rollouts]
    write_log(tmp_path / "log.h5", dataclasses.replace(log, rollouts=tuple(wide)))
    with pytest.raises(DsoError, match=r"qpos has 3 columns and the model's has 1"):
        identify(study(pendulum, logs=(str(tmp_path / "log.h5"),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outliers_lose_their_pull_and_delays_are_found(pendulum, tmp_path):
    log = record(3, noise=1.0)
    rng, rollouts = np.random.default_rng(0), []
    for rollout in log.rollouts:
        data = rollout.sensordata.copy()
        late = 0.012
        for c in range(2):
            data[:, c] = np.interp(rollout.time - late, rollout.time, rollout.sensordata[:, c])
        wild = rng.uniform(size=len(data)) < 0.05
        data[wild] += rng.normal(size=(wild.sum(), 2)) * [0.5, 5.0]
        rollouts.append(dataclasses.replace(rollout, sensordata=data))
    write_log(tmp_path / "log.h5", dataclasses.replace(log, rollouts=tuple(rollouts)))
    free = (*FREE, "sensor/angle/delay+sensor/speed/delay=0@0:0.05")
    asked = study(pendulum, logs=(str(tmp_path / "log.h5"),), free=tuple(map(parse, free)), robust=True)
    found = identify(asked, tmp_path / "out").summary
    table = found["parameters"]
    for path, truth in zip((*FREE, free[-1].split("=")[0]), (*TRUTH.values(), 0.012), strict=True):
        half = (table[path]["high95"] - table[path]["low95"]) / 2
        assert abs(table[path]["value"] - truth) < 2 * half
        assert half < 0.1 * truth
    assert found["noise"]["angle"]["value"] == pytest.approx(NOISE[0], rel=0.3)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    assert model.sensor_delay[0] == pytest.approx(0.012, abs=5e-4)


def test_a_residual_of_ones_own_and_known_noise(pendulum, tmp_path):
    (tmp_path / "scale.py").write_text("def weighed(p):\n    return (p['body/pole/mass'] - 0.9) / 1e-4\n")
    asked = study(pendulum, residual=f"{tmp_path}/scale.py:weighed", noise={"angle": 0.01})
    found = identify(asked, tmp_path / "out").summary
    assert found["parameters"]["body/pole/mass"]["value"] == pytest.approx(0.9, abs=1e-3)
    assert found["noise"]["angle"]["value"] == 0.01
    assert found["cost"]["terms"]["extra"] >= 0
    with pytest.raises(DsoError, match="no function 'weighted'"):
        identify(dataclasses.replace(asked, residual=f"{tmp_path}/scale.py:weighted"), tmp_path / "other")
    with pytest.raises(DsoError, match="no channel; the channels are angle, speed"):
        identify(dataclasses.replace(asked, residual=None, noise={"angel": 1.0}), tmp_path / "other")


def test_noise_and_start_states_by_path(pendulum, tmp_path):
    free = (*map(parse, FREE), parse("sensor/*/noise"), parse("log/run1/initial_state"))
    table = identify(study(pendulum, free=free), tmp_path / "out").summary["parameters"]
    for name, sigma in zip(("angle", "speed"), NOISE, strict=True):
        row = table[f"sensor/{name}/noise"]
        half = (row["high95"] - row["low95"]) / 2
        assert abs(row["value"] - sigma) < 2 * half
        # White noise of 2 runs of 400 samples: sigma / sqrt(2 N), within a factor of two.
        assert 0.5 < half / (1.96 * sigma / np.sqrt(1600)) < 2
    rng = np.random.default_rng(0)
    rng.normal(size=2), rng.normal(size=(21, 1)), rng.normal(size=(400, 2))  # what run0 drew
    truth = rng.normal(size=1)[0], rng.normal(size=1)[0]
    for k in range(2):
        row = table[f"log/run1/initial_state[{k}]"]
        half = (row["high95"] - row["low95"]) / 2
        assert abs(row["value"] - truth[k]) < 2 * half < 4 * NOISE[k]
    with pytest.raises(DsoError, match="no channel is called 'angel'"):
        identify(study(pendulum, free=(parse("sensor/angel/noise"),)), tmp_path / "other")
    with pytest.raises(DsoError, match="no recording is called 'run2'"):
        identify(study(pendulum, free=(parse("log/run2/initial_state"),)), tmp_path / "other")
