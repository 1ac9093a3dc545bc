"""`dso excite` on a servo, a pendulum and a sliding box: limits on C MuJoCo, predicted beside real intervals, bad input."""

import dataclasses
import json

import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.cli import main
from dso_robotics.data.log import Log, read_log
from dso_robotics.data.record import Flaws, record
from dso_robotics.errors import DsoError
from dso_robotics.studies.excite import excite, prepare
from dso_robotics.studies.excite_plan import log_of, summary, write_plan
from dso_robotics.studies.excite_study import ExciteStudy

SERVO = """
<mujoco model="servo"><option timestep="0.01" integrator="implicitfast"/>
<worldbody><geom name="post" type="box" pos="0 0.3 -0.2" size="0.05 0.05 0.2"/>
<body name="arm"><joint name="hinge" axis="0 1 0" damping="0.2" frictionloss="0.1" armature="0.02" range="-100 100"/>
<inertial pos="0 0 -0.2" mass="0.6" diaginertia="0.004 0.004 0.001"/>
<geom name="rod" type="capsule" fromto="0 0 0 0 0 -0.3" size="0.02" mass="0"/>
<body name="cap" pos="0 0 -0.3"><inertial pos="0 0 0" mass="0.05" diaginertia="1e-5 1e-5 1e-5"/></body></body></worldbody>
<actuator><position name="ref" joint="hinge" kp="12" kv="0.3" forcerange="-4 4"/></actuator>
<sensor><jointpos name="angle" joint="hinge" noise="0.002"/></sensor>
<keyframe><key name="up" qpos="1.2"/></keyframe></mujoco>"""
BOX = """
<mujoco model="box"><option timestep="0.01" integrator="implicitfast" cone="elliptic"/>
<worldbody><geom name="floor" type="plane" size="3 3 0.1" friction="0.1 0.005 0.0001"/>
<body name="box" pos="0 0 0.05"><freejoint name="base"/>
<geom name="sole" type="box" size="0.1 0.1 0.05" mass="1" friction="0.3 0.005 0.0001"/>
<site name="middle"/></body></worldbody>
<actuator><motor name="push" site="middle" gear="1 0 0 0 0 0" ctrlrange="-8 8"/></actuator>
<sensor><framepos name="place" objtype="body" objname="box"/></sensor></mujoco>"""
QUICK: dict = {"seconds": 3.0, "trials": 60, "draws": 1, "window": 0.5, "harmonics": 3}
FREE = ["joint/hinge/damping", "joint/hinge/frictionloss", "joint/hinge/armature", "body/arm/mass"]


@pytest.fixture(scope="module")
def servo(tmp_path_factory):
    path = tmp_path_factory.mktemp("excite") / "servo.xml"
    path.write_text(SERVO)
    return str(path)


def study(model, **changes):
    return ExciteStudy.read(None, model=model, **{"free": FREE, **QUICK, **changes})


@pytest.fixture(scope="module")
def plan(servo):
    return excite(study(servo, speed={"*": 5.0}, rate={"*": 8.0}, torque={"*": 3.5}))


def test_limits_hold_when_c_mujoco_plays_the_plan(plan, servo):
    model = mujoco.MjModel.from_xml_path(servo)
    data, ctrl = mujoco.MjData(model), plan.runs[0].ctrl
    speeds, forces, path = [], [], []
    for u in ctrl:
        data.ctrl[:] = u
        path.append([data.qpos[0], data.qvel[0]])
        mujoco.mj_step(model, data)
        speeds.append(abs(data.qvel[0]))
        forces.append(abs(data.actuator_force[0]))
    np.testing.assert_allclose(path, plan.runs[0].path, atol=1e-9)
    assert max(speeds) <= 5.0
    assert max(forces) <= 3.55
    assert np.abs(np.diff(ctrl[:, 0])).max() <= 8.0 * 0.01 * (1 + 1e-9)
    # At rest at both ends, and something between.
    assert speeds[0] < 1e-3
    assert speeds[-1] < 0.02 * max(speeds)
    assert max(speeds) > 2.0


