"""The measured growth of errors against eigenvalues of A(I - KH) of a linear mechanism."""

import numpy as np
import pytest

from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.model import load
from dso_robotics.robot import estimator_start, filter_data
from dso_robotics.robot.error_growth import error_growth
from dso_robotics.robot.estimator_start import linear_model

# A mass on a spring, and a free mass; the second model shows only the speed of the free mass.
SPRING = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <body>
      <joint name="slide" type="slide" stiffness="{stiffness}" damping="{damping}"/>
      <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
    </body>
  </worldbody>
  <sensor><joint{what} name="reading" joint="slide"/></sensor>
</mujoco>
"""


def measured(tmp_path, gain, *, lengths=(200, 151), what="pos", **numbers):
    """Growth under a gain (2, 1) over runs of random readings, and the eigenvalues' largest size."""
    path = tmp_path / "spring.xml"
    path.write_text(SPRING.format(what=what, **numbers))
    robot, rng = load(path), np.random.default_rng(0)
    rollouts = tuple(
        Rollout(
            name=f"run{n}",
            time=0.01 * np.arange(n),
            sensordata=0.1 * rng.normal(size=(n, 1)),
            sensor_names=("reading",),
            sensor_units=("m" if what == "pos" else "m/s",),
        )
        for n in lengths
    )
    log = Log("", "test", "CC0", rollouts)
    channels = filter_data.select_channels(log, robot.mj, None)
    given = filter_data.cut_windows(rollouts, channels, robot.mj, interval=0.01, substeps=1, seconds=None)
    vector, scales = estimator_start.begin("gain", 1, given, ParameterVector((), robot.mj))
    z = (gain / scales.change[:, None] * scales.innovation).ravel()
    a, h = linear_model(robot.mj, channels.sensor_addresses, np.zeros(2), np.zeros(0), 1)
    largest = np.abs(np.linalg.eigvals((np.eye(2) - gain @ h) @ a)).max()
    return error_growth(vector, scales, given, z), largest


@pytest.mark.parametrize("gain", [[0.3, 2.0], [0.05, 0.1], [-0.05, -0.5], [2.2, 1.0]])
def test_the_rate_is_that_of_the_largest_eigenvalue(tmp_path, gain):
    growth, largest = measured(tmp_path, np.array(gain)[:, None], stiffness=20.0, damping=0.3)
    # The runs have 199 and 150 updates: nine and seven whole pieces of 20 count.
    np.testing.assert_allclose(growth.seconds, [1.8, 1.4])
    np.testing.assert_allclose(growth.rates, np.log(largest) / 0.01, rtol=0.02, atol=0.02)
    assert growth.stable == (largest < 1)


def test_a_run_too_short_to_tell_is_left_out(tmp_path):
    growth, largest = measured(tmp_path, np.array([[0.3], [2.0]]), lengths=(4, 61), stiffness=20.0, damping=0.3)
    assert np.isnan(growth.growth[0])
    assert growth.slowest == 1
    assert growth.stable
    np.testing.assert_allclose(growth.rates[1], np.log(largest) / 0.01, rtol=0.02)


def test_an_error_that_no_sensor_shows_stays(tmp_path):
    # The position of a free mass whose speed is measured.
    growth, largest = measured(tmp_path, np.array([[0.0], [0.5]]), what="vel", stiffness=0.0, damping=0.0)
    assert largest == pytest.approx(1)
    np.testing.assert_allclose(growth.rates, 0.0, atol=1e-3)
    assert growth.stable


def test_a_filter_that_diverges_is_unstable(tmp_path):
    growth, _ = measured(tmp_path, np.array([[1e6], [1e9]]), lengths=(200,), stiffness=20.0, damping=0.3)
    assert growth.rates[0] == np.inf
    assert not growth.stable
