"""An estimator as C code estimates as in Python: every corrector, 1,000 updates with gaps, spikes, late sensors and a gate."""

import mujoco
import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.corrector import CORRECTORS, Scales
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.estimator_c import estimator_header
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.learned import Learned
from dso_robotics.robot.policy_c import policy_header
from tests.robot.c_program import run, with_mujoco
from tests.robot.policies import numbers

ARM = """<mujoco model="arm">
  <compiler angle="radian"/><option timestep="0.005"><flag contact="disable"/></option>
  <worldbody><body name="upper">
    <joint name="shoulder" axis="0 1 0" damping="3"/>
    <geom type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="0.6"/>
    <body name="lower" pos="0.4 0 0">
      <joint name="elbow" axis="0 1 0" damping="1" range="-2 2" limited="true"/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03" mass="0.3"/><site name="tip" pos="0.3 0 0"/>
    </body></body></worldbody>
  <actuator><motor name="one" joint="shoulder"/><general name="two" joint="elbow" dyntype="filter" dynprm="0.1"/></actuator>
  <sensor><jointpos name="q1" joint="shoulder"/><jointvel name="v2" joint="elbow"/>
    <accelerometer name="acc" site="tip"/></sensor>
</mujoco>"""
BALLS = """<mujoco model="balls">
  <compiler angle="radian"/>
  <option timestep="0.004" gravity="0 0 0"><flag contact="disable"/></option>
  <worldbody><body name="base" pos="0 0 1"><freejoint name="root"/><geom type="box" size=".2 .1 .05" mass="1"/>
    <site name="imu"/>
    <body pos="0 0 .2"><joint name="neck" type="ball" range="0 2" limited="true" damping=".2"/>
      <geom type="capsule" fromto="0 0 0 0 0 .3" size=".03" mass=".2"/>
      <body pos="0 0 .3"><joint name="slide" type="slide" range="-1 1" limited="true" damping="1"/>
        <geom type="sphere" size=".05" mass=".1"/></body></body></body></worldbody>
  <actuator><motor name="lift" site="imu" gear="0 0 1 0 0 0"/><motor name="spin" site="imu" gear="0 0 0 0 0 1"/></actuator>
  <sensor><framequat name="attitude" objtype="site" objname="imu"/><gyro name="gyro" site="imu"/>
    <framepos name="place" objtype="site" objname="imu"/></sensor>
</mujoco>"""
CASES = {
    "gain": ("gain", ARM, {}),
    "linear": ("linear", ARM, {"late": 0.0423}),
    "mlp": ("mlp", ARM, {"gate": 0.99}),
    "recurrent": ("recurrent", ARM, {"late": 0.004, "gate": 0.9}),
    "free": ("linear", BALLS, {"gate": 0.999}),
    "free mlp": ("mlp", BALLS, {}),
}
MAIN = """
#include <stdio.h>
#include "estimator.h"
int main(void) {
  static dso_estimator e;
  double in[DSO_ESTIMATOR_NU + DSO_ESTIMATOR_NY], out[3 + DSO_ESTIMATOR_WIDTH + 2 * DSO_ESTIMATOR_NY];
  char error[300];
  mjModel *model = mj_loadXML(DSO_ESTIMATOR_MODEL, NULL, error, sizeof error);
  int i, k, first = 1;
  if (!model || dso_estimator_init(&e, model)) return 1;
  while (fread(in, sizeof in, 1, stdin) == 1) {
    if (first) dso_estimator_reset(&e, NULL, NULL, NULL, in + DSO_ESTIMATOR_NU);
    else out[0] = dso_estimator_update(&e, in, in + DSO_ESTIMATOR_NU, 0);
    if (first) out[0] = 0;
    first = 0;
    for (i = 0, out[1] = 0; i < DSO_ESTIMATOR_SENSORS; i++) out[1] += e.gated[i];
    out[2] = (double)e.past_size;
    for (i = 0, k = 3; i < DSO_ESTIMATOR_WIDTH; i++) out[k++] = e.state[i];
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) out[k++] = e.std[i];
    for (i = 0; i < DSO_ESTIMATOR_NY; i++) out[k++] = isnan(e.predicted[i]) ? 0.0 : e.predicted[i];
    fwrite(out, sizeof out, 1, stdout);
  }
  dso_estimator_free(&e);
  mj_deleteModel(model);
  return 0;
}
"""


