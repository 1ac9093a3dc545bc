"""Synthetic recording: exact without flaws, flawed as asked, the same for the same seed."""

import mujoco
import numpy as np
import pytest

from dso_robotics.data.controls import excitations, recorded_controls, sample_times
from dso_robotics.data.excitation import KINDS, excite
from dso_robotics.data.log import write_log
from dso_robotics.data.record import Flaws, record
from dso_robotics.errors import DsoError


def rng(seed=0):
    return np.random.default_rng(seed)


def short(arm, kind="multisine", **options):
    return excitations(arm, rng(), kind, **({"seconds": 0.4, "amplitude": 1.0} | options))


def test_samples_are_what_mujoco_computes_at_that_instant(arm):
    """Readings belong to the state before the step, controls act from their sample on."""
    log = record(arm, rng(1), short(arm), every=3, spread_qpos=0.4, spread_qvel=1.0, keep_state=True)
    rollout, data = log.rollouts[0], mujoco.MjData(arm)
    data.qpos[:], data.qvel[:] = rollout.qpos[0], rollout.qvel[0]
    assert np.abs(data.qpos).max() > 0
    for t in range(len(rollout.time)):
        assert data.time == pytest.approx(rollout.time[t])
        np.testing.assert_array_equal(rollout.sensordata[t], np.concatenate([data.qpos, data.qvel]))
        np.testing.assert_array_equal(rollout.qpos[t], data.qpos)
        data.ctrl[:] = rollout.ctrl[t]
        for _ in range(3):
            mujoco.mj_step(arm, data)
    assert rollout.sensor_names == ("shoulder_pos", "elbow_pos", "shoulder_vel", "elbow_vel")
    assert rollout.ctrl_units == ("N*m", "N*m")
    assert rollout.sensor_units == ("rad", "rad", "rad/s", "rad/s")


def test_the_seed_decides(arm):
    flaws = Flaws(sensor_noise={"*": 0.1}, action_noise={"tau1": 0.2})
    one, two, other = (record(arm, rng(s), short(arm), flaws=flaws, spread_qpos=0.1).rollouts[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.sensordata, two.sensordata)
    assert np.abs(one.sensordata - other.sensordata).max() > 0.01


def test_sensor_flaws(arm):
    controls = short(arm, seconds=2.0)
    clean = record(arm, rng(1), controls).rollouts[0].sensordata
    late = record(arm, rng(1), controls, flaws=Flaws(delay=3)).rollouts[0].sensordata
    np.testing.assert_array_equal(late[3:], clean[:-3])
    stepped = record(arm, rng(1), controls, flaws=Flaws(quantum={"elbow_pos": 0.01})).rollouts[0].sensordata
    np.testing.assert_allclose(stepped[:, 1], np.round(clean[:, 1] / 0.01) * 0.01)
    np.testing.assert_array_equal(np.delete(stepped, 1, 1), np.delete(clean, 1, 1))
    noisy = record(arm, rng(1), controls, flaws=Flaws(sensor_noise={"shoulder_vel": 0.5})).rollouts[0].sensordata
    error = (noisy - clean)[:, 2]
    count = len(error)
    assert abs(error.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * count)
    assert abs(error.mean()) < 4 * 0.5 / np.sqrt(count)
    np.testing.assert_array_equal(noisy[:, 0], clean[:, 0])


def test_action_noise_is_felt_but_not_logged(arm):
    controls = short(arm)
    clean, noisy = (record(arm, rng(1), controls, flaws=Flaws(action_noise=a)).rollouts[0] for a in ({}, {"*": 0.5}))
    np.testing.assert_array_equal(noisy.ctrl, controls[0][1])
    assert np.abs(noisy.sensordata - clean.sensordata).max() > 1e-3


def test_extra_forces_act(arm):
    def brake(_, data):
        data.qfrc_applied[:] = -5 * data.qvel

    free, braked = (record(arm, rng(1), short(arm), spread_qpos=1.0, force=f).rollouts[0] for f in (None, brake))
    assert np.abs(braked.sensordata[:, 2:]).max() < 0.7 * np.abs(free.sensordata[:, 2:]).max()


def test_quaternions_stay_unit():
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='.1'/><site name='s'/></body></worldbody>"
        "<sensor><gyro name='g' site='s'/></sensor></mujoco>"
    )
    controls = excitations(model, rng(), "none", seconds=0.1)
    log = record(model, rng(3), controls, spread_qpos=2.0, spread_qvel=1.0, keep_state=True)
    rollout = log.rollouts[0]
    assert rollout.ctrl is None
    assert rollout.sensor_names == ("g[0]", "g[1]", "g[2]")
    np.testing.assert_allclose(np.linalg.norm(rollout.qpos[:, 3:], axis=1), 1.0)
    assert abs(rollout.qpos[0, 3]) < 0.99
    with pytest.raises(DsoError, match="--excite none"):
        excitations(model, rng(), "steps", seconds=0.1)


