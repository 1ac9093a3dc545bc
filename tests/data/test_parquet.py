"""Parquet tables and data sets of LeRobot."""

import contextlib
import json

import numpy as np
import pytest

from dso_robotics.data.convert import convert_table
from dso_robotics.errors import DsoError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = 30
TIME = np.arange(COUNT) * 0.02
STATE = np.stack([np.sin(TIME), np.cos(TIME), TIME], 1)


def columns(rows=slice(None), **more):
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(STATE[rows].ravel()), 3)
    return {
        "observation.state": fixed,
        "action": pa.array((2 * STATE[rows]).tolist()),
        "timestamp": pa.array(TIME[rows].astype(np.float32)),
        "task": pa.array(["push"] * len(TIME[rows])),
        **more,
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), path)
    return path


MAPPED = (["u=action[1]"], ["q=observation.state[1]:rad"])


def test_a_table(tmp_path):
    path = write(tmp_path / "run.parquet", columns())
    found = convert_table(path, *MAPPED, time="timestamp")
    (rollout,) = found.rollouts
    assert rollout.name == "run"
    np.testing.assert_allclose(rollout.time, TIME, atol=1e-6)
    np.testing.assert_array_equal(rollout.sensor("q"), STATE[:, 1])
    np.testing.assert_array_equal(rollout.control("u"), 2 * STATE[:, 1])
    with pytest.raises(DsoError, match="'task' has values of type string"):
        convert_table(path, [], ["task"], time="timestamp")


def test_kinds_of_columns(tmp_path):
    stamps = np.arange(COUNT) * 20_000_000 + 1_700_000_000_000_000_000
    content = {
        "time": pa.array(stamps.view("datetime64[ns]")),
        "pose": pa.array([{"x": i, "v": {"y": [i, -i]}} for i in range(COUNT)]),
        "on": pa.array([i % 2 == 0 for i in range(COUNT)]),
        "some": pa.array([i if i % 3 else None for i in range(COUNT)]),
        "lists": pa.array([[1.0 * i, 2.0 * i] if i % 2 else None for i in range(COUNT)]),
    }
    path = write(tmp_path / "kinds.parquet", content)
    (rollout,) = convert_table(path, [], ["x=pose.x", "y=pose/v/y[1]", "on", "some", "l=lists[1]"]).rollouts
    i = np.arange(COUNT)
    expected = [i, -i, i % 2 == 0, np.where(i % 3, i, np.nan), np.where(i % 2, 2.0 * i, np.nan)]
    np.testing.assert_array_equal(rollout.sensordata, np.stack(expected, 1))
    np.testing.assert_allclose(rollout.time, TIME, atol=1e-9)


def test_a_folder_is_one_table(tmp_path):
    write(tmp_path / "run" / "part-0.parquet", columns(slice(0, 10)))
    write(tmp_path / "run" / "part-1.parquet", columns(slice(10, COUNT)))
    (rollout,) = convert_table(tmp_path / "run", *MAPPED, time="timestamp").rollouts
    np.testing.assert_array_equal(rollout.sensor("q"), STATE[:, 1])
    write(tmp_path / "run" / "part-2.parquet", {"other": pa.array([1.0])})
    with pytest.raises(DsoError, match=r"part-2\.parquet: has other columns"):
        convert_table(tmp_path / "run", *MAPPED, time="timestamp")


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot(tmp_path, version):
    info = {"codebase_version": version, "fps": 50, "features": {}}
    (tmp_path / "set" / "meta").mkdir(parents=True)
    (tmp_path / "set" / "meta" / "info.json").write_text(json.dumps(info))
    write(tmp_path / "set" / "meta" / "episodes" / "x.parquet", {"episode_index": pa.array([0])})
    lengths, begin = (12, 18), 0
    episodes = []
    for number, length in enumerate(lengths):
        rows = slice(begin, begin + length)
        own = {"timestamp": pa.array(TIME[:length]), "episode_index": pa.array([number] * length)}
        episodes.append((number, rows, pa.table(columns(rows, **own))))
        begin += length
    chunk = tmp_path / "set" / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    if version == "v3.0":
        pq.write_table(pa.concat_tables([table for _, _, table in episodes]), chunk / "file-000.parquet")
    else:
        for number, _, table in episodes:
            pq.write_table(table, chunk / f"episode_{number:06}.parquet")
    found = convert_table(tmp_path / "set", *MAPPED)
    assert [rollout.name for rollout in found.rollouts] == ["episode_0", "episode_1"]
    for rollout, (_, rows, _) in zip(found.rollouts, episodes, strict=True):
        np.testing.assert_allclose(rollout.time, TIME[: rows.stop - rows.start], atol=1e-6)
        np.testing.assert_array_equal(rollout.sensor("q"), STATE[rows, 1])
        np.testing.assert_array_equal(rollout.control("u"), 2 * STATE[rows, 1])
    (tmp_path / "set" / "meta" / "info.json").write_text("{")
    with pytest.raises(DsoError, match=r"info\.json is damaged"):
        convert_table(tmp_path / "set", *MAPPED)


def test_damaged_files_end_in_one_refusal(tmp_path):
    path = write(tmp_path / "run.parquet", columns())
    content, chance = path.read_bytes(), np.random.default_rng(0)
    for trial in range(60):
        damaged = bytearray(content)
        if trial % 3 == 0:
            damaged = damaged[: int(chance.integers(10, len(content)))]
        else:
            at = int(chance.integers(4, len(content) - 8))
            damaged[at : at + 1 + trial % 4] = bytes(chance.integers(0, 256, 1 + trial % 4).tolist())
        path.write_bytes(damaged)
        with contextlib.suppress(DsoError):  # numbers that are damaged are numbers still
            convert_table(path, *MAPPED, time="timestamp")


def test_without_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "run.parquet", columns())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DsoError, match=r"pip install 'dso-robotics\[parquet\]'"):
        convert_table(path, *MAPPED)


def test_folders_of_other_things(tmp_path):
    with pytest.raises(DsoError, match="is a folder, but no ROS 2 bag"):
        convert_table(tmp_path, *MAPPED)
