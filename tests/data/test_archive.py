"""HDF5 files are read without HDF5's global heap, within limits, and damage of any byte is noticed."""

import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from dso_robotics.data import archive
from dso_robotics.data.apart import NoAnswer
from dso_robotics.data.formats import is_log_file
from dso_robotics.data.limits import refuse_oversized
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError

TREE = {
    "status": "running",
    "state": {"z": np.arange(3.0), "on": np.array([True, False])},
    "names": ["joint/a/damping", "Länge"],
}


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.h5"
    write_run(path, TREE, {"command": "identify", "model": "ärm.xml"}, "<mujoco/>")
    return path


@pytest.fixture
def no_process(monkeypatch):
    """Reading must not start another process here."""

    def refuse(*args, **more):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)


def variable_length(item) -> list[str]:
    """Everything below an HDF5 group that is text of variable length."""
    found = []

    def see(name, thing):
        dtypes = {f"{name}@{key}": thing.attrs.get_id(key).dtype for key in thing.attrs}
        if isinstance(thing, h5py.Dataset):
            dtypes[name] = thing.dtype
        found.extend(place for place, dtype in dtypes.items() if dtype.hasobject)

    see("", item)
    item.visititems(see)
    return found


def old_log(path, names=("tau1", "tau2")):
    """A log as h5py writes texts by itself, and as earlier versions did."""
    with h5py.File(path, "w") as file:
        file.attrs.update(schema="dso-log", schema_version=1, source="by hand", licence="none")
        group = file.create_group("rollouts/a")
        group["time"] = np.arange(50) * 0.01
        group["ctrl"] = np.random.default_rng(0).normal(size=(50, 2))
        group["ctrl"].attrs["names"] = list(names)
        group["ctrl"].attrs["units"] = ["N*m", "N*m"]
    return path


def test_no_text_of_variable_length_is_written(log_file, run_file):
    for path in (log_file, run_file):
        with h5py.File(path) as file:
            assert variable_length(file) == []


def test_a_log_and_a_run_file_come_back_without_another_process(log, log_file, run_file, no_process):
    assert read_log(log_file)["a"].ctrl_units == log["a"].ctrl_units
    tree, study, mjcf = read_run(run_file)
    assert (tree["status"], tree["names"], study["model"], mjcf) == (
        "running",
        ["joint/a/damping", "Länge"],
        "ärm.xml",
        "<mujoco/>",
    )
    np.testing.assert_array_equal(tree["state"]["z"], TREE["state"]["z"])
    assert tree["state"]["on"].dtype == bool


def test_texts_of_variable_length_are_read_too(tmp_path):
    log = read_log(old_log(tmp_path / "old.h5", names=("Motor ä", "b")))
    assert (log.source, log["a"].ctrl_names, log["a"].ctrl_units) == ("by hand", ("Motor ä", "b"), ("N*m", "N*m"))


def test_a_damaged_global_heap_ends_in_a_refusal(tmp_path):
    """A heap object whose size is wrong sends HDF5 round in a circle, in which no signal reaches Python."""
    path = old_log(tmp_path / "old.h5")
    content = bytearray(path.read_bytes())
    # The first object of the heap begins after the heap's 16 bytes; bytes 8 to 16 of it are its size.
    at = content.index(b"GCOL") + 16 + 8
    for wrong in (0, 255):
        content[at] = wrong
        content[at + 1] = wrong
        path.write_bytes(content)
        began = time.perf_counter()
        with pytest.raises(DsoError, match=rf"{path}: .*damaged"):
            read_log(path)
        assert time.perf_counter() - began < 240


def test_a_file_that_hdf5_cannot_read_is_tried_once(tmp_path, monkeypatch):
    path, tried = old_log(tmp_path / "old.h5"), []

    def read(*asked, **more):
        tried.append(asked)
        raise NoAnswer("HDF5 crashed")

    monkeypatch.setattr(archive, "read_apart", read)
    for _ in range(2):
        with pytest.raises(DsoError, match="HDF5 crashed"):
            read_log(path)
    assert len(tried) == 1
    assert tried[0][2] == "3"
    # Another file at the same place is another file.
    monkeypatch.undo()
    old_log(path, names=("one more", "name"))
    assert read_log(path)["a"].ctrl_names == ("one more", "name")