def test_divergence_is_an_error_without_litter(arm, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DsoError, match=r"rollout '00': the simulation diverged near .* smaller"):
        record(arm, rng(), short(arm, amplitude=1e9))
    assert list(tmp_path.iterdir()) == []
    assert "WARNING" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", list(KINDS))
def test_excitations_fill_their_range_and_differ(arm, kind):
    signals = short(arm, kind, seconds=8.0, rollouts=2, amplitude={"tau1": 2.0, "tau2": 0.5})
    assert [name for name, _ in signals] == ["00", "01"]
    for _, ctrl in signals:
        assert ctrl.shape == (4000, 2)
        assert (np.abs(ctrl).max(axis=0) <= [2.0 + 1e-9, 0.5 + 1e-9]).all()
        assert (np.abs(ctrl).max(axis=0) >= [1.2, 0.3]).all()
        assert abs(np.corrcoef(ctrl.T)[0, 1]) < 0.8
    assert np.abs(signals[0][1] - signals[1][1]).max() > 0.5


def test_multisine_has_no_power_above_its_top(arm):
    time = sample_times(arm, 10.0)
    signal = excite("multisine", rng(), time, np.array([-1.0]), np.array([1.0]), top=3.0)[:, 0]
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(time), 0.002)
    assert power[frequency > 3.5].sum() < 0.01 * power.sum()
    assert power[(frequency > 2.5) & (frequency < 3.5)].sum() > 0.01 * power.sum()


def test_ctrlrange_bounds_the_excitation(models):
    spec = mujoco.MjSpec.from_file(str(models / "two_joint_arm.xml"))
    spec.actuators[0].ctrlrange, spec.actuators[0].ctrllimited = [-0.2, 0.6], True
    spec.actuators[1].ctrlrange, spec.actuators[1].ctrllimited = [-3, 3], True
    model = spec.compile()
    ((_, ctrl),) = excitations(model, rng(), "multisine", seconds=5.0, amplitude={"tau2": 1.0})
    assert ctrl[:, 0].min() >= -0.2 - 1e-9
    assert 0.5 < ctrl[:, 0].max() <= 0.6 + 1e-9
    assert 0.9 < np.abs(ctrl[:, 1]).max() <= 1.0 + 1e-9


def test_bad_requests(arm):
    with pytest.raises(DsoError, match=r"actuator 'tau1' has no ctrlrange.*--amplitude"):
        excitations(arm, rng(), "steps", seconds=1.0)
    with pytest.raises(DsoError, match="choose one of multisine, chirp, steps"):
        short(arm, "sine")
    with pytest.raises(DsoError, match="below 250 Hz"):
        short(arm, top=250.0)
    with pytest.raises(DsoError, match="no channel 'tau'"):
        short(arm, amplitude={"tau": 1.0})
    for seconds in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(DsoError, match="fewer than two samples"):
            short(arm, seconds=seconds)
    with pytest.raises(DsoError, match=r"shape \(10, 1\), expected \(samples, 2\)"):
        record(arm, rng(), [("x", np.zeros((10, 1)))])
    with pytest.raises(DsoError, match="delay of -1"):
        record(arm, rng(), short(arm), flaws=Flaws(delay=-1))
    with pytest.raises(DsoError, match="sensor noise: the model has no channel 'gyro'"):
        record(arm, rng(), short(arm), flaws=Flaws(sensor_noise={"gyro": 1.0}))


def test_controls_from_files(arm, tmp_path, log):
    write_log(tmp_path / "log.h5", log)
    played = recorded_controls(arm, tmp_path / "log.h5")
    assert [name for name, _ in played] == ["a", "b"]
    np.testing.assert_array_equal(played[0][1][::5], log["a"].ctrl)
    np.testing.assert_array_equal(played[0][1][4::5], log["a"].ctrl[:-1])
    (tmp_path / "u.csv").write_text("time,tau2,tau1\n0,1,2\n0.004,3,4\n0.008,5,6\n")
    ((name, ctrl),) = recorded_controls(arm, tmp_path / "u.csv", every=2)
    assert name == "u"
    np.testing.assert_array_equal(ctrl, [[2, 1], [4, 3], [6, 5]])
    (tmp_path / "u.csv").write_text("time,tau1\n0,1\n1,2\n")
    with pytest.raises(DsoError, match="no column 'tau2'"):
        recorded_controls(arm, tmp_path / "u.csv")
