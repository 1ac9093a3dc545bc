"""The readers that are fuzzed: every way by which a file of others comes into dso."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dso_robotics.cli import main
from dso_robotics.data.log import read_log
from dso_robotics.data.motor_table import read_motors
from dso_robotics.errors import DsoError
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.report.replay import read_replay
from dso_robotics.robot.deployed_controller import Controller
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.drawn_result import read_drawn
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.train_study import TrainStudy
from tests.fuzz import damage, damage_hdf5, result_seeds, table_seeds
from tests.fuzz.judge import Target

_REPAIRS = (
    (),
    ("--sort", "--drop-repeats", "--hold-ctrl", "--trim"),
    ("--split-restarts", "--split-gap=0.2", "--trim"),
)
_WAYS = ((), ("--rate=20",), ("--resample=50",), ("--time=#1",), ("--time=time:ms",))


def _choice(options: Sequence[Sequence[str]], salt: int) -> tuple[str, ...]:
    """One of the options, by the content of the files: the same input is read in the same way again."""
    digest = hashlib.sha256(bytes([salt]))
    for path in sorted(p for p in Path().rglob("*") if p.is_file()):
        digest.update(path.read_bytes())
    return tuple(options[digest.digest()[0] % len(options)])


def _run(*argv: str) -> int:
    """Run a command of dso, whose refusal is a DsoError as that of a function is."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(argv)
    if status == 2:
        raise DsoError(said.getvalue())
    assert status == 0, f"dso {argv[0]} ended with status {status}"
    return status


def _converted(*mappings: Sequence[str]) -> Callable[[], Sequence[str]]:
    def read() -> Sequence[str]:
        (path,) = [p for p in Path().iterdir() if p.name.startswith("run")]
        more = _choice(mappings, 0) + _choice(_REPAIRS, 1) + _choice(_WAYS, 2)
        _run("convert", str(path), "--out", "log.h5", *more)
        log = read_log("log.h5")
        assert log.rollouts
        assert all(np.isfinite(rollout.time).all() for rollout in log.rollouts)
        return ["log.h5"]

    return read


_COLUMNS = (
    ("--sensor=u", "--sensor=q:deg"),
    ("--ctrl=u", "--sensor=q[0]:rad", "--sensor=v"),
    ("--ctrl=#2", "--sensor=#3:deg"),
    ("--sensor=x=u+q*2:N", "--sensor=q#1"),
    ("--ctrl=cmd/u", "--sensor=q[1]"),
    ("--sensor=rows/u", "--sensor=s/x", "--sensor=u"),
)


def _read_log() -> Sequence[str]:
    how = _choice(
        (("inspect",), ("convert", "--out", "new.h5", "--unwrap", "angle"), ("convert", "--out", "new.h5")), 0
    )
    _run(how[0], "log.h5", *how[1:])
    if how[0] == "convert":
        read_log("new.h5")
        return ["new.h5"]
    return []


def _resume() -> Sequence[str]:
    asked = ("pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--window=0.3")
    again = _choice((asked, ()), 0)
    try:
        _run("identify", *again, "--resume", "--out", "out", "--no-report")
    except DsoError:
        assert not Path("out/summary.json").exists(), "a refused run looks finished"
    left = {path.name for path in Path("out").iterdir()}
    assert left <= {"run.h5", "model.xml", "summary.json"}, left
    return [f"out/{name}" for name in left]


def _estimate() -> Sequence[str]:
    estimator = Estimator.load("out")
    estimator.reset(qpos=np.zeros(estimator.model.nq))
    size = len(estimator.names)
    for reading in (np.zeros(size), np.full(size, np.nan), np.full(size, 1e9), np.full(size, 0.1)):
        try:
            found = estimator.update(np.zeros(estimator.model.nu), reading)
        except DsoError:
            continue
        assert np.isfinite(found.qpos).all()
        assert np.isfinite(found.qvel).all()
    return []


def _act() -> Sequence[str]:
    policy = Policy.load("out")
    for _ in range(3):
        action = policy.act(qpos=np.zeros(policy.numbers.nq), qvel=np.ones(policy.numbers.nv))
        assert np.isfinite(action).all()
    if Path("out/run.h5").exists():
        Controller.load("out").reset()
    return []


def _simulate() -> Sequence[str]:
    (path,) = Path().iterdir()
    robot = load(path)
    way = _choice((("parameters",), ("simulate",), ("export",)), 0)[0]
    if way == "parameters":
        _run("parameters", str(path))
    elif way == "simulate" and robot.mj.nv + robot.mj.nu < 60:
        timestep = robot.mj.opt.timestep
        _run("simulate", str(path), "--out", "log.h5", f"--seconds={5 * timestep}", "--amplitude=1", "--keep-state")
        return ["log.h5"]
    else:
        text = to_mjcf(robot, {})
        Path("again.xml").write_text(text, "utf-8")
        try:
            load("again.xml")
        except DsoError as error:
            raise AssertionError("what was exported is refused") from error
        return ["again.xml"]
    return []


