"""The problems of `identify.py`: a model with wrong parameters, logs of the model with the right ones, start and bounds.

`write` writes one problem to a folder that every tool reads: model.xml (the user's model), truth.xml, problem.json, and every
noise draw as two files with the same log, HDF5 for `dso` and NPZ for the other tools.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable

import mujoco
import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.log import Log, read_log, write_log
from dso_robotics.data.match import actuator_names, match_channels, sensor_channels
from dso_robotics.data.registry import fetch
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.physics.unit import actuator_unit, sensor_unit
from dso_robotics.robot import start

REAL = "real_arm"
# The two-joint arm's runs, as in examples/demo.py: five to fit, four to predict.
REAL_FREE = (
    "joint/shoulder/damping=0.0015@0:5", "joint/elbow/damping=0.0015@0:5",
    "joint/shoulder/frictionloss=0.219@0:5", "joint/elbow/frictionloss=0.184@0:5",
    "joint/elbow/armature=0.00414@0:1",
    "joint/shoulder/stiffness=0.02@0:5", "joint/elbow/stiffness=0.02@0:5",
    "body/upper/mass=0.839@0.05:5", "body/lower/mass=0.907@0.05:5",
    "body/upper/ipos[2]=-0.45@-1:0", "body/lower/ipos[2]=-0.276@-1:0",
    "actuator/tau2/gear[0]=0.5@0.05:5",
)  # fmt: skip
REAL_HOLD_OUT = ("03", "05", "11", "13")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One identification problem with a known truth.

    xml: the true model.
    believed: the user's model (no flag sets the start value of an inertia).
    free: paths with start and bounds, in the format of `dso identify --free`.
    controls: (random generator, seconds, time step) -> ctrl (T, nu).
    seconds: length of each of the `rollouts` training runs [s].
    noise: standard deviation by sensor type ("pos", "vel").
    delay: age of the sensor values [s].
    outliers: (fraction of samples, size) of spikes.
    start: (qpos, qvel), true state at the start; the zero state if None.
    stated: the start state in the log: "true", or "first sample" (positions as measured, at rest).
    window: --window for dso.
    extra_free, study: further free paths and settings for dso.
    variants: name -> settings for mujoco.sysid (see identify_sysid.py).
    scored: prefix of the channels that count in the error of the unfitted run.
    """

    name: str
    title: str
    xml: str
    free: tuple[str, ...]
    controls: Callable[[np.random.Generator, float, float], np.ndarray]
    believed: str = ""
    seconds: float = 2.0
    rollouts: int = 1
    noise: tuple[float, float] = (0.0, 0.0)
    delay: float = 0.0
    outliers: tuple[float, float] = (0.0, 0.0)
    start: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    stated: str = "true"
    window: float = 0.5
    extra_free: tuple[str, ...] = ()
    study: tuple[tuple[str, object], ...] = ()
    variants: tuple[tuple[str, dict], ...] = (("mujoco.sysid", {}),)
    draws: int = 50
    scored: str = ""


SPRING_MASS = """\
<mujoco model="spring_mass">
  <option timestep="0.002"><flag contact="disable"/></option>
  <worldbody>
    <body name="ball" pos="0 0 0.1">
      <inertial pos="0 0 0" mass="1.0" diaginertia="0.001 0.001 0.001"/>
      <joint name="slide" type="slide" axis="1 0 0" stiffness="100" damping="5.0"/>
      <geom type="sphere" size="0.05"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="slide"/></actuator>
  <sensor><jointpos name="position" joint="slide"/><jointvel name="velocity" joint="slide"/></sensor>
</mujoco>
"""