def test_a_motion_is_one_simulation_and_that_of_c_mujoco(servo):
    trials = prepare(study(servo)).trials
    ctrl = trials.controls(trials.waveform.draw(np.random.default_rng(4))[None])
    before, motion = trials.steps, trials.motion(ctrl)
    model = mujoco.MjModel.from_xml_path(servo)
    assert trials.steps - before <= 3.0 / model.opt.timestep + 2
    data, path = mujoco.MjData(model), []
    data.qpos[:] = trials.start[:1]
    for u in ctrl[0]:
        path.append([data.qpos[0], data.qvel[0]])
        data.ctrl[:] = u
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(motion.path[0], path, atol=1e-9)
    np.testing.assert_allclose(motion.readings[0, :, 0], np.array(path)[:, 0], atol=1e-9)


def test_the_search_beats_random_motions_within_the_same_limits(plan):
    run = plan.runs[0]
    assert run.compared > 3
    assert np.exp(run.random - run.score) > 1.3


def test_predicted_intervals_are_those_that_identification_then_has(plan, servo):
    """Errors of four recordings of the plan over the predicted deviation have a mean square of one."""
    model = mujoco.MjModel.from_xml_path(servo)
    predicted = np.array([row.after / 1.96 for row in plan.table.values()])
    true = np.array([row.value for row in plan.table.values()])
    scores, widths = [], []
    for seed in range(4):
        flaws = Flaws(sensor_noise={"angle": 0.002})
        log = record(model, np.random.default_rng(seed), [("00", plan.runs[0].ctrl)], flaws=flaws)
        found = dso.identify(servo, log, free=FREE, noise={"angle": 0.002}, window=0.5)
        rows = [found.parameters[name] for name in plan.table]
        scores.append((np.array([row["value"] for row in rows]) - true) / predicted)
        widths.append([(row["high95"] - row["low95"]) / 2 / 1.96 for row in rows])
    assert 0.3 < np.mean(np.square(scores)) < 2.4
    ratio = np.median(widths, axis=0) / predicted
    assert ((ratio > 0.5) & (ratio < 2.5)).all()


def test_the_files_are_played_by_simulate_and_say_that_they_are_no_recording(plan, servo, tmp_path):
    out = tmp_path / "plan.h5"
    assert [p.name for p in write_plan(plan, out)] == ["plan.h5", "plan.csv"]
    for source in (out, tmp_path / "plan.csv"):
        played = tmp_path / f"{source.suffix[1:]}.h5"
        assert main(["simulate", servo, "--controls", str(source), "--out", str(played), "--keep-state"]) == 0
        log = read_log(played).rollouts[0]
        assert log.qpos is not None
        np.testing.assert_allclose(log.qpos, plan.runs[0].path[: len(log.time), :1], atol=1e-6)
    stored = read_log(out)
    assert stored.rollouts[0].sensordata is None
    assert "not a recording" in stored.source
    assert json.loads(str(stored.attributes["plan"]))["parameters"].keys() == plan.table.keys()
    assert (tmp_path / "plan.csv").read_text().splitlines()[
        0
    ] == "time,ref,expected hinge position,expected hinge velocity"


def test_a_result_is_where_the_plan_begins_and_its_recordings_count(servo):
    model = mujoco.MjModel.from_xml_path(servo)
    ctrl = 0.3 * np.sin(np.arange(300) * 0.05)[:, None]
    log = record(model, np.random.default_rng(0), [("00", ctrl)], flaws=Flaws(sensor_noise={"angle": 0.002}))
    first = dso.identify(servo, log, free=FREE[:3], window=0.5)
    asked = study(servo, free=[], result=str(first.folder), draws=2, trials=24)
    ready = prepare(asked)
    known = ready.known
    # What is known is what the result says, and draws stay within it.
    for row, (name, p) in zip(
        np.sqrt(np.diag(np.linalg.inv(known.information))) * known.size, first.parameters.items(), strict=True
    ):
        assert known.draws[0][list(first.parameters).index(name)] == pytest.approx(p["value"], rel=1e-6)
        if not p["at_bound"]:
            assert row == pytest.approx(first.run.uncertainty.std[list(first.parameters).index(name)], rel=1e-3)
    assert len(known.draws) == 2
    assert np.abs(np.diff(known.draws, axis=0)).max() > 0
    assert ready.trials.sigma[0] == pytest.approx(first.summary["noise"]["angle"]["value"])
    told = summary(excite(asked))["parameters"]
    assert all(row["half_width_after"] < row["half_width_before"] for row in told.values())