def test_what_is_converted_is_no_way_around_the_guard(tmp_path):
    """`dso convert` looks at the schema of an HDF5 file, to tell a log from a table. A process, so that a circle ends."""
    path = old_log(tmp_path / "old.h5")
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16 + 8
    content[at : at + 2] = b"\0\0"
    path.write_bytes(content)
    asked = [
        sys.executable,
        "-m",
        "dso_robotics.cli",
        "convert",
        str(path),
        "--out",
        str(tmp_path / "new.h5"),
        "--unwrap",
        "b",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert "damaged" in done.stderr


@pytest.mark.parametrize("which", ["log", "run"])
def test_any_byte_that_changes_is_noticed_before_hdf5_sees_it(log_file, run_file, which, monkeypatch):
    path, read = (log_file, read_log) if which == "log" else (run_file, read_run)
    content = path.read_bytes()
    whole = len(content) - archive._SEAL_BYTES

    def refuse(*args, **more):
        raise AssertionError("HDF5 was given a damaged file")

    monkeypatch.setattr(h5py, "File", refuse)
    for at in np.random.default_rng(0).integers(8, whole, 40):
        damaged = bytearray(content)
        damaged[at] ^= 16
        path.write_bytes(damaged)
        with pytest.raises(DsoError, match=r"damaged.*checksum"):
            read(path)


def test_a_file_changed_on_purpose_is_not_called_damaged(broken, log):
    assert read_log(broken(lambda file: file.attrs.update(robot="two"))).attributes["robot"] == "two"


def test_values_have_a_checksum_of_their_own(broken):
    def spoil(file):
        dataset = file["rollouts/a/time"]
        _, packed = dataset.id.read_direct_chunk((0,))
        dataset.id.write_direct_chunk((0,), bytes([packed[0] ^ 1]) + packed[1:])

    with pytest.raises(DsoError, match="damaged"):
        read_log(broken(spoil))


def test_links_storage_elsewhere_and_foreign_objects_are_refused(run_file, tmp_path):
    cases = {
        "soft": lambda file: file.__setitem__("state/more", h5py.SoftLink("/names")),
        "external": lambda file: file.__setitem__("state/more", h5py.ExternalLink("other.h5", "/x")),
        "storage": lambda file: file.create_dataset("more", (3,), "f8", external=[(str(tmp_path / "raw"), 0, 24)]),
        "circle": lambda file: file["state"].__setitem__("again", file["state"]),
        "compound": lambda file: file.__setitem__("more", np.zeros(2, [("a", "f8"), ("b", "i4")])),
        "reference": lambda file: file.__setitem__("more", file["state"].ref),
        "huge": lambda file: file.create_dataset("more", (10**9,), "f8"),
    }
    content = run_file.read_bytes()
    for name, change in cases.items():
        run_file.write_bytes(content)
        with h5py.File(run_file, "r+") as file:
            change(file)
        with pytest.raises(DsoError) as caught:
            read_run(run_file)
        assert str(run_file) in str(caught.value), name


def test_names_too_long_for_an_attribute_are_stored_all_the_same(tmp_path, rollout, no_process):
    names = tuple(f"channel with a long name {i:05d}" for i in range(5000))
    wide = rollout(sensordata=np.random.default_rng(0).normal(size=(50, 5000)), sensor_names=names, sensor_units=())
    write_log(tmp_path / "wide.h5", Log("", "x" * 100_000, "none", (wide,)))
    log = read_log(tmp_path / "wide.h5")
    assert log["a"].sensor_names == names
    assert log.source == "x" * 100_000


def test_a_size_beyond_any_float_is_told(log_file):
    with pytest.raises(DsoError, match=r"claims over 10\^15 MiB"):
        refuse_oversized(10**400, log_file, "the archive")


def test_a_schema_that_is_no_text_is_no_schema(run_file, log_file):
    for path, read in ((run_file, read_run), (log_file, read_log)):
        for schema in (np.zeros(0), np.zeros(3), h5py.Empty("f8"), ["dso-run", "dso-log"]):
            with h5py.File(path, "r+") as file:
                file.attrs["schema"] = schema
            with pytest.raises(DsoError, match="schema"):
                read(path)
            assert is_log_file(path) in (True, False)


def test_a_schema_in_an_array_of_one_is_one(log_file):
    with h5py.File(log_file, "r+") as file:
        file.attrs["schema"] = np.array(["dso-log"], "S7")
    assert read_log(log_file).names == ("a", "b")
