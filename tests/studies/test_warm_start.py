"""Going on with a training: from a result, with more iterations, from a checkpoint, with several starts."""

import json

import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.studies import train as training
from dso_robotics.studies.design import design
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_race import first_thetas, rounds
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.studies.warm_start import warm_start
from tests.studies.train_robots import write

FREE = 'free = ["actuator/push/gear=2@1:9", "joint/x/damping=0.1@0:1"]\n[flow]\nphysics = ["rollouts"]'


def study(folder, iterations=4, more="", **changes):
    folder.mkdir(exist_ok=True)
    path = write(folder, iterations, more)
    text = path.read_text()
    for old, new in changes.pop("replaced", ()):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return TrainStudy.read(path, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished training with four checkpoints."""
    folder = tmp_path_factory.mktemp("done")
    asked = study(folder, 4, FREE, replaced=[("[training]", "[training]\ncheckpoints = 2")])
    return folder, train(asked, folder / "out")


def test_a_result_is_gone_on_with(done, tmp_path):
    folder, found = done
    again = train(study(tmp_path, 2, FREE, init=str(folder / "out")), tmp_path / "out")
    assert again.summary["cost"]["before"] == pytest.approx(found.summary["cost"]["total"], rel=1e-9)
    for name, entry in again.summary["parameters"].items():
        assert entry["initial"] == found.summary["parameters"][name]["initial"]
    chain = build(study(tmp_path, 2, FREE)).chain
    warm = warm_start(study(tmp_path, 2, FREE, init=str(folder / "out")), chain)
    np.testing.assert_allclose(warm.theta, found.theta, rtol=1e-9, atol=1e-12)
    assert warm.tree is not None
    assert not warm.notes
    np.testing.assert_allclose(warm.scaling.spread, found.scaling.spread, rtol=1e-12)


def test_other_costs_bounds_and_numbers(done, tmp_path):
    """Numbers go by name and value into other bounds; the critic of other costs is not taken."""
    folder, found = done
    more = FREE.replace("2@1:9", "2@0.5:20").replace(', "joint/x/damping=0.1@0:1"', "")
    asked = study(tmp_path, 2, more, init=str(folder / "out"), replaced=[("weight = 0.3", "weight = 0.4")])
    chain = build(asked).chain
    warm = warm_start(asked, chain)
    (gear,) = chain.layout.values(warm.theta)["physics"]
    assert gear == pytest.approx(found.summary["parameters"]["actuator/push/gear[0]"]["value"], rel=1e-9)
    assert warm.tree is None
    assert any("init found joint/x/damping" in note for note in warm.notes)
    assert any("it values other costs" in note for note in warm.notes)


def test_what_does_not_fit_is_named(done, tmp_path):
    init = str(done[0] / "out")
    for replaced, told in (
        (
            [('kind = "linear"', 'kind = "network"')],
            'its policy has kind = "linear", and this study\'s kind = "network"',
        ),
        (
            [('kind = "linear"', 'kind = "linear"\nleave_out = ["x"]')],
            "its policy sees .* as number 0, and this study's",
        ),
        ([('kind = "linear"', 'kind = "linear"\ntime_features = 2')], "its policy has time_features = 0"),
    ):
        asked = study(tmp_path, 2, init=init, replaced=replaced)
        with pytest.raises(DsoError, match=told):
            warm_start(asked, build(asked).chain)
    asked = study(tmp_path, 2, init=str(tmp_path))
    with pytest.raises(DsoError, match=r"init: .* holds no run\.h5"):
        train(asked, tmp_path / "out")


def test_checkpoints_are_policies_and_starts(done, tmp_path):
    folder, found = done
    files = sorted((folder / "out" / "checkpoints").iterdir())
    assert [path.name for path in files] == ["000002.h5", "000004.h5"]
    last = Policy.load(files[-1])
    tree = read_run(folder / "out" / "run.h5")[0]
    state = np.asarray(tree["state"]["theta"])
    np.testing.assert_array_equal(last.numbers.weights, state[: len(last.numbers.weights)])
    asked = study(tmp_path, 2, FREE, init=str(files[-1]))
    np.testing.assert_allclose(warm_start(asked, build(asked).chain).theta, state, rtol=1e-9, atol=1e-12)
    saved = Policy.load(folder / "out").save(tmp_path / "saved")
    asked = study(tmp_path, 2, init=str(saved.parent))
    chain = build(asked).chain
    policy = chain.layout.where("policy")
    np.testing.assert_array_equal(warm_start(asked, chain).theta[policy], found.theta[: chain.policy.size])


def test_a_finished_run_gets_more_iterations(tmp_path, monkeypatch, capsys):
    """To the numbers of a run that was asked for as many at once and stopped half way."""
    path = write(tmp_path, 3)
    assert cli.main(["train", str(path), "--out", str(tmp_path / "out"), "--no-report"]) == 0
    args = ["train", "--resume", "--out", str(tmp_path / "out"), "--no-report", "--iterations"]
    assert cli.main([*args, "2"]) == 2
    assert "give --iterations more than that, not 2" in capsys.readouterr().err
    assert cli.main([*args, "6"]) == 0
    tree = read_run(tmp_path / "out" / "run.h5")[0]
    assert len(tree["records"]["cost"]) == 6
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["evaluations"] == 6
    first = training.train(TrainStudy.read(write(tmp_path, 3)), tmp_path / "first")
    mine = read_run(tmp_path / "first" / "run.h5")[0]["records"]["cost"]
    np.testing.assert_array_equal(tree["records"]["cost"][:3], mine)
    assert first.summary["evaluations"] == 3


def test_a_race_keeps_the_better_half(tmp_path):
    assert rounds(4, 100) == [(4, 25), (2, 50), (1, 100)]
    assert rounds(3, 8) == [(3, 2), (2, 4), (1, 8)]
    assert rounds(1, 8) == [(1, 8)]
    asked = study(tmp_path, 8, replaced=[("[training]", "[training]\nstarts = 3"), ('kind = "linear"', "hidden = [4]")])
    found = train(asked, tmp_path / "out")
    race = found.summary["race"]
    costs = race["rounds"][0]["costs"]
    assert sorted(race["rounds"][1]["costs"]) == sorted(sorted(costs, key=costs.get)[:2])
    assert len(set(costs.values())) == 3
    assert race["iterations"] == 3 * 2 + 2 * 2 + 4
    assert found.summary["evaluations"] == 8


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_race_that_was_killed_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "EVERY", 0.0)
    asked = study(tmp_path, 8, replaced=[("[training]", "[training]\nstarts = 3")])
    whole = train(asked, tmp_path / "whole")
    seen = []

    def kill(news):
        seen.append(news.iteration)
        if len(seen) == 8:
            raise Killed

    with pytest.raises(Killed):
        train(asked, tmp_path / "out", progress=kill)
    again = train(asked, tmp_path / "out", resume=True)
    np.testing.assert_array_equal(again.theta, whole.theta)
    assert again.summary["race"] == whole.summary["race"]


def test_a_population_of_designs(tmp_path):
    """Drawn designs are inside their bounds, and each trains from its own."""
    text = '[design.gear]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0'
    asked = study(tmp_path, 4, text, replaced=[("[training]", "[training]\nstarts = 3")])
    chain = build(asked).chain
    thetas = first_thetas(chain, np.asarray(chain.layout.initial), 3, 0, anew=True)
    gears = [float(chain.layout.values(theta)["design"][0]) for theta in thetas]
    assert gears[0] == pytest.approx(2.0)
    assert len({round(gear, 6) for gear in gears}) == 3
    assert all(1.0 < gear < 4.0 for gear in gears)
    assert design(asked, tmp_path / "out").summary["race"]["starts"] == 3
