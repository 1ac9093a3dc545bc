"""A policy is trained on what was identified: joint draws within the bounds, on either engine; bad folders refused."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.data.log import write_log
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.inertia import body_from_coordinates
from dso_robotics.studies.drawn_result import read_drawn
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.pendulum import PENDULUM, record

FREE = ("joint/hinge/damping", "joint/hinge/frictionloss", "body/pole/mass")
STUDY = """
model = "pendulum.xml"
engine = "{engine}"
seconds = 1.0
[policy]
kind = "linear"
[randomise]
from = "{result}"
{more}
[cost.upright]
kind = "square"
quantity = "joint/hinge/cosine"
target = 1.0
[training]
environments = 4
horizon = 4
iterations = 2
critic_hidden = 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn")
    (place / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    write_log(place / "log.h5", record(0, runs=2, seconds=3.0))
    dso.identify(
        place / "pendulum.xml",
        place / "log.h5",
        free=FREE,
        posterior=True,
        draws=150,
        out=place / "result",
        report=False,
    )
    dso.identify(place / "pendulum.xml", place / "log.h5", free=FREE, out=place / "plain", report=False)
    return place


def study(folder, result="result", more="", engine="mujoco"):
    path = folder / "study.toml"
    path.write_text(STUDY.format(result=result, more=more, engine=engine))
    return TrainStudy.read(path)


def contexts(task, count=600):
    return np.asarray(jax.vmap(task.chain.context.draw)(jax.random.split(jax.random.key(0), count)))


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_every_episode_draws_a_row_of_the_posterior(folder, engine):
    task = build(study(folder, engine=engine))
    tree, _, _ = read_run(folder / "result" / "run.h5")
    rows = tree["posterior"]["z"]
    drawn = contexts(task)
    names = [draw.name for draw in task.chain.context.physics]
    order = [list(tree["names"]).index(name) for name in names]
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in rows[:, order]}
    assert len({tuple(row) for row in drawn}) > 60
    assert task.chain.context.rest == pytest.approx(np.median(rows[:, order], axis=0))
    # The evaluation plays the medians, and two rows at the ends of where they vary most.
    trials = task.chain.context.trials()
    assert len(trials) == 3
    assert {tuple(row) for row in trials[1:]} <= {tuple(row) for row in rows[:, order]}
    assert any("its posterior (150 draws)" in note for note in task.notes)
    assert np.abs(task.chain.context.normalised(drawn)).max() <= 1 + 1e-9


def test_without_a_posterior_the_jackknifes_normal_is_drawn_within_the_bounds(folder):
    found = read_drawn(folder / "plain")
    assert found.by == "jackknife"
    tree, _, _ = read_run(folder / "plain" / "run.h5")
    wider = (float(tree["interval"]["quantile"]) / 1.96) ** 2
    assert np.cov(found.rows.T) == pytest.approx(np.asarray(tree["covariance"]) * wider, rel=0.35, abs=1e-7)
    exact = np.asarray(tree["correlation"])
    assert np.corrcoef(found.rows.T) == pytest.approx(exact, abs=0.15)
    assert (found.rows >= 0).all()


def changed(folder, tmp_path, name="plain", **groups):
    """A copy of a result whose run file has other groups."""
    shutil.copytree(folder / name, tmp_path / "copy")
    tree, given, mjcf = read_run(folder / name / "run.h5")
    tree = {key: value for key, value in (tree | groups).items() if value is not None}
    write_run(tmp_path / "copy" / "run.h5", tree, given, mjcf)
    return tmp_path / "copy"


def test_a_number_at_its_bound_is_drawn_from_the_tail_inside(folder, tmp_path):
    tree, _, _ = read_run(folder / "plain" / "run.h5")
    std = np.sqrt(np.diag(tree["covariance"]))
    centre = tree["interval"]["centre"].copy()
    centre[1] = -3 * std[1]
    moved = tree["interval"] | {"centre": centre, "active": np.array([0, 1, 0])}
    estimate = tree["interval"]["estimate"].copy()
    estimate[1] = 0.0
    found = read_drawn(changed(folder, tmp_path, interval=moved | {"estimate": estimate}))
    assert (found.rows[:, 1] >= 0).all()
    assert found.rows[:, 1].mean() < 0.6 * std[1]


