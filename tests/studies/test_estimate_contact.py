"""`dso estimate` with feet: their standing corrects the base's velocity, their slipping does not spoil it."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.errors import DsoError
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.moving_horizon import MovingHorizon
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from tests.robot.hopping import hopping, hops, pushed
from tests.robot.stepping import STEPPER, readings, stepping, steps

FOOT = {"channel": "touch", "site": "sole", "above": 5.0, "noise": 0.02}


def run(folder, given: Log, **keys):
    write_log(folder / "log.h5", given)
    (folder / "model.xml").write_text(STEPPER)
    keys = {"hold_out": given.rollouts[-1].name, "strapdown": "acc", "iterations": 2} | keys
    study = EstimateStudy.read(None, model=str(folder / "model.xml"), logs=[str(folder / "log.h5")], **keys)
    return estimate(study, folder / "out", force=True)


def replayed(made, rollout) -> tuple[np.ndarray, np.ndarray]:
    """Errors (T-1, 2 nv) over a run, and the squares of that of the base's velocity over its variance."""
    assert rollout.qpos is not None
    assert rollout.qvel is not None
    columns = [rollout.sensor_names.index(name) for name in made.readings]
    made.reset(measurement=readings(rollout)[0, columns])
    off, square = [], []
    for k in range(1, len(rollout.time)):
        found = made.update(readings(rollout)[k, 2:5], readings(rollout)[k, columns])
        off.append(np.concatenate([found.qpos - rollout.qpos[k], found.qvel - rollout.qvel[k]]))
        square.append(off[-1][2] ** 2 / found.covariance[2, 2])
    return np.array(off)[100:], np.array(square)[100:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("feet")
    run(found, stepping(), contact={"foot": FOOT}, smooth=True)
    return found


def test_a_foot_that_stands_shows_the_velocity_of_the_base(folder, tmp_path):
    made, held = Estimator.load(folder / "out"), steps("held", 7)
    assert made.readings == ("encoder", "rate", "touch")
    assert made.names == ("encoder", "rate", "contact.foot[0]")
    assert made.ctrl_names == ("acc[0]", "acc[1]", "acc[2]")
    off, square = replayed(made, held)
    assert np.sqrt(np.mean(off[:, 2] ** 2)) < 0.02
    assert 0.3 < np.mean(square) < 2
    # Without feet the accelerometer's bias of 0.1 m/s^2 is integrated.
    run(tmp_path, stepping())
    alone, _ = replayed(Estimator.load(tmp_path / "out"), held)
    assert np.sqrt(np.mean(alone[:, 2] ** 2)) > 0.08


def test_a_foot_that_slips_is_left_out_and_nothing_starts_anew(folder):
    made, slipping = Estimator.load(folder / "out"), steps("held", 7, slip=(3.0, 3.4))
    off, _ = replayed(made, slipping)
    assert made.gated["contact.foot"] > 20
    assert np.abs(off[:, 2]).max() < 0.15
    believed, _ = replayed(
        made, dataclasses.replace(slipping, sensordata=np.where(np.arange(7) == 5, 0.0, readings(slipping)))
    )
    assert np.abs(believed[:, 2]).max() > 0.2  # never told of standing


def test_a_mapping_names_what_is_measured_and_nothing_measured_is_no_contact(folder):
    made, held = Estimator.load(folder / "out"), steps("held", 7)
    made.reset(measurement={"encoder": readings(held)[0, 0]})
    none = made.update(readings(held)[1, 2:5], {"encoder": readings(held)[1, 0]})
    assert np.isnan(none.innovation[2])
    stands = made.update(readings(held)[2, 2:5], {"encoder": readings(held)[2, 0], "touch": 30.0})
    assert np.isfinite(stands.innovation[2])
    with pytest.raises(DsoError, match="no channel 'switch'; it has 'touch'"):
        made.update(readings(held)[2, 2:5], {"switch": 1.0})


def test_late_readings_smoother_and_moving_horizon_know_of_feet(folder):
    # It ends while the foot stands, of which nothing was told for half a second.
    made, held = Estimator.load(folder / "out"), steps("held", 7, seconds=3.6)
    data = readings(held).copy()
    data[300:, 5] = np.nan
    replayed(made, dataclasses.replace(held, sensordata=data))
    before = made.belief.covariance[2, 2]
    assert made.late({"touch": 30.0}, age=0.02).covariance[2, 2] < 0.9 * before
    off, _ = replayed(MovingHorizon.load(folder / "out", samples=3), steps("held", 7, seconds=2.5))
    assert np.sqrt(np.mean(off[:, 2] ** 2)) < 0.03
    smoothed = next(r for r in read_log(folder / "out" / "smoothed.h5").rollouts if r.name == "run1")
    true_run = steps("run1", 1)
    assert smoothed.qvel is not None
    assert true_run.qvel is not None
    true = {round(t, 6): v for t, v in zip(true_run.time, true_run.qvel[:, 0], strict=True)}
    error = smoothed.qvel[:, 0] - [true[round(t, 6)] for t in smoothed.time]
    assert np.sqrt(np.mean(error**2)) < 0.02


def test_a_bias_is_found_together_with_the_motion_of_feet(tmp_path):
    """The encoder's rate is 0.1 rad/s too high. A foot that stands and the encoder tell that."""
    given = []
    for r in stepping(3).rollouts:
        data = readings(r).copy()
        data[:, 1] += 0.1
        given.append(dataclasses.replace(r, sensordata=data))
    log = Log("", "test", "CC0", tuple(given))
    summary = run(tmp_path, log, contact={"foot": FOOT}, smooth=True, free=["sensor/rate/bias"])
    for row in (summary["parameters"], summary["smoother"]["train"]["parameters"]):
        found = row["sensor/rate/bias"]
        assert abs(found["value"] - 0.1) < found["high95"] - found["low95"] < 0.05
    # The base's speed; where it is, nothing tells.
    assert summary["smoother"]["hold_out"]["rmse"][2] < 0.02


def test_a_channel_that_is_no_sensor_tells_too(tmp_path):
    summary = run(tmp_path, stepping(2), contact={"foot": {"channel": "switch", "geom": "foot"}}, iterations=1)
    assert "contact.foot[0]" in summary["noise"]
    assert not any("'switch' is no sensor" in text for text in summary["warnings"])
    assert Estimator.load(tmp_path / "out").readings == ("encoder", "rate", "switch")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"contact": {"foot": {"channel": "touch"}}}, "by one of site, body and geom"),
        ({"contact": {"foot": FOOT | {"site": "heel"}}}, "has no such site; it has"),
        (
            {"contact": {"foot": FOOT | {"channel": "tuch"}}},
            r"no channel 'tuch', which \[contact.foot\] needs; it has 'touch'",
        ),
        ({"contact": {"foot": FOOT | {"above": 99.0}}}, "is at most 30 in .* so the foot never stands"),
        ({"contact": {"foot": {"channel": "touch", "geom": "floor"}}}, "does not move"),
        ({"contact": {"foot": FOOT}, "corrector": "gain"}, r"'gain' does not do strapdown"),
        ({"free": ["sensor/rate/bias", "body/base/mass=2"]}, "'body/base/mass' is free, but forces, masses"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path, keys, text):
    with pytest.raises(DsoError, match=text):
        run(tmp_path, stepping(1, seconds=2.0), hold_out=None, **keys)


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "state"), [("height", False), ("friction", True)])
def test_a_wrong_ground_gives_a_stable_filter_that_is_not_called_converged(tmp_path, wrong, state):
    """The ground is 5 cm too low in the model, or so rough that feet do not slip. What is left out would not show in NIS."""
    given = hopping(friction=0.1 if wrong == "friction" else 0.6)
    if not state:
        bare = tuple(dataclasses.replace(r, qpos=None, qvel=None) for r in given.rollouts)
        given = dataclasses.replace(given, rollouts=bare)
    write_log(tmp_path / "log.h5", given)
    (tmp_path / "model.xml").write_text(pushed(height=-0.05) if wrong == "height" else pushed(friction=2.0))
    study = EstimateStudy.read(
        None, model=str(tmp_path / "model.xml"), logs=[str(tmp_path / "log.h5")], hold_out="run2", iterations=3,
        sensors=["encoder", "rate", "acc", "seen"], contact={"foot": FOOT | {"above": 3.0}},
    )  # fmt: skip
    summary = estimate(study, tmp_path / "out")
    assert all(part["stable"] for part in summary["stability"].values())
    assert not summary["converged"]
    assert any("Forces of the model's ground act on foot" in text for text in summary["doubts"])
    assert any("acc: " in text and "taken for wild" in text for text in summary["doubts"])
    made, held = Estimator.load(tmp_path / "out"), given.rollouts[-1]
    columns = [held.sensor_names.index(name) for name in made.readings]
    made.reset(measurement=readings(held)[0, columns])
    for k in range(1, len(held.time)):
        found = made.update(held.ctrl[k - 1], readings(held)[k, columns])
    # The camera keeps it near for all that.
    assert np.abs(found.qpos[:2] - hops(2, friction=0.1 if wrong == "friction" else 0.6).qpos[-1, :2]).max() < 0.2
