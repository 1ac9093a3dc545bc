"""`dso.identify`: paths and objects in, a result that shows itself out; nothing is left behind unasked."""

import dataclasses
import gc
import inspect
import json

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.public.identification import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, TRUTH, record

FREE = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")


@pytest.fixture(scope="module")
def found(pendulum):
    """Strings and a tuple, as typed from memory."""
    return dso.identify(str(pendulum / "pendulum.xml"), str(pendulum / "pendulum.h5"), free=FREE, hold_out=0.3)


def values(result):
    return [row["value"] for row in result.parameters.values()]


def test_what_is_found_is_the_truth_within_its_interval(found):
    assert found.converged
    assert isinstance(found, dso.Identification)
    for path in FREE:
        row, truth = found.parameters[path], TRUTH[path.rpartition("/")[2]]
        assert row["low95"] < row["value"] < row["high95"]
        assert abs(row["value"] - truth) < 1.5 * (row["high95"] - row["low95"])
        assert row["unit"]
    assert found.model().dof_damping[0] == found.parameters["joint/hinge/damping"]["value"]
    assert json.loads((found.folder / "summary.json").read_text())["command"] == "identify"


def test_it_shows_itself(found):
    assert "joint/hinge/damping" in str(found)
    assert "converged" in repr(found)
    page = found._repr_html_()
    assert "<td class=l>joint/hinge/damping</td>" in page
    assert "held-out runs" in page
    assert found.plot("run2").get_axes()[0].lines[2].get_xdata().size
    with pytest.raises(dso.DsoError, match=r"run='run9'.*'run2'"):
        found.plot("run9")


@pytest.mark.parametrize("kind", ["objects", "spec", "pathlike"])
def test_objects_and_paths_give_the_same_numbers(found, pendulum, kind):
    model, logs = pendulum / "pendulum.xml", [pendulum / "pendulum.h5"]
    if kind == "objects":
        model, logs = dso.load(model), dso.read_log(*logs)
    elif kind == "spec":
        model, logs = mujoco.MjSpec.from_file(str(model)), [dso.read_log(logs)]
    again = dso.identify(model, logs, free=list(FREE), hold_out=["run2"])
    assert values(again) == pytest.approx(values(found), rel=1e-12)


def test_a_compiled_model_is_taken_while_mujoco_has_its_mjcf(pendulum):
    log = record(0, runs=1, seconds=2.0)
    model = mujoco.MjModel.from_xml_path(str(pendulum / "pendulum.xml"))
    model.body_mass[1] = 1 / 1.5
    robot = dso.load(model)
    assert robot.spec is not None
    changed = dso.identify(robot, log, free="joint/hinge/damping")
    assert changed.model().body_mass[1] == 1 / 1.5
    other = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(dso.DsoError, match=r"no MJCF.*Pass the path of the model, its MjSpec"):
        dso.identify(model, log, free="joint/hinge/damping")
    assert dso.load(model).spec is None
    # Models that were loaded here, also those of results, stay known.
    again = dso.identify(changed.model(), log, free="joint/hinge/damping")
    assert values(again) == pytest.approx(values(changed), rel=1e-3)
    assert other.nv == 0


def test_a_robot_changed_after_loading_is_what_is_identified(pendulum):
    robot = dso.load(pendulum / "pendulum.xml")
    robot.mj.opt.timestep, robot.mj.body_mass[1] = 0.005, 0.123456789012345
    changed = dso.identify(robot, record(0, runs=1, seconds=2.0), free="joint/hinge/damping")
    assert changed.model().body_mass[1] == 0.123456789012345
    assert changed.model().opt.timestep == 0.005


def test_meshes_in_memory_come_along(tmp_path):
    obj = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 -.4\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n"
    xml = PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0)
    xml = xml.replace("<worldbody>", '<asset><mesh name="pole" file="pole.obj"/></asset><worldbody>')
    xml = xml.replace("</body>", '<geom type="mesh" mesh="pole" contype="0" conaffinity="0"/></body>')
    spec = mujoco.MjSpec.from_string(xml, assets={"pole.obj": obj.encode()})
    found = dso.identify(spec, record(0, runs=1, seconds=2.0), free="joint/hinge/damping")
    assert found.model().nmesh == 1
    found.save(tmp_path / "kept", report=False)
    del found
    gc.collect()
    assert mujoco.MjModel.from_xml_path(str(tmp_path / "kept" / "model.xml")).nmesh == 1