PUCK = """\
<mujoco model="puck">
  <option timestep="0.002" integrator="implicitfast" cone="elliptic"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" friction="0.05 0.005 0.0001"/>
    <body name="puck" pos="0 0 0.05">
      <inertial pos="0 0 0" mass="1.5" diaginertia="0.0025 0.0025 0.0025"/>
      <joint name="x" type="slide" axis="1 0 0" damping="1.0"/>
      <joint name="z" type="slide" axis="0 0 1" damping="100"/>
      <geom name="box" type="box" size="0.05 0.05 0.05" friction="0.4 0.005 0.0001"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x"/></actuator>
  <sensor><jointpos name="x_pos" joint="x"/><jointpos name="z_pos" joint="z"/>
    <jointvel name="x_vel" joint="x"/><jointvel name="z_vel" joint="z"/></sensor>
</mujoco>
"""


def arm(links: list[dict], *, gravity: bool = True, velocities: bool = True) -> str:
    """A serial arm. Each link has axis, length, mass, diaginertia, com, and optionally iquat, armature, damping."""
    head, tail = "", ""
    for i, link in enumerate(links, 1):
        pos = "0 0 0.1" if i == 1 else f"0 0 {links[i - 2]['length']}"
        com, inertia = (" ".join(f"{v:.17g}" for v in link[k]) for k in ("com", "inertia"))
        quat = f' quat="{" ".join(f"{v:.17g}" for v in link["quat"])}"' if "quat" in link else ""
        mass, armature, damping, axis = (link[k] for k in ("mass", "armature", "damping", "axis"))
        head += (
            f'<body name="link{i}" pos="{pos}">'
            f'<inertial pos="{com}"{quat} mass="{mass:.17g}" diaginertia="{inertia}"/>\n'
            f'<joint name="joint{i}" type="hinge" axis="{axis}" armature="{armature}" damping="{damping}"/>\n'
        )
        tail += "</body>"
    numbers = range(1, len(links) + 1)
    motors = "".join(f'<motor name="act{i}" joint="joint{i}"/>' for i in numbers)
    sensors = "".join(f'<jointpos name="joint{i}_pos" joint="joint{i}"/>' for i in numbers)
    if velocities:
        sensors += "".join(f'<jointvel name="joint{i}_vel" joint="joint{i}"/>' for i in numbers)
    g = "0 0 -9.81" if gravity else "0 0 0"
    return (
        f'<mujoco model="arm"><compiler angle="radian"/><option integrator="implicitfast" timestep="0.002" gravity="{g}">'
        f'<flag contact="disable"/></option>\n<worldbody>\n{head}{tail}\n</worldbody>\n<actuator>{motors}</actuator>\n'
        f"<sensor>{sensors}</sensor></mujoco>\n"
    )


def five_joints(*, velocities: bool = True) -> str:
    """mujoco.sysid's own five-joint arm with its numbers (python/mujoco/sysid/tests/test_integration.py)."""
    axes = ("0 0 1", "0 1 0", "0 1 0", "0 0 1", "0 1 0")
    lengths, coms = (0.1, 0.1, 0.1, 0.08, 0.06), (0.05, 0.05, 0.05, 0.04, 0.03)
    links = [
        {
            "axis": axes[i], "length": lengths[i], "mass": 1.0 - 0.2 * i, "com": (0, 0, coms[i]),
            "inertia": (0.01 - 0.002 * i, 0.01 - 0.002 * i, 0.005 - 0.001 * i),
            "armature": round(0.5 - 0.1 * i, 1), "damping": round(1.0 - 0.2 * i, 1),
        }
        for i in range(5)
    ]  # fmt: skip
    return arm(links, velocities=velocities)


def own_arm_controls(rng: np.random.Generator, seconds: float, dt: float) -> np.ndarray:
    """The sinusoids of mujoco.sysid. A seed shifts the phases, for the run that is predicted."""
    t = np.arange(int(seconds / dt)) * dt
    size, hertz, phase = (5.0, 4.0, 3.0, 2.0, 1.0), (0.5, 0.7, 0.4, 0.9, 0.6), (0.0, 0.5, 1.0, 1.5, 2.0)
    shift = rng.uniform(0, 2 * np.pi, 5) if rng is not None else np.zeros(5)
    return np.stack(
        [a * np.sin(2 * np.pi * f * t + p + s) for a, f, p, s in zip(size, hertz, phase, shift, strict=True)], 1
    )