def learned(kind, model, late=0.0, gate=0.0):
    """An estimator with small random weights, and gains on what is measured that keep rounding errors from growing."""
    rng, space = np.random.default_rng(2), Space(model)
    names = [model.sensor(i).name for i in range(model.nsensor)]
    channels = [
        (name if model.sensor_dim[i] == 1 else f"{name}[{k}]", int(model.sensor_adr[i]) + k)
        for i, name in enumerate(names)
        for k in range(int(model.sensor_dim[i]))
    ]
    ny, nf = len(channels), space.features_size
    corrector = CORRECTORS[kind](space.size, ny, nf, 3 if CORRECTORS[kind].has_units else 0)
    scales = Scales(
        np.array([10.0 if name[:3] == "acc" else 1.0 for name, _ in channels]),
        np.full(space.size, 0.05),
        rng.normal(size=space.width),
        np.full(space.width, 2.0),
    )
    weights = 0.05 * rng.normal(size=corrector.size)
    gain = weights[: space.size * ny].reshape(space.size, ny)
    for name, rows in (("q1", [0]), ("v2", [3]), ("place", [0, 1, 2]), ("gyro", [13, 14, 15])):
        for k, row in enumerate(rows):
            for column, (channel, _) in enumerate(channels):
                if channel in (name, f"{name}[{k}]"):
                    gain[row, column] += 6.0
    return Learned(
        corrector=corrector,
        weights=weights,
        scales=scales,
        scale=rng.uniform(0.9, 1.1, ny),
        bias=0.01 * rng.normal(size=ny),
        delay=late * np.arange(ny) / ny,
        sigma=scales.innovation * 0.3,
        spread=0.1 * rng.normal(size=(ny, nf)),
        covariance=None,
        names=tuple(name for name, _ in channels),
        addresses=np.array([address for _, address in channels]),
        interval=2 * model.opt.timestep,
        substeps=2,
        gate=gate,
    )


@pytest.mark.parametrize("name", list(CASES))
def test_a_thousand_updates_are_those_of_python(tmp_path, name):
    flags = with_mujoco()
    kind, mjcf, more = CASES[name]
    (tmp_path / "estimator.xml").write_text(mjcf)
    model = load(tmp_path / "estimator.xml").mj
    estimator = Estimator(model, learned(kind, model, **more))
    (tmp_path / "estimator.h").write_text(estimator_header(estimator, "estimator.xml", source="a test"))
    rng, ny, count = np.random.default_rng(4), len(estimator.names), 1000
    world, rows, expected, statuses = mujoco.MjModel.from_xml_string(mjcf), [], [], []
    true = mujoco.MjData(world)
    for t in range(count):
        ctrl = 0.5 * rng.normal(size=world.nu)
        true.ctrl[:] = ctrl
        mujoco.mj_step(world, true, 2)
        y = true.sensordata[estimator.learned.addresses] + 0.05 * rng.normal(size=ny)
        y[rng.uniform(size=ny) < 0.1] = np.nan
        if t % 50 == 20:
            y[rng.integers(ny)] += 4.0
        if t % 70 == 30:
            y[:] = np.nan
        if t in (500, 600):
            y[0] = np.inf if t == 500 else 9e9
        rows.append(np.r_[ctrl, y])
        try:
            found = estimator.update(ctrl, y) if t else estimator.reset(measurement=y)
            statuses.append(0)
        except DsoError as error:
            statuses.append(
                next(n for n, word in ((2, "infinite"), (3, "blew up"), (4, "cannot take in")) if word in str(error))
            )
        state = np.concatenate([found.qpos, found.qvel, found.act])
        gated = sum(estimator.gated.values())
        expected.append(np.r_[gated, len(estimator._past), state, found.std, np.nan_to_num(found.predicted)])
    found = run(tmp_path, MAIN, np.array(rows), 3 + world.nq + world.nv + world.na + 2 * ny, flags)
    assert found.shape[0] == count
    np.testing.assert_array_equal(found[:, 0], statuses)
    assert statuses[500] == 2
    assert statuses[600] == (0 if "gate" in more else 4)
    assert statuses.count(0) >= count - 2
    expected = np.array(expected)
    np.testing.assert_array_equal(found[:, 1:3], expected[:, :2])
    np.testing.assert_allclose(found[:, 3:], expected[:, 2:], rtol=1e-12, atol=1e-12)
    assert np.abs(expected[-1, 2:]).max() < 1e3, "the estimator is stable"
    assert (expected[-1, 0] > 0) == ("gate" in more)
    assert (expected[-1, 1] >= 2) == ("late" in more)


