"""Files of arrays in groups: JSON, MAT, HDF5, NPZ; hostile and damaged ones are refused."""

import json
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from dso_robotics.data.convert import convert_table
from dso_robotics.data.formats import is_log_file, read_tables
from dso_robotics.errors import DsoError

T = np.arange(20) * 0.05
U, Q = np.sin(T), np.cos(3 * T)
RECORDS = [{"t": t, "cmd": {"u": u}, "q": [q, 2 * q]} for t, u, q in zip(T, U, Q, strict=True)]
PLAIN = {"t": T.tolist(), "cmd": {"u": U.tolist()}, "q": np.stack([Q, 2 * Q], 1).tolist()}


def check(path, ctrl="u=cmd/u", sensor="q=q[1]*0.5:rad", *, time="t", count=1):
    done = convert_table(path, [ctrl], [sensor], time=time)
    assert len(done.rollouts) == count
    for rollout in done.rollouts:
        np.testing.assert_allclose(rollout.time, T)
        np.testing.assert_allclose(rollout.control("u"), U)
        np.testing.assert_allclose(rollout.sensor("q"), Q)
    return done


@pytest.mark.parametrize(
    "content",
    [
        RECORDS,
        PLAIN,
        {"mass": 0.5, "gains": [1, 2, 3], "entries": RECORDS},
        {"meta": {"rig": "a"}, "run": {"data": PLAIN}},
        [{**record, "q": [str(part) for part in record["q"]]} for record in RECORDS],
    ],
)
def test_json(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    assert check(path).rollouts[0].name == "run"
    check(path, "u=cmd.u")
    path.with_suffix(".log").write_bytes(json.dumps(content).encode("utf-8-sig"))
    check(path.with_suffix(".log"))


def test_json_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS) + '\n{"t": 1.0, "cm')
    assert "the last line is torn off and is left out" in check(path).notes


def test_json_of_several_runs(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"first": RECORDS, "second": PLAIN}))
    assert [r.name for r in check(path, count=2).rollouts] == ["first", "second"]
    path.write_text(json.dumps({"runs": [PLAIN, PLAIN, PLAIN]}))
    check(path, count=3)