def own_spring_controls(rng: np.random.Generator, seconds: float, dt: float) -> np.ndarray:
    """The two sinusoids of mujoco.sysid, with other phases for the run that is predicted."""
    t = np.arange(int(seconds / dt)) * dt
    a, b = rng.uniform(0, 2 * np.pi, 2) if rng is not None else (0.0, 0.0)
    return (5.0 * np.sin(2 * np.pi * 1.5 * t + a) + 3.0 * np.sin(2 * np.pi * 3.7 * t + b)).reshape(-1, 1)


def multisine(amplitudes: tuple[float, ...], top: float = 2.0) -> Callable:
    """Sums of four sines with random phases and frequencies up to `top` Hz, with about the given `amplitudes`."""

    def controls(rng: np.random.Generator, seconds: float, dt: float) -> np.ndarray:
        rng = np.random.default_rng(0) if rng is None else rng
        t = np.arange(int(seconds / dt))[:, None] * dt
        parts = [
            sum(np.sin(2 * np.pi * rng.uniform(0.2, top) * t + rng.uniform(0, 2 * np.pi)) for _ in range(4))
            for _ in amplitudes
        ]
        return np.concatenate(parts, 1) * np.array(amplitudes) / np.sqrt(2)

    return controls


def heavy_arm(count: int, seed: int | None) -> str:
    """A spatial arm whose links are asymmetric bodies. With a seed every inertia is wrong by up to about 30%."""
    shape = np.random.default_rng(7)
    wrong = np.random.default_rng(seed)
    links = []
    for i in range(count):
        points = shape.normal(size=(40, 3)) * (0.05, 0.04, 0.08) + (0.02, -0.01, 0.12)
        mass = 2.0 * 0.75**i
        if seed is not None:
            stretch = np.diag(np.exp(wrong.uniform(-0.15, 0.15, 3))) + 0.08 * wrong.normal(size=(3, 3))
            points = points @ stretch.T + 0.02 * wrong.normal(size=3)
            mass *= np.exp(wrong.uniform(-0.25, 0.25))
        com = points.mean(0)
        spread = (points - com).T @ (points - com) / len(points)
        moments, axes = np.linalg.eigh(mass * (np.trace(spread) * np.eye(3) - spread))
        axes[:, 0] *= np.sign(np.linalg.det(axes))
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, axes.ravel())
        links.append(
            {
                "axis": ("0 0 1", "0 1 0", "1 0 0")[i % 3], "length": 0.25, "mass": mass, "com": com, "inertia": moments,
                "quat": quat, "armature": 0.02, "damping": round(1.2 * 0.7**i, 3),
            }
        )  # fmt: skip
    return arm(links)


_ARMATURE = tuple(f"joint/joint{i}/armature=0.01@0.001:1" for i in range(1, 6))
_ARM_TEN = _ARMATURE + tuple(f"joint/joint{i}/damping=0.1@0.001:5" for i in range(1, 6))
_DELAY = "+".join(f"sensor/joint{i}_{kind}/delay" for kind in ("pos", "vel") for i in range(1, 6)) + "=0@0:0.05"
_NOISE = (0.005, 0.05)
_MOVING = ((0.3, -0.2, 0.4, 0.1, -0.3), (0.8, -0.6, 1.0, 0.7, -1.2))

