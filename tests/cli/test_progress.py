"""No phase of a command over two seconds is silent: each command's progress is read as a program reads it."""

import itertools
import json

import pytest

from dso_robotics.cli import main

# Two seconds, and what a busy machine adds.
LONGEST = 15.0
KEYS = {
    "event",
    "stage",
    "iteration",
    "total",
    "unit",
    "rate",
    "remaining",
    "cost",
    "seconds",
    "stage_seconds",
    "activity",
}


def run(capsys, *arguments):
    """Run a command with --progress json; what it said and the phases in their order."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--progress", "json"]) == 0
    news = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert news.pop() == {"event": "exit", "status": 0}
    assert all(entry.keys() >= KEYS for entry in news)
    times = [0.0, *(entry["seconds"] for entry in news)]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < LONGEST
    begun = [entry["stage"] for entry in news if entry["event"] == "begin"]
    # What begins ends, the command last of all.
    assert sorted(begun) == sorted(entry["stage"] for entry in news if entry["event"] == "end")
    assert begun[0] == news[-1]["stage"] == arguments[0]
    return news, begun


def last(news, stage):
    return [entry for entry in news if entry["stage"] == stage][-1]


@pytest.fixture(scope="module")
def identified(pendulum, tmp_path_factory):
    out = tmp_path_factory.mktemp("identified") / "out"
    free = ["--free", "joint/hinge/damping", "--hold-out", "run2"]
    assert (
        main(["identify", str(pendulum / "pendulum.xml"), str(pendulum / "pendulum.h5"), *free, "--out", str(out)]) == 0
    )
    return out


def test_identify(pendulum, tmp_path, capsys):
    news, begun = run(
        capsys, "identify", pendulum / "pendulum.xml", pendulum / "pendulum.h5", "--free", "joint/hinge/damping", "--starts",
        "2", "--hold-out", "run2", "--out", tmp_path / "out",
    )  # fmt: skip
    assert begun == [
        "identify", "reading", "starts tried", "start states as measured", "start states estimated", "evaluating",
        "contacts scanned again", "doubts looked for", "report",
    ]  # fmt: skip
    search = last(news, "start states estimated")
    assert search["total"] == 60
    assert search["at_most"]
    assert search["cost"] < 0


@pytest.mark.parametrize(("corrector", "stage"), [("kalman", "Fisher scoring"), ("gain", "Gauss-Newton")])
def test_estimate(pendulum, tmp_path, capsys, corrector, stage):
    study = tmp_path / "study.toml"
    inputs = f'model = "{pendulum}/pendulum.xml"\nlogs = ["{pendulum}/pendulum.h5"]\nhold_out = "run2"\n'
    study.write_text(f'{inputs}window = 1.0\ncorrector = "{corrector}"\niterations = 5\n')
    news, begun = run(capsys, "estimate", study, "--out", tmp_path / "out")
    assert [name for name in begun if name != "reading"][-3:] == [stage, "evaluating", "report"]
    assert last(news, stage)["total"] == 5
    assert last(news, stage)["cost"] is not None


@pytest.mark.mjx
def test_train(tmp_path, capsys):
    from tests.studies.train_robots import write

    news, begun = run(capsys, "train", write(tmp_path, iterations=6), "--engine", "mjx", "--out", tmp_path / "out")
    assert begun[:2] == ["train", "reading"]
    assert {"first states", "step of the training", "training", "evaluating", "report"} <= {*begun}
    end = last(news, "training")
    assert (end["iteration"], end["total"]) == (6, 6)
    assert end["steps"] == 6 * 64
    assert end["values"]["gradient_norm"] > 0
    assert end["episode_cost"] > 0


@pytest.mark.mjx
def test_design(tmp_path, capsys):
    from tests.studies.train_robots import write

    more = '\n[design.drive]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0\n'
    news, _ = run(capsys, "design", write(tmp_path, iterations=3, more=more), "--no-report", "--out", tmp_path / "out")
    assert last(news, "training")["iteration"] == 3


@pytest.mark.mjx
def test_check(pendulum, capsys):
    news, begun = run(capsys, "check", pendulum / "pendulum.xml", "--gradients", "--refine", "--states", "3")
    assert begun == [
        "check", "derivatives of the step", "compared with C MuJoCo", "states sampled", "rollout differentiated"
    ]  # fmt: skip
    assert last(news, "compared with C MuJoCo")["iteration"] == 3
    assert {"tracing", "compiling"} & {entry["activity"] for entry in news} or news[-1]["seconds"] < LONGEST


def test_convert(tmp_path, capsys):
    for name in "ab":
        rows = "\n".join(f"{0.01 * k:.2f},{k % 7},{k % 5}" for k in range(200))
        (tmp_path / f"{name}.csv").write_text(f"time,u,q\n{rows}\n")
    news, begun = run(
        capsys, "convert", tmp_path / "a.csv", tmp_path / "b.csv", "--out", tmp_path / "log.h5", "--ctrl", "motor=u",
        "--sensor", "angle=q:rad",
    )  # fmt: skip
    assert begun == ["convert", "reading", "writing"]
    assert (last(news, "reading")["iteration"], last(news, "reading")["total"]) == (2, 2)


def test_simulate(pendulum, tmp_path, capsys):
    model = pendulum / "pendulum.xml"
    news, begun = run(capsys, "simulate", model, "--rollouts", "3", "--amplitude", "1", "--out", tmp_path / "log.h5")
    assert begun == ["simulate", "simulating", "writing"]
    assert last(news, "simulating")["iteration"] == 3


def test_export_inspect_and_view(identified, pendulum, tmp_path, capsys):
    _, begun = run(capsys, "export", identified, "--to", "csv", "--out", tmp_path / "table.csv")
    assert begun == ["export", "export to csv"]
    run(capsys, "inspect", pendulum / "pendulum.h5", "--plot", tmp_path / "log.png")
    news, begun = run(
        capsys, "view", identified, "--video", tmp_path / "film.gif", "--span", "0:1", "--size", "160x120"
    )
    assert "film" in begun
    assert last(news, "film")["total"] > 5


def test_quiet_says_nothing(pendulum, tmp_path, capsys):
    model = pendulum / "pendulum.xml"
    arguments = [str(model), "--amplitude", "1", "--out", str(tmp_path / "log.h5"), "--quiet"]
    assert main(["simulate", *arguments]) == 0
    assert capsys.readouterr().err == ""


def test_an_error_ends_the_json_lines_with_its_status(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "none.xml"), "--out", str(tmp_path / "log.h5"), "--progress", "json"]) == 2
    *_, message, end = capsys.readouterr().err.splitlines()
    assert message.startswith("dso: ")
    assert json.loads(end) == {"event": "exit", "status": 2}


def test_tensorboard_on_request(pendulum, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    files = [str(pendulum / "pendulum.xml"), str(pendulum / "pendulum.h5")]
    more = [
        "--free",
        "joint/hinge/damping",
        "--out",
        str(tmp_path / "out"),
        "--no-report",
        "--tensorboard",
        str(tmp_path / "tb"),
    ]
    assert main(["identify", *files, *more]) == 0
    assert any(b"start_states_estimated/cost" in file.read_bytes() for file in (tmp_path / "tb").iterdir())
