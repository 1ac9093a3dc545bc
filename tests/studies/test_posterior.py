"""Draws against the exact posterior of a linear problem, what recordings do, bands that hold, and words for what is bad."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
from scipy import stats

import dso_robotics as dso
from dso_robotics.cli import main
from dso_robotics.core.covariance import uncertainty
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.extras import MissingExtra
from dso_robotics.studies.influence import influence
from dso_robotics.studies.posterior import draw
from dso_robotics.studies.samplers import chosen
from tests.costs.linear_problem import PATHS, SLIDER, design, left, problem, record
from tests.pendulum import record as swing

TRUTH = np.array([1.2, 0.7])
COUNT = 600
# Four standard errors of the largest distance between distribution functions, with resampled draws.
FAR = 2.0 / np.sqrt(COUNT / 2)


def normal_of(made, sigma):
    """Mean and covariance of the gears with known noise: generalised least squares after the start states are removed."""
    information, right = np.zeros((2, 2)), np.zeros(2)
    for by_z, by_x, y in design(made):
        q, _ = np.linalg.qr(by_x)
        a, b = by_z - q @ (q.T @ by_z), y - q @ (q.T @ y)
        information, right = information + a.T @ a / sigma**2, right + a.T @ b / sigma**2
    covariance = np.linalg.inv(information)
    return covariance @ right, covariance


def drawn(made, solution, count=COUNT, **more):
    return draw(made, solution, uncertainty(solution, made.vector.scale), count=count, **more)


def test_with_known_noise_the_draws_are_those_of_the_exact_normal():
    made, solution = problem(record(TRUTH, [0.02, 0.02], 0), noise=0.02)
    mean, covariance = normal_of(made, 0.02)
    found = drawn(made, solution)
    assert found.reliable
    assert found.diagnostics["pareto_k"] < 0.5
    std = np.sqrt(np.diag(covariance))
    for i in range(2):
        assert stats.kstest(found.z[:, i], stats.norm(mean[i], std[i]).cdf).statistic < FAR
    exact = covariance[0, 1] / std.prod()
    assert np.corrcoef(found.z.T)[0, 1] == pytest.approx(exact, abs=0.1)
    assert (found.sigma == 0.02).all()


def test_with_unknown_noise_the_draws_are_those_of_students_t():
    """One recording: z is t with N - K - n degrees of freedom about the least-squares estimate."""
    log = record(TRUTH, [0.02], 1, runs=1, steps=22)
    made, solution = problem(log, seconds=0.2)
    mean, covariance = normal_of(made, 1.0)
    squares, freedom = left(design(made), mean)
    dof = int(freedom[0]) - 2
    std = np.sqrt(np.diag(covariance) * squares[0] / dof)
    found = drawn(made, solution)
    for i in range(2):
        assert stats.kstest(found.z[:, i], stats.t(dof, mean[i], std[i]).cdf).statistic < FAR


def test_a_bound_cuts_the_posterior():
    low = 1.2
    log = record(TRUTH, [0.05, 0.05], 2)
    free = (f"{PATHS[0]}=1.25@{low}:5", PATHS[1])
    made, solution = problem(log, noise=0.05, free=free)
    mean, covariance = normal_of(made, 0.05)
    rows = np.random.default_rng(0).multivariate_normal(mean, covariance, 400_000)
    rows = rows[(rows[:, 0] >= low) & (rows[:, 0] <= 5.0)]
    found = drawn(made, solution)
    assert found.z[:, 0].min() >= low
    for i in range(2):
        assert stats.ks_2samp(found.z[:, i], rows[:20_000, i]).statistic < FAR


def test_start_states_are_drawn_with_the_numbers():
    made, solution = problem(record(TRUTH, [0.02, 0.02], 0), noise=0.02)
    found = drawn(made, solution)
    assert found.starts.shape == (COUNT, len(made.windows), 2)
    covariance = normal_of(made, 0.02)[1]
    exact = np.array([np.diag(solution.private_covariance(b, covariance)) for b in range(len(made.windows))])
    assert found.starts.var(0) == pytest.approx(exact, rel=0.3)


def test_a_number_that_nothing_holds_has_no_posterior():
    made, solution = problem(record(TRUTH, [0.02, 0.02], 0), noise=0.02)
    blind = dataclasses.replace(
        solution, information=solution.information * np.array([[0, 0], [0, 1]]), scores=solution.scores * [0, 1]
    )
    spread = uncertainty(blind, made.vector.scale)
    with pytest.raises(DsoError, match=r"no posterior: .*actuator/one/gear\[0\]; give bounds"):
        draw(made, blind, spread)


def test_a_posterior_that_importance_sampling_cannot_reach_is_said_to_be_unreliable():
    """The first proposal is forty times too narrow: the weights show it."""
    made, solution = problem(record(TRUTH, [0.02, 0.02], 0), noise=0.02)
    narrow = dataclasses.replace(solution, information=solution.information * 1600, z=solution.z + 0.02)
    spread = uncertainty(narrow, made.vector.scale)
    found = draw(made, narrow, spread, count=120)
    assert not found.reliable
    assert "--draws" in found.told


def test_leaving_a_recording_out_moves_the_estimate_as_a_fit_without_it_does():
    log = record(TRUTH, [0.02, 0.02, 0.02], 4, runs=3)
    made, solution = problem(log, noise=0.02)
    found = influence(made, solution, uncertainty(solution, made.vector.scale))
    assert found is not None
    for r in range(3):
        rest = Log("", "", "", tuple(one for i, one in enumerate(log.rollouts) if i != r))
        assert found.without[r] == pytest.approx(problem(rest, noise=0.02)[1].z, abs=1e-4)
        alone = Log("", "", "", (log.rollouts[r],))
        assert found.alone[r] == pytest.approx(problem(alone, noise=0.02)[1].z, abs=1e-4)
    assert (found.chance > 0.01).all()
    assert not found.told()


def test_the_recording_that_is_unlike_the_others_moves_the_estimate_farthest():
    """One of six runs was made with another gear: without it the estimate moves farthest for what is usual."""
    runs = [record(TRUTH * [1.3 if i == 2 else 1.0, 1.0], [0.005], i, runs=1, steps=240) for i in range(6)]
    rollouts = tuple(dataclasses.replace(log.rollouts[0], name=f"day{i}") for i, log in enumerate(runs))
    made, solution = problem(Log("", "", "", rollouts), noise=0.005, seconds=1.2)
    found = influence(made, solution, uncertainty(solution, made.vector.scale, redundancy=1.0))
    assert found is not None
    others = Log("", "", "", tuple(one for one in rollouts if one.name != "day2"))
    assert found.without[2] == pytest.approx(problem(others, noise=0.005, seconds=1.2)[1].z, abs=1e-4)
    assert found.usual.shape == found.without.shape
    away = np.abs(found.without - found.value) / found.usual
    assert np.argmax(away[:, 0]) == 2


def test_a_gear_that_drifts_from_run_to_run_is_named():
    runs = [record(TRUTH * [1 + 0.05 * i, 1.0], [0.005], i, runs=1, steps=240) for i in range(4)]
    rollouts = tuple(dataclasses.replace(log.rollouts[0], name=f"day{i}") for i, log in enumerate(runs))
    made, solution = problem(Log("", "", "", rollouts), seconds=1.2)
    found = influence(made, solution, uncertainty(solution, made.vector.scale))
    assert found is not None
    assert found.chance[0] < 0.005 < found.chance[1]
    (text,) = (text for text in found.told() if "beyond chance" in text)
    assert "actuator/one/gear[0] differs" in text
    assert "rises from the first to the last" in text
    assert "log/*/actuator/one/gear[0]" in text


@pytest.fixture(scope="module")
def slider(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slider")
    (folder / "slider.xml").write_text(SLIDER)
    write_log(folder / "log.h5", record(TRUTH, [0.02] * 5, 5, runs=5))
    return folder


def command(slider, out, *more):
    given = ["--free", "actuator/*/gear[0]", "--hold-out", "run4", "--window", "0.4", "--out", str(out), "--no-report"]
    return main(["identify", str(slider / "slider.xml"), str(slider / "log.h5"), *given, "--posterior", *more])


def test_the_command_prints_stores_and_summarises_it(slider, tmp_path, capsys):
    assert command(slider, tmp_path / "out", "--draws", "300") == 0
    said = capsys.readouterr().out
    assert "posterior, 300 draws by importance sampling" in said
    assert "draws count" in said
    assert "95% bands of the prediction" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["posterior"]
    tree, _, _ = read_run(tmp_path / "out" / "run.h5")
    stored = tree["posterior"]
    assert stored["z"].shape == (300, 2)
    assert stored["sigma"].shape == (300, 4, 1)
    assert list(stored["names"]) == list(PATHS)
    for i, path in enumerate(PATHS):
        row = summary["parameters"][path]
        assert row["low95"] == pytest.approx(np.quantile(stored["z"][:, i], 0.025))
        assert row["low95"] < TRUTH[i] < row["high95"]
        assert 0.3 < row["over_jackknife"] < 3
    bands = summary["bands"]["hold_out"]["place"]
    assert bands["covered_percent"] > 85
    assert bands["numbers_percent"] + bands["start_percent"] + bands["noise_percent"] == pytest.approx(100)


def test_the_report_has_it(slider, tmp_path):
    found = dso.identify(
        slider / "slider.xml", slider / "log.h5", free="actuator/*/gear[0]", window=0.4, posterior=True, draws=100,
        out=tmp_path / "out",
    )  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h3>Posterior</h3>" in page
    assert "width over the table" in page
    assert found.summary["posterior"]["draws"] == 100


def test_in_python_it_is_drawn_when_it_is_asked_for(slider):
    found = dso.identify(slider / "slider.xml", slider / "log.h5", free="actuator/*/gear[0]", window=0.4)
    assert "posterior" not in found.summary
    posterior = found.posterior(draws=200)
    assert len(posterior) == 200
    assert set(posterior.samples) == set(PATHS)
    low, high = posterior.quantile(PATHS[0], [0.005, 0.995])
    assert low < TRUTH[0] < high
    assert posterior.noise["place"].shape == (200, 5)
    assert posterior.bands["train"].as_dict()["place"]["covered_percent"] > 85
    assert "median" in str(posterior)
    with pytest.raises(DsoError, match="there is no such number"):
        posterior.quantile("mass", 0.5)
    assert len(posterior.plot().axes) == 4


def test_bands_are_too_narrow_where_the_model_lacks_something(tmp_path, capsys):
    """The pendulum's friction is not in the model: the posterior is narrow about wrong numbers, and the bands show it."""
    from tests.pendulum import PENDULUM

    (tmp_path / "p.xml").write_text(PENDULUM.format(damping=0.1, frictionloss=0.0, mass=0.7))
    write_log(tmp_path / "p.h5", swing(0, runs=4))
    given = ["--free", "joint/hinge/damping", "--free", "body/pole/mass", "--hold-out", "run3", "--no-report"]
    given += ["--posterior", "--draws", "120", "--out", str(tmp_path / "out")]
    assert main(["identify", str(tmp_path / "p.xml"), str(tmp_path / "p.h5"), *given]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["posterior"]["parameters"]["joint/hinge/damping"]["over_jackknife"] < 0.7


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sampler", "nuts"], "add --engine mjx, or use --sampler laplace"),
        (["--continuity", "1"], "--posterior: it needs a fit of motion.*--continuity"),
        (["--fit", "torque"], "--posterior: it needs a fit of motion.*--fit"),
        (["--draws", "5"], r"--draws 5: expected"),
        (["--sampler", "gibbs"], "--sampler gibbs: expected one of auto, laplace, nuts"),
    ],
)
def test_what_does_not_go_together_is_refused(slider, tmp_path, capsys, more, message):
    assert command(slider, tmp_path / "out", *more) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_nothing_free_is_refused(slider, tmp_path, capsys):
    free = ["--free", "sensor/place/noise", "--out", str(tmp_path / "out"), "--posterior"]
    assert main(["identify", str(slider / "slider.xml"), str(slider / "log.h5"), *free]) == 2
    assert "nothing is free" in capsys.readouterr().err


def test_without_blackjax_nuts_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    with pytest.raises(MissingExtra, match=r"pip install 'dso-robotics\[posterior\]'"):
        chosen("nuts", "mjx")


def test_the_route_follows_the_engine():
    assert chosen("auto", "auto") == "laplace"
    assert chosen("laplace", "mjx") == "laplace"