PROBLEMS = (
    Problem("spring_mass", "spring-mass, mujoco.sysid's own (1)", SPRING_MASS, ("body/ball/mass=2.0@0.3:3.0",),
            own_spring_controls, seconds=3.0, draws=1),
    Problem("armature", "arm armature, mujoco.sysid's own (5)", five_joints(), _ARMATURE, own_arm_controls, draws=1),
    Problem("arm_noise", "the arm with noise (10)", five_joints(), _ARM_TEN, own_arm_controls, noise=_NOISE, window=2.0),
    Problem("inertia20", "two links' pseudo-inertia (20)", heavy_arm(2, None), ("body/link1/inertia", "body/link2/inertia"),
            multisine((6.0, 6.0)), believed=heavy_arm(2, 1), seconds=4.0, rollouts=2, noise=(0.002, 0.02), draws=5),
    Problem("inertia60", "six links' pseudo-inertia (60)", heavy_arm(6, None),
            tuple(f"body/link{i}/inertia" for i in range(1, 7)),
            multisine((8.0, 8.0, 5.0, 3.0, 2.0, 1.0)), believed=heavy_arm(6, 2), seconds=4.0, rollouts=3, noise=(0.002, 0.02),
            draws=1),
    Problem("sliding", "a sliding body with friction (3)", PUCK,
            ("body/puck/mass=2.2@0.3:10", "geom/box/friction[0]=0.55@0.1:2", "joint/x/damping=0.5@0:5"),
            multisine((10.0,)), seconds=4.0, window=1.0, noise=(0.002, 0.02), scored="x_"),
    Problem("wrong_start", "a log that begins in motion, positions only (10)", five_joints(velocities=False), _ARM_TEN,
            own_arm_controls, noise=_NOISE, start=_MOVING, stated="first sample", window=2.0,
            variants=(("mujoco.sysid", {}), ("mujoco.sysid, start states by a hand-written rollout", {"start_hook": True}))),
    Problem("delay", "sensors 12 ms late (10 + delay)", five_joints(), _ARM_TEN, own_arm_controls, noise=_NOISE, delay=0.012,
            window=2.0, extra_free=(_DELAY,), variants=(("mujoco.sysid", {"delay": (0.0, 0.0, 0.05)}),)),
    Problem("outliers", "2% outliers (10)", five_joints(), _ARM_TEN, own_arm_controls, noise=_NOISE, outliers=(0.02, 1.0),
            window=2.0, study=(("robust", True),), variants=(("mujoco.sysid", {}),
                      ("mujoco.sysid, scipy soft_l1, scale of the true noise",
                       {"optimizer": "scipy_parallel_fd", "loss": "soft_l1", "noise_scale": _NOISE}))),
)  # fmt: skip


def parse_free(text: str) -> dict:
    """PATH=INIT@LOW:HIGH as a dictionary; a full inertia has no start value and no bounds."""
    match = re.fullmatch(r"([^=@]+)(?:=([^@]+)@([^:]+):(.+))?", text)
    assert match
    if match[2] is None:
        return {"path": match[1]}
    return {"path": match[1]} | {k: float(match[i]) for i, k in ((2, "init"), (3, "low"), (4, "high"))}


def simulate(model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray) -> np.ndarray:
    """Sensor readings (T, ns) at the times from which each control is held."""
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    readings = np.empty((len(ctrl), model.nsensordata))
    for t, action in enumerate(ctrl):
        data.ctrl[:] = action
        mujoco.mj_step(model, data)  # sensors are evaluated before the state moves
        readings[t] = data.sensordata
    return readings


def truth_model(problem: Problem) -> mujoco.MjModel:
    """The model that the logs are recorded from."""
    return mujoco.MjModel.from_xml_string(problem.xml)


