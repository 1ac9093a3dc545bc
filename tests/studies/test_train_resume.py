"""A training that was killed and taken up again: the same numbers as one that was not, and refusals where that cannot be."""

import json
import shutil

import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.core.method.windowed import Windowed
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.studies import train as training
from dso_robotics.studies.train import train
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import write

ITERATIONS, KILLED = 6, 4


class Killed(Exception):
    """Stands for the end of the process."""


REPLAYED = "replay = 200\nwarmup = 100\ncritic_batch = 16\nratio = 0.1"
FITTED = "window = 2\nsolver_steps = 2\nbasepoints = 100"
PLAN = '\n[plan]\nmodel = "cart.xml"\nfree = ["body/cart/mass=4@0.1:30"]\n'
MORE = {"natural": "trust_region = true", "sac": REPLAYED, "amortised_q": f"{REPLAYED}\n{FITTED}"}


@pytest.fixture(scope="module", params=["pathwise", "natural", "sac", "amortised_q", "model_design"])
def begun(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    path = write(folder, ITERATIONS)
    policy = 'kind = "gated"\nunits = 3' if request.param == "pathwise" else 'kind = "linear"'
    text = path.read_text().replace('kind = "linear"', policy)
    text = text.replace("[training]", f'[training]\nmethod = "{request.param}"\n{MORE.get(request.param, "")}')
    text += PLAN if request.param == "model_design" else ""
    # Steps so large that the best look comes before the kill.
    path.write_text(text.replace("learning_rate = 0.05", "learning_rate = 2.0"))

    def kill(news):
        if news.iteration == KILLED:
            raise Killed

    traced, onwards = [], Windowed._onwards

    def counted(*args):
        traced.append(1)
        return onwards(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "EVERY", 0.0)
        patch.setattr(Windowed, "_onwards", counted)
        with pytest.raises(Killed):
            train(TrainStudy.read(path), folder / "out", progress=kill)
    # JAX calls the step once: all four iterations run what was compiled ahead of the first.
    assert len(traced) == 1
    return folder


def numbers(tree):
    for name, value in tree.items():
        if name not in ("seconds", "inputs", "summary"):
            yield from ((f"{name}.{k}", v) for k, v in numbers(value)) if isinstance(value, dict) else [(name, value)]


def test_the_folder_alone_ends_as_an_uninterrupted_run_does(begun, tmp_path, monkeypatch):
    shutil.copytree(begun / "out", tmp_path / "out")
    assert read_run(tmp_path / "out" / "run.h5")[0]["state"]["iteration"] == KILLED
    assert not (tmp_path / "out" / "summary.json").exists()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--resume", "--out", "out", "--no-report"]) == 0
    whole = train(TrainStudy.read(begun / "study.toml"), tmp_path / "whole")
    mine, theirs = (dict(numbers(read_run(tmp_path / name / "run.h5")[0])) for name in ("out", "whole"))
    assert len(mine) > 40
    assert list(mine) == list(theirs)
    # Seconds are those of two runs.
    for tree in (mine, theirs):
        tree["spent.looks"] = tree["spent.looks"][:, :2]
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert len(mine["history.steps"]) == ITERATIONS
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cost"] == whole.summary["cost"]
    # The result is the best look, of the start too. All episodes of this study are the same.
    costs, best = np.insert(whole.history["episode_cost"], 0, whole.before.cost), mine["best.iteration"]
    assert costs[best] == mine["best.cost"] == costs.min()
    assert summary["kept"] == whole.summary["kept"] == {"rule": "best", "iteration": best}
    assert summary["cost"]["total"] == pytest.approx(costs[best], rel=1e-12)
    np.testing.assert_array_equal(whole.theta, mine["best.kept.theta"])
    np.testing.assert_array_equal(mine["theta.policy"], whole.theta[: len(mine["theta.policy"])])
    if '"pathwise"' in (begun / "study.toml").read_text():
        # Going on made it worse, and the best look came before the kill, or just then.
        assert best <= KILLED
        assert costs[best] < 0.99 * costs[-1]
        assert np.abs(mine["state.theta"] - whole.theta).max() > 1e-3
    with pytest.raises(DsoError, match="finished already"):
        train(TrainStudy.read(begun / "study.toml"), tmp_path / "out", resume=True)


def test_another_study_model_or_file_is_refused_before_anything_compiles(begun, tmp_path, monkeypatch):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("jax.jit", lambda *a, **k: pytest.fail("compiled"))
    path, text = tmp_path / "study.toml", (tmp_path / "study.toml").read_text()
    path.write_text(text.replace("weight = 0.3", "weight = 0.4"))
    with pytest.raises(DsoError, match=r"the study that was begun, but cost differ"):
        train(TrainStudy.read(path), tmp_path / "out", resume=True)
    path.write_text(text)
    model = (tmp_path / "cart.xml").read_text()
    (tmp_path / "cart.xml").write_text(model.replace('mass="1"', 'mass="1.5"'))
    with pytest.raises(DsoError, match=r"model .*cart\.xml has changed"):
        train(TrainStudy.read(path), tmp_path / "out", resume=True)


def test_resume_without_a_run_is_refused(tmp_path, capsys):
    assert cli.main(["train", "--resume", "--out", str(tmp_path)]) == 2
    assert "no run.h5 to go on from" in capsys.readouterr().err
    assert cli.main(["train", "--out", str(tmp_path / "out")]) == 2
    assert "no study was given" in capsys.readouterr().err
