"""The report of an identification, drawn from a run file made by hand: complete, self-contained, safe, robust to gaps."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import time as clock
from html.parser import HTMLParser
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.report.canvas import thin
from dso_robotics.report.chart import Chart, Line, thinned, ticks
from dso_robotics.report.identify import write_report
from dso_robotics.report.quantity import interval, listed, number, percent, quantity, unit
from dso_robotics.report.residual import whiteness
from dso_robotics.report.still import still
from dso_robotics.report.table import estimation_table
from dso_robotics.report.trace import Trace

EVIL = '<script src="http://evil.example/x.js">alert(1)</script>'
WARNING = "The data do not determine joint/a/damping - 0.3 joint/a/frictionloss: mass < 2 & more > less."
CHANNELS = {"a_pos": "rad", "a_vel": "rad/s"}
PARAMETERS = {
    "joint/a/damping": {
        "value": 0.1,
        "initial": 0.5,
        "unit": "N*m*s/rad",
        "low95": 0.09,
        "high95": 0.11,
        "at_bound": False,
    },
    "joint/a/frictionloss": {
        "value": 0.0,
        "initial": 0.2,
        "unit": "N*m",
        "low95": 0.0,
        "high95": 9.0,
        "at_bound": True,
    },
    "body/*/mass": {"value": 2.0, "initial": 1.0, "unit": "kg", "low95": None, "high95": None, "at_bound": False},
}


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        self.text += "" if self._hidden else data


def trace(rng, samples: int = 200) -> dict:
    time = 0.01 * np.arange(samples)
    measured = np.stack([np.sin(5 * time), 5 * np.cos(5 * time)], 1)
    predicted = measured + 0.01 * rng.standard_normal(measured.shape)
    return {"time": time, "measured": measured, "predicted": predicted, "starts": np.arange(0, time[-1], 0.5)}


def tree(**changes) -> dict:
    """What a finished identification stores, with one held-out run of an unfriendly name and one with gaps."""
    rng = np.random.default_rng(0)
    gappy, unmeasured, short = trace(rng), trace(rng), trace(rng, 3)
    gappy["measured"][40:60] = np.nan
    gappy["measured"][::2, 1] = np.nan
    gappy["predicted"][150:] = np.nan
    unmeasured["measured"][:] = np.nan
    parts = {
        "hold_out": {EVIL: trace(rng), "gappy": gappy},
        "train": {"run/1": trace(rng), "unmeasured": unmeasured, "short": short},
    }
    fit = {n: {"rmse": 0.01, "unit": u, "nrmse_percent": 1.5, "pooled_rmse": 0.02} for n, u in CHANNELS.items()}
    summary = {
        "command": "identify",
        "version": "0.1.0",
        "engine": "mujoco",
        "engine_reason": "3 free numbers",
        "seed": 7,
        "seconds": {"total": 1.5, "compile": 0.0},
        "converged": True,
        "message": "steps are small",
        "evaluations": 9,
        "simulated_steps": 12345,
        "parameters": PARAMETERS,
        "noise": {n: {"value": 0.01, "unit": u} for n, u in CHANNELS.items()},
        "cost": {"total": -1.0, "terms": {"identification": -1.0, "prior": 0.0}},
        "fit": {"train": fit, "hold_out": {"a_pos": fit["a_pos"], "a_vel": {**fit["a_vel"], "nrmse_percent": np.inf}}},
        "windows": {
            "seconds": 0.5,
            "score_seconds": 0.5,
            "train": 8,
            "rollouts": {k: list(v) for k, v in parts.items()},
        },
        "uncertainty": {"method": "jackknife", "unseen": ["joint/a/damping - 0.3 joint/a/frictionloss"]},
        "warnings": [WARNING, "/home/someone/logs/arm.h5: no units."],
    } | changes
    z = np.array([[0.5, 0.2, 1.0], [0.2, 0.1, 1.9], [0.1, 0.0, 2.0]])
    return {
        "status": "finished",
        "summary": json.dumps(summary),
        "names": list(PARAMETERS),
        "history": {
            "stage": np.array([0, 0, 1]),
            "iteration": np.array([0, 1, 0]),
            "cost": np.array([5.0, np.nan, -1.0]),
            "damping": np.array([1e-3, 1e-4, 1e-3]),
            "z": z,
            "sigma": np.full((3, 2), 0.01),
        },
        "correlation": np.array([[1.0, -0.99, 0.1], [-0.99, 1.0, np.nan], [0.1, np.nan, 1.0]]),
        "covariance": np.eye(3),
        "traces": parts,
    }


STUDY = {
    "command": "identify",
    "model": "/home/someone/arm.xml",
    "logs": ["/home/someone/logs/arm.h5"],
    "free": [{"path": "joint/*/damping", "init": 0.5, "low": None, "high": 2.0, "prior": [0.1, 0.05]}],
    "hold_out": None,
    "engine": "auto",
    "window": 0.5,
    "seed": 7,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder, HTML text and parsed page of one report."""
    folder = tmp_path_factory.mktemp("result")
    write_run(folder / "run.h5", tree(), STUDY, '<mujoco model="two &amp; joints"><worldbody/></mujoco>')
    path = write_report(folder)
    assert path == folder / "report.html"
    text = path.read_text("utf-8")
    return folder, text, Page(text)