def _start(problem: Problem, model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    if problem.start is None:
        return model.qpos0.copy(), np.zeros(model.nv)
    return np.array(problem.start[0]), np.array(problem.start[1])


def hold_out(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Start (qpos, qvel), controls and true readings of the unfitted run."""
    model = truth_model(problem)
    qpos, qvel = model.qpos0.copy(), np.zeros(model.nv)
    ctrl = problem.controls(np.random.default_rng(1234), problem.seconds, model.opt.timestep)
    return qpos, qvel, ctrl, simulate(model, qpos, qvel, ctrl)


def record(problem: Problem, draw: int) -> Log:
    """The log of one noise draw; only the noise differs between draws."""
    model = truth_model(problem)
    dt, late = model.opt.timestep, round(problem.delay / model.opt.timestep)
    rng = np.random.default_rng([draw, 99])
    qpos, qvel = _start(problem, model)
    sd = np.array([problem.noise["_vel" in name or name == "velocity"] for name in sensor_channels(model)])
    rollouts = []
    for k in range(problem.rollouts):
        ctrl = problem.controls(None if k == 0 else np.random.default_rng(k), problem.seconds, dt)
        clean = simulate(model, qpos, qvel, ctrl)
        seen = clean[np.maximum(np.arange(len(ctrl)) - late, 0)] + sd * rng.standard_normal(clean.shape)
        fraction, size = problem.outliers
        spikes = rng.uniform(size=seen.shape) < fraction
        seen = np.where(spikes, seen + size * rng.standard_normal(seen.shape), seen)
        rollouts.append(
            Rollout(
                name=f"run{k}", time=np.arange(len(ctrl)) * dt, ctrl=ctrl, ctrl_names=actuator_names(model),
                ctrl_units=tuple(actuator_unit(model, i) for i in range(model.nu)), sensordata=seen,
                sensor_names=tuple(sensor_channels(model)),
                sensor_units=tuple(sensor_unit(model, i) for i, _ in sensor_channels(model).values()),
            )
        )  # fmt: skip
    return Log("", f"benchmark {problem.name}, draw {draw}", "Apache-2.0", tuple(rollouts))


def write(problem: Problem, folder: pathlib.Path) -> None:
    """Write all files that the tools read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.xml").write_text(problem.xml)
    (folder / "model.xml").write_text(problem.believed or problem.xml)
    model = truth_model(problem)
    told = {"name": problem.name, "free": [parse_free(text) for text in problem.free], "draws": problem.draws}
    (folder / "problem.json").write_text(json.dumps(told, indent=1))
    for draw in range(problem.draws):
        log = record(problem, draw)
        write_log(folder / f"draw{draw}.h5", log)
        pieces = {}
        for k, r in enumerate(log.rollouts):
            qpos, qvel = _start(problem, model)
            if problem.stated == "first sample":
                qpos, qvel = r.sensordata[0, : model.nq].copy(), np.zeros(model.nv)
            for name, value in (
                ("time", r.time),
                ("ctrl", r.ctrl),
                ("sensor", r.sensordata),
                ("qpos", qpos),
                ("qvel", qvel),
            ):
                pieces[f"{name}{k}"] = value
        np.savez(folder / f"draw{draw}.npz", **pieces)


def write_real(folder: pathlib.Path, seconds: float = 0.8) -> None:
    """The real two-joint arm: the log for dso; for the other tools the same windows from the same measured states."""
    folder.mkdir(parents=True, exist_ok=True)
    text = pathlib.Path(str(asset("models/two_joint_arm.xml"))).read_text()
    for name in ("model.xml", "truth.xml"):
        (folder / name).write_text(text)
    model = mujoco.MjModel.from_xml_string(text)
    told = {"name": REAL, "free": [parse_free(text) for text in REAL_FREE], "draws": 1}
    (folder / "problem.json").write_text(json.dumps(told, indent=1))
    write_log(folder / "draw0.h5", fetch("dfki_double_pendulum_A0"))
    log = read_log(folder / "draw0.h5")
    train = [r for r in log.rollouts if r.name not in REAL_HOLD_OUT]
    channels = match_channels(log, model)
    windows = cut(train, channels, timestep=model.opt.timestep, seconds=seconds, source=log.label)
    states, pieces = start.guess(windows, model), {}
    order = np.argsort(channels.sensor_addresses)
    for w, state in enumerate(states):
        index = windows.sample[w][windows.sample[w] >= 0]
        rollout = windows.rollouts[windows.rollout[w]]
        pieces[f"time{w}"] = rollout.time[index] - rollout.time[index[0]]
        pieces[f"sensor{w}"] = windows.measured[w, : len(index)][:, order]
        pieces[f"ctrl{w}"] = rollout.ctrl[index][:, channels.ctrl_columns]
        pieces[f"qpos{w}"], pieces[f"qvel{w}"] = state[: model.nq], state[model.nq :]
    np.savez(folder / "draw0.npz", **pieces)
