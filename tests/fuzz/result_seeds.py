"""Valid logs, run folders, estimators, policies, models and studies, as dso writes and reads them."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from dso_robotics.data.log import Log, Rollout, write_log
from dso_robotics.data.run_file import write_run
from dso_robotics.physics.inertia import COORDINATES
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.policy_numbers import PolicyNumbers
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.fuzz.judge import Files
from tests.pendulum import PENDULUM, record

MODEL = PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0).encode()
TIME = np.arange(12) * 0.05
ROBOTS = Path(__file__).parents[2] / "models"
STUDIES = Path(__file__).parents[2] / "examples" / "studies"


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    """Work in `folder`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@functools.cache
def inputs() -> Files:
    """A model and a short log of it."""
    with tempfile.TemporaryDirectory() as name:
        write_log(Path(name, "run.h5"), record(0, runs=2, seconds=1.0))
        return {"pendulum.xml": MODEL, "pendulum.h5": Path(name, "run.h5").read_bytes()}


def logs(folder: Path) -> dict[str, Files]:
    """Logs of dso, with their checksum."""
    state = {"qpos": np.stack([TIME, TIME], 1), "qvel": np.ones((12, 2))}
    parts = {
        "ctrl": np.sin(TIME)[:, None],
        "ctrl_names": ("motor",),
        "ctrl_units": ("N*m",),
        "sensordata": np.where(np.arange(24).reshape(12, 2) % 5, 0.5, np.nan),
        "sensor_names": ("angle", "imu[0]"),
        "sensor_units": ("rad", ""),
    }
    rollouts = (Rollout(name="a", time=TIME, **parts), Rollout(name="b", time=TIME + 1, **parts, **state))
    write_log(folder / "a.h5", Log("", "a test", "none", rollouts, {"robot": "x"}))
    # Long columns are in chunks.
    wide = tuple(f"channel{i}" for i in range(3000))
    long = Rollout(
        name="c", time=np.arange(200.0), sensordata=np.ones((200, 1)), sensor_names=("q",), sensor_units=("m",)
    )
    many = Rollout(name="d", time=TIME, sensordata=np.ones((12, 3000)), sensor_names=wide, sensor_units=("",) * 3000)
    write_log(folder / "b.h5", Log("", "a test", "none", (long, many)))
    return {"short": {"log.h5": (folder / "a.h5").read_bytes()}, "chunks": {"log.h5": (folder / "b.h5").read_bytes()}}


def old_logs(folder: Path) -> dict[str, Files]:
    """A log as h5py writes texts by itself, without a checksum."""
    with h5py.File(folder / "old.h5", "w") as file:
        file.attrs.update(schema="dso-log", schema_version=1, source="by hand", licence="none")
        group = file.create_group("rollouts/a")
        group["time"] = TIME
        group["sensordata"] = np.ones((12, 2))
        group["sensordata"].attrs["names"] = ["angle", "speed"]
        group["sensordata"].attrs["units"] = ["rad", "rad/s"]
    return {"old": {"log.h5": (folder / "old.h5").read_bytes()}}


def runs(folder: Path) -> dict[str, Files]:
    """Run files of `dso identify`: of a run that was killed in its search, and in its report."""
    found: dict[str, Files] = {}
    for name, content in inputs().items():
        (folder / name).write_bytes(content)
    study = IdentifyStudy.read(model="pendulum.xml", logs=("pendulum.h5",), free=("joint/hinge/damping",), window=0.3)
    kept: list[bytes] = []

    def watch(news):
        kept.append(Path("out/run.h5").read_bytes()) if Path("out/run.h5").exists() else None

    with within(folder):
        identify(study, "out", progress=watch)
        found["searching"] = {"out/run.h5": kept[0]}
        found["reporting"] = {"out/run.h5": Path("out/run.h5").read_bytes()}
    return found


def results(folder: Path) -> dict[str, Files]:
    """Results of `dso identify` and of a training, for `dso view`."""
    found = {"identify": {"out/run.h5": runs(folder)["reporting"]["out/run.h5"]}}
    found["identify"]["out/model.xml"] = (folder / "out" / "model.xml").read_bytes()
    poses = {"time": TIME, "qpos": np.zeros((len(TIME), 1))}
    tree = {"status": "finished", "learner": {"theta": np.zeros(2)}, "motions": {"trained": poses, "untrained": poses}}
    write_run(folder / "train.h5", tree, {"command": "train", "model": "pendulum.xml"}, MODEL.decode())
    found["train"] = {"out/run.h5": (folder / "train.h5").read_bytes(), "out/model.xml": MODEL}
    return found


def drawn(folder: Path) -> dict[str, Files]:
    """Results of `dso identify` that a training draws from: with a posterior, and with a full inertia's intervals alone."""
    interval = {"centre": [0.1, -0.01], "estimate": [0.1, 0.0], "low": [0.0, 0.0], "high": [1.0, np.inf]}
    more = {"scale": [0.1, 0.1], "active": [0, 1], "quantile": 2.0, "method": "jackknife"}
    rows = np.abs(np.random.default_rng(0).normal([0.1, 0.0], 0.01, size=(40, 2)))
    names = ["joint/hinge/damping", "joint/hinge/frictionloss"]
    posterior = {
        "z": rows,
        "names": names,
        "reliable": 1,
        "route": "laplace",
        "told": "",
        "diagnostics": {"pareto_k": 0.1},
    }
    tree = {"status": "finished", "names": names, "covariance": 1e-4 * np.eye(2), "interval": interval | more}
    study = {"command": "identify", "model": "pendulum.xml"}
    write_run(folder / "a.h5", tree | {"posterior": posterior}, study, MODEL.decode())
    body = [f"body/pole/inertia[{name}]" for name in COORDINATES]
    ten = {key: np.full(10, value) for key, value in (("centre", 0.0), ("estimate", 0.0), ("low", -7.0), ("high", 7.0))}
    ten |= {"scale": np.ones(10), "active": np.zeros(10, int), "factors": {"body/pole/inertia": np.eye(4)}}
    tree |= {"names": body, "covariance": 0.01 * np.eye(10), "interval": more | ten}
    write_run(folder / "b.h5", tree, study, MODEL.decode())
    return {name: {"out/run.h5": (folder / f"{name}.h5").read_bytes()} for name in ("a", "b")}


