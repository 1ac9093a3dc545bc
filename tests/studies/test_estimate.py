"""`dso estimate` from study file to runtime, on the test pendulum whose mass and friction the model has wrong."""

import json
import shutil
import time

import h5py
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.estimate_gain import pattern
from tests.pendulum import NOISE, TRUTH

STUDY = """
model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = "run2"
window = 1.0
free = ["joint/hinge/damping", "body/pole/mass", "sensor/angle/bias"]
covariance = true
"""


@pytest.fixture(scope="module")
def result(pendulum, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    study = pendulum / "estimate.toml"
    study.write_text(STUDY)
    assert main(["estimate", str(study), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_the_result_is_complete_and_finds_the_truth(result):
    summary = json.loads((result / "summary.json").read_text())
    assert summary["command"] == "estimate"
    assert summary["converged"]
    assert {"model.xml", "run.h5", "report.html"} <= {p.name for p in result.iterdir()}
    assert "innovations" in (result / "report.html").read_text()
    found = summary["parameters"]
    assert abs(found["body/pole/mass"]["value"] / TRUTH["mass"] - 1) < 0.05
    assert abs(found["sensor/angle/bias"]["value"]) < 0.01
    for channel, noise in zip(("angle", "speed"), NOISE, strict=True):
        fit = summary["fit"]["hold_out"][channel]
        # No better than the noise itself, and not much worse: friction is what the model still has wrong.
        assert noise < fit["rmse"] < 1.35 * noise
        assert 90 < fit["covered_percent"] < 99


def test_the_runtime_gives_what_training_saw(result, pendulum):
    log = read_log(pendulum / "pendulum.h5")
    rollout = log["run2"]
    assert rollout.sensordata is not None
    assert rollout.ctrl is not None
    estimator = Estimator.load(result)
    assert estimator.names == ("angle", "speed")
    estimator.reset(measurement=rollout.sensordata[0])
    errors = []
    for t in range(1, len(rollout.time)):
        estimate = estimator.update(rollout.ctrl[t - 1], rollout.sensordata[t], dt=0.01)
        errors.append(estimate.innovation)
    errors = np.array(errors)[80:]
    summary = json.loads((result / "summary.json").read_text())
    rmse = [summary["fit"]["hold_out"][name]["rmse"] for name in estimator.names]
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2, 0)), rmse, rtol=0.03)
    # A missing measurement is none: the state is the prediction, and the next update goes on from it.
    before = estimator.update([0.1], {"angle": np.nan})
    np.testing.assert_allclose([before.qpos[0], before.qvel[0]], before.predicted - [_bias(result), 0], atol=1e-9)
    assert np.isnan(before.innovation).all()
    assert estimator.update([0.1], [np.nan, 0.3]).qvel[0] != estimator.update([0.1], [0.2, np.nan]).qvel[0]


def _bias(result) -> float:
    return json.loads((result / "summary.json").read_text())["parameters"]["sensor/angle/bias"]["value"]


def test_the_batch_form_gives_what_the_runtime_gives(result):
    import jax

    from dso_robotics.robot.filter_jax import FilterWindow
    from dso_robotics.robot.filter_mjx import load_batch

    rng, shape = np.random.default_rng(0), (2, 12)
    ctrl, measured = rng.normal(size=(*shape, 1)), 0.3 * rng.normal(size=(*shape, 2))
    measured[0, 5, 0] = measured[1, 7] = np.nan
    ones = np.ones(shape, bool)
    chain, theta = load_batch(result)
    windows = FilterWindow(np.zeros((2, 2)), ctrl, measured, ones, ones, np.full((*shape, 2), np.nan))
    run = jax.jit(jax.vmap(chain.run, in_axes=(None, 0)))(theta, windows)
    for b in range(2):
        estimator = Estimator.load(result)
        estimator.reset(qpos=[0.0])
        for t in range(1, shape[1]):
            estimate = estimator.update(ctrl[b, t - 1], measured[b, t])
            np.testing.assert_allclose(run.states[b, t - 1], [*estimate.qpos, *estimate.qvel], atol=1e-7)
            np.testing.assert_allclose(np.exp(run.log_scale[b, t - 1]), estimate.std, rtol=1e-6)


