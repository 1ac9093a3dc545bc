"""Displays: lines, JSON lines, a line of a terminal, TensorBoard; and time that passes shows."""

import io
import itertools
import json
import time

import pytest

from dso_robotics.progress.phase import each, phase, tell
from dso_robotics.progress.show import JsonLines, Lines, Terminal, chosen, showing


class Tty(io.StringIO):
    def isatty(self):
        return True


def test_a_silent_phase_shows_that_it_goes_on():
    out = io.StringIO()
    lines = Lines(out, shown=0.2)
    lines.beat = 0.02
    with showing(lines, name="dso"):
        time.sleep(0.3)
        with phase("compiling the step"):
            time.sleep(0.7)
    said = out.getvalue().splitlines()
    assert said[0].startswith("dso: 0.")
    assert sum(line.startswith("compiling the step: 0.") for line in said) >= 2
    assert said[-1].startswith("compiling the step: done in 0.")


def test_short_work_says_nothing():
    out = io.StringIO()
    with showing(Lines(out), name="dso"):
        with phase("quick"):
            pass
        for _ in each(range(2), "outer", "file"):
            for _ in each(range(3), "inner", "row"):
                pass
    assert out.getvalue().splitlines() == ["outer: file 2 of 2, done in 0.0 s"]


def test_json_lines_come_at_least_every_second_and_not_too_often():
    out = io.StringIO()
    display = JsonLines(out, gap=0.1, patience=0.1)
    display.beat = 0.02
    with showing(display, name="train"):
        tell("compiling")
        time.sleep(0.5)
        for i in range(300):
            time.sleep(0.001)
            tell("training", i + 1, 1.0 / (i + 1), total=300)
    news = [json.loads(line) for line in out.getvalue().splitlines()]
    times = [entry["seconds"] for entry in news]
    assert times == sorted(times)
    assert max(b - a for a, b in itertools.pairwise(times)) < 0.3
    assert len(news) < 100
    end = next(entry for entry in news if entry["stage"] == "training" and entry["event"] == "end")
    assert (end["iteration"], end["total"], end["cost"]) == (300, 300, 1 / 300)
    assert {entry["event"] for entry in news} >= {"begin", "at", "wait", "end"}


def test_the_line_of_a_terminal_goes_and_long_phases_leave_one(monkeypatch):
    out = Tty()
    monkeypatch.setattr("dso_robotics.progress.show.SHOWN", 0.6)
    with showing(Terminal(out), name="train"), phase("compiling the step", total=10, unit="part") as here:
        here.at(3, 12.5)
        time.sleep(1.2)
    said = out.getvalue()
    assert "part 3 of 10, cost 12.5" in said
    assert "done in 1." in said


def test_what_jax_does_is_said(monkeypatch):
    jax = pytest.importorskip("jax")
    out = io.StringIO()
    display = JsonLines(out, patience=0.0)
    display.beat = 0.01

    def slow(x):
        for _ in range(300):
            x = jax.numpy.sin(x) @ x
        return x

    with showing(display, name="test"):
        jax.jit(slow).lower(jax.numpy.ones((7, 7))).compile()
    seen = {json.loads(line)["activity"] for line in out.getvalue().splitlines()}
    assert "tracing" in seen
    assert "compiling" in seen


def test_the_display_is_chosen():
    assert isinstance(chosen("auto", Tty()), Terminal)
    assert isinstance(chosen("auto", io.StringIO()), Lines)
    assert isinstance(chosen("lines", Tty()), Lines)
    assert isinstance(chosen("json", Tty()), JsonLines)


def test_tensorboard_gets_each_iteration(tmp_path):
    pytest.importorskip("tensorboardX")
    from dso_robotics.progress.tensorboard import TensorBoard

    board = TensorBoard(tmp_path)
    with showing(chosen("none", io.StringIO()), board):
        for i in range(3):
            tell("training", i + 1, float(i), total=3, values={"gradient_norm": 2.0})
    board.close()
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    assert data.count(b"training/cost") == 3
    assert data.count(b"training/gradient_norm") == 3
