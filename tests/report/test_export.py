"""`dso export`: the face of all formats, and the tables of parameters."""

import csv
import dataclasses
import json
import math

import pytest

from dso_robotics.cli import main
from dso_robotics.data.run_file import write_run
from dso_robotics.errors import DsoError
from dso_robotics.report.export.finished import read_finished
from dso_robotics.report.export.format import FORMATS, Export, Format, write_export
from dso_robotics.report.export.formats.latex import escaped, number, unit
from dso_robotics.table import key

NUMBERS = {
    "joint/a_b/damping": {
        "value": 0.123456789012345,
        "initial": 0.5,
        "unit": "N*m*s/rad",
        "low95": 0.12,
        "high95": 0.127,
    },
    'body/50% of "x", {y}/mass': {"value": 2e-7, "initial": 1.0, "unit": "kg", "low95": None, "high95": None},
    "geom/é/friction[0]": {"value": 0.0, "initial": 1.0, "unit": "1", "low95": 0.0, "high95": math.inf},
}
MARKS = [(True, False), (False, False), (False, True)]


def finished(folder, command="identify", numbers=NUMBERS, status="finished", inputs=()):
    """A folder with the run file of a finished run."""
    rows = {
        n: {**row, "determined": d, "at_bound": b} for (n, row), (d, b) in zip(numbers.items(), MARKS, strict=False)
    }
    summary = {"command": command, "parameters": rows}
    named = {label: {"path": str(path), "sha256": "0"} for label, path in inputs}
    tree = {
        "status": status,
        "summary": json.dumps(summary).replace("Infinity", "null"),
        "inputs": named or {"x": {"path": "/x"}},
    }
    folder.mkdir(exist_ok=True)
    write_run(folder / "run.h5", tree, {"command": command, "model": "m.xml"}, "<mujoco/>")
    return folder


def test_a_table_read_back_has_the_numbers_of_the_run(tmp_path, capsys):
    folder = finished(tmp_path / "r")
    assert main(["export", str(folder), "--to", "csv"]) == 0
    path = folder / "parameters.csv"
    assert capsys.readouterr().out.strip() == str(path)
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["parameter"] for row in rows] == list(NUMBERS)
    for row, given, (determined, at_bound) in zip(rows, NUMBERS.values(), MARKS, strict=True):
        assert float(row["value"]) == given["value"]
        assert float(row["start"]) == given["initial"]
        assert row["unit"] == given["unit"]
        assert row["low95"] == ("" if given["low95"] is None else repr(given["low95"]))
        assert row["high95"] == ("" if given["high95"] in (None, math.inf) else repr(given["high95"]))
        assert (row["determined"], row["at_bound"]) == (str(determined).lower(), str(at_bound).lower())


def test_a_latex_table_has_every_row_and_explains_its_marks(tmp_path, capsys):
    folder = finished(tmp_path / "r")
    assert main(["export", str(folder), "--to", "latex", "--out", str(tmp_path / "t.tex")]) == 0
    told = capsys.readouterr()
    assert "é" in told.err
    text = (tmp_path / "t.tex").read_text("utf-8")
    rows = [line for line in text.splitlines() if r"\texttt" in line]
    assert len(rows) == len(NUMBERS)
    # Half-width 0.0035: the last digit shown is the fourth after the point.
    assert r"$0.1235$ & $[0.1200,\ 0.1270]$ & $\mathrm{N\,m\,s\,rad^{-1}}$ & $0.5000$" in rows[0]
    assert r"$2.000 \times 10^{-7}{}^{\dagger}$" in rows[1]
    assert r"not determined by the data; $^\ddagger$ at its bound" in text
    for line in text.splitlines()[1:]:
        bare = line.replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")
        assert line.count("$") % 2 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("N*m*s/rad", r"$\mathrm{N\,m\,s\,rad^{-1}}$"),
        ("kg*m^2", r"$\mathrm{kg\,m^{2}}$"),
        ("m/s^2", r"$\mathrm{m\,s^{-2}}$"),
        ("1", ""),
        ("N/(m*s)", "N/(m*s)"),
    ],
)
def test_units_in_latex(text, expected):
    assert unit(text) == expected


