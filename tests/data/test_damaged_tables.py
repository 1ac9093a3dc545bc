"""Damaged, forged and huge tables end in one DsoError, in seconds and in bounded memory."""

import contextlib
import io
import json
import random
import struct
import time
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io

from dso_robotics.data.archive import Archive
from dso_robotics.data.convert import convert_table
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.table import Table
from dso_robotics.errors import DsoError

TIME = np.arange(40) * 0.01


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def refusal(path, **given) -> str:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(DsoError) as caught:
        convert_table(path, ["u"], ["q[0]"], **given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 2000
    assert peak < 2e7
    assert time.process_time() - began < 10
    return message


@pytest.mark.parametrize("shape", ["(0, 99999999999999)", f"({'9' * 60},)", "(40, 0, 10000000000)"])
def test_forged_shapes_of_numpy(tmp_path, shape):
    path = tmp_path / "a.npz"
    np.savez(path, time=TIME, u=TIME)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("q.npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"))
    assert "claims" in refusal(path)


def test_a_header_that_is_no_python(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (60, 2),0, 2), }"))
    assert "numpy.save" in refusal(path)


def test_an_error_that_repeats_the_file_is_cut(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, time=TIME, u=TIME, q=np.random.default_rng(0).normal(size=5000))
    content = bytearray(path.read_bytes())
    name = content.index(b"q.npy")
    content[name - 4 : name - 2] = struct.pack("<H", 20_000)  # the length of the name in the header of the member
    path.write_bytes(content)
    refusal(path)


def mat(stream, **options):
    scipy.io.savemat(stream, {"time": TIME, "u": TIME, "q": np.stack([TIME, TIME], 1), "s": {"x": TIME}}, **options)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}])
def test_mat_files_of_any_damage(tmp_path, options):
    """SciPy is known to crash on such files, so they are read by another process."""
    stream = io.BytesIO()
    mat(stream, **options)
    path, chance = tmp_path / "a.mat", random.Random(3)
    for _ in range(4):
        content = bytearray(stream.getvalue())
        for _ in range(3):
            at = chance.randrange(128, len(content) - 4)
            content[at : at + 4] = b"\xff\xff\xff\x7f"
        path.write_bytes(content)
        with contextlib.suppress(DsoError):  # numbers that are damaged are numbers still
            convert_table(path, ["u"], ["q[0]"])


def test_mat_reading_that_crashes_is_told(tmp_path, monkeypatch):
    path, program = tmp_path / "a.mat", tmp_path / "crash.py"
    mat(path)
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr("dso_robotics.data.matlab._PROGRAM", program)
    assert "SciPy crashed" in refusal(path)


def test_columns_are_found_in_one_look(monkeypatch):
    """Doubling the columns may not double the time of each look-up, so the names are compared by a table."""
    names = tuple(f"c{i}" for i in range(20_000))
    table = Table("f", names, lambda i: (0, np.full(2, i)))
    began = time.process_time()
    assert [table.find(name) for name in names] == list(range(len(names)))
    assert time.process_time() - began < 2


def test_a_wide_text(tmp_path):
    path, count = tmp_path / "wide.csv", 20_000
    rows = [[t, *(t + np.arange(count))] for t in range(3)]
    names = ",".join(["time", *(f"c{i}" for i in range(count))])
    path.write_text(names + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    began = time.process_time()
    found = convert_table(path, ["c0"], ["c19999"])
    assert found.rollouts[0].sensor("c19999").tolist() == [19999, 20000, 20001]
    assert len(found.unused) == count - 2
    assert time.process_time() - began < 15


def test_many_groups_are_named_in_linear_time(tmp_path):
    path = tmp_path / "demos.json"
    groups = {f"demo_{i}": {"time": [0, 1], "u": [1, 2], "q": [[3, 4], [5, 6]]} for i in range(3000)}
    path.write_text(json.dumps(groups))
    began = time.process_time()
    found = convert_table(path, ["u"], ["q[0]"])
    assert [rollout.name for rollout in found.rollouts] == list(groups)
    assert time.process_time() - began < 15


def test_each_object_of_a_log_is_opened_once(tmp_path, rollout, monkeypatch):
    path, count = tmp_path / "many.h5", 50
    write_log(path, Log("", "made", "none", tuple(rollout(f"r{i}", samples=5) for i in range(count))))
    opened = []
    child = Archive.child
    monkeypatch.setattr(Archive, "child", lambda self, group, name: opened.append(name) or child(self, group, name))
    log = read_log(path)
    assert len(log.rollouts) == count
    np.testing.assert_array_equal(log["r7"].sensordata, rollout(samples=5).sensordata)
    # And once the group of long texts, which this log has not.
    assert len(opened) == 2 + 4 * count
    # A chunk with its tree takes thousands of bytes, five samples of seven channels 280.
    assert path.stat().st_size < 6000 * count
    with h5py.File(path) as file:
        assert file["rollouts/r0/time"].chunks is None
