"""Valid tables of each kind that `dso convert` reads, all of one small recording."""

import io
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from tests.fuzz.judge import Files

TIME = np.arange(12) * 0.05
U, Q = np.sin(TIME), np.stack([np.cos(3 * TIME), TIME], 1)
ROWS = [[float(f"{x:.4g}") for x in (t, u, *q)] for t, u, q in zip(TIME, U, Q, strict=True)]
NAMES = ("time", "u", "q", "v")


def _lines(names=NAMES, sep=",", rows=ROWS, decimal=".", before="", end="\n") -> Files:
    body = [sep.join(names)] if names else []
    body += [sep.join(f"{cell:g}".replace(".", decimal) for cell in row) for row in rows]
    return {"run.csv": (before + end.join(body) + end).encode()}


def text(folder: Path) -> dict[str, Files]:
    """Dialects of text."""
    stamps = [f"2024-03-01T12:00:{t:06.3f}Z" for t in TIME]
    quoted = "\n".join(f'"{a}","{b}","{c}, x",{d}' for a, b, c, d in ROWS)
    dated = "\n".join(f"{s};{row[1]};{row[2]}" for s, row in zip(stamps, ROWS, strict=True))
    return {
        "comma": _lines(),
        "german": _lines(sep=";", decimal=","),
        "tabs": _lines(sep="\t", end="\r\n"),
        "blanks": _lines(sep="  "),
        "savetxt": {"run.csv": b"# time u q v\n" + _lines((), " ")["run.csv"]},
        "preamble": _lines(before="Rig: A, 3\nDate, 2024-01-01\n\n% note\n"),
        "units": {"run.csv": _lines()["run.csv"].replace(b"v\n", b"v\ns,N*m,deg,rad/s\n", 1)},
        "bracketed": _lines(("time [ms]", "u (N m)", "q [deg]", "v")),
        "bare": _lines(()),
        "index": _lines(("", "0", "1", "2")),
        "holes": {"run.csv": _lines()["run.csv"].replace(b",0.05,", b",,").replace(b"0.1,", b"nan,")},
        "quoted": {"run.csv": f'"time","u","q, note","v"\n{quoted}\n'.encode()},
        "dated": {"run.csv": f"time;u;q\n{dated}\n".encode()},
        "restarts": _lines(rows=ROWS[:6] + ROWS[:6]),
        "utf-16": {"run.csv": _lines()["run.csv"].decode().encode("utf-16")},
    }


def json_(folder: Path) -> dict[str, Files]:
    """JSON and JSON lines."""
    records = [{"time": row[0], "cmd": {"u": row[1]}, "q": row[2:]} for row in ROWS]
    plain = {"time": [r[0] for r in ROWS], "u": [r[1] for r in ROWS], "q": [r[2:] for r in ROWS]}
    return {
        "records": {"run.json": json.dumps(records).encode()},
        "arrays": {"run.json": json.dumps(plain).encode()},
        "runs": {"run.json": json.dumps({"a": plain, "b": {"x": plain}, "mass": 1}).encode()},
        "lines": {"run.jsonl": "\n".join(map(json.dumps, records)).encode()},
    }


def saved(folder: Path) -> dict[str, Files]:
    """NPZ and NPY files."""
    found: dict[str, Files] = {}
    for name, save in {"plain": np.savez, "packed": np.savez_compressed}.items():
        stream = io.BytesIO()
        save(stream, time=TIME, u=U, q=Q)
        found[name] = {"run.npz": stream.getvalue()}
    fields = np.zeros(len(TIME), [("time", "f8"), ("u", "f4"), ("q", "i4")])
    fields["time"] = TIME
    for name, array in {"array": np.array(ROWS), "fields": fields}.items():
        stream = io.BytesIO()
        np.save(stream, array)
        found[name] = {"run.npy": stream.getvalue()}
    return found