def test_numbers_and_names_in_latex():
    assert number(1.5e-7, 2) == r"1.5 \times 10^{-7}"
    assert number(2.0, 1) == "2"
    assert number(-math.inf, 3) == r"-\infty"
    assert escaped(r"a_b$&%#{}~^\<>") == (
        r"a\_b\$\&\%\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
    )


def test_the_list_has_every_format_and_its_options(capsys):
    assert main(["export"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in FORMATS)
    assert "environment" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "cvs"], "'csv'"),
        ([], "--to"),
        (["--to", "latex", "--set", "environment=tabel"], "tabular"),
        (["--to", "latex", "--set", "environment"], "OPTION=VALUE"),
        (["--to", "csv", "--set", "x=1"], "unknown key 'x'"),
        (["--to", "csv", "--out", "{folder}/summary.json", "--force"], "another name"),
        (["--to", "csv", "--out", "{folder}/log.h5", "--force"], "another name"),
        (["--to", "csv", "--out", "{folder}"], "name a file"),
        (["--to", "csv", "--out", "{folder}/nowhere/x.csv"], "nowhere"),
        (["--to", "csv", "--to", "latex", "--out", "x"], "one at a time"),
        (["--onnx"], "results of `dso train`"),
        (["--urdf"], "name the URDF to copy with --set file=FILE"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(tmp_path, capsys, arguments, told):
    folder = finished(tmp_path / "r", inputs=[("log 1", tmp_path / "r" / "log.h5")])
    (folder / "log.h5").write_bytes(b"log")
    assert main(["export", str(folder), *(a.format(folder=folder) for a in arguments)]) == 2
    assert told in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["log.h5", "run.h5"]
    assert (folder / "log.h5").read_bytes() == b"log"


def test_several_formats_at_once(tmp_path, capsys):
    folder = finished(tmp_path / "r")
    assert main(["export", str(folder), "--to", "csv", "--to", "latex"]) == 0
    assert capsys.readouterr().out.split() == [str(folder / "parameters.csv"), str(folder / "parameters.tex")]


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    folder = finished(tmp_path / "r")
    (folder / "parameters.csv").write_text("mine")
    assert main(["export", str(folder), "--to", "csv"]) == 2
    assert (folder / "parameters.csv").read_text() == "mine"
    assert main(["export", str(folder), "--to", "csv", "--force"]) == 0


def test_an_unfinished_run_has_nothing_to_export(tmp_path):
    with pytest.raises(DsoError, match="has not finished"):
        read_finished(finished(tmp_path / "r", status="running"))


def test_a_run_without_numbers_has_no_table(tmp_path):
    with pytest.raises(DsoError, match="no physical number"):
        write_export("csv", read_finished(finished(tmp_path / "r", numbers={})))


def test_a_format_of_ones_own_is_one_class(tmp_path):
    """Files of several names, options of any type, and notes."""

    @dataclasses.dataclass(frozen=True)
    class Pair(Format):
        commands = ("train",)
        filename = "pair.c"
        about = "two files"

        times: int = key("how often", 1, within="[1, 9]")

        def export(self, result, name):
            return Export({name: "a" * self.times, name.replace(".c", ".h"): b"b"}, ["half of it"])

    FORMATS.register("pair")(Pair)
    try:
        result = read_finished(finished(tmp_path / "r", command="train"))
        paths, notes = write_export("pair", result, options={"times": 3})
        assert [p.read_text() for p in paths] == ["aaa", "b"]
        assert notes == ["half of it"]
        with pytest.raises(DsoError, match="times"):
            write_export("pair", result, options={"times": 10}, force=True)
        other = read_finished(finished(tmp_path / "s"))
        with pytest.raises(DsoError, match="results of `dso train`"):
            write_export("pair", other)
    finally:
        del FORMATS._things["pair"]
