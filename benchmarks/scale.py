"""Time and memory against the length of logs, the number of parameters, the horizon, the size of a policy, and devices.

    python benchmarks/scale.py                    # all; writes benchmarks/results/scale.json and scale.png
    python benchmarks/scale.py length --most 1e5  # one curve, up to a size
    python benchmarks/scale.py --table            # runs nothing, draws the figure and writes docs/scale.md

Each point is a process of its own. Seconds are those of the processor (all threads), so other work on the machine counts
little; memory is the largest resident set of the process, less that of the same process before the work. Points that are there
are kept (--again measures them anew), so a run that was broken off goes on.

  length      samples of a log: simulate it, inspect it, convert it from CSV, identify a parameter from it (one linearisation)
  parameters  free numbers of a chain of 40 joints: one linearisation on C MuJoCo
  horizon     steps of a rollout: its gradient in reverse mode on MJX, plain and with checkpoints every sqrt(steps)
  weights     numbers of a policy: one step of a training, on each engine
  devices     virtual devices of the CPU: one step of a training with 64 environments
  start       `dso --help` and `import dso_robotics`, wall clock, median of 20
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from provenance import begun

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
SIZES = {
    "length": [("simulate", n) for n in (1e3, 1e4, 1e5, 1e6)]
    + [("inspect", n) for n in (1e3, 1e4, 1e5, 1e6)]
    + [("convert", n) for n in (1e3, 1e4, 1e5, 1e6)]
    + [("identify", n) for n in (1e3, 1e4, 1e5, 1e6)],
    "parameters": [("linearise", n) for n in (10, 50, 100, 200)],
    "horizon": [("checkpoints", n) for n in (1e2, 1e3, 1e4)] + [("plain", n) for n in (1e2, 1e3)],
    "weights": [(engine, n) for engine in ("mujoco", "mjx") for n in (10, 1e3, 1e4, 1e5)],
    "devices": [("train", n) for n in (1, 2, 4, 8)],
    "start": [("help", 1), ("import", 1)],
}
JOINTS = 40
PENDULUM = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="pole">
  <joint name="hinge" axis="0 1 0" damping="0.1"/><inertial pos="0 0 -0.3" mass="1" diaginertia="0.01 0.01 0.001"/>
  </body></worldbody><actuator><motor name="motor" joint="hinge" ctrllimited="true" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/></sensor></mujoco>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curve", nargs="*", help=f"which ones: {', '.join(SIZES)} (all)")
    parser.add_argument("--most", type=float, default=1e9, help="largest size")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a point may take (900)")
    parser.add_argument("--again", action="store_true", help="also points that are there")
    parser.add_argument("--table", action="store_true", help="run nothing, draw the figure and write docs/scale.md")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        curve, what, size = args.one
        print(json.dumps(MEASURES[curve](what, int(float(size)))))
        return
    for curve in () if args.table else args.curve or SIZES:
        for what, size in SIZES[curve]:
            key = f"{curve} {what} {size:g}"
            if size > args.most or (key in read() and not args.again):
                continue
            row = {"curve": curve, "what": what, "size": size, **point(curve, what, size, args.limit)}
            print(key, *(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float)), flush=True)
            RESULTS.write_text(json.dumps(begun(RESULTS) | {key: row}, indent=1) + "\n")
    from scale_page import draw, write

    points = [point for key, point in read().items() if key != "command"]
    draw(points)
    write(points)


def read() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def point(curve: str, what: str, size: float, limit: float) -> dict:
    """One point in a process of its own."""
    environment = dict(os.environ)
    if curve == "devices":
        flag = f"--xla_force_host_platform_device_count={int(size)}"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}"
    command = [sys.executable, __file__, "--one", curve, what, str(size)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"left_out": f"more than {limit:g} s"}
    if done.returncode:
        return {"left_out": (done.stderr.strip().splitlines() or ["failed"])[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def spent() -> tuple[float, float]:
    """Seconds of the processor, and the largest memory [MB], of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measured(work, repeat: int = 1) -> dict:
    """Seconds (the least of `repeat`) and memory of work()."""
    _, before = spent()
    seconds, walls = [], []
    for _ in range(repeat):
        start, clock = spent()[0], time.perf_counter()
        work()
        seconds.append(spent()[0] - start)
        walls.append(time.perf_counter() - clock)
    return {"seconds": min(seconds), "wall_seconds": min(walls), "megabytes": spent()[1] - before}


