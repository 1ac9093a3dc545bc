"""A Kalman filter as C code estimates as in Python: 1,000 updates with a far start, gaps, spikes, jumps and any intervals."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.data.foot_contact import ContactReadings, FootContact
from dso_robotics.errors import DsoError
from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_c import estimator_header
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from tests.robot.c_program import run, with_mujoco
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, estimator
from tests.robot.test_estimator_c import BALLS

MAIN = """
#include <stdio.h>
#include "estimator.h"
int main(void) {
  static dso_estimator e;
  double in[2 + DSO_ESTIMATOR_NU + DSO_ESTIMATOR_READINGS + DSO_ESTIMATOR_WIDTH + DSO_ESTIMATOR_NY + 2 * DSO_ESTIMATOR_SQUARE];
  double out[2 + DSO_ESTIMATOR_WIDTH + 3 * DSO_ESTIMATOR_NY + DSO_ESTIMATOR_SIZE_K + 1];
  const double *y = in + 2 + DSO_ESTIMATOR_NU, *belief;
  char error[300];
  mjModel *model = mj_loadXML(DSO_ESTIMATOR_MODEL, NULL, error, sizeof error);
  int i, k, first = 1;
  if (!model || dso_estimator_init(&e, model)) return 1;
  while (fread(in, sizeof in, 1, stdin) == 1) {
    if (in[0] && !first) {
      belief = y + DSO_ESTIMATOR_READINGS;
      for (i = 0; i < DSO_ESTIMATOR_WIDTH; i++) e.now.state[i] = *belief++;
      for (i = 0; i < DSO_ESTIMATOR_NY; i++) e.now.offset[i] = *belief++;
      for (i = 0; i < DSO_ESTIMATOR_SQUARE; i++) e.now.covariance[i] = *belief++;
      for (i = 0; i < DSO_ESTIMATOR_SQUARE; i++) e.now.jumped[i] = *belief++;
    }
    out[0] = first ? dso_estimator_reset(&e, NULL, NULL, NULL, y) : dso_estimator_update(&e, in + 2, y, in[1]);
    first = 0;
    for (i = 0, out[1] = 0; i < DSO_ESTIMATOR_SENSORS; i++) out[1] += e.gated[i];
    for (i = 0, k = 2; i < DSO_ESTIMATOR_WIDTH; i++) out[k++] = e.state[i];
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) out[k++] = e.now.offset[i];
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) out[k++] = isnan(e.innovation[i]) ? 0.0 : 1.0;
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) out[k++] = e.std[i];
    for (i = 0; i < DSO_ESTIMATOR_SIZE_K; i++) out[k++] = sqrt(e.now.covariance[i * (DSO_ESTIMATOR_SIZE_K + 1)]);
    out[k] = 0;
    fwrite(out, sizeof out, 1, stdout);
  }
  dso_estimator_free(&e);
  mj_deleteModel(model);
  return 0;
}
"""
BIASED = ARM.replace("</sensor>", '<jointvel name="rate" joint="elbow"/></sensor>')
BIASED_NOISE = dataclasses.replace(
    ARM_NOISE, sensor=np.array([0.003, 0.003, 0.02]), drift=np.array([0.0, 0.0, 0.02]), offset=np.array([0.5, 0.5, 0.2])
)
# A free body whose orientation is read, with a ball joint and limits.
FREE_NOISE = Noise(
    process=np.array([1e-3] * 10 + [0.3] * 10),
    sensor=np.array([0.05] * 4 + [0.02] * 3 + [0.02] * 3),
    drift=np.zeros(10),
    prior=np.array([2.0] * 3 + [2.0] * 6 + [1.0] + [3.0] * 10),
    offset=np.ones(10),
)
# An arm whose tip a switch says to stand, which is hardly ever so.
FOOTED = ARM.replace("</body>", '<site name="tip" pos="0 0 -0.3"/></body>', 1).replace(
    "</sensor>", '<framelinvel name="contact.tip" objtype="site" objname="tip"/></sensor>'
)
FOOT = FootContact("tip", "switch", 0.5, 0.3, 0.99)
FOOTED_NOISE = dataclasses.replace(
    ARM_NOISE, sensor=np.array([0.003, 0.003, 0.3, 0.3, 0.3]), drift=np.zeros(5), offset=np.full(5, 0.5)
)
CASES = {
    "arm": (ARM, ARM_NOISE, 0.005),
    "feet": (FOOTED, FOOTED_NOISE, 0.01),
    "biases": (BIASED, BIASED_NOISE, 0.01),
    "free": (BALLS, FREE_NOISE, 0.004),
}


@pytest.mark.parametrize("name", list(CASES))
def test_a_thousand_updates_are_those_of_python(tmp_path, name):
    flags, (xml, noise, interval) = with_mujoco(), CASES[name]
    (tmp_path / "estimator.xml").write_text(xml)
    made = estimator(xml, noise, interval=interval)
    if name == "feet":
        contacts = ContactReadings.of(made.names, (FOOT,))
        made = KalmanEstimator(made.model, dataclasses.replace(made.learned, contacts=contacts))
        assert made.readings == ("shoulder", "elbow", "switch")
    read = len(made.readings)
    (tmp_path / "estimator.h").write_text(estimator_header(made, "estimator.xml", source="a test"))
    rng, world, ny = np.random.default_rng(4), mujoco.MjModel.from_xml_string(xml), len(made.names)
    true, rows, expected = mujoco.MjData(world), [], []
    true.qpos[:2] = 2.2, -1.4
    if world.nq > world.nv:
        true.qpos[3:7] = 0.2, 0.9, -0.3, 0.1
        mujoco.mj_normalizeQuat(world, true.qpos)
    start = made._tracker.begun(made._state, np.zeros(ny))
    for t in range(1000):
        ctrl, steps = 0.3 * rng.normal(size=world.nu), int(rng.choice([1, 2, 5])) if t % 100 < 30 else 2
        true.ctrl[:] = ctrl
        mujoco.mj_step(world, true, steps)
        if name != "free" and t == 700:
            true.qpos[:] += 1.5
        mujoco.mj_forward(world, true)
        y = true.sensordata[:read] + noise.sensor[:read] * rng.normal(size=read)
        if name == "feet":
            y[2] = rng.random() < 0.6
        if name == "biases":
            # Once seen at once, and once so small that the state follows it for a while.
            y[2] += 0.6 * (t >= 300) + 0.12 * (t >= 550)
        y[rng.uniform(size=read) < 0.1] = np.nan
        if t % 50 == 20:
            y[rng.integers(min(read, ny))] += 4.0
        if t % 70 == 30 or t == 900:
            y[:] = np.nan
        y[0] = np.inf if t == 500 else y[0]
        seconds = 20.0 if t == 900 else steps * world.opt.timestep
        before = made._clouds.summary(made._cloud) if t else start
        jumped = np.zeros_like(before.covariance) if before.jumped is None else before.jumped
        rows.append(np.r_[seconds, ctrl, y, before.state, before.offset, before.covariance.ravel(), jumped.ravel()])
        try:
            found, status = (made.update(ctrl, y, dt=seconds) if t else made.reset(measurement=y)), 0
        except DsoError:
            status = 2
        spread = np.sqrt(made._clouds.summary(made._cloud).covariance.diagonal())
        state = np.concatenate([found.qpos, found.qvel, found.act])
        expected.append(
            np.r_[status, sum(made.gated.values()), state, found.bias, np.isfinite(found.innovation), found.std, spread]
        )
    expected = np.array(expected)
    assert np.flatnonzero(expected[:, 0]).tolist() == [500]
    assert expected[-1, 1] > 5
    off = {}
    for given in (1.0, 0.0):
        inputs = np.concatenate([np.full((1000, 1), given), rows], 1)
        found = run(tmp_path, MAIN, inputs, expected.shape[1] + 1, flags)[:, :-1]
        np.testing.assert_array_equal(found[:, :2], expected[:, :2])
        off[given] = np.abs(found - expected)[:, 2:]
    # Each update from Python's belief before it. MuJoCo's solver begins at its last solution, so a joint at its limit differs.
    assert off[1.0].max() < (1e-8 if name in ("free", "feet") else 1e-12)
    assert np.percentile(off[1.0].max(1), 95) < 1e-12
    # All updates in a row: derivatives are differences over 1e-6, so a rounding of 1e-16 in a state is one of 1e-10 in them.
    k, width = world.nv, world.nq + world.nv
    assert (off[0.0][:, width - k : width].max(1) < 1e-4 * expected[:, -1 - k :].max(1)).all()
    assert np.median(off[0.0].max(1)) < (1e-4 if name == "free" else 1e-9)


def test_what_its_c_code_does_not_do_is_refused():
    late = estimator(ARM, ARM_NOISE, interval=0.005, delay=np.array([0.0, 0.03]))
    with pytest.raises(DsoError, match="here: sensor 'elbow' is late"):
        estimator_header(late, "e.xml", source="here")
    with pytest.raises(DsoError, match="heading of this free body needs several"):
        estimator_header(estimator(QUADROTOR, QUADROTOR_NOISE, interval=0.004), "e.xml", source="here")
    with pytest.raises(DsoError, match="RK4"):
        estimator_header(
            estimator(ARM.replace("implicitfast", "RK4"), ARM_NOISE, interval=0.005), "e.xml", source="here"
        )