def numbers(text: str) -> tuple[dict, list[np.ndarray]]:
    """The charts of a page and the arrays they name."""
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', text, re.DOTALL)
    assert found
    data = json.loads(found[1])
    return data["charts"], [np.frombuffer(base64.b64decode(a[2:]), f"<{a[:2]}") for a in data["arrays"]]


def test_page_loads_nothing_and_runs_its_own_scripts_alone(report):
    _, text, page = report
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "img"}
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                assert (value or "").startswith("#"), (tag, name)
            assert not name.startswith("on")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|https?:|//", style[1])
    (policy,) = (attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert re.search(r"script-src (.*)$", policy)[1] == " ".join(f"'sha256-{d}'" for d in digests)
    assert len(digests) == 2
    assert "uPlot" in scripts[0]


def test_the_licence_of_the_script_is_in_the_package():
    text = (resources.files("dso_robotics.report") / "assets" / "uPlot-LICENSE.txt").read_text("utf-8")
    assert "MIT" in text
    assert "Leon Sorokin" in text


def test_charts_have_the_numbers_of_the_run(report):
    _, text, _ = report
    charts, arrays = numbers(text)
    run = tree()["traces"]["train"]["run/1"]
    (chart,) = (c for c in charts if c["group"] == "train/run/1" and c["unit"] == "rad")
    time, (measured, predicted) = arrays[chart["x"]], [arrays[line["y"]] for line in chart["lines"]]
    # Each window begins anew: its first sample is there once more, where the prediction has a gap.
    breaks = np.flatnonzero(np.isnan(predicted))
    np.testing.assert_allclose(np.delete(time, breaks), run["time"])
    np.testing.assert_allclose(np.delete(measured, breaks), run["measured"][:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.delete(predicted, breaks), run["predicted"][:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(arrays[chart["marks"]], run["starts"])
    gappy = [c for c in charts if c["group"] == "hold_out/gappy"]
    assert [c["lines"][0]["style"] for c in gappy] == ["thick", "dots"]
    search = [c for c in charts if c["group"] == "search"]
    np.testing.assert_allclose(arrays[search[0]["lines"][0]["y"]], [6.0, np.nan, np.nan])
    assert search[0]["scale"] == "log"


def test_every_chart_is_on_the_page_and_open_runs_have_still_pictures(report):
    _, text, page = report
    charts, _ = numbers(text)
    placed = [int(attrs["data-chart"]) for _, attrs in page.tags if "data-chart" in attrs]
    assert sorted(placed) == list(range(len(charts)))
    stills = [figure for figure in text.split("<figure")[1:] if 'class="still"' in figure.split("</figure>")[0]]
    # Two runs, one for each part, with two channels; residuals of the first part; the search.
    assert len(stills) == 4 + 2 * 3 + 3
    for one in stills:
        ElementTree.fromstring(re.search(r"<svg class=.still.*?</svg>", one, re.DOTALL)[0])


def test_figures_are_written_only_when_asked(tmp_path):
    write_run(tmp_path / "run.h5", tree(), STUDY, "<mujoco/>")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "trace-train-99-old.png").touch()
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    write_report(tmp_path)
    assert len(list((tmp_path / "figures").iterdir())) == 2
    write_report(tmp_path, figures=True)
    written = {path.name: path.read_bytes() for path in (tmp_path / "figures").glob("*.png")}
    assert written.pop("mine.png") == b"mine"
    assert "trace-train-99-old.png" not in written
    # Intervals, errors, correlation, convergence, residuals of two parts, five runs.
    assert len(written) == 11
    for data in written.values():
        picture = imread(io.BytesIO(data))
        assert min(picture.shape[:2]) > 150
        assert 0.005 < np.mean(picture[..., :3].min(-1) < 0.9) < 0.6


def test_a_report_needs_no_plotting_library():
    code = "import sys, dso_robotics.report.identify; assert not {'matplotlib', 'jax', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_of_many_channels_and_samples_is_small_and_quick(tmp_path):
    """400 channels, and 10^6 samples of two of them; names that would end a script, a text or an attribute."""
    for channels, samples in ((400, 500), (2, 1_000_000)):
        names = {f"ch{i}</script>\"'<b>$\\frac$&amp;": "rad" for i in range(channels)}
        time = 1.7e9 + 0.001 * np.arange(samples)
        measured = np.sin(0.001 * np.arange(samples))[:, None] * np.ones(channels)
        measured[samples // 3, 0] = 7.0
        entry = {"time": time, "measured": measured, "predicted": measured + 0.01, "starts": time[::500]}
        content = tree()
        summary = json.loads(content["summary"])
        fit = {n: {"rmse": 0.01, "unit": u, "nrmse_percent": 1.5, "pooled_rmse": 0.02} for n, u in names.items()}
        summary |= {
            "noise": {n: {"value": 0.01, "unit": u} for n, u in names.items()},
            "fit": {"train": fit, "hold_out": {}},
        }
        summary["windows"]["rollouts"] = {"train": [EVIL]}
        write_run(
            tmp_path / "run.h5",
            content | {"summary": json.dumps(summary), "traces": {"train": {EVIL: entry}}},
            STUDY,
            "",
        )
        began = clock.process_time()
        text = write_report(tmp_path).read_text("utf-8")
        assert clock.process_time() - began < 6.0  # takes one second
        assert len(text) < 6e6
        page = Page(text)
        assert [tag for tag, _ in page.tags].count("script") == 3
        assert all(name in page.text for name in list(names)[:3])
        charts, arrays = numbers(text)
        (chart,) = (
            c for c in charts if c["group"] == f"train/{EVIL}" and c["lines"][0]["y"] == charts[3]["lines"][0]["y"]
        )
        # The one wild sample is there; the clock begins at zero.
        assert np.nanmax(arrays[chart["lines"][0]["y"]]) == 7.0
        assert arrays[chart["x"]][0] == 0.0
        assert "1700000000" in chart["label"]


def test_every_parameter_and_warning_is_told(report):
    _, _, page = report
    for path, parameter in PARAMETERS.items():
        assert path in page.text
        assert number(parameter["value"], zeros=True) in page.text
        assert unit(parameter["unit"]) in page.text
    for told in (
        WARNING,
        "2 warnings",
        "at bound",
        "-0.990",
        "9 evaluations",
        "12,345",
        "arm.xml (two & joints)",
        "Converged",
    ):
        assert told in page.text
    assert "On 2 runs it was not fitted to" in page.text
    assert "0.0100 rad in a_pos" in page.text
    assert "joint/*/damping, init 0.5, high 2, prior 0.1, 0.05" in page.text


def test_names_from_a_log_stay_text(report):
    _, text, page = report
    assert EVIL in page.text
    assert EVIL not in text
    assert [tag for tag, _ in page.tags].count("script") == 3


def test_no_folder_of_the_machine_is_told(report):
    folder, text, page = report
    assert "/home/someone" not in text
    assert str(folder) not in text
    assert "arm.h5: no units." in page.text


@pytest.mark.parametrize("held_out", [True, False])
def test_a_poor_run_says_so(tmp_path, held_out):
    fit = json.loads(tree()["summary"])["fit"]
    run = tree(converged=False, message="no more steps", warnings=[], fit=fit if held_out else {**fit, "hold_out": {}})
    if not held_out:
        run["traces"] = {"train": {"run/1": run["traces"]["train"]["run/1"]}}
        run["history"] = {name: column[:1] for name, column in run["history"].items()}
        run["names"], run["correlation"] = run["names"][:1], np.ones((1, 1))
    else:
        run["traces"] = {}
    write_run(tmp_path / "run.h5", run, STUDY, "")
    page = Page(write_report(tmp_path).read_text("utf-8"))
    assert "Not converged: no more steps" in page.text
    assert "No warnings" in page.text
    assert ("No run was held out" in page.text) is not held_out


def test_an_unfinished_run_has_no_report(tmp_path):
    write_run(tmp_path / "run.h5", {"status": "running", "state": {"z": np.zeros(1)}}, STUDY, "")
    with pytest.raises(DsoError, match=r"run\.h5.*not finished.*--resume"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_autocorrelation_of_known_residuals():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((4000, 2))
    coloured = np.zeros(4000)
    for k in range(1, 4000):
        coloured[k] = 0.9 * coloured[k - 1] + noise[k, 1]
    predicted = np.stack([noise[:, 0], coloured], 1)
    made = Trace("train", "x", 0.01 * np.arange(4000), np.zeros((4000, 2)), predicted, np.arange(0, 40, 2.0))
    white, remembering = whiteness([made], 0), whiteness([made], 1)
    assert white.white
    assert white.memory == pytest.approx(0.01)
    assert not remembering.white
    # Of x' = 0.9 x + noise the autocorrelation is 0.9^lag: 1/e after 9.5 samples; windows of 200 samples bias it a little.
    assert remembering.autocorrelation[:6] == pytest.approx(0.9 ** np.arange(6), abs=0.05)
    assert 0.07 <= remembering.memory <= 0.13
    # The first sample of each of the 20 windows was set equal to the measurement.
    assert white.samples == 4000 - 20


def test_autocorrelation_does_not_see_gaps():
    rng = np.random.default_rng(2)
    measured = np.zeros((3000, 1))
    measured[rng.random(3000) < 0.5] = np.nan
    predicted = np.convolve(rng.standard_normal(3001), [1.0, 0.5], "valid")[:, None]
    found = whiteness([Trace("train", "x", 0.01 * np.arange(3000), measured, predicted, np.zeros(1))], 0)
    # Moving average x = e + 0.5 e': 0.5 / 1.25 at the first lag, nothing after; half the samples, a quarter of the pairs.
    assert found.autocorrelation[1] == pytest.approx(0.4, abs=4 / np.sqrt(750))
    assert found.autocorrelation[2] == pytest.approx(0.0, abs=4 / np.sqrt(750))


@pytest.mark.parametrize("several", [False, True])
def test_thinning_keeps_peaks_and_gaps(several):
    time = np.linspace(0, 1, 100_001)
    values = np.sin(40 * time)
    values[31_234], values[70_000:70_003] = 9.0, np.nan
    if several:  # for a common axis
        t, columns = thinned(time, np.column_stack([values, -values]), 1500)
        v = columns[:, 0]
        assert np.nanmin(columns[:, 1]) == -9.0
        assert np.all(np.diff(t) >= 0)
    else:
        t, v = thin(time, values, 1500)
        assert np.all(np.diff(t) > 0)
    assert len(t) <= 1600
    assert np.nanmax(v) == 9.0
    assert np.nanmin(v) == np.nanmin(values)
    assert np.isnan(v).sum() == 1


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (-3.2, 7.9), (1e-9, 3e-9), (1e9, 1e9 + 7), (-2e-300, 1e-300)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 9
        assert low - 1e-9 * (high - low) <= found[0] < found[-1] <= high + 1e-9 * (high - low)
    assert len(ticks(1.0, 1.0)) == 1


def test_a_still_picture_of_nothing_is_a_picture():
    for values in (np.full(3, np.nan), np.zeros(3), np.array([1e300, -1e300, 0.0])):
        for scale in ("linear", "log", "asinh"):
            chart = Chart(
                "a<b", np.arange(3.0), [Line("x", values, "p0"), Line("y", values, "p1", "dots")], "s", scale=scale
            )
            text = ElementTree.tostring(ElementTree.fromstring(still(chart)), encoding="unicode")
            assert "nan" not in text
            assert "inf" not in text


def test_a_still_picture_names_its_lines_and_cuts_no_label_off():
    lines = [Line(f"name {i}", np.arange(3.0) * i, f"p{i}") for i in range(4)]
    for count, rows in ((1, 0), (4, 2)):
        picture = ElementTree.fromstring(still(Chart("a", np.arange(3.0), lines[:count], "time [s]", width=300)))
        height = float(picture.attrib["viewBox"].split()[3])
        texts = {text.text: text.attrib for text in picture.iter("text")}
        assert height == 150 + 20 + 18 * rows
        assert (lines[1].label in texts) == (count > 1)
        assert all(float(place["y"]) <= height - 5 for place in texts.values())  # room for what goes below the line
        numbers = [float(place["y"]) for text, place in texts.items() if text == "1"]
        assert all(float(texts["time [s]"]["y"]) - y >= 15 for y in numbers if y > 100)
        assert sum(path.attrib["class"].startswith("line") for path in picture.iter("path")) == 2 * count - (count == 1)


def test_numbers_in_words():
    assert unit("N*m*s/rad") == "N·m·s/rad"
    assert unit("kg*m^2") == "kg·m²"
    assert unit("1") == ""
    assert [number(v) for v in (None, float("nan"), float("inf"), 0.5)] == ["–", "–", "∞", "0.5"]
    assert number(0.5, 3, zeros=True) == "0.500"
    assert quantity(None, "rad") == "–"
    assert interval(-0.382, -0.2) == "-0.382 to -0.200"
    assert interval(None, None) == "–"
    assert [percent(v) for v in (7.96, 56.4, 3871.0, 0.0, 1e300)] == ["8.0%", "56%", "3900%", "0%", "–"]
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefg")) == "a, b, c, d and 3 more"


def test_of_many_runs_only_some_are_drawn_and_the_page_says_so(tmp_path):
    rng = np.random.default_rng(1)
    runs = {f"run{i}": trace(rng, 20) for i in range(420)}
    for i, run in enumerate(runs.values()):
        run["predicted"] += 0.01 * i
    content = tree(traces={})
    summary = json.loads(content["summary"])
    summary["windows"]["rollouts"] = {"train": list(runs)}
    write_run(
        tmp_path / "run.h5", content | {"summary": json.dumps(summary), "traces": {"train": runs}}, STUDY, "<mujoco/>"
    )
    text = write_report(tmp_path).read_text("utf-8")
    groups = {chart["group"] for chart in numbers(text)[0]}
    assert sum(group.startswith("train/") for group in groups) == 400
    assert {"train/run0", "train/run419"} <= groups
    assert "20 runs between the best and the worst" in text
    assert text.count("Not drawn.") == 20


def test_numbers_of_an_estimator_come_first():
    row = {"initial": 20.0, "value": 21.419, "unit": "N*m"}
    parameters = {"body/a": row | {"low95": 21.0, "high95": 22.0, "at_bound": True}, "body/b": row | {"low95": None}}
    trust = {"stability": {}, "consistency": {"train": {"nis": 1.0, "nees": None}}}
    summary = {"parameters": parameters, "fit": {}, "converged": True, "message": "done", "warnings": ["w"]} | trust
    lines = estimation_table(summary)
    rows = [" ".join(line.split()) for line in lines[0].splitlines()]
    assert rows[0] == "parameter start value 95% interval unit"
    assert rows[1:3] == ["body/a 20 21.42 21 .. 22 N*m at bound", "body/b 20 21.42 not known N*m"]
    assert lines[-2:] == ["converged: done", "warning: w"]