def test_bad_input_at_run_time_changes_nothing(result):
    estimator = Estimator.load(result)
    with pytest.raises(DsoError, match="reset"):
        estimator.update([0.0], [0.0, 0.0])
    for call, text in (
        (lambda: estimator.reset(qpos=[0.0, 1.0]), "qpos has shape"),
        (lambda: estimator.reset(qvel=[np.nan]), "finite"),
        (lambda: estimator.reset(measurement=[0.0]), "2 channels"),
    ):
        with pytest.raises(DsoError, match=text):
            call()
    estimator.reset(qpos=[0.5])
    good = estimator.update([0.1], [0.5, 0.0])
    for call, text in (
        (lambda: estimator.update([0.1], [0.5]), "2 channels: angle, speed"),
        (lambda: estimator.update([0.1], [0.5, 0.0, 0.0]), "2 channels"),
        (lambda: estimator.update([0.1, 0.2], [0.5, 0.0]), "ctrl has shape"),
        (lambda: estimator.update([np.nan], [0.5, 0.0]), "finite"),
        (lambda: estimator.update([0.1], [np.inf, 0.0]), "'angle' is infinite"),
        (lambda: estimator.update([0.1], {"angel": 0.1}), "no channel 'angel'.*'angle'"),
        (lambda: estimator.update([0.1], [0.5, 0.0], dt=0.015), "whole number"),
        (lambda: estimator.update([0.1], [0.5, 0.0], dt=-0.01), "whole number"),
        (lambda: estimator.update([0.1], [0.5, 0.0], dt=float("nan")), "whole number"),
    ):
        with pytest.raises(DsoError, match=text):
            call()
    again = Estimator.load(result)
    again.reset(qpos=[0.5])
    again.update([0.1], [0.5, 0.0])
    ours, theirs = estimator.update([0.2], [0.51, 0.1]), again.update([0.2], [0.51, 0.1])
    np.testing.assert_array_equal(ours.qpos, theirs.qpos)
    np.testing.assert_array_equal(ours.qvel, theirs.qvel)
    assert good.qpos[0] != ours.qpos[0]


def test_a_prediction_that_blows_up_is_said_and_not_kept(result):
    estimator = Estimator.load(result)
    estimator.reset(qvel=[1.0])
    for _ in range(2):
        with pytest.raises(DsoError, match="blew up"):
            estimator.update([9e9], [0.0, 0.0], dt=100.0)
    assert abs(estimator.update([0.0], [np.nan, np.nan], dt=0.01).qpos[0] - 0.01) < 1e-3


@pytest.mark.parametrize("reading", [1e12, 1e9, 1e7, -1e300, 1e5])
def test_one_absurd_reading_never_disables_the_estimator(result, tmp_path, monkeypatch, reading):
    monkeypatch.chdir(tmp_path)
    estimator, again = Estimator.load(result), Estimator.load(result)
    for one in (estimator, again):
        one.reset(qpos=[0.5])
        one.update([0.1], [0.5, 0.0])
    try:
        estimator.update([0.1], [reading, 0.0])
        refused = False
    except DsoError:
        refused = True
    # What was refused moved nothing; what was taken in does not stop the next updates.
    for _ in range(50):
        ours, theirs = estimator.update([0.2], [0.51, 0.1]), again.update([0.2], [0.51, 0.1])
        assert not refused or ours.qpos[0] == theirs.qpos[0]
    assert refused == (abs(reading) > 1e6)
    assert np.isfinite(ours.qpos).all()
    assert list(tmp_path.iterdir()) == []


def test_wrong_types_at_run_time_are_refused(result):
    estimator = Estimator.load(result)
    estimator.reset(qpos=[0.5])
    for call in (
        lambda: estimator.update("motor", [0.5, 0.0]),
        lambda: estimator.update([0.1], ["a", 0.0]),
        lambda: estimator.update([0.1], [[0.5], [0.1, 0.2]]),
        lambda: estimator.update([0.1], {"angle": None, "speed": "fast"}),
        lambda: estimator.update([1j], [0.5, 0.0]),
        lambda: estimator.update([0.1], [0.5, 0.0], dt="soon"),
        lambda: estimator.update([0.1], [0.5, 0.0], dt=[0.01, 0.01]),
        lambda: estimator.update([0.1], [0.5, 0.0], dt=1e5),
        lambda: estimator.reset(qpos="up"),
        lambda: estimator.reset(measurement=object()),
    ):
        began = time.process_time()
        with pytest.raises(DsoError) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert time.process_time() - began < 1.0


