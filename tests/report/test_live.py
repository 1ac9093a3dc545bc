"""A policy played live: keys, pushes, time, and what happens where there is no display."""

import contextlib
import types

import mujoco
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.report.live import BACKSPACE, DOWN, ENTER, LEFT, RIGHT, SPACE, UP, Live, play_live
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.episode_starts import GROUP, EpisodeStarts
from dso_robotics.robot.policy_loop import PolicyLoop
from tests.robot.policies import numbers

ROBOT = """<mujoco model="three">
  <option timestep="0.005"/>
  <worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0" damping="1"/><geom size=".1" mass="1"/>
    <body><joint name="hinge" damping=".1"/><geom size=".05" pos="0 0 .2" mass=".1"/>
      <body><joint name="z" type="slide" damping="1" stiffness="5"/><geom size=".05" mass=".1"/></body></body>
  </body></worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-0.4 1.8"/>
    <general name="free" joint="hinge" dyntype="filter" dynprm="0.1" gainprm="0.1"/></actuator>
</mujoco>"""


@pytest.fixture
def loop(tmp_path):
    """A policy with random numbers and two task numbers, and three starts."""
    n = numbers("linear", tasks=("goal", "speed"))
    write_run(tmp_path / "policy.h5", {"policy": n.as_dict()}, {"command": "policy"}, ROBOT)
    rows = np.zeros((3, 3))
    rows[:, 0] = [0.1, 0.2, 0.3]
    none, task = np.zeros(0), np.full((3, 2), -0.9)
    starts = EpisodeStarts(2.0, rows, 0 * rows, np.zeros((3, 1)), task, *[np.zeros((3, 0))] * 2, (), none, none, none)
    write_run(tmp_path / "run.h5", {GROUP: starts.as_dict()}, {}, "")
    return PolicyLoop(tmp_path, named=False)


def test_time_passes_in_whole_control_steps(loop):
    live = Live(loop)
    assert loop.data.qpos[0] == 0.1
    assert [live.advance(seconds) for seconds in (0.01, 0.011, 0.05, 0.0)] == [0, 1, 2, 0]
    assert loop.data.time == pytest.approx(0.06)
    # A machine that was away plays a tenth of a second, not an hour.
    assert live.advance(3600.0) == 5
    live.press(SPACE)
    assert live.advance(1.0) == 0
    assert "paused" in live.text[1]
    live.press(SPACE)
    assert live.advance(0.02) == 1


def test_keys_start_elsewhere_and_change_the_task(loop):
    live = Live(loop)
    live.advance(0.08)
    live.press(ENTER)
    live.advance(0.0)
    assert (loop.data.time, loop.data.qpos[0]) == (0.0, 0.2)
    live.press(BACKSPACE)
    live.advance(0.0)
    assert loop.data.qpos[0] == 0.2
    before = loop.policy.change_task({})
    assert before == {"goal": -0.9, "speed": -0.9}
    for key in (RIGHT, UP, UP, LEFT, DOWN):
        live.press(key)
    live.advance(0.02)
    n = loop.policy.numbers
    low, span = n.task_low, n.task_high - n.task_low
    after = loop.policy.change_task({})
    assert after["speed"] == pytest.approx(np.clip(-0.9 + 0.2 * span[1], low[1], low[1] + span[1]))
    assert after["goal"] == low[0], "the range has no width, and the number is brought into it"
    assert loop.data.time > 0, "the episode goes on"
    live.restart()
    assert loop.policy.change_task({}) == after
    assert "> goal" in live.text[0]


def test_it_plays_as_the_policy_does_and_feels_pushes(loop):
    live = Live(loop)
    live.advance(0.08)
    policy, model = Policy.load(loop.source), loop.model
    data = mujoco.MjData(model)
    policy.reset({"goal": -0.9, "speed": -0.9})
    data.qpos[0] = 0.1
    for _ in range(4):
        data.ctrl[:] = policy.act(data)
        mujoco.mj_step(model, data, 4)
    np.testing.assert_allclose(loop.data.qpos, data.qpos, atol=1e-12)
    loop.data.xfrc_applied[1, 0] = 50.0
    live.advance(0.08)
    for _ in range(4):
        data.ctrl[:] = policy.act(data)
        mujoco.mj_step(model, data, 4)
    assert loop.data.qpos[0] > data.qpos[0] + 0.05


def test_the_reset_of_the_viewer_restarts_the_policy(loop):
    live = Live(loop)
    live.advance(0.08)
    mujoco.mj_resetData(loop.model, loop.data)
    live.advance(0.0)
    assert loop.data.qpos[0] == 0.1


def test_what_diverges_starts_again_and_ends_if_it_always_does(loop):
    live = Live(loop)
    live.advance(0.1)
    live.advance(0.1)
    loop.data.qvel[0] = 1e9
    live.advance(0.02)
    assert "diverged" in live.said
    assert loop.data.qpos[0] == 0.2
    loop.model.opt.gravity[0] = 1e12
    live.advance(0.02)
    with pytest.raises(DsoError, match="diverged"):
        live.advance(0.02)


class Window:
    """A viewer without a window, closed after some frames."""

    def __init__(self, model, data, key_callback, frames=30, **options):
        self.cam, self.frames, self.synced, self.texts = types.SimpleNamespace(), frames, 0, []
        self.press, self.data, self.perturb = key_callback, data, mujoco.MjvPerturb()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def lock(self):
        return contextlib.nullcontext()

    def is_running(self):
        self.frames -= 1
        return self.frames >= 0

    def sync(self):
        self.synced += 1

    def set_texts(self, texts):
        self.texts.append(texts)


def test_the_window_shows_the_loop_in_real_time(loop):
    seconds, made = [0.0], []
    clock = types.SimpleNamespace(
        monotonic=lambda: seconds[0], sleep=lambda more: seconds.__setitem__(0, seconds[0] + more)
    )

    def launch(model, data, **options):
        made.append(Window(model, data, **options))
        return made[-1]

    play_live(loop, launch=launch, speed=2.0, clock=clock)
    assert made[0].synced == 30
    assert loop.data.time == pytest.approx(2.0 * 29 / 60, abs=0.021)
    assert made[0].texts[-1][2].startswith("time")
    was = loop.data.qpos[0]

    def pulled(model, data, **options):
        window = launch(model, data, **options)
        window.perturb.select, window.perturb.active, window.perturb.localmass = 1, 1, 1.0
        window.perturb.refselpos[:] = 1.5, 0.0, 0.0
        return window

    play_live(loop, launch=pulled, clock=clock)
    assert loop.data.qpos[0] > 1.0 > was, "the mouse pulls the cart"
    with pytest.raises(DsoError, match="no camera 'side'; the model has none"):
        play_live(loop, launch=launch, camera="side")


def test_the_command_refuses_where_there_is_no_display(loop, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cli.main(["view", loop.source, "--live"]) == 2
    assert "there is no display to open a window on" in capsys.readouterr().err
    assert cli.main(["view", loop.source, "--live", "--video", "a.webp"]) == 2
    assert "--video is of a replay" in capsys.readouterr().err
    assert cli.main(["view", loop.source, "--model", "a.xml"]) == 2
    assert "give --live too" in capsys.readouterr().err