MOVE = """
#include <stdio.h>
#include "estimator.h"
int main(void) {
  double in[DSO_ESTIMATOR_WIDTH + DSO_ESTIMATOR_TANGENT], out[DSO_ESTIMATOR_WIDTH];
  while (fread(in, sizeof in, 1, stdin) == 1) {
    dso_estimator_move(in, in + DSO_ESTIMATOR_WIDTH, out);
    fwrite(out, sizeof out, 1, stdout);
  }
  return 0;
}
"""


@pytest.mark.parametrize("mjcf", [ARM, BALLS], ids=["arm", "balls"])
def test_a_correction_stops_at_the_limits(tmp_path, mjcf):
    """Exactly at a limit, rounding decides whether MuJoCo's constraint acts; so this is not left to the updates above."""
    flags, model = with_mujoco(), mujoco.MjModel.from_xml_string(mjcf)
    estimator, space, rng = Estimator(model, learned("gain", model)), Space(model), np.random.default_rng(8)
    (tmp_path / "estimator.h").write_text(estimator_header(estimator, "estimator.xml", source="a test"))
    states, changes = rng.normal(size=(500, space.width)) * 2, rng.normal(size=(500, space.size)) * 2
    changes[::5] *= 1e-4
    for state in states:
        qpos = state[: model.nq].copy()
        mujoco.mj_normalizeQuat(model, qpos)
        state[: model.nq] = qpos
    found = run(tmp_path, MOVE, np.concatenate([states, changes], 1), space.width, flags)
    moved = space.move(states, changes)
    np.testing.assert_allclose(found, moved, rtol=1e-12, atol=1e-12)
    if model.nq > model.nv:
        angles = 2 * np.arccos(np.clip(np.abs(moved[:, 7]), 0, 1))
        assert (np.abs(angles - 2.0) < 1e-9).sum() > 50


def test_a_corrector_without_c_code_is_refused(tmp_path):
    model = mujoco.MjModel.from_xml_string(ARM)

    class Other(CORRECTORS["gain"]):
        kind = "other"

    given = learned("gain", model)
    object.__setattr__(given, "corrector", Other(given.corrector.k, given.corrector.ny, given.corrector.nf))
    with pytest.raises(
        DsoError, match="'other' has no C code; learn one that has: gain, linear, mlp, recurrent, kalman"
    ):
        estimator_header(Estimator(model, given), "estimator.xml", source="here")


def test_a_policy_and_an_estimator_are_one_header(tmp_path):
    """As `dso export --to c` writes them for a training with an estimator."""
    flags, model = with_mujoco(), mujoco.MjModel.from_xml_string(ARM)
    estimator = Estimator(model, learned("gain", model))
    parts = [policy_header(numbers("brain"), source="a"), estimator_header(estimator, "e.xml", source="b")]
    (tmp_path / "deployed.h").write_text("\n".join(parts))
    code = """
#include <stdio.h>
#include "deployed.h"
#include "deployed.h"
int main(void) {
  double sizes[2];
  sizes[0] = DSO_POLICY_NU;
  sizes[1] = DSO_ESTIMATOR_NY;
  fwrite(sizes, sizeof sizes, 1, stdout);
  return 0;
}
"""
    np.testing.assert_array_equal(run(tmp_path, code, np.zeros(1), 2, flags), [[2.0, 5.0]])
