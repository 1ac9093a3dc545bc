"""Phases tell what is under way, how far it is, and how long it still takes."""

import contextlib
import json
import math
import time

import pytest

from dso_robotics.progress.phase import each, earlier, listening, phase, tell
from dso_robotics.progress.report import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


def events(reports):
    return [(news.stage, news.event, news.iteration) for news in reports]


def test_nothing_happens_without_a_listener():
    with phase("work", total=3) as here:
        here.at(1)
    tell("more", 1)
    assert list(each("ab", "letters", "letter")) == ["a", "b"]


def test_phases_nest_and_return(clock):
    heard = []
    with listening(heard.append):
        tell("training", 1, 5.0, total=4)
        with phase("episodes"):
            clock.now += 3.0
        tell("training", 2, 4.0, total=4)
        tell("evaluating")
    assert events(heard) == [
        ("training", "begin", 0),
        ("training", "at", 1),
        ("episodes", "begin", 0),
        ("episodes", "end", 0),
        ("training", "at", 2),
        ("training", "end", 2),
        ("evaluating", "begin", 0),
        ("evaluating", "end", 0),
    ]
    assert heard[3].stage_seconds == 3.0
    assert heard[4].cost == 4.0


def test_rate_and_remaining_time_are_those_of_the_clock(clock):
    heard = []
    with listening(heard.append), phase("work", total=10, unit="file") as here:
        clock.now += 5.0  # compiling, before the first unit, is not part of the rate
        for done in (1, 2, 3):
            here.at(done)
            clock.now += 0.5
        now = here.progress("wait", 100.0)
    assert heard[3].rate == 2.0
    assert heard[3].remaining == 3.5
    assert now.remaining == 3.0
    assert now.seconds == 6.5
    assert math.isnan(heard[1].rate)


def test_each_counts_and_an_exception_ends_without_a_report():
    heard = []
    with contextlib.suppress(ZeroDivisionError), listening(heard.append):
        for thing in each([1, 0], "dividing", "number"):
            1 / thing
    assert events(heard) == [("dividing", "begin", 0), ("dividing", "at", 1)]
    assert heard[1].total == 2


def test_earlier_sessions_count(clock):
    heard = []
    with listening(heard.append):
        earlier(50.0)
        tell("training", 3)
    assert heard[-1].seconds == 50.0


def test_a_listener_inside_hears_what_is_inside():
    outer, inner = [], []
    with listening(outer.append), phase("outer"):
        with listening(inner.append):
            tell("inner", 1)
        tell("after", 1)
    assert {news.stage for news in inner} == {"inner"}
    assert {news.stage for news in outer} == {"outer", "after"}


def test_a_report_as_text_and_as_json():
    times = {"seconds": 50.0, "stage_seconds": 40.0, "rate": 2.0, "remaining": 190.0}
    news = Progress("training", 120, 0.123, steps=1000, total=500, values={"a": math.inf}, **times)
    assert str(news) == (
        "training: iteration 120 of 500, 1,000 steps, training cost 0.123 a step, 2 a second, 3 min 10 s left, 40 s"
    )
    stored = json.loads(json.dumps(news.as_dict(), allow_nan=False))
    assert stored["episode_cost"] is None
    assert stored["values"] == {"a": None}
    assert stored["remaining"] == 190.0


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.21, "4.2 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said