def length(what: str, samples: int) -> dict:
    import mujoco
    import numpy as np

    from dso_robotics.cli import main as dso
    from dso_robotics.data.controls import excitations
    from dso_robotics.data.log import read_log, write_log
    from dso_robotics.data.record import Flaws, record

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        pathlib.Path("model.xml").write_text(PENDULUM)
        model, rng = mujoco.MjModel.from_xml_string(PENDULUM), np.random.default_rng(0)

        def simulate(steps: int = samples) -> None:
            controls = excitations(model, rng, "steps", seconds=steps * 0.01, rollouts=1)
            write_log("log.h5", record(model, rng, controls, flaws=Flaws(sensor_noise={"*": 0.01})))

        def input_of(steps: int) -> None:
            """A log of so many samples: some thousands, over and over."""
            simulate(min(steps, 10_000))
            log = read_log("log.h5")
            (one,), again = log.rollouts, -(-steps // 10_000)
            longer = {name: np.tile(getattr(one, name), (again, 1))[:steps] for name in ("ctrl", "sensordata")}
            whole = dataclasses.replace(one, time=0.01 * np.arange(len(longer["ctrl"])), **longer)
            write_log("log.h5", dataclasses.replace(log, rollouts=(whole,)))

        if what == "simulate":
            return measured(simulate)
        # What makes the input must not count as memory.
        if os.fork() == 0:
            input_of(samples)
            if what == "convert":
                rollout = read_log("log.h5").rollouts[0]
                table = np.column_stack([rollout.time, rollout.ctrl, rollout.sensordata])
                np.savetxt("log.csv", table, "%.6g", delimiter=",", header="time,u,q,v", comments="")
            os._exit(0)
        if os.wait()[1]:
            raise SystemExit("the input was not made")
        sys.stdout.flush()
        keep, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        if what == "identify":
            found = identification(measured)
        else:
            more = ["--ctrl", "motor=u", "--sensor", "angle=q:rad", "--sensor", "speed=v:rad/s", "--out", "other.h5"]
            command = ["inspect", "log.h5"] if what == "inspect" else ["convert", "log.csv", *more]
            found = measured(lambda: dso([*command, "--quiet"]))
        sys.stdout.flush()
        os.dup2(keep, 1)
        return found


def identification(measured) -> dict:
    """Reading, windows, start states and one linearisation of model.xml and log.h5."""
    from dso_robotics.core.likelihood import Normal
    from dso_robotics.costs.identification import WindowedIdentification
    from dso_robotics.data.log import read_log
    from dso_robotics.data.match import match_channels
    from dso_robotics.data.windows import cut
    from dso_robotics.parameters.path import parse
    from dso_robotics.parameters.vector import pack
    from dso_robotics.physics.model import load
    from dso_robotics.robot import start
    from dso_robotics.robot.prediction import CPrediction

    def work() -> None:
        robot, log = load("model.xml"), read_log("log.h5")
        channels = match_channels(log, robot.mj)
        vector = pack([parse("joint/hinge/damping")], robot)
        windows = cut(log.rollouts, channels, timestep=0.01, seconds=0.5, source="log")
        x = start.guess(windows, vector.mj, vector.signals(vector.initial))
        problem = WindowedIdentification(vector, windows, CPrediction(vector, windows), likelihood=Normal())
        problem.linearize(vector.initial, x)

    return measured(work)


def parameters(what: str, count: int) -> dict:
    import numpy as np

    from dso_robotics.data.controls import excitations
    from dso_robotics.data.match import match_channels
    from dso_robotics.data.record import record
    from dso_robotics.data.windows import cut
    from dso_robotics.parameters.path import parse
    from dso_robotics.parameters.vector import pack
    from dso_robotics.physics.model import load
    from dso_robotics.robot import start
    from dso_robotics.robot.prediction import CPrediction

    text, ends = "", ""
    for i in range(JOINTS):
        axis = f"0 {i % 2} {1 - i % 2}"
        text += f'<body name="b{i}" pos="0.1 0 0"><joint name="j{i}" axis="{axis}" damping="0.5" armature="0.1"/>'
        text += '<geom type="capsule" fromto="0 0 0 0.1 0 0" size="0.02" mass="0.1" contype="0" conaffinity="0"/>'
        ends += "</body>"
    drives = "".join(f'<motor name="m{i}" joint="j{i}" ctrllimited="true" ctrlrange="-1 1"/>' for i in range(JOINTS))
    seen = "".join(f'<jointpos name="q{i}" joint="j{i}"/>' for i in range(JOINTS))
    whole = f"<mujoco><worldbody>{text}{ends}</worldbody><actuator>{drives}</actuator><sensor>{seen}</sensor></mujoco>"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "chain.xml"
        path.write_text(whole)
        robot, rng = load(path), np.random.default_rng(0)
    log = record(
        robot.mj,
        rng,
        excitations(robot.mj, rng, "steps", seconds=0.5, rollouts=1, amplitude={"*": 0.1}),
        keep_state=True,
    )
    kinds = ("damping", "armature", "frictionloss", "stiffness", "springref")
    free = [parse(f"joint/j{k % JOINTS}/{kinds[k // JOINTS]}") for k in range(count)]
    vector = pack(free, robot)
    windows = cut(
        log.rollouts, match_channels(log, robot.mj), timestep=robot.mj.opt.timestep, seconds=0.1, source="log"
    )
    prediction, x = CPrediction(vector, windows), start.guess(windows, vector.mj, vector.signals(vector.initial))
    return measured(lambda: prediction.linearize(vector.initial, x, by_start=False))


def horizon(what: str, steps: int) -> dict:
    import jax
    import jax.numpy as jnp
    import mujoco

    jax.config.update("jax_enable_x64", True)
    from dso_robotics.core.rollout import scan_steps
    from dso_robotics.physics import step as physics
    from dso_robotics.physics.device import put_model

    model = mujoco.MjModel.from_xml_path(str(ROOT / "models" / "cartpole.xml"))
    made = put_model(model)

    def cost(ctrls: jax.Array) -> jax.Array:
        def following(state, ctrl):
            state = physics.advance(made, state, ctrl)
            return state, jnp.sum(state.qpos**2)

        every = None if what == "plain" else round(steps**0.5)
        return scan_steps(following, physics.make_state(made), ctrls, length=steps, checkpoint=every)[1].mean()

    ctrls = 0.1 * jnp.sin(jnp.arange(steps * model.nu, dtype=float)).reshape(steps, model.nu)
    compiled = jax.jit(jax.grad(cost)).lower(ctrls).compile()
    found = measured(lambda: jax.block_until_ready(compiled(ctrls)), 2)
    return found | {"megabytes": compiled.memory_analysis().temp_size_in_bytes / 1e6}


def training(engine: str, hidden: tuple[int, ...], environments: int, devices: int = 1) -> dict:
    """One step of a training of the cart-pole, after it was compiled."""
    import dataclasses

    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    import jax
    import jax.numpy as jnp

    from dso_robotics.core.devices import on_devices
    from dso_robotics.robot.schedule import training_method
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy

    study = TrainStudy.read(ROOT / "examples" / "studies" / "cartpole_swing_up.toml")
    kind = {"kind": "network", "hidden": hidden} if hidden else {"kind": "linear"}
    change = {"environments": environments, "horizon": 32}
    study = dataclasses.replace(
        study,
        engine=engine,
        policy=dataclasses.replace(study.policy, **kind),
        training=dataclasses.replace(study.training, **change),
    )
    with on_devices(devices):
        task = build(study)
        method = training_method(task.chain, task.windows, explore=task.explore, supervised=task.supervised)
        state = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial))
        method.compile(state)
        state, _ = method.step(state)
        found = measured(lambda: method.step(state), 5)
    found.pop("megabytes")  # what was compiled before is larger
    return found | {"numbers": int(task.chain.layout.size)}


def weights(engine: str, numbers: int) -> dict:
    wide = {10: (), 1000: (28, 28), 10000: (96, 96), 100000: (312, 312)}[numbers]
    return training(engine, wide, 64)


def devices(what: str, count: int) -> dict:
    return training("mjx", (32, 32), 64, count)


def begin(what: str, size: int) -> dict:
    command = ["-m", "dso_robotics.cli", "--help"] if what == "help" else ["-c", "import dso_robotics"]
    environment, seconds, bare = {**os.environ, "PYTHONPATH": str(ROOT)}, [], []
    for _ in range(20):
        for arguments, times in ((command, seconds), (["-c", "pass"], bare)):
            start, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=True)
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            times.append((used, time.perf_counter() - start))
    (used, wall), (_, alone) = (map(statistics.median, zip(*times, strict=True)) for times in (seconds, bare))
    return {"seconds": used, "wall_seconds": wall, "python_alone": alone}


MEASURES = {
    "length": length,
    "parameters": parameters,
    "horizon": horizon,
    "weights": weights,
    "devices": devices,
    "start": begin,
}


if __name__ == "__main__":
    main()
