"""What speaks against a result that converged is said: in the table, in summary.json, and with a cure."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.report.table import identification_table
from dso_robotics.studies.identify import identify
from dso_robotics.studies.misfit import likeness, own_noise
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import NOISE, PENDULUM, TRUTH, record

FREE = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")


def run(tmp_path, log, free=FREE, model=None, **options):
    (tmp_path / "pendulum.xml").write_text(model or PENDULUM.format(**TRUTH))
    write_log(tmp_path / "log.h5", log)
    study = IdentifyStudy(
        str(tmp_path / "pendulum.xml"), (str(tmp_path / "log.h5"),), tuple(map(parse, free)), **options
    )
    return identify(study, tmp_path / "out", force=True).summary


def told(summary, words):
    return [text for text in summary["warnings"] if words in text]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return run(tmp_path_factory.mktemp("clean"), record(0), hold_out="run2")


def test_a_right_model_raises_no_doubt(clean):
    assert clean["doubts"] == []
    assert not told(clean, "residuals are")
    for ratio in clean["misfit"].values():
        assert ratio == pytest.approx(1.0, abs=0.12)
    assert "\nconverged: " in identification_table(clean)


def test_noise_of_a_smooth_signal_is_what_was_added():
    rng, time = np.random.default_rng(0), np.linspace(0, 4, 4000)
    values = np.stack([np.sin(3 * time), 50 * time, np.full(4000, 2.0)], 1) + rng.normal(size=(4000, 3)) * [
        0.01,
        0.3,
        0.1,
    ]
    values[rng.uniform(size=values.shape) < 0.2] = np.nan
    np.testing.assert_allclose(own_noise(values.reshape(8, 500, 3)), [0.01, 0.3, 0.1], rtol=0.06)


def test_residuals_that_are_no_noise_put_the_result_in_doubt(tmp_path):
    """The motor of the log gave at most 0.4 N*m, and the model knows no limit."""
    log = record(0)
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(**TRUTH))
    rollouts = []
    for r in log.rollouts:
        data, rows = mujoco.MjData(model), []
        for u in r.ctrl:
            data.ctrl[:] = np.clip(u, -0.4, 0.4)
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        noise = NOISE * np.random.default_rng(1).normal(size=(len(rows), 2))
        rollouts.append(dataclasses.replace(r, sensordata=np.array(rows) + noise))
    summary = run(tmp_path, dataclasses.replace(log, rollouts=tuple(rollouts)))
    (text,) = told(summary, "residuals are no noise")
    assert text in summary["doubts"]
    assert summary["converged"]
    assert summary["misfit"]["angle"] > 5
    # The ratio is that of the noise in the table to the noise that was added.
    assert summary["misfit"]["angle"] == pytest.approx(summary["noise"]["angle"]["value"] / NOISE[0], rel=0.15)
    assert "converged, but doubtful" in identification_table(summary)


def test_small_residuals_that_are_alike_are_no_noise(tmp_path):
    """The mass of the model is 1.2% wrong: the residuals are hardly larger than the noise, but each is like the one before."""
    free, model = FREE[:2], PENDULUM.format(**{**TRUTH, "mass": 1.012 * TRUTH["mass"]})
    summary = run(tmp_path, record(0), free=free, model=model)
    assert 1.08 < summary["misfit"]["speed"] < 1.25
    assert told(summary, "residuals are not only noise")
    assert summary["doubts"] == []


def test_the_likeness_of_neighbours_is_that_of_the_process():
    rng, values = np.random.default_rng(0), np.zeros((4, 2000, 2))
    drive = rng.normal(size=values.shape)
    for k in range(1, 2000):
        values[:, k, 0] = 0.5 * values[:, k - 1, 0] + drive[:, k, 0]
    values[..., 1] = drive[..., 1]
    found, error = likeness(values)
    np.testing.assert_allclose(found, [0.5, 0.0], atol=0.04)
    np.testing.assert_allclose(error, 1 / np.sqrt(4 * 1999))


def test_the_quantum_of_an_encoder_is_noise(tmp_path):
    log = record(0, noise=0.0)
    step = np.array([0.01, 0.1])
    rollouts = [dataclasses.replace(r, sensordata=np.round(r.sensordata / step) * step) for r in log.rollouts]
    summary = run(tmp_path, dataclasses.replace(log, rollouts=tuple(rollouts)))
    assert not told(summary, "residuals are no noise")


def test_a_fit_no_better_than_a_line_is_told(tmp_path, clean):
    """The controls of another run: no number of the model explains the motion."""
    log = record(0)
    a, b, c = log.rollouts
    swapped = [dataclasses.replace(r, ctrl=o.ctrl) for r, o in ((a, b), (b, c), (c, a))]
    free = ("joint/hinge/damping", "body/pole/mass@0.1:5")
    summary = run(tmp_path, dataclasses.replace(log, rollouts=tuple(swapped)), free)
    (text,) = told(summary, "no better than a constant")
    assert "speed" in text
    assert text in summary["doubts"]
    assert not told(clean, "no better than a constant")


def test_held_out_runs_beyond_the_fitted_range_are_named(tmp_path):
    model = mujoco.MjModel.from_xml_string(PENDULUM.format(**TRUTH))
    rollouts = []
    for name, size, start in (("small", 0.3, 0.1), ("other", 0.3, -0.2), ("large", 3.0, 1.5)):
        data, rows = mujoco.MjData(model), []
        data.qpos[:] = start
        ctrl = size * np.sin(np.arange(400) * 0.03)[:, None]
        for u in ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        noise = NOISE * np.random.default_rng(len(rollouts)).normal(size=(400, 2))
        rollouts.append(
            Rollout(
                name=name,
                time=0.01 * np.arange(400),
                ctrl=ctrl,
                ctrl_names=("motor",),
                ctrl_units=("N*m",),
                sensordata=np.array(rows) + noise,
                sensor_names=("angle", "speed"),
                sensor_units=("rad", "rad/s"),
            )
        )
    summary = run(tmp_path, Log("", "simulated for a test", "CC0", tuple(rollouts)), hold_out="large")
    (text,) = told(summary, "extrapolate")
    angle = rollouts[2].sensordata[:, 0]
    assert f"hinge {angle.min():.3g} to {angle.max():.3g} rad" in text
    assert "the control of motor -3 to 3, fitted -0.3 to 0.3" in text
    inside = run(tmp_path, Log("", "simulated for a test", "CC0", tuple(rollouts)), hold_out="other")
    assert not told(inside, "extrapolate")


def test_values_that_predict_worse_than_the_start_on_held_out_runs(tmp_path):
    """In the fitted runs a spring acts that the model lacks; in the held-out run it does not, and the start is the truth."""
    sprung = PENDULUM.format(**TRUTH).replace('name="hinge" axis', 'name="hinge" stiffness="1" axis')
    log, model = record(0), mujoco.MjModel.from_xml_string(sprung)
    rollouts = []
    for r in log.rollouts[:2]:
        data, rows = mujoco.MjData(model), []
        for u in r.ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        rollouts.append(
            dataclasses.replace(r, sensordata=np.array(rows) + NOISE * np.random.default_rng(1).normal(size=(400, 2)))
        )
    summary = run(tmp_path, dataclasses.replace(log, rollouts=(*rollouts, log.rollouts[2])), hold_out="run2")
    (text,) = told(summary, "worse than the start values")
    assert text in summary["doubts"]


def test_a_held_out_copy_of_a_fitted_run_is_told(tmp_path):
    log = record(0, runs=2)
    cut = slice(50, 350)
    a = log.rollouts[0]
    copy = dataclasses.replace(a, name="new", time=a.time[cut] + 3.0, ctrl=a.ctrl[cut], sensordata=a.sensordata[cut])
    summary = run(tmp_path, dataclasses.replace(log, rollouts=(*log.rollouts, copy)), hold_out="new")
    assert told(summary, "rollout 'run0' has 75% of its samples from those of 'new'")


def test_an_interval_wider_than_its_number_is_not_determined(tmp_path):
    """A friction of a tenth of what 12 short windows can tell."""
    model = PENDULUM.format(damping=0.08, frictionloss=0.0, mass=0.7)
    summary = run(
        tmp_path, record(0, noise=20.0), ("joint/hinge/damping=0.05", "joint/hinge/frictionloss=0.1"), model=model
    )
    for entry in summary["parameters"].values():
        wide = entry["high95"] - entry["low95"] > abs(entry["value"])
        assert entry["determined"] == (entry["at_bound"] or not wide)


def late(log, seconds):
    """Runs of `log` with controls of 2 Hz that act `seconds` later."""
    model, time, rollouts = mujoco.MjModel.from_xml_string(PENDULUM.format(**TRUTH)), 0.01 * np.arange(400), []
    for k, r in enumerate(log.rollouts):
        data, rows = mujoco.MjData(model), []
        shape = lambda t, k=k: (1 + 0.5 * np.sin(1.3 * t + k)) * np.sin(2 * np.pi * 2 * t)  # noqa: E731
        for t in time:
            data.ctrl[:] = shape(max(t - seconds, 0.0))
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        noise = NOISE * np.random.default_rng(k).normal(size=(400, 2))
        rollouts.append(dataclasses.replace(r, ctrl=shape(time)[:, None], sensordata=np.array(rows) + noise))
    return dataclasses.replace(log, rollouts=tuple(rollouts))


def test_a_local_minimum_is_left_and_told(tmp_path):
    """A delay of one period of the control too much looks right from nearby."""
    log = late(record(0, runs=2), 0.05)
    summary = run(tmp_path, log, ("actuator/motor/delay=0.55@0:0.8", "joint/hinge/damping=0.3"))
    assert summary["race"]["chosen"] >= 0
    assert summary["parameters"]["actuator/motor/delay"]["value"] == pytest.approx(0.05, abs=0.001)
    (text,) = told(summary, "local minimum")
    assert text in summary["doubts"]
    right = run(tmp_path, log, ("actuator/motor/delay=0.1@0:0.8", "joint/hinge/damping=0.3"))
    assert right["race"]["chosen"] == -1
    assert right["doubts"] == []
    assert summary["cost"]["total"] == pytest.approx(right["cost"]["total"], abs=0.5)
