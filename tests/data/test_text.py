"""Text files of every usual dialect give the same numbers, or say which option decides."""

import numpy as np
import pytest

from dso_robotics.data.cell import column, number
from dso_robotics.data.convert import convert_table
from dso_robotics.data.dialect import Dialect
from dso_robotics.data.formats import read_tables
from dso_robotics.data.order import Repair
from dso_robotics.errors import DsoError

TIME, TORQUE, ANGLE = np.arange(12) * 0.01, np.linspace(-1.5, 0.7, 12).round(3), np.linspace(0, 3, 12).round(4)
NAMES = ("time", "torque", "angle")


def lines(delimiter=",", decimal=".", names=NAMES, end="\n", tail=""):
    rows = [[f"{value:.4f}".replace(".", decimal) for value in row] for row in zip(TIME, TORQUE, ANGLE, strict=True)]
    return end.join(delimiter.join(row) + tail for row in ([list(names)] if names else []) + rows) + end


LABVIEW = (
    "LabVIEW Measurement\t\nDecimal_Separator\t,\n***End_of_Header***\t\n\t\nChannels\t2\t\t\nSamples\t100\t100\t\n"
    "Date\t2024/03/01\t2024/03/01\nTime\t10:00:00,123\t10:00:00,123\nX0\t0,0\t0,0\nDelta_X\t0,01\t0,01\n"
    "***End_of_Header***\t\t\t\n"
)
DIALECTS = {
    "comma": lines(),
    "semicolon": lines(";"),
    "tab": lines("\t"),
    "bar": lines("|"),
    "blanks": lines("   "),
    "blanks around": "".join(f"  {line}  \n" for line in lines(" ").splitlines()),
    "old line ends": lines(end="\r"),
    "windows": lines(end="\r\n"),
    "comma and blanks": lines(", "),
    "decimal comma": lines(";", ","),
    "decimal comma and tabs": lines("\t", ","),
    "decimal comma and blanks": lines("  ", ","),
    "excel": "sep=;\n" + lines(";", ","),
    "quoted": '"' + lines('","').replace("\n", '"\n"').removesuffix('"'),
    "quoted decimal comma": '"' + lines('","', ",").replace("\n", '"\n"').removesuffix('"'),
    "separator at the end": lines(tail=","),
    "only rows end so": lines(names=()).join(["time,torque,angle\n", ""]).replace("\n0", ",\n0"),
    "numpy.savetxt": "# time torque angle\n" + lines(" ", names=()),
    "other separator in the comment": "# time, torque, angle\n" + lines(" ", names=()),
    "comments": "# rig 2, 12 V, 24 V\n# 2024-03-01\n" + lines(),
    "matlab comments": "% rig\n%% time torque angle\n" + lines(" ", names=()),
    "c comments": "// rig\n" + lines(),
    "comment between": lines().replace("\n0.0300", "\n# pause\n0.0300"),
    "comment units": "# time torque angle\n# s N*m rad\n" + lines(" ", names=()),
    "units": lines().replace("angle\n", "angle\ns,Nm,rad\n"),
    "units in brackets": lines().replace("angle\n", "angle\n(s),[N*m],(rad)\n"),
    "rule": lines().replace("angle\n", "angle\n----,------,-----\n"),
    "preamble": LABVIEW + lines("\t", ","),
    "longer header": LABVIEW + lines("\t", ",").replace("angle", "angle\tComment"),
    "repeated header": lines().replace("\n0.0500", "\ntime,torque,angle\n0.0500"),
    "torn": lines() + "0.12",
    "torn in a number": lines() + "0.12,0.1,-",
    "torn with a line end": lines() + "0.12\n",
    "zeros at the end": lines() + "\0" * 50,
}