def test_without_a_folder_the_run_goes_with_its_result(pendulum, tmp_path):
    log = dso.read_log(pendulum / "pendulum.h5")
    result = dso.identify(pendulum / "pendulum.xml", log, free="joint/hinge/damping")
    place = result.folder.parent
    assert place.is_dir()
    kept = result.save(tmp_path / "kept", report=False)
    assert result.export("csv", tmp_path / "table.csv") == [tmp_path / "table.csv"]
    assert "joint/hinge/damping" in (tmp_path / "table.csv").read_text()
    with pytest.raises(dso.DsoError, match=r"force=True"):
        result.export("csv", tmp_path / "table.csv")
    with pytest.raises(dso.DsoError, match="expected one of tabular"):
        result.export("latex", tmp_path / "table.tex", environment="tabel")
    with pytest.raises(dso.DsoError, match=r"out=.*force=True to replace"):
        result.save(kept)
    result.save(kept, force=True, report=False)
    del result
    gc.collect()
    assert not place.exists()
    assert {"summary.json", "run.h5", "model.xml"} <= {path.name for path in kept.iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = dso.identify(pendulum / "pendulum.xml", log, free="joint/hinge/damping")
    with pytest.raises(dso.DsoError, match="this folder holds none"):
        result.save(tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_with_a_folder_it_is_as_on_the_command_line(pendulum, tmp_path):
    keys = {"free": "joint/hinge/damping", "out": tmp_path / "out", "report": False}
    dso.identify(pendulum / "pendulum.xml", pendulum / "pendulum.h5", **keys)
    assert not (tmp_path / "out" / "report.html").exists()
    with pytest.raises(dso.DsoError, match=r"out=.*resume=True"):
        dso.identify(pendulum / "pendulum.xml", pendulum / "pendulum.h5", **keys)
    with pytest.raises(dso.DsoError, match="finished already"):
        dso.identify(out=tmp_path / "out", resume=True)


def test_it_predicts_recordings_that_it_has_not_seen(found):
    other = record(7, runs=1)
    seen = found.predict(other)
    assert list(seen.runs) == ["run0"]
    run = seen.runs["run0"]
    assert run.measured.shape == run.predicted.shape == (400, 2)
    assert 0.001 < seen.rmse["angle"] < 0.02
    assert "angle" in str(seen)
    assert "<table>" in seen._repr_html_()
    assert seen.plot()._repr_png_().startswith(b"\x89PNG")
    whole = found.predict([other], window="full")
    assert whole.seconds > 3.0
    # The same recordings in the same windows have the same errors as in the study.
    log = record(0)
    held = dataclasses.replace(log, rollouts=log.rollouts[2:])
    assert found.predict(held).rmse["angle"] == pytest.approx(
        found.summary["fit"]["hold_out"]["angle"]["rmse"], rel=1e-9
    )
    with pytest.raises(dso.DsoError, match="window='soon'"):
        found.predict(other, window="soon")


def test_the_report_is_drawn_when_it_is_asked_for(found):
    report = found.report(video=False)
    assert report.path.read_text().startswith("<!doctype html>") or "<html" in report.path.read_text()
    assert "<iframe" in report._repr_html_()


def test_errors_speak_of_arguments_and_of_what_was_given(pendulum):
    model, log = pendulum / "pendulum.xml", record(0, runs=2)
    with pytest.raises(dso.DsoError, match=r"^log: hold_out='nine'"):
        dso.identify(model, log, free=FREE, hold_out="nine")
    with pytest.raises(dso.DsoError, match=r"free=PATH .`dso.list_parameters\(model\)`"):
        dso.identify(model, log)
    with pytest.raises(dso.DsoError, match=r"engine = 'gpu': expected one of auto"):
        dso.identify(model, log, free=FREE, engine="gpu")
    with pytest.raises(dso.DsoError, match="a model is a path, an MjSpec, an MjModel"):
        dso.identify(3, log, free=FREE)
    with pytest.raises(dso.DsoError, match="logs: dict is no log"):
        dso.identify(model, [{}], free=FREE)
    with pytest.raises(dso.DsoError, match="'model' is missing"):
        dso.identify(logs=log, free=FREE)


def test_numbers_of_a_parameter_may_come_as_a_table(pendulum):
    table = {"path": "joint/hinge/damping", "init": 0.1, "low": 0.0, "high": 1.0, "prior": (0.1, 0.5)}
    found = dso.identify(pendulum / "pendulum.xml", record(0, runs=1, seconds=2.0), free=[table])
    assert found.parameters["joint/hinge/damping"]["initial"] == 0.1
    with pytest.raises(dso.DsoError, match=r"joint/hinge/damping: unknown key 'start'; it takes 'path'"):
        dso.identify(pendulum / "pendulum.xml", record(0, runs=1), free={"path": "joint/hinge/damping", "start": 1})


def test_a_study_file_is_read_and_arguments_win(pendulum):
    text = 'model = "pendulum.xml"\nlogs = ["pendulum.h5"]\nfree = ["joint/hinge/damping"]\nhold_out = "run0"\n'
    (pendulum / "study.toml").write_text(text)
    lines = []
    found = dso.identify(pendulum / "study.toml", hold_out="run1", progress=lines.append)
    assert found.summary["windows"]["rollouts"]["hold_out"] == ["run1"]
    assert [news for news in lines if news.stage == "evaluating"][-1].event == "end"


def test_every_key_of_a_study_is_an_argument():
    assert {field.name for field in dataclasses.fields(IdentifyStudy)} <= set(inspect.signature(identify).parameters)


@pytest.mark.slow
def test_mjx_finds_the_optimum_of_c_in_float64_whatever_the_caller_does(pendulum):
    log, seen = record(0, runs=1, seconds=2.0), []
    with jax.enable_x64(False):
        single = dso.identify(
            pendulum / "pendulum.xml",
            log,
            free=FREE,
            engine="mjx",
            progress=lambda news: seen.append(jnp.ones(1).dtype),
        )
        assert jnp.ones(1).dtype == jnp.float32
    assert set(seen) == {jnp.dtype("float64")}
    here = dso.identify(pendulum / "pendulum.xml", log, free=FREE)
    assert (single.run.summary["engine"], here.run.summary["engine"]) == ("mjx", "mujoco")
    assert single.run.summary["seconds"]["compile"] > 0
    np.testing.assert_allclose(single.run.solution.z, here.run.solution.z, rtol=1e-4)
    np.testing.assert_allclose(single.run.uncertainty.std, here.run.uncertainty.std, rtol=1e-2)
