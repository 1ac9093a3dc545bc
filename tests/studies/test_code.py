"""A run folder from somebody else runs no Python: the user names the file again, and it is the one of the beginning."""

import dataclasses
import json
import shutil

import h5py
import pytest

from dso_robotics.cli import main
from dso_robotics.data.archive import fixed_text
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.studies.code import code_files, refuse_unnamed
from dso_robotics.studies.identify import identify
from dso_robotics.studies.run import sha256
from dso_robotics.studies.study import IdentifyStudy

HARMLESS = "def weighed(p): return [0.0]\n"


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def gift(pendulum, tmp_path, monkeypatch):
    """A run that somebody began with a residual and stopped."""
    for name in ("pendulum.xml", "pendulum.h5"):
        shutil.copy(pendulum / name, tmp_path / name)
    (tmp_path / "scale.py").write_text(HARMLESS)
    monkeypatch.chdir(tmp_path)

    def stop(news):
        if news.iteration >= 1:
            raise Killed

    with pytest.raises(Killed):
        identify(study(), "out", progress=stop)
    return tmp_path


def study(**changes):
    free = (parse("joint/hinge/damping"),)
    return IdentifyStudy(
        **({"model": "pendulum.xml", "logs": ("pendulum.h5",), "free": free, "residual": "scale.py:weighed"} | changes)
    )


def give(folder, name="evil.py", *, honest=False):
    """Let the run file name another file, which leaves a trace when it runs; `honest`: with its own SHA-256."""
    (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n{HARMLESS}")
    with h5py.File(folder / "out" / "run.h5", "r+") as file:
        stored = json.loads(file["study"][()])
        stored["residual"] = f"{folder / name}:weighed"
        changes = {"study": json.dumps(stored)}
        if honest:
            changes["inputs/residual/sha256"] = sha256(folder / name)
        for key, text in changes.items():
            del file[key]
            file[key] = fixed_text(text)


@pytest.mark.parametrize("honest", [False, True])
def test_a_folder_alone_runs_no_code(gift, capsys, honest):
    give(gift, honest=honest)
    assert main(["identify", "--resume", "--out", "out", "--no-report"]) == 2
    said = capsys.readouterr().err
    assert "evil.py" in said
    assert "--residual" in said
    assert said.count("\n") == 1
    assert not (gift / "ran").exists()


def test_a_file_that_is_named_again_is_compared_before_it_runs(gift, capsys):
    (gift / "scale.py").write_text(f"open({str(gift / 'ran')!r}, 'w').close()\n{HARMLESS}")
    assert main(["identify", "--resume", "--residual", "scale.py:weighed", "--out", "out", "--no-report"]) == 2
    assert "has changed" in capsys.readouterr().err
    with pytest.raises(DsoError, match="has changed"):
        identify(study(), "out", resume=True)
    assert not (gift / "ran").exists()
    (gift / "scale.py").write_text(HARMLESS)
    assert main(["identify", "--resume", "--residual", "scale.py:weighed", "--out", "out", "--no-report"]) == 0


def test_every_place_of_a_study_that_names_python_is_found(tmp_path):
    stored = {
        "model": "a.xml",
        "residual": "here/scale:weighed",
        "cost": {"own": {"kind": "python", "file": "cost.txt"}, "log": {"kind": "motion", "file": "b.h5"}},
        "corrector": {"more": ["mine.PY"]},
    }
    assert sorted(file for _, file in code_files(stored)) == ["cost.txt", "here/scale", "mine.PY"]
    with pytest.raises(DsoError, match=r"train STUDY\.toml --resume"):
        refuse_unnamed(tmp_path / "run.h5", {"cost": stored["cost"]}, {}, "train")
    refuse_unnamed(tmp_path / "run.h5", {"residual": "scale.py:f"}, {"residual": "scale.py:f"}, "identify")
    refuse_unnamed(tmp_path / "run.h5", {"model": "a.xml"}, {}, "identify")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("raise ValueError('no\\nway')", "ValueError: no way"),
        ("import sys; sys.exit(0)", "calls sys.exit"),
        ("return [0.0, 0.0]", "2 numbers after 1"),
        ("return float('nan')", "nan"),
        ("return 'text'", "not numbers"),
    ],
)
def test_a_residual_that_fails_in_mid_search_is_said(pendulum, tmp_path, body, word):
    path = tmp_path / "own.py"
    text = f"seen = []\ndef f(p):\n    seen.append(1)\n    if len(seen) > 5:\n        {body}\n    return 0.1\n"
    path.write_text(text)
    asked = study(model=str(pendulum / "pendulum.xml"), logs=(str(pendulum / "pendulum.h5"),), residual=f"{path}:f")
    with pytest.raises(DsoError, match=word) as caught:
        identify(asked, tmp_path / "out")
    assert str(path) in str(caught.value)
    path.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(DsoError, match=r"sys\.exit\(3\)"):
        identify(dataclasses.replace(asked), tmp_path / "other")