def estimators(folder: Path) -> dict[str, Files]:
    """The result of `dso estimate`."""
    found: dict[str, Files] = {}
    for name, content in inputs().items():
        (folder / name).write_bytes(content)
    with within(folder):
        for corrector in ("gain", "brain"):
            changes = {} if corrector == "gain" else {"corrector": "gain", "gate": 0.99}
            study = EstimateStudy(model="pendulum.xml", logs=("pendulum.h5",), hold_out="run1", window=0.2, **changes)
            estimate(study, "out", force=True)
            found[corrector] = {f"out/{name}": Path("out", name).read_bytes() for name in ("run.h5", "model.xml")}
    return found


def policies(folder: Path) -> dict[str, Files]:
    """Policies that `Policy.save` wrote, and a training's folder."""
    found: dict[str, Files] = {}
    for kind in ("linear", "network", "brain", "gated"):
        shape = {"hidden": (3,) if kind == "network" else (), "units": 2 if kind in ("brain", "gated") else 0}
        fields = {
            "kind": kind,
            **shape,
            "features": 2,
            "clock": 1.0,
            "cyclic": kind == "gated",
            "plain": (0,),
            "turning": (),
            "columns": (),
            "labels": ("joint/hinge/position", "joint/hinge/velocity"),
            "tasks": ("goal",) if kind == "brain" else (),
            "ctrl_names": ("motor",),
            "limited": np.array([True]),
            "period": 0.02,
            "delay": 1,
            "nq": 1,
            "nv": 1,
            "na": 0,
        }
        count = 1 if kind == "brain" else 0
        fields |= {"mean": np.zeros(2 + count), "spread": np.ones(2 + count), "middle": np.zeros(1), "half": np.ones(1)}
        fields |= {"shift": np.zeros(1), "gain": np.ones(1), "step": np.full(1, np.inf)}
        fields |= dict.fromkeys(("task_low", "task_high", "task_first"), np.zeros(count))
        blank = object.__new__(PolicyNumbers)
        for name, value in fields.items():
            object.__setattr__(blank, name, value)
        size = sum(int(np.prod(s)) for s in blank.shapes)
        numbers = PolicyNumbers(weights=np.linspace(-1, 1, size), **fields)
        path = Policy(numbers, MODEL.decode()).save(folder)
        found[kind] = {"out/policy.h5": path.read_bytes()}
    tree = {
        "status": "finished",
        "theta": {"policy": np.linspace(-1, 1, 3)},
        "scaling": {"mean": np.zeros(2), "spread": np.ones(2)},
        "action": {
            **{name: np.zeros(1) for name in ("middle", "shift")},
            **{name: np.ones(1) for name in ("half", "gain")},
            "step": np.full(1, np.inf),
            "limited": np.ones(1, bool),
        },
    }
    study = {"command": "train", "policy": {"kind": "linear"}, "control_step": 0.02, "seconds": 1.0, "task": {}}
    write_run(folder / "train.h5", tree, study, MODEL.decode())
    found["trained"] = {"out/run.h5": (folder / "train.h5").read_bytes(), "out/model.xml": MODEL}
    return found


def robots(folder: Path) -> dict[str, Files]:
    """The models of the repository, and a URDF."""
    found = {path.stem: {"model.xml": path.read_bytes()} for path in sorted(ROBOTS.glob("*.xml"))}
    found["pendulum"] = {"model.xml": MODEL}
    found["urdf"] = {"model.urdf": URDF}
    return found


def studies(folder: Path) -> dict[str, Files]:
    """The studies of the repository, and one for each other command."""
    found = {path.stem: {"study.toml": path.read_bytes()} for path in sorted(STUDIES.glob("*.toml"))}
    found["identify"] = {"study.toml": IDENTIFY}
    found["estimate"] = {"study.toml": ESTIMATE}
    return found


IDENTIFY = b"""model = "pendulum.xml"
logs = ["pendulum.h5"]
free = ["joint/hinge/damping=0.1@0:1", "body/pole/mass"]
hold_out = "run1"
window = 0.3
robust = true
starts = 1
[noise]
angle = 0.01
[controller.servo]
kind = "pd"
"""
ESTIMATE = b"""model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = 0.25
corrector = "gain"
free = ["joint/hinge/damping"]
window = 0.5
gate = 0.99
"""
URDF = b"""<robot name="arm"><mujoco><compiler fusestatic="false" strippath="false"/></mujoco>
<link name="base"/><link name="upper"><inertial><origin xyz="0 0 -0.2"/><mass value="1"/>
<inertia ixx="0.1" iyy="0.1" izz="0.05" ixy="0" ixz="0" iyz="0"/></inertial>
<collision><geometry><cylinder radius="0.05" length="0.4"/></geometry></collision></link>
<joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 1" rpy="0 0.1 0"/>
<axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="10" velocity="2"/><dynamics damping="0.1" friction="0.01"/></joint>
</robot>"""
