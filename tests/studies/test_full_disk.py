"""A disk that is full at any write, a folder that may not be written to, and two runs at once: nothing is lost, and it is told.

What the user had stays as it was, nothing half-written looks finished, and with space again the run ends with its numbers.
"""

import shutil

import pytest

# Here once for all processes that are forked.
import dso_robotics.report.table
import dso_robotics.studies.estimate
import dso_robotics.studies.identify  # noqa: F401
from dso_robotics.studies import folder as folders
from tests.studies.kills import COMMANDS, numbers, options, write_inputs
from tests.studies.processes import Mishap, run

SIMULATE = ["simulate", "pendulum.xml", "--seconds=0.2", "--amplitude=1"]
CONVERT = ["convert", "table.csv", "--sensor", "q:rad"]
TRAININGS = [pytest.param(name, marks=(pytest.mark.long, pytest.mark.mjx)) for name in ("train", "design")]


@pytest.fixture
def commands(tmp_path, request):
    """The inputs of all commands."""
    write_inputs(tmp_path, mjx=request.node.get_closest_marker("mjx") is not None)
    return tmp_path


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_one_paragraph(end):
    last = end.said.rstrip().splitlines()[-1]
    return end.status == 2 and last.startswith("dso: ") and "Traceback" not in end.said


def rounds(command, folder, *, step, report):
    """Fill the disk at every `step`-th file that the run writes, until a run writes fewer; returns how often."""
    shown = options(command, report=report)
    argv = [command, *COMMANDS[command], *shown]
    assert run([*argv, "--out=whole"], folder).status == 0
    inputs = {name: content for name, content in contents(folder).items() if "/" not in name}
    at, out = 1, folder / "out"
    while True:
        for room in (0, 700):
            shutil.rmtree(out, ignore_errors=True)
            end = run([*argv, "--out=out"], folder, Mishap(full=at, room=room))
            if end.status == 0:
                assert room or at > 1
                # 700 bytes are enough for the last file, or there is no file of this number.
                assert numbers(out) == numbers(folder / "whole")
                continue
            assert is_one_paragraph(end), end.said
            assert not (out / "summary.json").exists()
            assert not list(out.glob(".*")) if out.exists() else True
            again = [command, "--resume"] if (out / "run.h5").exists() else argv
            if (out / "run.h5").exists():
                assert "--resume" in end.said
            assert run([*again, *(shown if "--resume" in again else []), "--out=out"], folder).status == 0
            assert numbers(out) == numbers(folder / "whole")
        assert {name: content for name, content in contents(folder).items() if "/" not in name} == inputs
        if end.status == 0 and run([*argv, "--out=last", "--force"], folder, Mishap(full=at)).status == 0:
            return at
        shutil.rmtree(folder / "last", ignore_errors=True)
        at += step


@pytest.mark.parametrize("command", ["identify", "estimate"])
def test_a_disk_that_is_full_at_some_files(commands, command):
    assert rounds(command, commands, step=4, report=False) > 4


@pytest.mark.long
@pytest.mark.mjx
@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_disk_that_is_full_at_any_file(commands, command):
    assert rounds(command, commands, step=1, report=True) > 4


@pytest.mark.parametrize("command", ["identify", *TRAININGS])
def test_an_earlier_result_survives_a_disk_that_is_full(commands, command):
    argv = [command, *COMMANDS[command], "--no-report", "--out=out"]
    assert run(argv, commands).status == 0
    before = contents(commands / "out")
    assert is_one_paragraph(run([*argv, "--force"], commands, Mishap(full=1)))
    assert contents(commands / "out") == before


@pytest.mark.parametrize("argv", [SIMULATE, CONVERT], ids=lambda argv: argv[0])
def test_a_log_is_whole_or_as_it_was(commands, argv):
    names = sorted(contents(commands))
    for room in (0, 700):
        end = run([*argv, "--out=log.h5"], commands, Mishap(full=1, room=room))
        assert is_one_paragraph(end), end.said
        assert sorted(contents(commands)) == names
    assert run([*argv, "--out=log.h5"], commands).status == 0
    before = contents(commands)
    assert is_one_paragraph(run([*argv, "--out=log.h5", "--force"], commands, Mishap(full=1, room=700)))
    assert contents(commands) == before


@pytest.mark.parametrize("argv", [SIMULATE, CONVERT], ids=lambda argv: argv[0])
def test_a_log_in_a_folder_that_is_read_only(commands, argv):
    (commands / "closed").mkdir(mode=0o500)
    end = run([*argv, "--out=closed/log.h5"], commands, Mishap(bare=True))
    assert is_one_paragraph(end), end.said
    assert "closed" in end.said
    assert list((commands / "closed").iterdir()) == []


@pytest.mark.parametrize("command", ["identify", "estimate", *TRAININGS])
def test_a_result_in_a_folder_that_is_read_only(commands, command):
    (commands / "closed").mkdir(mode=0o500)
    for out in ("closed", "closed/out"):
        end = run([command, *COMMANDS[command], f"--out={out}"], commands, Mishap(bare=True))
        assert is_one_paragraph(end), end.said
        assert "closed" in end.said
        assert "cost" not in end.said, "it was searched before it was refused"
    assert list((commands / "closed").iterdir()) == []
    assert run([command, *COMMANDS[command], "--no-report", "--out=out"], commands).status == 0
    before = contents(commands / "out")
    (commands / "out").chmod(0o500)
    for way in ("--force", "--resume"):
        assert is_one_paragraph(run([command, *COMMANDS[command], "--out=out", way], commands, Mishap(bare=True)))
    assert contents(commands / "out") == before
    (commands / "out").chmod(0o700)


@pytest.mark.parametrize("command", ["identify", "estimate", *TRAININGS])
def test_two_runs_in_one_folder(commands, command):
    argv = [command, *COMMANDS[command], "--out=out"]
    with folders.claim(commands / "out", resume=False, force=False):
        for more in ([], ["--force"]):
            end = run([*argv, *more], commands)
            assert is_one_paragraph(end), end.said
            assert "another run" in end.said
    assert not (commands / "out").exists()