def test_an_unreliable_posterior_is_not_used(folder, tmp_path):
    tree, _, _ = read_run(folder / "result" / "run.h5")
    found = read_drawn(changed(folder, tmp_path, "result", posterior=tree["posterior"] | {"reliable": 0}))
    assert found.by == "jackknife"
    assert "did not mix" in found.notes[0]


def test_a_posterior_far_narrower_than_the_jackknife_is_not_used(folder, tmp_path):
    tree, _, _ = read_run(folder / "result" / "run.h5")
    found = read_drawn(changed(folder, tmp_path, "result", covariance=25 * np.asarray(tree["covariance"])))
    assert found.by == "jackknife"
    assert "errors of the model" in found.notes[0]


def test_a_range_of_its_own_and_free_go_before_the_result(folder):
    task = build(study(folder, more='"body/pole/mass" = [0.1, 2.0]'))
    assert any("Of" in note and "body/pole/mass" in note and "range of its own" in note for note in task.notes)
    names = [draw.name for draw in task.chain.context.physics]
    mass = contexts(task)[:, names.index("body/pole/mass")]
    assert mass.min() < 0.3
    assert mass.max() > 1.8


def test_a_full_inertia_is_the_body_that_was_identified(folder, tmp_path):
    found = dso.identify(
        folder / "pendulum.xml", folder / "log.h5", free=["body/pole/inertia"], out=tmp_path / "body", report=False
    )
    # The model of the training has another body: the draws are still about the one that was identified.
    (tmp_path / "pendulum.xml").write_text(found.model and PENDULUM.format(damping=0.1, frictionloss=0.0, mass=3.0))
    (tmp_path / "study.toml").write_text(STUDY.format(result="body", more="", engine="mujoco"))
    task = build(TrainStudy.read(tmp_path / "study.toml"))
    drawn = read_drawn(tmp_path / "body")
    mechanism = task.chain.mechanism
    assert mechanism is not None
    row = drawn.rows[7]
    fields = mechanism.fields(np.zeros(0), row)
    mass, _, tensor = body_from_coordinates(row, drawn.factors["body/pole/inertia"])
    assert fields["body_mass"][1] == pytest.approx(mass)
    assert fields["body_inertia_full"][1] == pytest.approx(tensor)


@pytest.mark.slow
def test_training_runs_stores_and_resumes_with_it(folder, tmp_path):
    study(folder)
    found = dso.train(folder / "study.toml", out=tmp_path / "policy", report=False)
    assert any("drawn together for every episode" in text for text in found.warnings)
    assert "result of [randomise]" in read_run(tmp_path / "policy" / "run.h5")[0]["inputs"]
    tried = found.summary["tolerance"]
    assert set(tried["numbers"]) == set(FREE)
    assert len(tried["draws"]) == 8
    assert max(tried["draws"]) == tried["worst"]
    assert "draws of the identified numbers" in str(found)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"interval": None}, "no intervals to draw from; run dso identify again"),
        ({"status": "running"}, "no finished result of dso identify"),
        ({"covariance": np.eye(2)}, "run file is damaged"),
        ({"covariance": np.full((3, 3), np.nan)}, "not finite"),
        ({"covariance": np.diag([1.0, 1e9, 1.0])}, "nothing holds joint/hinge/frictionloss"),
        (
            {"names": ["joint/hinge/damping", "joint/hinge/frictionloss", "body/arm/mass"]},
            r"the result has body/arm/mass.*model\.xml",
        ),
    ],
)
def test_a_folder_that_has_nothing_to_draw_is_refused(folder, tmp_path, groups, message):
    copy = changed(folder, tmp_path, **groups)
    with pytest.raises(DsoError, match=rf"study\.toml: \[randomise\] from: .*{message}"):
        build(study(folder, result=copy))


def test_no_folder_and_no_range_are_refused(folder):
    with pytest.raises(DsoError, match=r"there is no result of dso identify here"):
        build(study(folder, result="nowhere"))
    with pytest.raises(DsoError, match=r'write a range, such as .* or from = "result"'):
        study(folder, more='"body/pole/mass" = "result"')
    ranges = dict.fromkeys(FREE, (0.05, 2.0))
    given = dataclasses.replace(study(folder), randomise={"from": str(folder / "result"), **ranges})
    with pytest.raises(DsoError, match=r"nothing of the result is left to draw"):
        build(given)
