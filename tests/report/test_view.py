"""Replays: poses as simulated, frames that show them, and plain words where nothing can be drawn."""

import dataclasses
import os
import subprocess
import sys
from contextlib import nullcontext

import mujoco
import numpy as np
import pytest
from PIL import Image

from dso_robotics.cli import main
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.report import film as module
from dso_robotics.report.film import Film
from dso_robotics.report.identify import write_report
from dso_robotics.report.replay import read_replay
from dso_robotics.report.scene import Stage
from dso_robotics.report.viewer import show
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import record

_PROBE = "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); r = mujoco.Renderer(m, 8, 8); r.render(); r.close()"


@pytest.fixture(scope="module")
def draws():
    """Skips where no OpenGL can draw off the screen."""
    if not sys.platform.startswith("linux"):
        return
    for name in ("egl", "osmesa"):
        if not subprocess.run(
            [sys.executable, "-c", _PROBE], env={**os.environ, "MUJOCO_GL": name}, capture_output=True
        ).returncode:
            return
    pytest.skip("nothing here can draw off the screen")


@pytest.fixture(scope="module")
def result(pendulum, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "result"
    free = tuple(map(parse, ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")))
    identify(
        IdentifyStudy(str(pendulum / "pendulum.xml"), (str(pendulum / "pendulum.h5"),), free, hold_out="run2"), out
    )
    return out


def test_poses_are_those_of_the_exported_model_simulated_from_the_measured_state(result):
    replay = read_replay(result)
    assert (replay.part, replay.name) == ("hold_out", "run2")
    rollout = record(0).rollouts[2]
    model = mujoco.MjModel.from_xml_path(str(result / "model.xml"))
    data = mujoco.MjData(model)
    for k in range(len(rollout.time) - 50):
        if np.isclose(replay.starts, rollout.time[k]).any():
            data.qpos[:], data.qvel[:] = rollout.sensordata[k]
        np.testing.assert_allclose(replay.time[k], rollout.time[k], atol=1e-9)
        np.testing.assert_allclose(replay.measured[k], rollout.sensordata[k, 0], atol=1e-6)
        np.testing.assert_allclose(replay.predicted[k], data.qpos, atol=1e-5)
        data.ctrl[:] = rollout.ctrl[k]
        mujoco.mj_step(model, data)
    assert len(replay.starts) > 5
    assert read_replay(result, "run0").part == "train"


def test_frames_follow_the_clock(result):
    replay = read_replay(result)
    index = replay.frames(20.0, 1.0, 2.0)
    np.testing.assert_allclose(replay.time[index], np.arange(1.0, 2.0, 0.05), atol=0.0101)
    with pytest.raises(DsoError, match="it has nothing between"):
        replay.frames(20.0, 100.0, 200.0)
    still = dataclasses.replace(replay, predicted=np.where(np.abs(replay.time - 2.5) < 0.3, replay.time, 0.0)[:, None])
    assert 1.5 <= still.liveliest(1.0) <= 2.3


def test_the_scene_has_the_robot_and_its_ghost_where_they_are():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="1 1 1"/><body><joint name="x" type="slide" axis="1 0 0"/>'
        '<geom size="0.1"/></body></worldbody></mujoco>'
    )
    stage, scene = Stage(model), mujoco.MjvScene(model, 100)
    stage.look(np.array([[0.0], [3.0]]))
    assert stage.camera.lookat[0] == pytest.approx(1.5)
    assert stage.camera.azimuth == 90.0

    def places(predicted, measured):
        stage.compose(scene, np.array([predicted]), np.array([measured]))
        geoms = [g for g in scene.geoms[: scene.ngeom] if g.type == mujoco.mjtGeom.mjGEOM_SPHERE]
        return [(round(float(g.pos[0]), 6), float(g.rgba[3]) < 1) for g in geoms]

    assert places(1.0, 2.0) == [(1.0, False), (2.0, True)]
    assert places(1.0, np.nan) == [(1.0, False)]
    assert places(np.nan, 2.0) == [(2.0, True)]


def test_the_camera_goes_along_with_a_robot_that_travels_far():
    text = (
        '<mujoco><asset><texture name="t" type="2d" builtin="checker" width="8" height="8"/><material name="m" texture="t"/>'
        '</asset><worldbody><geom type="plane" size="0 0 1" material="m"/><body><joint name="x" type="slide" axis="1 0 0"/>'
        '<geom size="{}"/></body></worldbody></mujoco>'
    )
    plain = mujoco.MjModel.from_xml_string(text.format(0.2).replace(' material="m"', ""))
    stage = Stage(plain)
    stage.look(np.linspace([0.0], [9.0], 20))
    # Over a plain floor nobody would see it move.
    assert stage.camera.distance > 9.0
    model, small = (mujoco.MjModel.from_xml_string(text.format(size)) for size in (0.2, 0.1))
    stage, scene = Stage(model, small), mujoco.MjvScene(model, 100)
    stage.look(np.linspace([0.0], [9.0], 20), np.linspace([0.0], [9.0], 20))
    assert stage.camera.distance < 3.0
    stage.compose(scene, np.array([7.0]), np.array([6.5]))
    assert stage.camera.lookat[0] == pytest.approx(7.0)
    spheres = [g for g in scene.geoms[: scene.ngeom] if g.type == mujoco.mjtGeom.mjGEOM_SPHERE]
    # The ghost has its own model, and is a little smaller, so that the surfaces of both never coincide.
    assert [round(float(g.pos[0]), 6) for g in spheres] == [7.0, 6.5]
    assert [round(float(g.size[0]), 6) for g in spheres] == [0.2, 0.098]


def test_a_film_shows_motion(result, draws, tmp_path, capsys):
    path = tmp_path / "pendulum.gif"
    assert main(["view", str(result), "--video", str(path), "--span", "1:1.4", "--size", "160x120"]) == 0
    assert "Held-out run run2" in capsys.readouterr().out
    with Image.open(path) as film:
        assert film.size == (160, 120)
        assert film.n_frames == 10
        frames = []
        for k in range(10):
            film.seek(k)
            frames.append(np.asarray(film.convert("L"), float)[30:])
    # Something dark on bright paper, and it moves.
    assert frames[0].std() > 1
    assert np.abs(frames[9] - frames[0]).max() > 50
    assert main(["view", str(result), "--video", str(path)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_the_report_carries_a_film_that_loads_nothing(result, draws):
    for _ in range(3):  # on a busy machine a film may be given up
        text = write_report(result).read_text("utf-8")
        if 'src="data:image/webp;base64,' in text:
            break
    else:
        pytest.skip("this machine is too busy to draw in time")
    assert "Held-out run run2" in text
    film = text.split('src="data:image/webp;base64,')[1].split('"')[0]
    assert 1000 < len(film) < 700_000
    assert "image/webp" not in write_report(result, video=False).read_text("utf-8")


def test_a_renderer_that_dies_or_hangs_costs_no_report(result, monkeypatch, tmp_path):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for program, words in (("kill -SEGV $$", "ended with -11"), ("echo no display >&2; exit 1", "no display")):
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{program}\n")
        fake.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(module.sys, "executable", str(fake))
            with pytest.raises(DsoError, match=words) as error:
                Film().shoot(read_replay(result), tmp_path / "film.gif")
            assert "MUJOCO_GL" in str(error.value)
            assert "image/webp" not in write_report(result).read_text("utf-8")
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module.sys, "executable", str(fake))
    with pytest.raises(DsoError, match="too long"):
        Film().shoot(read_replay(result), tmp_path / "film.gif", late=lambda: True)
    assert not list(tmp_path.glob("*.gif"))


def test_the_viewer_is_given_both_poses(result):
    replay = read_replay(result)
    seen = []

    class Window:
        cam, opt, user_scn = mujoco.MjvCamera(), mujoco.MjvOption(), mujoco.MjvScene(replay.model, 100)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def lock(self):
            return nullcontext()

        def is_running(self):
            return len(seen) < 3

        def sync(self):
            seen.append((self.data.time, self.data.qpos[0], self.user_scn.ngeom))

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += 30 * seconds

    def launch(model, data, **_):
        window = Window()
        window.data = data
        return window

    show(replay, Film(), launch=launch, clock=Clock())
    for k, (time, qpos, ghosts) in enumerate(seen):
        assert time == pytest.approx(0.5 * k, abs=0.0101)
        assert qpos == pytest.approx(replay.predicted[np.searchsorted(replay.time, time - 1e-9)][0])
        assert ghosts > 0


def test_what_cannot_be_shown_is_said(result, tmp_path, capsys, monkeypatch):
    def fails(*arguments):
        assert main(["view", *arguments]) == 2
        return capsys.readouterr().err

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform.startswith("linux"):
        assert "--video" in fails(str(result))
    assert "'run0'" in fails(str(result), "--run", "run9")
    assert "no run file" in fails(str(tmp_path))
    assert ".webp" in fails(str(result), "--video", str(tmp_path / "film.avi"))
    assert "no such camera" in fails(str(result), "--video", str(tmp_path / "film.gif"), "--camera", "top")
    assert "WIDTHxHEIGHT" in fails(str(result), "--size", "big")
    assert "FROM:TO" in fails(str(result), "--span", "3:2")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert "needs the program ffmpeg" in fails(str(result), "--video", str(tmp_path / "film.mp4"))
    tree, study, mjcf = read_run(result / "run.h5")
    write_run(tmp_path / "run.h5", tree, study | {"command": "excite"}, mjcf)
    assert "result of `dso excite`" in fails(str(tmp_path))