def test_a_damaged_result_is_told(servo, tmp_path):
    from dso_robotics.data.run_file import read_run, write_run

    model = mujoco.MjModel.from_xml_path(servo)
    ctrl = 0.3 * np.sin(np.arange(150) * 0.05)[:, None]
    log = record(model, np.random.default_rng(0), [("00", ctrl)], flaws=Flaws(sensor_noise={"angle": 0.002}))
    found = dso.identify(servo, log, free=FREE[:2], window=0.5)
    tree, asked, mjcf = read_run(found.folder / "run.h5")
    for changes in (
        {"covariance": np.full((2, 2), np.nan)},
        {"covariance": np.eye(3)},
        {"summary": json.dumps({"noise": {"angle": 3}})},
        {"theta": {FREE[0]: np.array([np.inf])}},
    ):
        write_run(tmp_path / "run.h5", tree | changes, asked, mjcf)
        with pytest.raises(DsoError, match="damaged"):
            prepare(study(servo, free=[], result=str(tmp_path)))
    write_run(tmp_path / "run.h5", tree | {"status": "running"}, asked, mjcf)
    with pytest.raises(DsoError, match="has not finished"):
        prepare(study(servo, free=[], result=str(tmp_path)))
    write_run(tmp_path / "run.h5", tree, asked | {"command": "train"}, mjcf)
    with pytest.raises(DsoError, match="result of `dso train`"):
        prepare(study(servo, free=[], result=str(tmp_path)))


def test_halve_adds_runs_until_the_widest_interval_is_half(servo):
    model = mujoco.MjModel.from_xml_path(servo)
    ctrl = 0.5 * np.sin(np.arange(300) * 0.05)[:, None]
    log = record(model, np.random.default_rng(0), [("00", ctrl)], flaws=Flaws(sensor_noise={"angle": 0.002}))
    first = dso.identify(servo, log, free=FREE[:2], window=0.5)
    plan = excite(study(servo, free=[], result=str(first.folder), aim="halve", runs=4, trials=24))
    rows = list(plan.table.values())
    assert plan.halved
    assert len(plan.runs) < 4
    assert max(r.after / r.value for r in rows) < 0.5 * max(r.before / r.value for r in rows)


def test_a_second_run_knows_the_first(servo):
    two = excite(study(servo, runs=2, trials=30))
    one = excite(study(servo, runs=1, trials=30))
    assert len(two.runs) == 2
    np.testing.assert_array_equal(one.runs[0].ctrl, two.runs[0].ctrl)
    assert np.abs(two.runs[0].ctrl - two.runs[1].ctrl).max() > 1e-3
    assert all(two.table[name].after < one.table[name].after for name in one.table)


def test_a_number_of_each_recording_is_unknown_in_each_run(servo):
    plain = excite(study(servo, trials=20))
    own = excite(study(servo, free=[*FREE, "log/*/sensor/angle/bias"], trials=20))
    assert own.table.keys() == plain.table.keys()
    assert all(own.table[name].after >= 0.99 * plain.table[name].after for name in FREE)


def test_delays_and_biases_are_numbers_like_others(servo):
    found = excite(study(servo, free=[*FREE[:2], "sensor/angle/delay=0.01@0:0.05", "sensor/angle/bias"], trials=20))
    assert not found.table["sensor/angle/delay"].hidden
    assert found.table["sensor/angle/delay"].after < 0.05


def test_a_box_slides_and_its_friction_is_seen(tmp_path):
    path = tmp_path / "box.xml"
    path.write_text(BOX)
    given = {"free": ["geom/sole/friction[0]", "body/box/mass"], "noise": {"*": 0.001}, "speed": {"base": 3.0}}
    found = excite(study(str(path), **given))
    assert not any(row.hidden for row in found.table.values())
    assert found.table["geom/sole/friction[0]"].after < 0.05
    # The same contact is a collision where friction is not what is asked for.
    with pytest.raises(DsoError, match=r"at rest.*floor:sole.*--touch"):
        prepare(study(str(path), **given | {"free": ["body/box/mass"], "margin": 0.01}))


def test_numbers_that_act_alike_are_named(servo):
    found = excite(study(servo, free=["body/arm/mass", "body/cap/mass", *FREE[:3]], trials=20))
    text = found.table["body/cap/mass"].hidden
    assert "body/arm/mass" in text
    assert "prior" in text