def matlab(folder: Path) -> dict[str, Files]:
    """MAT files up to version 7."""
    found: dict[str, Files] = {}
    content = {"time": TIME[:, None], "u": U, "q": Q, "s": {"x": TIME, "name": "a"}, "c": np.array([U, "t"], object)}
    for name, options in {"plain": {}, "packed": {"do_compression": True}, "old": {"format": "4"}}.items():
        stream = io.BytesIO()
        scipy.io.savemat(stream, {"time": TIME, "u": U, "q": Q} if name == "old" else content, **options)
        found[name] = {"run.mat": stream.getvalue()}
    return found


def foreign_hdf5(folder: Path) -> dict[str, Files]:
    """HDF5 files of other tools."""
    found: dict[str, Files] = {}
    for name in ("demos", "flat", "matlab"):
        stream = io.BytesIO()
        with h5py.File(stream, "w", userblock_size=512 if name == "matlab" else 0) as file:
            for group in ("data/demo_0", "data/demo_1") if name == "demos" else ("",):
                for key, value in {"time": TIME, "u": U, "q": Q if name == "demos" else Q.T}.items():
                    packed = {"compression": "gzip", "shuffle": True} if name == "flat" else {}
                    file.create_dataset(f"{group}/{key}", data=value, **packed)
            file.attrs["env"] = "a name"
            file["note"] = ["text", "of another tool"]
            file["rows"] = np.zeros(12, [("time", "f8"), ("u", "f4")])
        content = stream.getvalue()
        if name == "matlab":
            content = b"MATLAB 7.3 MAT-file".ljust(512, b" ") + content[512:]
        found[name] = {"run.hdf5" if name != "matlab" else "run.mat": content}
    return found


def parquet(folder: Path) -> dict[str, Files]:
    """A Parquet table and a data set of LeRobot."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, Files] = {}
    columns = {
        "time": pa.array(TIME),
        "u": pa.array(U.astype(np.float32)),
        "q": pa.array(Q.tolist()),
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(Q.ravel()), 2),
        "s": pa.array([{"x": i, "y": None} for i in range(12)]),
        "at": pa.array((TIME * 1e9).astype("datetime64[ns]")),
        "some": pa.array([i if i % 2 else None for i in range(12)]),
        "task": pa.array(["a"] * 12),
        "episode_index": pa.array([0] * 6 + [1] * 6),
        "timestamp": pa.array(np.tile(TIME[:6], 2)),
    }
    for packing in ("snappy", "none"):
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression=packing)
        found[packing] = {"run.parquet": sink.getvalue()}
    info = json.dumps({"codebase_version": "v3.0", "fps": 20, "features": {}}).encode()
    found["lerobot"] = {
        "run/meta/info.json": info,
        "run/data/chunk-000/file-000.parquet": found["snappy"]["run.parquet"],
    }
    return found


def bags(folder: Path) -> dict[str, Files]:
    """Bags of ROS 1 and 2, and MCAP files."""
    from tests.data.test_bags import FORMS, arm

    found: dict[str, Files] = {}
    for ros, form in FORMS:
        maker = arm(ros)
        del maker.log[6:40]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = maker.written(Path(place, "run"), form)
            parts = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
            found[form + str(ros)] = {str(part.relative_to(place)): part.read_bytes() for part in parts}
    return found


def motors(folder: Path) -> dict[str, Files]:
    """Tables of motors."""
    names = (
        "name,mass [g],rotor_inertia [g cm^2],continuous_torque,peak_torque (N m),no_load_speed [rpm],gears,price,note"
    )
    rows = ["M60,290,61,0.35,1.1,3900,5 10 20,99.5,fine", '"M 80",480 g,120,0.7,2,3000,6/9,,'.replace(",,", ",150,")]
    toml = """[M60]
mass = "290 g"
rotor_inertia = 6.1e-6
continuous_torque = 0.35
peak_torque = 1.1
no_load_speed = "3900 rpm"
torque_constant = "50 mN*m/A"
resistance = 0.3
gears = [5, 10, 20]
"""
    german = [line.replace(",", ";").replace(".", ",") for line in (names, *rows)]
    return {
        "csv": {"motors.csv": "\n".join(["# ours", names, *rows]).encode()},
        "german": {"motors.csv": "\r\n".join(german).encode()},
        "toml": {"motors.toml": toml.encode()},
    }
