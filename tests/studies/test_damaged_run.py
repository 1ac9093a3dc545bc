"""Run files of a killed identification with other values than a run writes: each is refused with a word, none crashes."""

import json

import numpy as np
import pytest

from dso_robotics.data.log import write_log
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies.choice import stored_choice
from dso_robotics.studies.identify import identify
from dso_robotics.studies.race import stored as stored_race
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, record
from tests.studies.test_identify_resume import Killed, kill_at


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with an identification that was killed in its second stage, and what its run file holds."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    write_log(folder / "pendulum.h5", record(1, seconds=1.5))
    free = tuple(map(parse, ("joint/hinge/damping", "body/pole/mass")))
    study = IdentifyStudy(str(folder / "pendulum.xml"), (str(folder / "pendulum.h5"),), free, continuity="learned")
    with pytest.raises(Killed):
        identify(study, folder / "out", progress=kill_at("start states estimated", 2))
    return folder / "out", study, read_run(folder / "out" / "run.h5")


def grown(table):
    """The columns of a table with one more axis."""
    return {name: np.asarray(column)[..., None] for name, column in table.items()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: {"earlier": grown(tree["earlier"])},
        lambda tree: {"earlier": {**tree["earlier"], "other": np.zeros(len(tree["earlier"]["cost"]))}},
        lambda tree: {"earlier": {k: v for k, v in tree["earlier"].items() if k != "stage"}},
        lambda tree: {"records": {**tree["records"], "z": np.zeros((len(tree["records"]["cost"]), 7))}},
        lambda tree: {"race": {"outcome": "[1, 2]"}},
        lambda tree: {"state": {**tree["state"], "noise.jumps": np.ones((2, 9))}},
        lambda tree: {"state": {**tree["state"], "noise.jumps": -np.asarray(tree["state"]["noise.jumps"])}},
    ],
)  # fmt: skip
def test_other_values_are_refused(killed, damage):
    out, study, (tree, stored, mjcf) = killed
    write_run(out / "run.h5", tree | damage(tree), stored, mjcf)
    with pytest.raises(DsoError, match=r"without --resume"):
        identify(study, out, resume=True)
    # The file itself goes on.
    write_run(out / "run.h5", tree, stored, mjcf)


RACE = {"tried": 2, "costs": [3.0, None], "reached": 4.0, "chosen": 0}
ROW = {"label": "0.5 s", "error_percent": 1.0, "alike": False}
CHOICE = {
    "score_seconds": 1.0,
    "folds": 2,
    "pieces": False,
    "window": {"tried": [ROW], "chosen": "0.5 s", "warnings": ["short"]},
}


@pytest.mark.parametrize(
    ("read", "good", "wrong"),
    [
        (
            lambda text, path: stored_race(text and {"outcome": text}, path),
            RACE,
            ({"chosen": 1}, {"chosen": 5}, {"costs": "a"}, {"reached": None}),
        ),
        (
            lambda text, path: stored_choice({"outcome": text}, IdentifyStudy("m", ("l",), ()), path),
            CHOICE,
            ({"window": CHOICE["window"] | {"chosen": "1 s"}}, {"folds": "x"}, {"window": 1}, {"friction": {}},
             {"window": {"tried": [ROW | {"label": "soon"}], "chosen": "soon", "warnings": []}}),
        ),
    ],
)  # fmt: skip
def test_outcomes_are_read_back_or_refused(read, good, wrong, tmp_path):
    path = tmp_path / "run.h5"
    assert read(json.dumps(good), path) == good
    for change in wrong:
        with pytest.raises(DsoError, match=r"run\.h5: the run file is damaged"):
            read(json.dumps(good | change), path)
    with pytest.raises(DsoError, match="damaged"):
        read("{", path)
    assert stored_race(None, path) is None
