"""The innovation gate: as many right readings pass as it says, wild ones do not, and a lost estimate recovers."""

import mujoco
import numpy as np
import pytest
import scipy.stats

from dso_robotics.errors import DsoError
from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.innovation_gate import InnovationGate, chi_squared_quantile
from dso_robotics.robot.learned import Learned

MODEL = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.1"/>
      <inertial pos="0 0 -0.3" mass="0.7" diaginertia="0.01 0.01 0.001"/>
    </body>
  </worldbody>
  <sensor><jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/></sensor>
</mujoco>
"""
SIGMA = np.array([0.005, 0.1])


def estimator(gate: float) -> Estimator:
    model = mujoco.MjModel.from_xml_string(MODEL)
    corrector = make_corrector("gain", 2, 2, Space(model).features_size)
    ones, none = np.ones(2), np.zeros(2)
    learned = Learned(
        corrector=corrector,
        weights=corrector.initial(np.array([[0.3, 0.0], [1.0, 0.2]])),
        scales=Scales(ones, ones, none, ones),
        scale=ones,
        bias=none,
        delay=none,
        sigma=SIGMA,
        spread=np.zeros((2, corrector.nf)),
        covariance=None,
        names=("angle", "speed"),
        addresses=np.array([0, 1]),
        interval=0.01,
        substeps=1,
        gate=gate,
    )
    return Estimator(model, Learned.from_dict(learned.as_dict()))


def truth(steps: int) -> np.ndarray:
    """States (steps, 2) of the pendulum that swings from 0.5 rad."""
    model = mujoco.MjModel.from_xml_string(MODEL)
    data, found = mujoco.MjData(model), []
    data.qpos[:] = 0.5
    for _ in range(steps):
        mujoco.mj_step(model, data)
        found.append([data.qpos[0], data.qvel[0]])
    return np.array(found)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_the_share_of_right_readings_that_pass_is_as_asked(share):
    rng, count = np.random.default_rng(0), 20_000
    # A sensor of three channels, the third of which is missing half the time, and one of one channel.
    gate, passed = InnovationGate(share, ["imu", "imu", "imu", "angle"]), []
    for white in rng.normal(size=(count, 4)):
        white[2] = np.nan if rng.random() < 0.5 else white[2]
        passed.append(gate.passed(white))
        gate.count(white)
    passed = np.array(passed)
    assert (passed[:, 0] == passed[:, 2]).all()
    error = 4 * np.sqrt(share * (1 - share) / count)
    np.testing.assert_allclose(passed[:, [0, 3]].mean(0), share, atol=error)
    assert gate.counts == {"imu": int((~passed[:, 0]).sum()), "angle": int((~passed[:, 3]).sum())}


def test_wild_readings_move_nothing_and_are_counted():
    rng, path = np.random.default_rng(1), truth(200)
    readings = path + SIGMA * rng.normal(size=path.shape)
    wild = np.arange(200) % 20 == 10
    readings[wild, 0] += 1.0
    gated, plain = estimator(0.9999), estimator(0.0)
    errors = {}
    for name, one in (("gated", gated), ("plain", plain)):
        one.reset(qpos=[0.5])
        found = [one.update([], row) for row in readings]
        errors[name] = np.sqrt(np.mean((np.array([f.qpos[0] for f in found]) - path[:, 0]) ** 2))
        assert np.isnan(found[10].innovation[0]) == (name == "gated")
        assert np.isfinite(found[10].innovation[1])
    assert gated.gated == {"angle": 10, "speed": 0}
    assert plain.gated == {}
    assert errors["gated"] < SIGMA[0] < 0.1 * errors["plain"]
    gated.reset(qpos=[0.5])
    assert gated.gated == {"angle": 0, "speed": 0}


def test_a_lost_estimate_recovers():
    path, one = truth(120), estimator(0.999)
    # A start 1 rad off: no reading of the angle is likely until the sensor is let in again.
    one.reset(qpos=[1.5])
    found = np.array([one.update([], row).qpos[0] for row in path])
    off = np.abs(found - path[:, 0])
    assert one.gated["angle"] == 10
    assert off[9] > 0.5
    assert off[-1] < 0.01


def test_an_update_that_is_refused_counts_nothing():
    one = estimator(0.999)
    one.reset(qpos=[0.5])
    one.update([], [3.0, 0.0])
    for reading in ([np.inf, 0.0], [1.0]):
        with pytest.raises(DsoError):
            one.update([], reading)
    assert one.gated == {"angle": 1, "speed": 0}
    # A missing reading neither passes nor fails.
    one.update([], [np.nan, np.nan])
    assert one.gated == {"angle": 1, "speed": 0}


def test_a_share_that_no_study_writes_is_refused():
    with pytest.raises(ValueError, match="gate of 1"):
        estimator(1.0)


def test_limits_are_quantiles_of_the_chi_squared_distribution():
    for freedom in (1, 2, 3, 6, 15):
        for share in (0.5, 0.95, 0.999, 1 - 1e-9):
            found = chi_squared_quantile(share, freedom)
            assert found == pytest.approx(scipy.stats.chi2.ppf(share, freedom), rel=1e-6)
