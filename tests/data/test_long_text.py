"""Text files longer than what is read at a time: the same rules, in a memory of a few dozen bytes a row."""

import tracemalloc

import numpy as np
import pytest

from dso_robotics.data.dialect import Dialect
from dso_robotics.data.formats import read_tables
from dso_robotics.errors import DsoError

COUNT = 9000  # more than two pieces
TIME = np.arange(COUNT) * 0.001
VALUES = np.random.default_rng(0).normal(size=COUNT).round(4)


def body(time=TIME, values=VALUES, sep=",", decimal="."):
    return [f"{t:.3f}{sep}{v:.4f}".replace(".", decimal) for t, v in zip(time, values, strict=True)]


def read(path, lines, end="\n", **dialect):
    path.write_text("\n".join(lines) + end)
    (table,) = read_tables(path, Dialect(**dialect))
    return table


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.csv"


@pytest.mark.parametrize(
    "kind", ["plain", "decimal comma", "blanks", "separator at the end", "no header", "comments between"]
)
def test_numbers_of_every_piece(path, kind):
    rows, names, more = body(), "t,v", {}
    if kind == "decimal comma":
        rows, names = body(sep=";", decimal=","), "t;v"
    if kind == "blanks":
        rows, names = body(sep="   "), "t v"
    if kind == "separator at the end":
        rows = [f"{row}," for row in rows]
    if kind == "comments between":
        rows[5000:5000] = ["# a pause", ""]
    if kind == "no header":
        more = {"header": False}
    table = read(path, rows if kind == "no header" else [names, *rows], **more)
    np.testing.assert_allclose(table.column(table.names[0]), TIME, atol=1e-12)
    np.testing.assert_allclose(table.column(table.names[1]), VALUES, atol=1e-12)


def test_the_line_of_names_again_in_a_later_piece(path):
    rows = body()
    table = read(path, ["t,v", *rows[:6000], "t,v", *rows[6000:]])
    np.testing.assert_allclose(table.column("v"), VALUES)
    assert any("occurs 1 more time" in note for note in table.notes)


def test_missing_cells_stand_where_they_are(path):
    rows = body()
    rows[4500], rows[8999] = "4.500,", "8.999,nan"
    found = read(path, ["t,v", *rows]).column("v")
    assert np.flatnonzero(np.isnan(found)).tolist() == [4500, 8999]


def test_faults_name_their_line(path):
    rows = body()
    for at, line, told in (
        (5000, "5.0,abc", "line 5002, column 'v': 'abc'"),
        (5000, "5.0,1,2", "line 5002 has 3 cells but there are 2"),
        (8000, "8.0", "line 8002 has 1 cells but there are 2"),
        (8000, "8.0,1_000", "line 8002, column 'v': '1_000'"),
        (8000, "8.0," + "x" * 200, "line 8002, column 'v'"),
    ):
        with pytest.raises(DsoError, match=told.replace("(", r"\(")):
            read(path, ["t,v", *rows[:at], line, *rows[at + 1 :]]).column("v")


def test_a_torn_last_line_is_left_out(path):
    table = read(path, ["t,v", *body(), "9.0"], end="")
    assert len(table.column("v")) == COUNT
    assert any("torn off" in note for note in table.notes)


def test_integers_beyond_float64_keep_their_differences(path):
    start = 1_700_000_000_000_000_000
    table = read(path, ["t,v", *(f"{start + 1_000_001 * i},{i}" for i in range(COUNT))])
    origin, values = table.exact("t")
    assert origin == start
    np.testing.assert_array_equal(values, 1_000_001.0 * np.arange(COUNT))


def test_other_letters_in_one_piece(path):
    rows = [f"{row},{'größer' if i == 7000 else 'ok'}" for i, row in enumerate(body())]
    for encoding in ("utf-8", "utf-16", "cp1252"):
        path.write_bytes("\n".join(["t,v,note", *rows, ""]).encode(encoding))
        (table,) = read_tables(path)
        np.testing.assert_allclose(table.column("v"), VALUES)


def test_zero_bytes_at_the_end_are_left_out(path):
    for encoding in ("utf-8", "utf-16-le"):
        path.write_bytes("\n".join(["t,v", *body(), ""]).encode(encoding) + bytes(1 << 21))
        (table,) = read_tables(path)
        np.testing.assert_allclose(table.column("v"), VALUES)


def test_memory_is_that_of_the_columns(path):
    count, columns = 30_000, 6
    numbers = np.random.default_rng(1).normal(size=(count, columns)).round(5)
    np.savetxt(path, numbers, "%.5f", delimiter=",", header=",".join("abcdef"), comments="")
    tracemalloc.start()
    (table,) = read_tables(path)
    found = [table.column(name) for name in table.names]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.stack(found, 1), numbers)
    # 9 characters and a number of 8 bytes a cell, 8 bytes for the number of the line; one column may be there twice. The pieces
    # at hand take a constant. With a Python object for each cell it was 90 bytes a cell.
    assert peak < count * (columns * 18 + 40) + 6e6
