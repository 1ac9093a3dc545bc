"""Windows that hold too little, start states that were not measured, and options that only matter after the search."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies import identify as module
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import record


def run(folder, tmp_path, change, **options):
    """Identify from the pendulum's log with each rollout changed by `change`."""
    log = record(0)
    write_log(tmp_path / "log.h5", dataclasses.replace(log, rollouts=tuple(map(change, log.rollouts))))
    free = tuple(map(parse, ("joint/hinge/damping", "body/pole/mass")))
    study = IdentifyStudy(str(folder / "pendulum.xml"), (str(tmp_path / "log.h5"),), free, **options)
    return identify(study, tmp_path / "out").summary


@pytest.mark.parametrize(
    ("factor", "suspect"),
    [(100.0, "count of samples"), (1000.0, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")],
)
def test_time_in_another_unit_is_refused_and_named(pendulum, tmp_path, factor, suspect):
    with pytest.raises(DsoError, match=rf"log\.h5.*fewer than 3 samples.*{suspect}.*dso convert"):
        run(pendulum, tmp_path, lambda r: dataclasses.replace(r, time=np.round(r.time * factor)))
    assert not (tmp_path / "out").exists()


def test_a_slow_log_is_told_which_window_it_needs(pendulum, tmp_path):
    def thin(r):
        keep = slice(None, None, 30)
        return dataclasses.replace(r, time=r.time[keep], ctrl=r.ctrl[keep], sensordata=r.sensordata[keep])

    with pytest.raises(DsoError, match=r"0\.3 s apart; .*--window 3 "):
        run(pendulum, tmp_path, thin)
    warnings = run(pendulum, tmp_path, thin, window=1.5)["warnings"]
    assert any("only 5 samples" in w for w in warnings)


def test_windows_that_begin_in_a_gap_are_not_scored_as_measured(pendulum, tmp_path):
    def hole(r):
        values = r.sensordata.copy()
        values[95:110] = np.nan
        return dataclasses.replace(r, sensordata=values)

    whole = run(pendulum, tmp_path / "whole", lambda r: r) if (tmp_path / "whole").mkdir() is None else {}
    summary = run(pendulum, tmp_path, hole)
    assert any("3 of " in w and "begin where a joint was not measured" in w for w in summary["warnings"])
    for name in ("angle", "speed"):
        # White noise of the start is all there is: a start taken across the gap would be ten times worse.
        assert summary["fit"]["train"][name]["rmse"] < 1.3 * whole["fit"]["train"][name]["rmse"]


def test_what_only_matters_after_the_search_is_checked_before(pendulum, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "search_motion", lambda *a: pytest.fail("searched"))
    for window in (100.0, 0.001, 1e9):
        with pytest.raises(DsoError, match=r"log\.h5.*--score-window"):
            run(pendulum, tmp_path, lambda r: r, score_window=window)

    def late(r):
        return dataclasses.replace(r, time=np.where(np.arange(len(r.time)) < 350, r.time, r.time + 1e5))

    with pytest.raises(DsoError, match=r"log\.h5.*split the rollout at its gaps"):
        run(pendulum, tmp_path, late)
    assert not (tmp_path / "out").exists()
