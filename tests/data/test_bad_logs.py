"""Every way a log can be bad is refused in one paragraph that names the file, the thing and the cure."""

import tracemalloc

import h5py
import numpy as np
import pytest

from dso_robotics.data.log import Rollout, problems, read_log
from dso_robotics.errors import DsoError


def refusal(path) -> str:
    with pytest.raises(DsoError) as caught:
        read_log(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def replaced(key, data, names=None):
    """Edit that puts `data` in the place of a dataset, keeping its attributes unless `names` are given."""

    def change(file):
        attributes = dict(file[key].attrs)
        del file[key]
        file[key] = data
        file[key].attrs.update(attributes if names is None else {"names": names})

    return change


def test_missing_file(tmp_path):
    assert "no such log file" in refusal(tmp_path / "nothing.h5")


def test_folder(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "empty.h5").touch()
    assert "is empty" in refusal(tmp_path / "empty.h5")


def test_not_hdf5(tmp_path):
    (tmp_path / "table.h5").write_text("time,torque\n0,1\n")
    assert "not an HDF5 file" in refusal(tmp_path / "table.h5")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_truncated(log_file, kept):
    content = log_file.read_bytes()
    log_file.write_bytes(content[: int(kept * len(content))])
    assert "truncated" in refusal(log_file)


def test_damaged_values(log_file):
    with h5py.File(log_file) as file:
        chunk = file["rollouts/b/sensordata"].id.get_chunk_info(0)
    content = bytearray(log_file.read_bytes())
    content[chunk.byte_offset + 10 : chunk.byte_offset + 40] = bytes(30)
    log_file.write_bytes(content)
    assert "is damaged" in refusal(log_file)


@pytest.mark.parametrize("schema", [None, "other", 3])
def test_wrong_schema(broken, schema):
    def change(file):
        del file.attrs["schema"]
        if schema is not None:
            file.attrs["schema"] = schema

    assert "'dso-log'" in refusal(broken(change))


@pytest.mark.parametrize("version", [None, 2, "1"])
def test_wrong_version(broken, version):
    def change(file):
        del file.attrs["schema_version"]
        if version is not None:
            file.attrs["schema_version"] = version

    assert "schema_version" in refusal(broken(change))


def test_no_rollouts(broken):
    def empty(file):
        del file["rollouts"]
        file.create_group("rollouts")

    assert "no rollouts" in refusal(broken(empty))
    assert "no group 'rollouts'" in refusal(broken(lambda file: file.__delitem__("rollouts")))


def test_rollout_that_is_no_group(broken):
    def change(file):
        file["rollouts/c"] = np.zeros(3)

    assert "'c' is not a group" in refusal(broken(change))


def test_missing_time(broken):
    assert "rollout 'b': has no dataset 'time'" in refusal(broken(lambda file: file.__delitem__("rollouts/b/time")))


def test_time_that_is_nan(broken, log):
    time = log["a"].time.copy()
    time[7] = np.nan
    assert "time is nan at sample 7" in refusal(broken(replaced("rollouts/a/time", time)))


@pytest.mark.parametrize("value", [0.10, 0.05])
def test_time_that_does_not_increase(broken, log, value):
    time = log["a"].time.copy()
    time[11] = value
    assert "rollout 'a': time does not increase at sample 11" in refusal(broken(replaced("rollouts/a/time", time)))


def test_one_sample(tmp_path, broken):
    def change(file):
        del file["rollouts/a"]
        file["rollouts/a/time"] = np.zeros(1)

    assert "at least 2" in refusal(broken(change))


@pytest.mark.parametrize("kind", ["ctrl", "sensordata"])
def test_lengths_that_differ(broken, log, kind):
    message = refusal(broken(replaced(f"rollouts/a/{kind}", getattr(log["a"], kind)[:-1])))
    assert f"rollout 'a', {kind}: has 49 samples but time has 50" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_controls_that_are_not_finite(broken, log, value):
    ctrl = log["a"].ctrl.copy()
    ctrl[20, 1] = value
    message = refusal(broken(replaced("rollouts/a/ctrl", ctrl)))
    assert "rollout 'a', ctrl: channel 'tau2'" in message
    assert "sample 20" in message


def test_infinite_sensor(broken, log):
    values = log["a"].sensordata.copy()
    values[3, 0] = -np.inf
    assert "channel 'shoulder_pos' is -inf at sample 3" in refusal(broken(replaced("rollouts/a/sensordata", values)))


def test_channel_never_measured_is_read_and_said(broken, log):
    values = log["a"].sensordata.copy()
    values[:, 3] = np.nan
    read = read_log(broken(replaced("rollouts/a/sensordata", values)))
    assert np.isnan(read["a"].sensor("elbow_vel")).all()
    assert any("'elbow_vel' was never measured" in text for text in problems(read))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (np.zeros(50), "shape (50,)"),
        (np.zeros((50, 2, 1)), "shape (50, 2, 1)"),
        (np.zeros((50, 0)), "has 0 channel(s)"),
        (np.full((50, 2), b"x"), "not real numbers"),
        (np.zeros((50, 2), complex), "not real numbers"),
        (h5py.Empty("f8"), "shape None"),
    ],
)
def test_wrong_rank_or_type(broken, data, word):
    assert word in refusal(broken(replaced("rollouts/a/ctrl", data)))


