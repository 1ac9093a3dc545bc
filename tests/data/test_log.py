"""Logs survive the disk, and look-ups help."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from dso_robotics.data.log import Log, Rollout, merge_logs, read_log, write_log
from dso_robotics.errors import DsoError


def assert_same(a: Rollout, b: Rollout, **tolerance):
    assert (a.name, a.ctrl_names, a.ctrl_units, a.sensor_names, a.sensor_units) == (
        b.name,
        b.ctrl_names,
        b.ctrl_units,
        b.sensor_names,
        b.sensor_units,
    )
    for kind in ("time", "ctrl", "sensordata", "qpos", "qvel"):
        x, y = getattr(a, kind), getattr(b, kind)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_allclose(x, y, **({"rtol": 0, "atol": 0} | tolerance))


def test_round_trip_is_exact(tmp_path, rollout):
    sensordata = rollout().sensordata.copy()
    sensordata[5:9, 2] = np.nan
    state = np.arange(100.0).reshape(50, 2)
    log = Log(
        "",
        "über",
        "CC0",
        (rollout("x", sensordata=sensordata, qpos=state, qvel=-state), Rollout(name="only time", time=[0, 1, 3])),
        {"truth.joint/elbow/damping": 0.25, "note": "Käse"},
    )
    write_log(tmp_path / "log.h5", log)
    back = read_log(tmp_path / "log.h5")
    assert (back.source, back.licence, back.names) == ("über", "CC0", ("only time", "x"))
    assert dict(back.attributes) == dict(log.attributes)
    for name in log.names:
        assert_same(back[name], log[name])


def test_float32_halves_values_but_not_time(tmp_path, log):
    write_log(tmp_path / "log.h5", log, dtype=np.float32)
    with h5py.File(tmp_path / "log.h5") as file:
        assert file["rollouts/a/ctrl"].dtype == np.float32
        assert file["rollouts/a/time"].dtype == np.float64
    assert_same(read_log(tmp_path / "log.h5")["a"], log["a"], rtol=1e-6, atol=1e-7)


def test_same_log_gives_same_bytes(tmp_path, log):
    digests = set()
    for name in ("one.h5", "two.h5"):
        write_log(tmp_path / name, log)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_minimal_file_written_by_hand_is_a_log(tmp_path):
    with h5py.File(tmp_path / "hand.h5", "w") as file:
        file.attrs["schema"], file.attrs["schema_version"] = "dso-log", 1
        group = file.create_group("rollouts/00")
        group["time"] = np.array([0, 1, 2])  # integers are numbers
        group["ctrl"] = np.ones((3, 1), np.float32)
        group["ctrl"].attrs["names"] = np.array([b"motor"])  # fixed-length strings too
    log = read_log(tmp_path / "hand.h5")
    assert log["00"].ctrl_names == ("motor",)
    assert log["00"].ctrl_units == ("",)
    assert log["00"].time.dtype == np.float64
    assert log.licence == "not stated"


def test_arrays_cannot_be_changed(log):
    with pytest.raises(ValueError, match="read-only"):
        log["a"].time[0] = 1.0


def test_lookups_list_what_there_is(log):
    with pytest.raises(DsoError, match=r"no rollout 'c'.*a, b"):
        log["c"]
    with pytest.raises(DsoError, match=r"Did you mean 'elbow_pos'.*shoulder_pos, elbow_pos"):
        log["a"].sensor("elbw_pos")
    with pytest.raises(DsoError, match="tau1, tau2"):
        log["a"].control("motor")
    np.testing.assert_array_equal(log["a"].sensor("elbow_pos"), -log["a"].time)


def test_another_channel_order_is_put_right(log, rollout):
    order = [2, 0, 3, 1]
    names = tuple(np.array(log["a"].sensor_names)[order])
    shuffled = rollout(
        "c", sensordata=log["a"].sensordata[:, order], sensor_names=names, sensor_units=("rad/s", "rad") * 2
    )
    assert_same(Log("", "", "", (log["a"], shuffled))["c"], replace(log["a"], name="c"))


def test_merging_renames_only_collisions(log, rollout):
    other = Log("folder/other.h5", "elsewhere", "MIT", (rollout("b"), rollout("z")))
    merged = merge_logs([replace(log, path="arm.h5"), other])
    assert merged.names == ("a", "arm:b", "other:b", "z")
    assert merged.source == "made up; elsewhere"
    assert merge_logs([log]) is log


def test_writing_is_atomic(tmp_path, log, monkeypatch):
    path = tmp_path / "log.h5"
    write_log(path, log)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    with pytest.raises(DsoError, match=r"log.h5.*No space left"):
        write_log(path, log)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["log.h5"]


def test_a_missing_folder_is_named(tmp_path, log):
    with pytest.raises(DsoError, match=r"create the folder .*nowhere"):
        write_log(tmp_path / "nowhere" / "log.h5", log)


def test_a_log_shows_itself_in_a_few_lines():
    time = np.arange(2000) * 0.002
    values = np.zeros((2000, 2))
    names = {"ctrl": values[:, :1], "ctrl_names": ("motor",), "ctrl_units": ("N*m",), "qpos": values[:, :1]}
    sensors = {"sensordata": values, "sensor_names": ("angle", "odd"), "sensor_units": ("rad", "")}
    log = Log("", "made here", "", tuple(Rollout(name=f"{i:02d}", time=time, **names, **sensors) for i in range(20)))
    shown = repr(log).splitlines()
    assert shown[0] == "Log: 20 rollout(s), 40,000 samples"
    assert "00 (3.998 s)" in shown[1]
    assert "and 8 more" in shown[1]
    assert shown[2:] == [
        "  ctrl        motor [N*m]",
        "  sensordata  angle [rad], odd",
        "  state       qpos (1)",
        "  source      made here",
    ]
    assert repr(log["03"]).splitlines()[0] == "Rollout '03': 2,000 samples, 3.998 s"
