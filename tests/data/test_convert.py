"""Tables become logs, and say which cell is wrong."""

import io
import zipfile

import numpy as np
import pytest

from dso_robotics.data.convert import convert_table, rescale
from dso_robotics.data.formats import read_tables
from dso_robotics.data.log import Log
from dso_robotics.data.mapping import Column, parse_column
from dso_robotics.data.order import Repair
from dso_robotics.errors import DsoError

CSV = "t,amps,ticks,note\n0,0.5,10,start\n0.01,-0.5,,\n0.02,1.5,30,end\n"


@pytest.fixture
def table(tmp_path):
    """Function that writes a text and returns its path."""

    def write(text, name="run.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_csv(table):
    (rollout,) = convert_table(table(CSV), ["tau=amps*0.1:N*m"], ["angle=ticks*0.5-1:rad"], time="t").rollouts
    assert rollout.name == "run"
    np.testing.assert_allclose(rollout.time, [0, 0.01, 0.02])
    np.testing.assert_allclose(rollout.control("tau"), [0.05, -0.05, 0.15])
    np.testing.assert_allclose(rollout.sensor("angle"), [4, np.nan, 14])
    assert (rollout.ctrl_units, rollout.sensor_units) == (("N*m",), ("rad",))


@pytest.mark.parametrize(
    "text",
    [
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        "# " + CSV.replace(",", ", "),
        CSV.replace("0.01,-0.5,,", "0.01,-0.5,NaN,"),
        CSV + "\n",
    ],
)
def test_dialects(table, text):
    (rollout,) = convert_table(table(text), ["amps"], ["ticks"], time="t").rollouts
    np.testing.assert_allclose(rollout.sensor("ticks"), [10, np.nan, 30])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", Column("a", "a")),
        ("x=a", Column("x", "a")),
        ("x=a*2", Column("x", "a", 2.0)),
        ("x=a * -2e-3 + 1.5 : N*m", Column("x", "a", -2e-3, 1.5, "N*m")),
        ("x=a-.5", Column("x", "a", 1.0, -0.5)),
        ("x=u-1", Column("x", "u-1")),
        ("x=u-1*3:m/s^2", Column("x", "u-1", 3.0, 0.0, "m/s^2")),
        ("x=ns::q", Column("x", "ns::q")),
        ("q[0]=q[0]:rad", Column("q[0]", "q[0]", unit="rad")),
        ("x=(a-2048)*2*pi/4096:rad", Column("x", "a", 2 * np.pi / 4096, -np.pi, "rad")),
        ("x=a*2*pi/4096-pi:rad", Column("x", "a", 2 * np.pi / 4096, -np.pi, "rad")),
        ("x=a+3*pi/2", Column("x", "a", 1.0, 1.5 * np.pi)),
        ("x=(u-1-3)*2", Column("x", "u-1", 2.0, -6.0)),
        ("x=(a*2+q[0]+1)/4", Column("x", "a", 0.5, 0.25, more=(("q[0]", 0.25),))),
        ("x=(a)", Column("x", "(a)")),
    ],
)
def test_mappings(text, expected):
    assert parse_column(text, ["a", "u-1", "ns::q", "q[0]", "(a)"]) == expected


@pytest.mark.parametrize("text", ["x=a-2048*2*pi/4096:rad", "x=a-pi/0", "x=(a-2048)/0", "x=(a-2048"])
def test_what_may_mean_something_else_is_refused_with_the_form_for_an_offset_of_the_column(text):
    with pytest.raises(DsoError, match=r"angle=\(ticks-2048\)\*2\*pi/4096:rad"):
        parse_column(text, ["a"])


def test_a_name_that_ends_in_another_unit_is_asked_about(table):
    path = table("t_s,pos_mm,gyro x dps,duty_pct,arm_in,speed\n0,1,2,3,4,5\n1,2,3,4,5,6\n")
    sensors = ["p=pos_mm:m", "g=gyro x dps:rad/s", "a=arm_in:rad", "s=speed:m/s"]
    found = convert_table(path, ["u=duty_pct:1"], sensors, time="t_s").notes
    assert [note for note in found if "as its name says" in note] == [
        "'duty_pct' is taken as it is, in 1; if it is in %, as its name says, write u=duty_pct*0.01:1",
        "'pos_mm' is taken as it is, in m; if it is in mm, as its name says, write p=pos_mm*0.001:m",
        "'gyro x dps' is taken as it is, in rad/s; if it is in dps, as its name says, write "
        "g=gyro x dps*0.0174532925:rad/s",
    ]
    assert not convert_table(path, [], ["p=pos_mm*0.001:m"], time="t_s").notes