def test_python_takes_objects_and_plain_numbers():
    spec = mujoco.MjSpec.from_string(SERVO)
    found = dso.excite(spec, free="joint/*/damping", speed=4.0, seconds=2.0, trials=20, keyframe="up")
    assert "joint/hinge/damping" in str(found)
    assert found.plan.runs[0].path[0, 0] == 1.2
    assert found.log().rollouts[0].ctrl is not None
    assert found.parameters["joint/hinge/damping"]["visible"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"free": []}, "nothing is free"),
        ({"noise": {"speed": 1.0}}, "--noise speed"),
        ({"sensors": ["speed"]}, "--sensors speed"),
        ({"aim": "halve"}, "RESULT"),
        ({"keyframe": "down"}, "'up'"),
        ({"interest": ["joint/*/stiffness"]}, "--interest"),
        ({"position": {"hinge": (0.5, 1.0)}}, r"already breaks a limit: position of hinge.*--keyframe"),
        ({"speed": {"*": 1e-9}}, r"none of .* motions keeps all limits.*speed of hinge|already breaks a limit"),
        ({"margin": 0.5}, r"at rest.*post:rod.*--touch"),
        ({"distance": {"rod:wall": 0.1}}, "no geom 'wall'"),
        ({"free": ["joint/hinge/ref"]}, "joint/hinge/ref"),
        ({"result": "nowhere"}, "no run file"),
        ({"top": 80.0}, "--top"),
        ({"free": ["log/*/sensor/angle/bias"]}, "belongs to one recording"),
    ],
)
def test_bad_input_is_told_with_a_cure(servo, changes, text):
    with pytest.raises(DsoError, match=text):
        excite(study(servo, **{"trials": 20, **changes}))


def test_a_number_that_nothing_shows_is_refused_by_name_and_listed_by_wildcard(tmp_path):
    text = SERVO.replace("<sensor>", '<sensor><jointpos name="other" joint="far"/>').replace(
        "</worldbody>",
        '<body name="still" pos="2 2 2"><joint name="far" type="slide" axis="1 0 0" damping="1"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia="1e-3 1e-3 1e-3"/></body></worldbody>',
    )
    path = tmp_path / "far.xml"
    path.write_text(text)
    noise = {"*": 0.002}
    keys = text.replace('qpos="1.2"', 'qpos="1.2 0"')
    path.write_text(keys)
    with pytest.raises(DsoError, match=r"joint/far/damping: no excitation shows"):
        excite(study(str(path), free=["joint/far/damping", "joint/hinge/damping"], noise=noise, trials=20))
    with pytest.raises(DsoError, match="no channel reacts"):
        excite(study(str(path), free=["joint/f*/damping"], noise=noise, trials=20))
    found = excite(study(str(path), free=["joint/*/damping"], noise=noise, trials=20))
    assert "no channel reacts" in found.table["joint/far/damping"].hidden
    assert not found.table["joint/hinge/damping"].hidden


def test_nothing_is_written_when_no_motion_keeps_the_limits(servo, tmp_path, capsys):
    out = tmp_path / "plan.h5"
    given = ["excite", servo, "--free", "joint/hinge/damping", "--out", str(out), "--seconds", "2", "--trials", "20"]
    assert main([*given, "--speed", "1e-9", "--draws", "1"]) == 2
    assert "Widen it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*given, "--draws", "1"]) == 0
    shown = capsys.readouterr().out
    assert "joint/hinge/damping" in shown
    assert "plan.csv" in shown
    assert main(given) == 2  # exists
    assert "--force" in capsys.readouterr().err


def test_a_plan_without_noise_of_its_own_asks_for_it(tmp_path):
    path = tmp_path / "bare.xml"
    path.write_text(SERVO.replace(' noise="0.002"', ""))
    with pytest.raises(DsoError, match=r"noise of channel 'angle'.*--noise angle="):
        prepare(study(str(path)))


def test_a_plan_of_heavy_tails_expects_wider_intervals(servo):
    normal, heavy = prepare(study(servo)), prepare(study(servo, robust=True))
    assert heavy.trials.sigma[0] == pytest.approx(normal.trials.sigma[0] * np.sqrt(7 / 5))


def test_planning_loads_no_jax():
    import subprocess
    import sys

    code = "import sys, dso_robotics.studies.excite, dso_robotics.report.excite; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_log_of_a_plan_is_a_log(plan):
    assert isinstance(log_of(plan), Log)
    assert dataclasses.asdict(plan.study)["seconds"] == 3.0


