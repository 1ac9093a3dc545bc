"""One reader for TOML and Python: what it makes of values, and what it says of those that are none."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Literal

import mujoco
import numpy as np
import pytest

from dso_robotics.costs.kinds.quantity import HingeCost, SquareCost
from dso_robotics.data.log import read_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration
from dso_robotics.physics.model import load
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.train_study import PolicyTable, TrainStudy
from dso_robotics.table import File, Range, Study, Table, key


@dataclasses.dataclass(frozen=True)
class Part(Table):
    spread: float = key("spread", 0.0, within="[0, inf)")
    places: Mapping[str, float] = key("places", {}, example={"x": 1.0})
    reach: Mapping[str, Range] = key("reach", {}, example={"x": [0.0, 1.0]})


@dataclasses.dataclass(frozen=True)
class Whole(Study):
    file: File = key("a file", example="a.h5")
    widths: tuple[int, ...] = key("widths", (3,), within="[1, 100]")
    names: tuple[str, ...] = key("names", ())
    window: float | Literal["full"] = key("window", 0.5, within="(0, inf)")
    good: bool = key("good", False)
    part: Part = key("a part", Part())
    more: Mapping[str, Part] = key("more", {})


def test_python_and_toml_give_the_same(tmp_path):
    (tmp_path / "whole.toml").write_text(
        'file = "a.h5"\nwidths = [4, 5]\nnames = ["x"]\nwindow = 2\ngood = true\n'
        "[part]\nspread = 1\nplaces = { x = 1 }\n[more.one]\nreach = { y = [0, 1] }\n"
    )
    read = Whole.read(tmp_path / "whole.toml")
    made = Whole(
        tmp_path / "a.h5",
        widths=np.array([4, 5]),
        names="x",
        window=np.float32(2),
        good=np.bool_(True),
        part={"spread": np.int64(1), "places": {"x": 1}},
        more={"one": Part(reach={"y": (0, 1)})},
    )
    assert read == made
    assert read.file == str(tmp_path / "a.h5")
    assert [type(width) for width in made.widths] == [int, int]
    assert read.more["one"].reach == {"y": (0.0, 1.0)}
    stored = json.loads(json.dumps(read.as_dict()))
    assert stored["part"] == {"spread": 1.0, "places": {"x": 1.0}}
    assert Whole.from_dict(stored) == read
    assert Whole.read(tmp_path / "whole.toml", widths=7 * np.ones(1, int)) == dataclasses.replace(read, widths=(7,))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("widths = 3", r"widths = 3: expected a list, each entry a whole number from 1 to 100; write widths = \[3\]"),
        ("widths = [0]", r"widths = \[0\]: expected"),
        ("widths = [1.5]", r"widths = \[1.5\]: expected"),
        ("widths = [true]", r"widths = \[True\]: expected"),
        ("window = 0", "window = 0: expected a positive number or full; write window = 0.5"),
        ("window = nan", "window = nan: expected"),
        ("window = inf", "window = inf: expected"),
        (f"window = 1{'0' * 400}", "window = 1000.*: expected"),
        ('window = "ful"', "window = 'ful': expected"),
        ("good = 1", "good = 1: expected true or false; write good = false"),
        ("names = [1]", r"names = \[1\]: expected a list, each entry a text"),
        ("nmaes = []", "unknown key 'nmaes'; it takes 'names'"),
        ("part = 3", r"part = 3: expected a table; write \[part\] on a line of its own"),
        ("[part]\nspread = -1", r"\[part\] spread = -1: expected a number from 0; write spread = 0.0"),
        ('[part]\nplaces = { x = "far" }', "part.places.x = 'far': expected a number; write x = 1.0"),
        ("[part]\nreach = { x = [2, 1] }", r"part.reach.x = \[2, 1\]: expected \[LOW, HIGH\]"),
        ("[more]\none = 3", r"more.one = 3: expected a table; write \[more.one\]"),
        ("[more.one]\nspeed = 3", r"\[more.one\] unknown key 'speed'; it takes 'spread'"),
        ("x = ", "not a TOML file"),
        (f"x = {'[' * 5000}", "nest too deep|not a TOML file"),
    ],
)
def test_every_slip_is_told_by_file_table_key_and_cure(tmp_path, line, told):
    (tmp_path / "whole.toml").write_text(f'file = "a.h5"\n{line}')
    with pytest.raises(DsoError, match=rf"whole.toml: {told}|whole.toml: .*({told})"):
        Whole.read(tmp_path / "whole.toml")


def test_files_that_are_none(tmp_path):
    with pytest.raises(DsoError, match=r"none.toml: there is no such study file; .* file, widths"):
        Whole.read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'file = "\xe9"')
    with pytest.raises(DsoError, match=r"latin.toml: not a TOML file"):
        Whole.read(tmp_path / "latin.toml")
    (tmp_path / "bare.toml").write_text("")
    with pytest.raises(DsoError, match=r'bare.toml: \'file\' is missing; write file = "a.h5"'):
        Whole.read(tmp_path / "bare.toml")
    for name in ("", "a\0b"):
        with pytest.raises(DsoError, match="no file can have this name"):
            Whole(name)


def test_an_option_of_the_command_line_is_called_so(tmp_path):
    study = IdentifyStudy("arm.xml", "arm.h5")
    with pytest.raises(
        DsoError, match=r"^--score-window -1.0: expected a positive number or full; write --score-window 0.5"
    ):
        study.changed({"score_window": -1.0})
    with pytest.raises(DsoError, match=r"^--free: joint/a/damping=x: cannot read this"):
        study.changed({"free": ["joint/a/damping=x"]})
    with pytest.raises(DsoError, match="--continuity: with window 0"):
        dataclasses.replace(study, window=0).changed({"continuity": 1.0})
    with pytest.raises(DsoError, match=r"^IdentifyStudy: score_window = -1: expected"):
        IdentifyStudy("arm.xml", "arm.h5", score_window=-1)


def test_what_is_free_in_every_form():
    wanted = (Declaration("joint/*/damping", 0.1, 0.0, 2.0),)
    table = {"path": "joint/*/damping", "init": 0.1, "low": 0, "high": 2}
    for free in ("joint/*/damping=0.1@0:2", ["joint/*/damping=0.1@0:2"], wanted[0], wanted, table, (table,)):
        assert IdentifyStudy("arm.xml", "arm.h5", free).free == wanted
    tilted = {"path": "body/a/mass", "log_prior": [1.0, 0.5]}
    study = IdentifyStudy("arm.xml", pathlib.Path("arm.h5"), tilted)
    assert study.free == (Declaration("body/a/mass", prior=(1.0, 0.5), log_prior=True),)
    assert study.logs == ("arm.h5",)
    assert IdentifyStudy.from_dict(json.loads(json.dumps(study.as_dict()))) == study
    for free, told in (
        ({"path": "body/a/mass", "prior": [1.0, -1.0]}, "not positive"),
        ({"path": "body/a/mass", "low": 2.0, "high": 1.0}, "2 is not below high 1"),
        ({"path": "body/a/mass", "prior": [1, 1], "log_prior": [1, 1]}, "not both"),
        ({"path": "body/a/mass", "inti": 1.0}, "unknown key 'inti'; it takes 'init'"),
        (3, "3 is no text"),
    ):
        with pytest.raises(DsoError, match=f"free: .*{told}"):
            IdentifyStudy("arm.xml", "arm.h5", free)


def test_models_and_logs_that_are_loaded_already(pendulum):
    robot, log = load(pendulum / "pendulum.xml"), read_log(pendulum / "pendulum.h5")
    for model in (robot, robot.spec, robot.mj, pendulum / "pendulum.xml"):
        for study in (IdentifyStudy(model, log, "joint/hinge/damping"), EstimateStudy(model, [log])):
            assert load(study.model).mj.nq == 1
            assert read_log(study.logs[0]).names == log.names
            stored = json.loads(json.dumps(study.as_dict()))
            assert stored["logs"] == [str(pendulum / "pendulum.h5")]
            assert isinstance(stored["model"], str)
    assert isinstance(IdentifyStudy(robot.mj, log).model, mujoco.MjModel)
    with pytest.raises(DsoError, match="logs = 3: expected a list, each entry a path or Log"):
        IdentifyStudy(robot, 3)


def test_a_training_in_python_is_that_of_a_file(tmp_path):
    (tmp_path / "study.toml").write_text(
        'model = "a.xml"\n[policy]\nhidden = [8]\n[cost.up]\nkind = "square"\nquantity = "joint/x/position"\ntarget = 1\n'
        '[cost.far]\nkind = "hinge"\nquantity = "body/b/x"\ntarget = "task/goal"\nwhen = { goal = 1.0 }\n'
        '[task.goal]\nvalues = [0, 1]\n[training]\nhorizon = 8\n[randomise]\n"joint/*/damping" = [0, 1]\n'
    )
    read = TrainStudy.read(tmp_path / "study.toml")
    far = HingeCost(quantity="body/b/x", target="task/goal", when={"goal": 1})
    made = TrainStudy(
        tmp_path / "a.xml",
        {"up": {"kind": "square", "quantity": "joint/x/position", "target": 1.0}, "far": far},
        policy=PolicyTable(hidden=[8]),
        task={"goal": {"values": (0, 1)}},
        training={"horizon": 8},
        randomise={"joint/*/damping": (0, 1)},
        source=str(tmp_path / "study.toml"),
    )
    assert read == made
    assert read.cost["up"] == SquareCost(quantity="joint/x/position", target=1.0)
    assert read.as_dict()["training"] == {"horizon": 8}
    assert read.as_dict()["cost"]["far"]["kind"] == "hinge"
    assert TrainStudy.from_dict(json.loads(json.dumps(read.as_dict()))) == read


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        ({"kind": "lack", "quantity": "q", "target": 1.0}, r"\[cost.a\] kind = \"lack\" has its usual name .*\"hinge\""),
        ({"kind": "reward"}, r"\[cost.a\] this is a reward, but costs are minimised"),
        ({"kind": "square", "quantity": "q", "reward": 1.0}, "this is a reward"),
        ({"quantity": "q"}, r"\[cost.a\] 'kind' is missing"),
        ({"kind": "sqare"}, r"\[cost.a\] there is no cost 'sqare'; did you mean 'square'"),
        ({"kind": "square"}, r"\[cost.a\] 'quantity' is missing; write quantity = \"joint/hinge/cosine\""),
        ({"kind": "control", "weight": -1.0}, r"\[cost.a\] weight = -1. A negative weight makes a reward"),
        ({"kind": "control", "fade": 0.5}, "unknown key 'fade'"),
        ({"kind": "prior", "numbers": {}, "when": {"a": 1.0}}, "unknown key 'when'"),
        ({"kind": "distance", "point": "site/a", "axes": "xz", "target": [1.0]}, "target has 1 numbers for the axes 'xz'"),
        ({"kind": "control", "when": {"side": 1.0}}, r"\[cost.a\] when: there is no \[task.side\]"),
    ],
)  # fmt: skip
def test_costs_that_are_refused(cost, told):
    with pytest.raises(DsoError, match=told):
        TrainStudy("a.xml", {"a": cost})


def test_studies_stored_before_this_reader_are_read():
    """The JSON of run files as they were written when sections were plain tables."""
    old = {
        "command": "identify", "model": "m.xml", "logs": ["a.h5"], "hold_out": None, "engine": "auto", "window": "full",
        "free": [{"path": "joint/a/damping", "init": None, "low": 0.0, "high": 1.0, "prior": None, "log_prior": False}],
        "score_window": None, "seed": 0, "starts": 1, "warm_start": False, "robust": False, "noise": {}, "residual": None,
        "network": {"hidden": [8]}, "continuity": None, "controller": {"m1": {"gains": {"q": 1.0}, "hold": True}},
    }  # fmt: skip
    new = {"fit": "motion", "actuator": [], "choose": None, "posterior": False, "sampler": "auto", "draws": 500}
    assert IdentifyStudy.from_dict(old).as_dict() == old | new
    trained = {
        "model": "m.xml", "cost": {"a": {"kind": "square", "quantity": "q", "weight": 2.0}}, "seed": 0, "seconds": 10.0,
        "control_step": None, "free": ["joint/a/damping=0.1@0:1"], "policy": {"hidden": [8]}, "explore": {}, "task": {},
        "start": {"position": {"h": 3.1}}, "training": {"horizon": 8, "keep": "best"}, "randomise": {},
        "design": {"d": {"kind": "gear", "of": "p", "low": 1.0, "high": 2.0}}, "source": "x.toml",
    }  # fmt: skip
    again = TrainStudy.from_dict(trained).as_dict()
    assert {k: again[k] for k in trained if k != "free"} == {k: v for k, v in trained.items() if k != "free"}