def test_json_missing_values_are_nan(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('[{"t":0,"q":1},{"t":1,"q":null},{"t":2},{"t":3,"q":NaN},{"t":4,"q":2}]')
    values = convert_table(path, [], ["q"], time="t").rollouts[0].sensor("q")
    np.testing.assert_array_equal(values, [1, np.nan, np.nan, np.nan, 2])


@pytest.mark.parametrize(
    "text", ['[{"t":1},{"t"', "{", "[" * 100_000, '{"t": [1, 2], "q": ["a", "b"]}', '{"t": 1' + "0" * 400 + "}"]
)
def test_damaged_json(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DsoError, match=r"run\.json"):
        convert_table(tmp_path / "run.json", [], ["q"], time="t")


def test_mat(tmp_path):
    path = tmp_path / "run.mat"
    for stack in (np.stack([Q, 2 * Q]), np.stack([Q, 2 * Q], 1)):
        scipy.io.savemat(path, {"t": T[:, None], "cmd": {"u": U}, "q": stack, "Ts": 0.05, "note": "rig 2"})
        check(path, "u=cmd.u")
    scipy.io.savemat(path, {"runs": [{"t": T, "u": U, "q": Q}, {"t": T, "u": U, "q": Q}]})
    check(path, "u", "q", count=2)
    content = path.read_bytes()
    for kept in (100, 200, len(content) - 50):
        path.write_bytes(content[:kept])
        with pytest.raises(DsoError, match=r"run\.mat"):
            convert_table(path, ["u"], ["q"], time="t")


def test_a_short_vector_does_not_turn_the_arrays(tmp_path):
    path = tmp_path / "run.mat"
    scipy.io.savemat(path, {"t": T, "home": [0.1, 0.2], "u": U, "q": np.stack([Q, 2 * Q])})
    check(path, "u")


def test_mat_of_version_7_3(tmp_path):
    path = tmp_path / "run.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["t"], file["cmd/u"], file["q"] = T[None], U[None], np.stack([Q, 2 * Q])  # MATLAB's (20, 2)
        file["#refs#/a"] = np.zeros(3)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    assert not is_log_file(path)
    assert check(path).unused == ("q[0]",)


def test_demos(tmp_path):
    path = tmp_path / "demos.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("demo_0", "demo_1"):
            group = file.create_group(f"data/{name}")
            group["actions"], group["obs/q"] = np.stack([U, -U], 1), Q[:, None]
            group["obs/image"] = np.zeros((20, 8, 8, 3), np.uint8)
            group["label"] = ["x"] * 20
        file["mask/train"] = [b"demo_0"]
    assert not is_log_file(path)
    with pytest.raises(DsoError, match=r"no column 'time'.*--rate"):
        convert_table(path, ["u=actions[0]"], ["q=obs/q"])
    for sensor in ("q=obs/q", "q=obs/q[0]", "q=obs.q"):
        done = convert_table(path, ["u=actions[0]"], [sensor], rate=20)
        assert [r.name for r in done.rollouts] == ["demo_0", "demo_1"]
        np.testing.assert_allclose(done.rollouts[1].time, T)
        np.testing.assert_allclose(done.rollouts[1].control("u"), U)
        np.testing.assert_allclose(done.rollouts[1].sensor("q"), Q)
    one = convert_table(path, ["u=data/demo_1/actions[0]"], ["q=data/demo_1/obs/q"], rate=20)
    assert [r.name for r in one.rollouts] == ["demos"]
    with pytest.raises(DsoError, match=r"'actions' has several columns.*actions\[0\], actions\[1\]"):
        convert_table(path, ["u=actions"], ["q=obs/q"], rate=20)
    with pytest.raises(DsoError, match="has values of type object"):
        convert_table(path, ["u=label"], ["q=obs/q"], rate=20)


def test_two_arms_in_one_file_are_one_rollout(tmp_path):
    path = tmp_path / "arms.h5"
    with h5py.File(path, "w") as file:
        file["t"] = T
        for side in ("left", "right"):
            file[f"{side}/u"], file[f"{side}/q"] = U, Q
    (rollout,) = convert_table(path, ["left/u"], ["right/q"], time="t").rollouts
    np.testing.assert_allclose(rollout.control("left/u"), U)


def test_a_table_of_records(tmp_path):
    path = tmp_path / "table.h5"
    with h5py.File(path, "w") as file:
        file["log"] = np.array(list(zip(T, U, Q, strict=True)), dtype=[("t", "f8"), ("u", "f4"), ("q", "f8")])
    np.testing.assert_allclose(convert_table(path, ["u"], ["q"], time="t").rollouts[0].sensor("q"), Q)


def test_links_and_data_elsewhere_are_not_followed(tmp_path):
    path = tmp_path / "linked.h5"
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["q"] = Q
    with h5py.File(path, "w") as file:
        file["t"] = T
        file["far"] = h5py.ExternalLink("other.h5", "/q")
        file["soft"] = h5py.SoftLink("/t")
        file.create_dataset("raw", (20,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 160)])
        layout = h5py.VirtualLayout((20,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "q", (20,))
        file.create_virtual_dataset("virtual", layout)
        file["loop"] = file["/"]
    for name, word in (("far", "link"), ("soft", "link"), ("raw", "outside"), ("virtual", "outside")):
        with pytest.raises(DsoError, match=f"{name!r} is .*{word}"):
            convert_table(path, [], [name], time="t")


def test_sizes_are_checked_before_anything_is_read(tmp_path):
    path = tmp_path / "forged.h5"
    with h5py.File(path, "w") as file:
        file["t"] = T
        file.create_dataset("q", (10**12,), "f8", chunks=(1000,))
        file.create_dataset("chunk", (20,), "f8", chunks=(2**26,), maxshape=(None,), compression="gzip")
    tracemalloc.start()
    for name in ("q", "chunk"):
        with pytest.raises(DsoError, match="claims"):
            convert_table(path, [], [name], time="t")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_truncated_hdf5(tmp_path, kept):
    path = tmp_path / "demo.h5"
    with h5py.File(path, "w") as file:
        file["t"], file["q"] = T, Q
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DsoError, match=r"demo\.h5"):
        convert_table(path, [], ["q"], time="t")


def test_npz_and_npy(tmp_path):
    path = tmp_path / "run.npz"
    stamps = (T * 1e9).astype("timedelta64[ns]") + np.datetime64("2024-03-01T10:00:00")
    np.savez(path, **{"t": stamps, "cmd/u": U, "q": np.stack([Q, 2 * Q], 1)})
    check(path)
    table = np.zeros(20, dtype=[("t", "f8"), ("u", "f8"), ("q", "f8")])
    table["t"], table["u"], table["q"] = T, U, Q
    np.save(tmp_path / "run.npy", table)
    check(tmp_path / "run.npy", "u", "q")
    np.save(tmp_path / "bare.npy", np.stack([T, U, Q], 1))
    check(tmp_path / "bare.npy", "u=2", "q=3", time="1")
    stamps = np.array([1_700_000_000_000_000_001, 1_700_000_000_000_000_003])
    np.savez(path, t=stamps, q=np.ones(2))
    np.testing.assert_allclose(convert_table(path, [], ["q"], time="t*1e-9").rollouts[0].time, [0, 2e-9])
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "")
    with pytest.raises(DsoError, match="Excel workbook"):
        read_tables(tmp_path / "book.xlsx")
