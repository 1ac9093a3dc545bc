"""Windows tied to one another: derivatives of both engines, the two limits, learned jumps, and what cannot be tied."""

import dataclasses

import mujoco
import numpy as np
import pytest

from dso_robotics.core.method import gauss_newton
from dso_robotics.costs.continuity import LEARNED, Continuity
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels, sensor_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.physics.state import Tangent
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import TRUTH, record

FREE = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")
THROWN = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body name="stick">
      <freejoint name="float"/>
      <inertial pos="0.1 0 0" mass="0.5" diaginertia="0.001 0.004 0.004"/>
      <body name="tip" pos="0.3 0 0">
        <joint name="wrist" axis="0 1 0" damping="0.01"/>
        <inertial pos="0.05 0 0" mass="0.1" diaginertia="0.0002 0.0003 0.0003"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="wrist"/></actuator>
  <sensor><framepos name="where" objtype="xbody" objname="tip"/><framequat name="how" objtype="xbody" objname="tip"/>
    <jointpos name="turn" joint="wrist"/></sensor>
</mujoco>
"""


def thrown(tmp_path):
    """Vector, windows whose seams fall between time steps, z and start states off the truth."""
    (tmp_path / "model.xml").write_text(THROWN)
    robot = load(tmp_path / "model.xml")
    model, rng = robot.mj, np.random.default_rng(0)
    data, rows, time = mujoco.MjData(model), [], []
    data.qvel[:] = rng.normal(size=7)
    for k in range(60):
        data.ctrl[:] = 0.02 * np.sin(k / 5)
        mujoco.mj_forward(model, data)
        rows.append(np.r_[data.sensordata, data.ctrl, data.qpos, data.qvel])
        time.append(data.time)
        mujoco.mj_step(model, data)
    names, rows = tuple(sensor_channels(model)), np.array(rows)
    kept = np.arange(0, 60, 2)
    jitter = 0.009 * rng.uniform(size=len(kept))
    n = len(names)
    log = Log("", "", "", tuple(Rollout(
        name=name, time=np.array(time)[kept] + jitter, ctrl=rows[kept, n : n + 1], ctrl_names=("motor",),
        sensordata=rows[kept, :n], sensor_names=names, qpos=rows[kept, n + 1 : n + 9], qvel=rows[kept, n + 9 :],
    ) for name in ("a", "b")))  # fmt: skip
    vector = pack([parse(p) for p in ("joint/wrist/damping=0.02", "log/*/body/tip/mass=0.11")], robot, log.names)
    windows = cut(log.rollouts, match_channels(log, model), timestep=0.01, seconds=0.11, meet=True)
    x = start.guess(windows, model)
    x = Tangent(vector.mj).move(x, 0.05 * rng.normal(size=(len(x), 14)))
    return vector, windows, vector.initial, x


@pytest.mark.slow
def test_ends_and_their_derivatives_by_both_engines(tmp_path):
    vector, windows, z, x = thrown(tmp_path)
    place = windows.handover
    assert np.isnan(place).sum() == 2
    assert np.any(place % 1 > 0.1)
    c, mjx = CPrediction(vector, windows), MjxPrediction(vector, windows)
    (y_c, end_c), (y_m, end_m) = c.predict_ends(z, x), mjx.predict_ends(z, x)
    np.testing.assert_allclose(y_m, y_c, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(end_m, end_c, rtol=1e-9, atol=1e-9)
    plain = c.linearize(z, x)
    found_c, found_m = c.linearize_ends(z, x), mjx.linearize_ends(z, x)
    for a, b in zip(plain, found_c, strict=False):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(found_c, found_m, strict=True):
        scale = np.nanmax(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)


def test_the_jacobian_of_tied_windows_is_that_of_central_differences(tmp_path):
    vector, windows, z, x = thrown(tmp_path)
    tangent = Tangent(vector.mj)
    ties = Continuity(windows, tangent, 2.0)
    problem = WindowedIdentification(vector, windows, CPrediction(vector, windows), continuity=ties)
    r, by_z, by_x, ahead = problem.linearize(z, x)
    np.testing.assert_allclose(problem.residual(z, x), r, atol=1e-9)
    assert np.abs(r[:, -14:]).max() > 0.1
    assert not r[~ties.tied, -14:].any()
    h = 1e-5
    for i in range(vector.size):
        step = h * vector.scale * np.eye(vector.size)[i]
        central = (problem.residual(z + step, x) - problem.residual(z - step, x)) / (2 * step.sum())
        np.testing.assert_allclose(by_z[..., i], central, rtol=1e-3, atol=1e-4 * np.abs(central).max())
    for i in range(14):
        for b in range(len(x)):
            change = np.zeros((len(x), 14))
            change[b, i] = h
            central = (problem.residual(z, tangent.move(x, change)) - problem.residual(z, tangent.move(x, -change))) / (
                2 * h
            )
            expected = np.zeros_like(central)
            expected[b] += by_x[b, :, i]
            if b and ties.tied[b - 1]:
                expected[b - 1] += ahead[b - 1, :, i]
            np.testing.assert_allclose(expected, central, rtol=1e-3, atol=2e-4 * np.abs(central).max())


def study(pendulum, **changes):
    keys = {
        "model": str(pendulum / "pendulum.xml"),
        "logs": (str(pendulum / "pendulum.h5"),),
        "free": tuple(map(parse, FREE)),
        "hold_out": "run2",
    }
    return IdentifyStudy(**(keys | changes))


@pytest.fixture(scope="module")
def results(pendulum, tmp_path_factory):
    asked = {"free": {}, "full": {"window": np.inf}, "loose": {"continuity": 1e4}, "tight": {"continuity": 0.01}}
    asked |= {"one": {"continuity": 1.0}, "learned": {"continuity": LEARNED}}
    return {k: identify(study(pendulum, **v), tmp_path_factory.mktemp("out") / k, force=True) for k, v in asked.items()}


def test_without_a_say_windows_are_free_and_with_all_of_it_they_are_one(results):
    free, full, loose, tight = (results[k] for k in ("free", "full", "loose", "tight"))
    deviation = full.uncertainty.std
    # A step_tolerance of a tenth of the standard deviation is where searches end.
    assert np.all(np.abs(loose.solution.z - free.solution.z) < 0.2 * free.uncertainty.std)
    assert np.all(np.abs(tight.solution.z - full.solution.z) < 0.3 * deviation)
    assert np.all(np.abs(free.solution.z - full.solution.z).max() > deviation)
    np.testing.assert_allclose(
        np.sqrt(np.diag(np.linalg.inv(loose.solution.information))),
        np.sqrt(np.diag(np.linalg.inv(free.solution.information))),
        rtol=0.02,
    )
    np.testing.assert_allclose(
        np.sqrt(np.diag(np.linalg.inv(tight.solution.information))),
        np.sqrt(np.diag(np.linalg.inv(full.solution.information))),
        rtol=0.05,
    )


def test_the_truth_is_nearer_and_the_summary_says_what_was_tied(results):
    for name in ("one", "learned"):
        summary = results[name].summary
        assert summary["converged"]
        for path, truth in zip(FREE, TRUTH.values(), strict=True):
            entry, before = summary["parameters"][path], results["free"].summary["parameters"][path]
            half = (entry["high95"] - entry["low95"]) / 2
            assert abs(entry["value"] - truth) < 2 * half
            assert half < 0.7 * (before["high95"] - before["low95"]) / 2
        assert summary["continuity"]["tied"] == 14
        assert set(summary["continuity"]["scale"]) == {"position of hinge", "velocity of hinge"}
        assert "continuity" in summary["cost"]["terms"]
        assert sum(summary["cost"]["terms"].values()) == pytest.approx(summary["cost"]["total"], rel=1e-6)
    # Nothing jumps in a simulation: the jumps learned are small against what a window tells.
    learned, unit = (np.array(list(results[k].summary["continuity"]["scale"].values())) for k in ("learned", "one"))
    assert np.all(learned < 0.6 * unit)


def test_learned_jumps_are_those_that_were_made(pendulum):
    """A log whose speed is kicked at every seam: their scale is found, and that positions do not jump."""
    kick, seconds, model = 0.15, 0.5, load(pendulum / "pendulum.xml").mj
    for name, value in zip(("dof_damping", "dof_frictionloss"), (TRUTH["damping"], TRUTH["frictionloss"]), strict=True):
        getattr(model, name)[:] = value
    model.body_mass[1] = TRUTH["mass"]
    rng, data, rows = np.random.default_rng(3), mujoco.MjData(model), []
    ctrl = np.repeat(rng.normal(size=(150, 1)), 20, axis=0)
    for k, u in enumerate(ctrl):
        if k % 50 == 0:
            data.qvel[:] += kick * rng.normal(size=1)
        data.ctrl[:] = u
        rows.append(np.r_[data.qpos, data.qvel])
        mujoco.mj_step(model, data)
    measured = np.array(rows) + np.array([0.002, 0.02]) * rng.normal(size=(3000, 2))
    log = Log("", "", "", (Rollout(
        name="a", time=0.01 * np.arange(3000), ctrl=ctrl, ctrl_names=("motor",), sensordata=measured,
        sensor_names=("angle", "speed"),
    ),))  # fmt: skip
    vector = pack([parse("joint/hinge/damping=0.08"), parse("body/pole/mass=0.7")], load(pendulum / "pendulum.xml"))
    vector.mj.dof_frictionloss[:] = TRUTH["frictionloss"]
    windows = cut(log.rollouts, match_channels(log, model), timestep=0.01, seconds=seconds)
    ties = Continuity(windows, Tangent(vector.mj), LEARNED)
    problem = WindowedIdentification(
        vector, windows, CPrediction(vector, windows), sigma=np.array([0.002, 0.02]), continuity=ties
    )
    x = start.guess(windows, vector.mj)
    gauss_newton.solve(problem, vector.initial, x, low=vector.low, high=vector.high, scale=vector.scale)
    # 59 kicks know their scale to 9%.
    np.testing.assert_allclose(ties.scale[0, 1], kick, rtol=0.3)
    assert ties.scale[0, 0] < 0.002


def test_a_killed_run_resumes_to_the_same_numbers(pendulum, results, tmp_path):
    class Killed(Exception):
        pass

    def kill(news):
        if news.stage == "start states estimated" and news.iteration == 2:
            raise Killed

    for name in ("one", "learned"):
        asked, out = study(pendulum, continuity={"one": 1.0}.get(name, LEARNED)), tmp_path / name
        with pytest.raises(Killed):
            identify(asked, out, progress=kill)
        again = identify(asked, out, resume=True)
        np.testing.assert_allclose(again.solution.z, results[name].solution.z, rtol=1e-6)
        np.testing.assert_allclose(again.solution.cost, results[name].solution.cost, rtol=1e-8)


def test_what_cannot_be_tied_is_refused_with_its_cure(pendulum, tmp_path):
    for value, message in (
        (0.0, "window is full"),
        (-1.0, "a number from 0.01"),
        (1e-3, "window is full"),
        ("some", "or learned"),
    ):
        with pytest.raises(DsoError, match=message):
            study(pendulum, continuity=value)
    with pytest.raises(DsoError, match="continuity: with window full no window follows another"):
        study(pendulum, continuity=1.0, window=np.inf)
    (tmp_path / "study.toml").write_text("continuity = true")
    with pytest.raises(DsoError, match=r"continuity = True.*or learned"):
        IdentifyStudy.read(tmp_path / "study.toml")
    log = record(0)
    apart = [dataclasses.replace(r, time=r.time + 3.0 * (r.time >= 0.5) + 3.0 * (r.time >= 1.0)) for r in log.rollouts]
    write_log(tmp_path / "gaps.h5", Log("", "", "", tuple(r for r in short(apart))))
    with pytest.raises(DsoError, match="nothing to tie"):
        identify(study(pendulum, continuity=1.0, logs=(str(tmp_path / "gaps.h5"),), hold_out=None), tmp_path / "out")


def short(rollouts):
    """The first 1.5 s of samples, in three pieces far apart."""
    for r in rollouts:
        yield dataclasses.replace(r, time=r.time[:150], ctrl=r.ctrl[:150], sensordata=r.sensordata[:150])
