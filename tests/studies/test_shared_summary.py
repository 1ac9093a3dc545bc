"""summary.json of every command has the same entries, each of the same form."""

import pytest

from dso_robotics.data.log import write_log
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.summary import COMMON
from tests.pendulum import PENDULUM, record

ROBOT = {"free": ["joint/hinge/damping=0.1@0:2"], "hold_out": "run2"}


def identified(folder):
    return identify(
        IdentifyStudy.read(model=str(folder / "robot.xml"), logs=[str(folder / "log.h5")], **ROBOT), folder / "out"
    ).summary


def estimated(folder):
    return estimate(
        EstimateStudy.read(model=str(folder / "robot.xml"), logs=[str(folder / "log.h5")], **ROBOT), folder / "out"
    )


def trained(folder):
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy
    from tests.studies.train_robots import write

    more = 'free = ["joint/x/damping=0.1@0:2"]\n[flow]\nphysics = ["rollouts"]'
    return train(TrainStudy.read(write(folder, iterations=1, more=more)), folder / "out").summary


@pytest.mark.parametrize("command", [identified, estimated, pytest.param(trained, marks=pytest.mark.mjx)])
def test_entries_of_every_summary(tmp_path, command):
    (tmp_path / "robot.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    write_log(tmp_path / "log.h5", record(0, seconds=1.5))
    found = command(tmp_path)
    assert set(COMMON) <= set(found)
    texts = ("command", "version", "engine", "engine_reason", "status", "message")
    assert all(isinstance(found[name], str) and found[name] for name in texts)
    assert set(found["method"]) == {"name", "reason"}
    assert {"total", "compile"} <= set(found["seconds"])
    assert {"total", "terms"} <= set(found["cost"])
    assert set(found["fit"]) == {"train", "hold_out"}
    assert isinstance(found["converged"], bool)
    assert isinstance(found["evaluations"], int)
    assert set(found["doubts"]) <= set(found["warnings"])
    (row,) = [row for path, row in found["parameters"].items() if path.endswith("damping")]
    assert {"value", "initial", "unit", "low95", "high95", "at_bound"} <= set(row)
    if command is trained:
        # One iteration is not enough, and that is a doubt.
        assert not found["converged"]
        assert found["doubts"]