def read(path, text, *, encoding="utf-8", **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return convert_table(path, ["u=torque:N*m"], ["q=angle:rad"], **options)


def check(rollout):
    np.testing.assert_allclose(rollout.time, TIME, atol=1e-12)
    np.testing.assert_allclose(rollout.control("u"), TORQUE, atol=1e-12)
    np.testing.assert_allclose(rollout.sensor("q"), ANGLE, atol=1e-12)


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS.keys())
def test_dialects(tmp_path, text):
    check(read(tmp_path / "run.csv", text).rollouts[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings(tmp_path, encoding):
    text = lines(";").replace("angle", "Größe [°]")
    (tmp_path / "run.txt").write_bytes(text.encode(encoding))
    done = convert_table(tmp_path / "run.txt", [], ["q=Größe [°]:rad"])
    np.testing.assert_allclose(done.rollouts[0].sensor("q"), np.deg2rad(ANGLE))
    assert done.unused == ("torque",)


def test_a_torn_character_or_code_unit_is_left_out(tmp_path):
    check(read(tmp_path / "a.csv", lines("\t").encode("utf-16") + b"0").rollouts[0])
    check(read(tmp_path / "b.csv", lines().replace("time", "time").encode() + "°".encode()[:1]).rollouts[0])


def test_no_header(tmp_path):
    with pytest.raises(DsoError, match=r"no line names the columns.*--no-header.*1, 2, 3"):
        read(tmp_path / "run.csv", lines(names=()))
    headless = Dialect(header=False)
    done = convert_table(tmp_path / "run.csv", ["u=2"], ["q=3*1:rad"], time="1", dialect=headless)
    check(done.rollouts[0])
    with pytest.raises(DsoError, match=r"no column 'time'.*1, 2, 3.*--time.*--rate"):
        convert_table(tmp_path / "run.csv", ["u=2"], dialect=headless)


def test_repeated_names(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text(lines(names=("time", "value", "value")))
    with pytest.raises(DsoError, match=r"'value' stands above 2 columns.*\(2 and 3\).*value#2.*#3"):
        convert_table(path, ["u=value"])
    for first, second in (("value#1", "value#2"), ("#2", "#3"), ("2", "3")):
        check(convert_table(path, [f"u={first}*1:N*m"], [f"q={second}*1+0:rad"]).rollouts[0])


def test_repeated_names_of_equal_columns_are_one(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("time,u,time,q\n0,1,0,3\n1,2,1,4\n")
    np.testing.assert_array_equal(convert_table(path, ["u"], ["q"]).rollouts[0].time, [0, 1])


def test_what_only_the_user_can_decide_names_its_option(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("time;u\n0;1,234\n1;1,300\n")
    with pytest.raises(DsoError, match=r"'1,234' may be a decimal sign.*--decimal"):
        convert_table(path, ["u"])
    for decimal, value in ((",", 1.234), (".", 1234.0)):
        done = convert_table(path, ["u"], dialect=Dialect(decimal=decimal))
        assert done.rollouts[0].control("u")[0] == value
    path.write_text("time,torque,angle\n0,00,1,50,2,10\n0,10,1,70,3,10\n0,20,2,50,3,10\n")
    with pytest.raises(DsoError, match="3 names but line 2 has 6 cells: commas are both"):
        convert_table(path, ["torque"])
    path.write_text("a b\n" + lines())
    with pytest.raises(DsoError, match="there is no column 'x'"):
        convert_table(path, ["x"], dialect=Dialect(header_line=2))
    for wrong in ({"delimiter": "--"}, {"decimal": "x"}, {"encoding": "klingon"}, {"header_line": 0}):
        with pytest.raises(DsoError, match="--"):
            Dialect(**wrong)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (lines().replace("0.0000,-1.5000", "0.0000,-1.5O"), "line 2, column 'torque': '-1.5O' is not a number"),
        (lines().replace("0.0500,", "0.0500,x"), "line 7, column 'torque'"),
        (lines().replace("0.0500,", ""), "line 7 has 2 cells"),
        (lines(";").replace(";0.7000", ";0,7"), "--decimal"),
        ("PK\x03\x04 no zip", "NPZ"),
        ("\x80\x04\x95 pickle", "pickle"),
        ("PAR1 and so on", "Parquet"),
        ("just words\nand more\n", "no column of it holds numbers"),
    ],
)
def test_damage_is_told_where_it_is(tmp_path, text, word):
    with pytest.raises(DsoError) as caught:
        read(tmp_path / "run.csv", text, encoding="latin-1")
    assert word in str(caught.value)
    assert "run.csv" in str(caught.value)


def test_units_of_the_file(tmp_path):
    text = lines().replace("angle\n", "angle\nms,mNm,°\n")
    done = read(tmp_path / "run.csv", text)
    np.testing.assert_allclose(done.rollouts[0].time, TIME * 1e-3)
    np.testing.assert_allclose(done.rollouts[0].control("u"), TORQUE * 1e-3)
    np.testing.assert_allclose(done.rollouts[0].sensor("q"), np.deg2rad(ANGLE))
    assert [(use.channel, use.unit, use.becomes) for use in done.uses] == [
        ("time", "ms", "s"),
        ("u", "mNm", "N*m"),
        ("q", "°", "rad"),
    ]
    given = convert_table(tmp_path / "run.csv", ["u=torque*2:N*m"], ["angle"], time="time*0.5")
    np.testing.assert_allclose(given.rollouts[0].control("u"), 2 * TORQUE)  # a factor is the user's word
    np.testing.assert_allclose(given.rollouts[0].time, TIME * 0.5)
    assert given.rollouts[0].sensor_units == ("°",)
    with pytest.raises(DsoError, match=r"'torque' is in 'mNm'.*mapped to rad.*FACTOR"):
        convert_table(tmp_path / "run.csv", ["u=torque:rad"])


def test_times_of_every_kind(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("sec,nanosec,q\n1700000000,999000000,1\n1700000001,9000001,2\n1700000001,19000000,3\n")
    stamps = convert_table(path, [], ["q"], time="sec+nanosec*1e-9").rollouts[0].time
    np.testing.assert_allclose(stamps, [0, 0.010000001, 0.02], rtol=0, atol=1e-12)
    path.write_text("t,q\n1700000000999000000,1\n1700000001009000001,2\n")
    np.testing.assert_allclose(
        convert_table(path, [], ["q"], time="t:ns").rollouts[0].time, [0, 0.010000001], rtol=0, atol=1e-12
    )
    for first, second in (
        ("2024-02-29 23:59:59.995", "2024-03-01 00:00:00.005"),
        ("2024-02-29T23:59:59.995Z", "2024-03-01T02:00:00.005+02:00"),
        ("29.02.2024 23:59:59,995", "01.03.2024 00:00:00,005"),
        ("23:59:59.995", "00:00:00.005"),
    ):
        path.write_text(f"t;q\n{first};1\n{second};2\n")
        np.testing.assert_allclose(np.diff(convert_table(path, [], ["q"], time="t").rollouts[0].time), 0.01)
    with pytest.raises(DsoError, match="no unit of time"):
        convert_table(path, [], ["q"], time="t:kg")


def test_numbers_of_cells():
    assert [number(text, ",") for text in ("1,5", "1.234,5", "1.234", "-,5", "1e3")] == [1.5, 1234.5, 1234, -0.5, 1000]
    assert [number(text) for text in ("1,234.5", "1D-3", "TRUE", "1_0", "0,5", "1.5x")] == [
        1234.5,
        1e-3,
        1.0,
        None,
        None,
        None,
    ]
    assert all(np.isnan(number(text)) for text in ("", " ", "NaN", "n/a", "-", "1.#QNAN"))
    assert number("1.5", ",") is None
    origin, values = column(["1700000000999000001", "", "1700000000999000003"])
    assert origin == 1700000000999000001
    np.testing.assert_array_equal(values, [0, np.nan, 2])


def test_samples_out_of_order(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("time,u\n0,1\n2,2\n1.5,3\n1.5,4\n3,5\n")
    with pytest.raises(DsoError, match=r"sample 2.*--sort"):
        convert_table(path, ["u"])
    with pytest.raises(DsoError, match=r"1\.5 s twice.*--drop-repeats"):
        convert_table(path, ["u"], repair=Repair(sort=True))
    (rollout,) = convert_table(path, ["u"], repair=Repair(sort=True, drop_repeats=True)).rollouts
    np.testing.assert_array_equal(rollout.time, [0, 1.5, 2, 3])
    np.testing.assert_array_equal(rollout.control("u"), [1, 3, 2, 5])
    with pytest.raises(DsoError, match="contradict"):
        Repair(sort=True, split_restarts=True)
    with pytest.raises(DsoError, match="--split-gap"):
        Repair(split_gap=-1)


def test_time_that_begins_again(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("time,u\n0,1\n1,2\n2,3\n0,4\n1,5\n0,6\n")
    with pytest.raises(DsoError, match=r"time begins again.*--split-restarts"):
        convert_table(path, ["u"])
    done = convert_table(path, ["u"], repair=Repair(split_restarts=True))
    assert [(r.name, list(r.control("u"))) for r in done.rollouts] == [("run", [1, 2, 3]), ("run.1", [4, 5])]
    assert "1 of 6 samples are left out" in done.notes


def test_states_before_the_first_command(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("time,u,q\n0,,1\n1,,2\n,7,7\n2,3,3\n3,,4\n4,5,5\n5,,6\n")
    with pytest.raises(DsoError, match=r"--trim"):
        convert_table(path, ["u"], ["q"])
    with pytest.raises(DsoError, match=r"--hold-ctrl.*--trim"):
        convert_table(path, ["u"], ["q"], repair=Repair(trim=True))
    (rollout,) = convert_table(path, ["u"], ["q"], repair=Repair(trim=True, hold_ctrl=True)).rollouts
    np.testing.assert_array_equal(rollout.time, [2, 3, 4, 5])
    np.testing.assert_array_equal(rollout.control("u"), [3, 3, 5, 5])


def test_short_files(tmp_path):
    path = tmp_path / "run.csv"
    for rows in (2, 3):
        path.write_text("time,q\ns,rad\n" + "".join(f"{i},{i}\n" for i in range(rows)))
        assert len(convert_table(path, [], ["q"]).rollouts[0].time) == rows
    path.write_text("time,q\n0,1\n")
    with pytest.raises(DsoError, match=r"1 sample\(s\); at least 2"):
        convert_table(path, [], ["q"])


def test_columns_that_are_not_used_may_hold_anything(tmp_path):
    (tmp_path / "run.csv").write_text("time,note,q\n0,start,1\n1,,2\n2,stop here,3\n")
    (table,) = read_tables(tmp_path / "run.csv")
    assert table.names == ("time", "note", "q")
    with pytest.raises(DsoError, match="line 2, column 'note'"):
        table.column("note")