def test_another_model_in_the_folder_is_refused(result, tmp_path):
    shutil.copytree(result, tmp_path / "out")
    path = tmp_path / "out" / "model.xml"
    text = path.read_text()
    sensors = [line for line in text.splitlines() if "<jointpos" in line or "<jointvel" in line]
    assert len(sensors) == 2
    swapped = text.replace(sensors[0], "@").replace(sensors[1], sensors[0]).replace("@", sensors[1])
    for changed in (swapped, text.replace('name="angle"', 'name="angel"'), text.replace("-0.3", "-0.4")):
        assert changed != text
        path.write_text(changed)
        with pytest.raises(DsoError, match=r"model\.xml: this is not the model"):
            Estimator.load(tmp_path / "out")
    # Without the digest of the run file, names and places are compared.
    path.write_text(swapped)
    with h5py.File(tmp_path / "out" / "run.h5", "r+") as file:
        del file["model_digest"]
    with pytest.raises(DsoError, match="'angle' was reading 0 of the model in training and is at 1"):
        Estimator.load(tmp_path / "out")
    path.write_text(f"<!-- a note -->\n{text}")
    Estimator.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", [np.nan, 1.0]),
        ("addresses", [-1, 0]),
        ("addresses", [0, 99]),
        ("interval", 1e9),
        ("substeps", 0),
        ("scale", [0.0, 1.0]),
        ("sizes", [2, 10**9, 2, 0]),
        ("scale", [1.0, 1.0, 1.0]),
    ],
)
def test_numbers_that_no_training_writes_are_refused(result, tmp_path, name, value):
    shutil.copytree(result, tmp_path / "out")
    with h5py.File(tmp_path / "out" / "run.h5", "r+") as file:
        del file[f"estimator/{name}"]
        file[f"estimator/{name}"] = value
    with pytest.raises(DsoError):
        Estimator.load(tmp_path / "out")


def test_an_update_is_quick(result):
    estimator = Estimator.load(result)
    estimator.reset()
    took = []
    for _ in range(300):
        began = time.process_time()
        estimator.update([0.1], [0.1, 0.0], dt=0.01)
        took.append(time.process_time() - began)
    # Measured 0.04 ms; the bound allows for a slow and busy machine.
    assert np.median(took) < 1e-3


def test_folders_that_hold_no_estimator_are_refused(tmp_path, result):
    with pytest.raises(DsoError, match="no run file"):
        Estimator.load(tmp_path)
    (tmp_path / "run.h5").write_bytes((result / "run.h5").read_bytes()[:2000])
    with pytest.raises(DsoError, match="damaged"):
        Estimator.load(tmp_path)
    (tmp_path / "run.h5").write_bytes((result / "run.h5").read_bytes())
    (tmp_path / "model.xml").write_text("<mujoco><worldbody/></mujoco>")
    with pytest.raises(DsoError, match="not the model"):
        Estimator.load(tmp_path)


def rewritten(pendulum, tmp_path, **changes):
    """A study of the pendulum whose log has something wrong in its first rollout."""
    log = read_log(pendulum / "pendulum.h5")
    first = log.rollouts[0]
    kept = {name: getattr(first, name) for name in ("name", "time", "ctrl", "ctrl_names", "ctrl_units")}
    kept |= {name: getattr(first, name) for name in ("sensordata", "sensor_names", "sensor_units")}
    write_log(tmp_path / "pendulum.h5", Log("", "test", "CC0", (Rollout(**(kept | changes)), *log.rollouts[1:])))
    (tmp_path / "pendulum.xml").write_text((pendulum / "pendulum.xml").read_text())