def test_an_unknown_column_lists_the_columns(table):
    with pytest.raises(DsoError, match=r"run.csv.*no column 'ampere'.*'amps'.*t, amps, ticks, note"):
        convert_table(table(CSV), ["tau=ampere*2"], time="t")
    with pytest.raises(DsoError, match="no column 'time'"):
        convert_table(table(CSV), ["amps"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (CSV.replace("30,end", "3O,end"), "line 4, column 'ticks': '3O' is not a number"),
        (CSV.replace(",", ";").replace("30;end", "3,5;end"), "--decimal"),
        (CSV.replace("0.01,-0.5,,", "0.01,-0.5"), "line 3 has 2 cells"),
        (CSV.replace("ticks", "amps"), "there is no column 'ticks'"),
        ("0,1\n1,2\n", "--no-header"),
        ("t,ticks\n", "no rows"),
        ("", "no rows"),
        (CSV.replace("0.02", "0.01"), "time does not increase at sample 2"),
        (CSV.replace("0.02,", ","), "time is nan at sample 2"),
        (b"\x00\x01\x02\x03t,ticks\n", "is no text file"),
    ],
)
def test_bad_csv(table, text, word):
    with pytest.raises(DsoError) as caught:
        convert_table(table(text), [], ["ticks"], time="t")
    assert word in str(caught.value)
    assert "run.csv" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DsoError, match="no such file"):
        read_tables(tmp_path / "run.csv")


def test_nothing_mapped(table):
    with pytest.raises(DsoError, match=r"nothing to convert.*t, amps"):
        convert_table(table(CSV))


def test_gaps_of_controls(table):
    text = "time,u\n0,1\n1,\n2,\n3,4\n"
    with pytest.raises(DsoError, match="channel 'u' is nan at sample 1"):
        convert_table(table(text), ["u"])
    (rollout,) = convert_table(table(text), ["u"], repair=Repair(hold_ctrl=True)).rollouts
    np.testing.assert_array_equal(rollout.control("u"), [1, 1, 1, 4])
    with pytest.raises(DsoError, match="sample 0"):  # nothing to hold
        convert_table(table("time,u\n0,\n1,2\n"), ["u"], repair=Repair(hold_ctrl=True))


def test_pauses_split(table):
    text = "time,x\n" + "".join(f"{t},{t}\n" for t in (0, 1, 2, 50, 90, 91))
    first, second = convert_table(table(text), [], ["x"], repair=Repair(split_gap=10)).rollouts
    assert (first.name, second.name) == ("run", "run.1")
    np.testing.assert_array_equal(first.time, [0, 1, 2])
    np.testing.assert_array_equal(second.time, [90, 91])  # the lone sample at 50 is dropped
    with pytest.raises(DsoError, match="pauses for over 1 s after every sample"):
        convert_table(table("time,x\n0,1\n9,1\n"), [], ["x"], repair=Repair(split_gap=1))


def test_npz(tmp_path):
    path = tmp_path / "bench.npz"
    np.savez(path, u=np.ones((4, 2)), q=np.arange(4.0), dt=0.01, label="text", short=np.zeros(3))
    assert read_tables(path)[0].names == ("u[0]", "u[1]", "q", "short")
    (rollout,) = convert_table(path, ["m=u[1]"], ["q"], rate=100).rollouts
    np.testing.assert_allclose(rollout.time, [0, 0.01, 0.02, 0.03])
    with pytest.raises(DsoError, match=r"differ in length .*u\[0\] 4, short 3"):
        convert_table(path, ["u[0]", "short"], rate=100)
    with pytest.raises(DsoError, match="rate is -1"):
        convert_table(path, ["u[0]"], rate=-1)


def test_npz_never_unpickles(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(tmp_path / "trap.npz", q=np.array([Trap()], dtype=object))
    with pytest.raises(DsoError, match="plain number arrays"):
        read_tables(tmp_path / "trap.npz")


def test_bad_npz(tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DsoError, match="NPZ archive"):
        read_tables(path)
    np.savez(path, label="only text")
    with pytest.raises(DsoError, match="no array of numbers"):
        read_tables(path)


def test_forged_npz_is_refused_before_allocation(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "forged.npz", "w") as archive:
        archive.writestr("q.npy", header.getvalue())
    with pytest.raises(DsoError, match="claims"):
        read_tables(tmp_path / "forged.npz")


def test_rescaling(log):
    scaled = rescale(log, {"elbow_pos": (np.pi / 180, "rad"), "tau1": (2.0, "")})
    np.testing.assert_allclose(scaled["a"].sensor("elbow_pos"), np.deg2rad(log["a"].sensor("elbow_pos")))
    np.testing.assert_allclose(scaled["b"].control("tau1"), 2 * log["b"].control("tau1"))
    np.testing.assert_array_equal(scaled["a"].sensor("shoulder_pos"), log["a"].sensor("shoulder_pos"))
    assert scaled["a"].ctrl_units == ("N*m", "N*m")
    with pytest.raises(DsoError, match="no channel 'elbow'"):
        rescale(log, {"elbow": (1.0, "")})
    with pytest.raises(DsoError, match="cannot be scaled by 0"):
        rescale(log, {"tau1": (0.0, "")})


def test_no_channels_no_rescaling(rollout):
    bare = Log("", "", "", (rollout(ctrl=None, ctrl_names=(), ctrl_units=()),))
    assert rescale(bare, {"elbow_pos": (2.0, "")}).rollouts[0].ctrl is None
