"""A study in a report names its files without their folders, and each table under its name."""

from dso_robotics.report.study_text import study_text, words

STUDY = {
    "command": "train",
    "source": "/home/someone/studies/arm.toml",
    "model": "/home/someone/arm.xml",
    "logs": ["/home/someone/a.h5", "b.h5"],
    "seed": 0,
    "control_step": None,
    "free": [{"path": "joint/*/damping", "init": 0.1, "low": None}],
    "policy": {"kind": "linear"},
    "cost": {"shown": {"kind": "cloning", "log": "C:\\logs\\walk.h5", "weight": 0.5}, "effort": {"kind": "control"}},
    "start": {},
}


def test_every_given_key_has_its_line():
    assert study_text(STUDY).split("\n") == [
        "source = arm.toml",
        "model = arm.xml",
        "logs = a.h5, b.h5",
        "seed = 0",
        "free = joint/*/damping, init 0.1",
        "",
        "[policy]",
        "kind = linear",
        "",
        "[cost.shown]",
        "kind = cloning",
        "log = walk.h5",
        "weight = 0.5",
        "",
        "[cost.effort]",
        "kind = control",
    ]


def test_values_in_words():
    assert words([0.25, True, "x"]) == "0.25, True, x"