def refused(capsys, folder, text, study=""):
    (folder / "study.toml").write_text('model = "pendulum.xml"\nlogs = ["pendulum.h5"]\n' + study)
    assert main(["estimate", str(folder / "study.toml"), "--out", str(folder / "out")]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert all(line.startswith("note: ") for line in said.splitlines()[:-1])
    assert not (folder / "out").exists()


def test_bad_logs_are_refused_in_one_line(capsys, pendulum, tmp_path):
    log = read_log(pendulum / "pendulum.h5")
    first = log.rollouts[0]
    assert first.sensordata is not None
    rewritten(pendulum, tmp_path)
    refused(capsys, tmp_path, "'elbow' is not in the model", 'sensors = ["elbow"]')
    refused(capsys, tmp_path, "shorter than a window", "window = 100.0")
    refused(capsys, tmp_path, "at least 8 are needed", "window = 0.02")
    gain = 'corrector = "gain"\n'
    refused(capsys, tmp_path, "write timestep = 0.00333333", f"{gain}timestep = 0.004")
    refused(capsys, tmp_path, "no late actuators", 'free = ["actuator/motor/delay"]')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    assert main(["estimate", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out")]) == 2
    assert (tmp_path / "out" / "mine").read_text() == "keep"
    capsys.readouterr()
    (tmp_path / "out" / "mine").unlink()
    (tmp_path / "out").rmdir()
    time = first.time.copy()
    time[50:] += 0.004
    rewritten(pendulum, tmp_path, time=time)
    refused(capsys, tmp_path, "samples 49 and 50 are 0.014 s apart", gain)
    rewritten(pendulum, tmp_path, time=1.5 * first.time)
    text = "samples 0 and 1 are 0.015 s apart, which is no whole number of the interval of 0.01 s"
    refused(capsys, tmp_path, text, gain)
    refused(capsys, tmp_path, "pendulum.h5 --resample 100 --out new.h5", gain)
    measured = first.sensordata.copy()
    measured[:5] = np.nan
    rewritten(pendulum, tmp_path, sensordata=measured)
    refused(capsys, tmp_path, "nothing was measured at its start")
    rewritten(pendulum, tmp_path, sensor_units=("deg", "rad/s"))
    refused(capsys, tmp_path, "is in deg but the model's is in rad")
    names = {"sensordata": first.sensordata[:, :1], "sensor_names": ("angle",), "sensor_units": ("rad",)}
    log = Log("", "test", "CC0", (Rollout(name="a", time=first.time, ctrl=first.ctrl, ctrl_names=("motor",), **names),))
    write_log(tmp_path / "pendulum.h5", log)
    refused(capsys, tmp_path, "sensor speed of the model is not in the log", 'sensors = ["speed"]')


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('corrector = "magic"', "gain, linear, mlp, recurrent"),
        ("corrector = 3", 'write corrector = "gain"'),
        ("window = -1.0", "a positive number; write window = 1.0"),
        ("window = true", "write window = 1.0"),
        ("robust = 0.0", "a positive number or auto"),
        ('robust = "magic"', 'robust = "auto"'),
        ("supervised = -1.0", "a number from 0"),
        ("units = 0", "from 1 to 1000"),
        ("ahead = 0", "from 1 to 1000"),
        ("warm_up = 1.0", "a number from 0 to below 0.9"),
        ("validation = 0.8", "from 0 to 0.5"),
        ("validation = 0.01", "sets none apart"),
        ('engine = "warp"', "auto, mujoco, mjx"),
        ("iterations = 0", "from 1 to 1000000"),
        ("windw = 1.0", "unknown key 'windw'; it takes 'window'"),
        ('free = ["joint/hinge/dampin"]', "damping"),
        ("seed = 1.5", "write seed = 0"),
        ("sensors = [1]", "write sensors ="),
        ("x = ", "not a TOML file"),
    ],
)
def test_bad_studies_are_refused_in_one_line(capsys, pendulum, tmp_path, line, text):
    rewritten(pendulum, tmp_path)
    refused(capsys, tmp_path, text, line)


def test_prediction_ahead_hides_samples_and_counts_them():
    lead, visible = pattern(22, 1)
    assert visible.all()
    assert (lead == 0).all()
    lead, visible = pattern(22, 3)
    assert list(np.flatnonzero(~visible)) == [12, 13]
    # Samples 12, 13, 14 are predicted 1, 2 and 3 steps after the last one seen; row t of lead belongs to sample t + 1.
    assert list(lead[10:15]) == [0, 0, 1, 2, 0]


def test_sensors_at_different_rates_prediction_ahead_and_students_t(pendulum, tmp_path, capsys):
    log = read_log(pendulum / "pendulum.h5")
    first = log.rollouts[0]
    assert first.sensordata is not None
    measured = first.sensordata.copy()
    measured[np.arange(len(measured)) % 5 != 0, 0] = np.nan
    rewritten(pendulum, tmp_path, sensordata=measured)
    (tmp_path / "study.toml").write_text(
        'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nhold_out = "run1"\nfree = ["body/pole/mass"]\n'
        'corrector = "recurrent"\nunits = 2\niterations = 4\nahead = 3\nrobust = "auto"\nwindow = 0.8\n'
    )
    assert main(["estimate", str(tmp_path / "study.toml"), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    ahead = summary["noise_ahead"]["angle"]
    assert len(ahead) == 3
    assert ahead[0] < ahead[1] < ahead[2]
    assert summary["fit"]["hold_out"]["speed"]["rmse"] < 0.1
    assert any("did not converge" in text for text in summary["warnings"])