def test_names(broken, log):
    ctrl = log["a"].ctrl

    def nameless(file):
        del file["rollouts/a/ctrl"].attrs["names"]

    assert "'tau1' is given to several" in refusal(broken(replaced("rollouts/a/ctrl", ctrl, ["tau1", "tau1"])))
    assert "2 channel(s) but 3 entries" in refusal(broken(replaced("rollouts/a/ctrl", ctrl, ["x", "y", "z"])))
    assert "empty name" in refusal(broken(replaced("rollouts/a/ctrl", ctrl, ["x", ""])))
    assert "not contain text" in refusal(broken(replaced("rollouts/a/ctrl", ctrl, [1.0, 2.0])))
    assert "no attribute 'names'" in refusal(broken(nameless))


def test_units_of_the_wrong_count(broken):
    def change(file):
        file["rollouts/a/ctrl"].attrs["units"] = ["N*m"]

    assert "'units'" in refusal(broken(change))


def test_state_that_is_nan(broken):
    def change(file):
        file["rollouts/a/qpos"] = np.full((50, 2), np.nan)

    assert "'qpos[0]' is nan" in refusal(broken(change))


@pytest.mark.parametrize(
    ("shape", "chunks", "compression"),
    [
        ((10**12,), (1000,), None),  # never written: a few hundred bytes that claim terabytes
        ((2**62, 4), (1000, 4), "gzip"),
        ((10**8,), (10**6,), "gzip"),
        ((50,), (2**26,), "gzip"),  # a small dataset whose one chunk unpacks to half a gigabyte
    ],
)
def test_forged_shapes_are_refused_before_any_allocation(broken, shape, chunks, compression):
    def change(file):
        del file["rollouts/a"]
        options = {"chunks": chunks, "compression": compression, "maxshape": (None, *shape[1:])}
        file.create_dataset("rollouts/a/time", shape=shape[:1], dtype="f8", chunks=chunks[:1], maxshape=(None,))
        if len(shape) == 2:
            file.create_dataset("rollouts/a/ctrl", shape=shape, dtype="f8", **options)

    path = broken(change)
    tracemalloc.start()
    message = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "claims" in message
    assert "rollout 'a'" in message
    assert peak < 5e6


def test_a_bomb_of_zeros_is_refused(broken):
    """One gigabyte of zeros packs into about a megabyte."""

    def change(file):
        del file["rollouts/a"]
        dataset = file.create_dataset(
            "rollouts/a/time", shape=(2**27,), dtype="f4", chunks=(2**20,), compression="gzip"
        )
        dataset[: 2**20] = 0

    assert "claims 1,024 MiB" in refusal(broken(change))


def test_too_many_channels(broken):
    def change(file):
        del file["rollouts/a/ctrl"]
        file.create_dataset("rollouts/a/ctrl", shape=(50, 20_000), dtype="f4", chunks=(50, 100))

    assert "transpose" in refusal(broken(change))


def test_data_outside_the_file(broken, tmp_path, log):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["time"] = log["a"].time

    def linked(file):
        del file["rollouts/a/time"]
        file["rollouts/a/time"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/time")

    def soft(file):
        del file["rollouts/a"]
        file["rollouts/a"] = h5py.SoftLink("/rollouts/b")

    assert "not a dataset stored in this file" in refusal(broken(linked))
    assert "not a group" in refusal(broken(soft))


def test_rollouts_made_in_memory_are_checked_too(rollout):
    with pytest.raises(DsoError, match="rows differ in length"):
        Rollout(name="x", time=[[1.0], [1.0, 2.0]])
    with pytest.raises(DsoError, match="names of ctrl channels but no ctrl"):
        rollout(ctrl=None)
    with pytest.raises(DsoError, match="no slash"):
        rollout("a/b")
    with pytest.raises(DsoError, match="1 unit"):
        rollout(ctrl_units=("N",))