def _view() -> Sequence[str]:
    replay = read_replay("out", *_choice(((), ("run0",), ("trained",)), 0))
    assert replay.predicted.shape == (len(replay.time), replay.model.nq)
    return []


def _drawn() -> Sequence[str]:
    found = read_drawn("out")
    assert found.rows.shape == (len(found.rows), len(found.names))
    assert np.isfinite(found.rows).all()
    assert len(found.declarations()) == len(found.paths)
    return []


def _motors() -> Sequence[str]:
    (path,) = (p for p in Path().iterdir() if p.name.startswith("motors"))
    for motor in read_motors(path):
        assert motor.name
        assert min(motor.gears) > 0
        assert motor.peak_torque >= motor.continuous_torque > 0
        numbers = (motor.mass, motor.rotor_inertia, motor.no_load_speed, motor.stall_torque, motor.peak_power)
        assert all(np.isfinite(number) and number >= 0 for number in numbers)
    return []


def _study() -> Sequence[str]:
    for kind in (IdentifyStudy, EstimateStudy, TrainStudy):
        try:
            study = kind.read("study.toml")
        except DsoError:
            continue
        assert kind.from_dict(study.as_dict()).as_dict() == study.as_dict()
    return []


_TOML = (
    "true",
    "[",
    "]",
    "[[",
    "{ x = 1 }",
    "model",
    "free",
    "window",
    "inf",
    "nan",
    '"""',
    "1979-05-27",
    "kind",
    "cost",
    "0.5",
)
_BYTES = {"": (damage.raw,)}
_HDF5 = {".h5": (damage_hdf5.resealed,)}
TARGETS = {
    "text": Target(
        table_seeds.text,
        _converted(*_COLUMNS[:4]),
        {"": (damage.text(("time", "u", "q", "[deg]", "NaN", "12:30:00", "2024-01-01")), damage.raw, damage.encoded)},
    ),
    "motors": Target(
        table_seeds.motors,
        _motors,
        {"": (damage.text(("name", "gears", "[g cm^2]", "1e400", "5 10", "nan", ";")), damage.raw, damage.encoded)},
    ),
    "json": Target(
        table_seeds.json_, _converted(*_COLUMNS), {"": (damage.as_json, damage.text(("{", "]")), damage.raw)}
    ),
    "saved arrays": Target(
        table_seeds.saved, _converted(*_COLUMNS[:4]), {".npz": (damage.as_npz, damage.raw), ".npy": (damage.as_npy,)}
    ),
    "matlab": Target(table_seeds.matlab, _converted(*_COLUMNS), _BYTES, batch=10, new=2),
    "foreign hdf5": Target(
        table_seeds.foreign_hdf5,
        _converted(*_COLUMNS, ("--sensor=data/demo_0/u",)),
        {"": (damage_hdf5.as_hdf5, damage.raw)},
    ),
    "parquet": Target(
        table_seeds.parquet,
        _converted(*_COLUMNS, ("--sensor=at", "--sensor=some"), ("--sensor=fixed[1]", "--ctrl=s.x")),
        {".json": (damage.as_json,), "": (damage.raw,)},
    ),
    "bags": Target(
        table_seeds.bags,
        _converted(
            ("--ctrl=tau=/cmd/data[1]", "--sensor=q=/joint_states/position[elbow]:rad"),
            ("--sensor=q=/joint_states.position[shoulder]",),
        ),
        {".yaml": (damage.text(("!!python/object", "&a", "*a", "- ", ": ")),), "": (damage.raw,)},
    ),
    "logs": Target(result_seeds.logs, _read_log, _HDF5),
    "old logs": Target(result_seeds.old_logs, _read_log, {"": (damage_hdf5.as_hdf5, damage.raw)}, batch=20, new=3),
    "runs": Target(result_seeds.runs, _resume, _HDF5, result_seeds.inputs, batch=20, new=8),
    "results": Target(result_seeds.results, _view, {**_HDF5, ".xml": (damage.as_xml,)}),
    "drawn results": Target(result_seeds.drawn, _drawn, _HDF5),
    "estimators": Target(result_seeds.estimators, _estimate, {**_HDF5, ".xml": (damage.as_xml,)}),
    "policies": Target(result_seeds.policies, _act, {**_HDF5, ".xml": (damage.as_xml,)}),
    "models": Target(result_seeds.robots, _simulate, {"": (damage.as_xml, damage.as_xml, damage.raw, damage.text())}),
    "studies": Target(result_seeds.studies, _study, {"": (damage.text(_TOML), damage.raw)}),
}