def test_references_are_followed_by_inverse_dynamics(tmp_path):
    """The controls of the plan, played open loop on C MuJoCo from rest, lead along the reference."""
    path = tmp_path / "motor.xml"
    path.write_text(SERVO.replace('<position name="ref" joint="hinge" kp="12" kv="0.3" forcerange="-4 4"/>', MOTOR))
    given = {"play": "reference", "speed": {"*": 4.0}, "torque": {"*": 6.0}, "trials": 40}
    plan = excite(study(str(path), **given))
    run, model = plan.runs[0], mujoco.MjModel.from_xml_path(str(path))
    data, off = mujoco.MjData(model), []
    for u, state in zip(run.ctrl[:100], run.path[:100], strict=True):
        off.append(data.qpos[0] - state[0])
        data.ctrl[:] = u
        mujoco.mj_step(model, data)
    assert np.abs(off).max() < 0.05 * np.abs(run.path[:100, 0]).max() + 1e-3
    assert np.abs(run.path[:, 1]).max() <= 4.0 * (1 + 1e-6)
    assert run.path[0].tolist() == [0.0, 0.0]
    assert run.path[-1, 1] == 0.0
    assert np.abs(run.ctrl).max() <= 6.0
    assert all(row.after < 0.2 * row.value for row in plan.table.values())


MOTOR = '<motor name="ref" joint="hinge"/>'


def test_a_control_that_is_held_stays(tmp_path):
    path = tmp_path / "two.xml"
    path.write_text(SERVO.replace("</actuator>", '<motor name="fan" joint="hinge" ctrlrange="-1 1"/></actuator>'))
    plan = excite(study(str(path), hold={"f*": 0.25}, trials=20))
    assert plan.runs[0].ctrl[:, 1].tolist() == [0.25] * len(plan.time)
    assert plan.runs[0].ctrl[:, 0].std() > 0.1
    with pytest.raises(DsoError, match="every actuator is held"):
        prepare(study(str(path), hold={"*": 0.0}))


def test_a_prior_is_what_is_known_before(servo):
    free = [*FREE[:3], {"path": "body/arm/mass", "prior": (0.6, 0.05)}]
    ready = prepare(study(servo, free=free, draws=4))
    assert ready.known.told.tolist() == [False, False, False, True]
    deviation = ready.known.size[3] / np.sqrt(ready.known.information[3, 3])
    assert deviation == pytest.approx(0.05)
    drawn = ready.known.draws[1:]
    assert (drawn[:, :3] == ready.known.draws[0, :3]).all()
    assert np.ptp(drawn[:, 3]) > 0


def test_a_plan_from_a_keyframe_is_played_from_there(servo, tmp_path, capsys):
    plan = excite(study(servo, keyframe="up", trials=20))
    assert plan.runs[0].path[0].tolist() == [1.2, 0.0]
    write_plan(plan, tmp_path / "plan.h5")
    given = [
        "simulate",
        servo,
        "--controls",
        str(tmp_path / "plan.h5"),
        "--out",
        str(tmp_path / "log.h5"),
        "--keep-state",
    ]
    assert main([*given, "--keyframe", "up"]) == 0
    played = read_log(tmp_path / "log.h5").rollouts[0].qpos
    assert played is not None
    np.testing.assert_allclose(played, plan.runs[0].path[: len(played), :1], atol=1e-6)
    assert main([*given, "--force", "--keyframe", "down"]) == 2
    assert "'up'" in capsys.readouterr().err


def test_what_follows_no_reference_is_told(servo, tmp_path):
    box = tmp_path / "box.xml"
    box.write_text(BOX)
    noise = {"noise": {"*": 0.001}, "play": "reference"}
    with pytest.raises(DsoError, match="ball or free joint"):
        prepare(study(str(box), free=["geom/sole/friction[0]"], **noise))
    with pytest.raises(DsoError, match="--rate"):
        prepare(study(servo, play="reference", rate={"*": 1.0}))
    endless = tmp_path / "endless.xml"
    endless.write_text(SERVO.replace(' range="-100 100"', ""))
    with pytest.raises(DsoError, match="--position hinge"):
        prepare(study(str(endless), play="reference"))
