"""Basis of `--engine auto`: time of one linearisation of n physical numbers on each engine, and of one reverse pass.

    python benchmarks/engine_rule.py          # writes benchmarks/results/engine_rule.json

Serial chains of 1 and 6 links, the full inertia of every link free (10 numbers each), 8 windows of 50 steps. A
least-squares search takes some ten linearisations; a first-order search takes hundreds of reverse passes.
"""

import importlib.metadata
import json
import platform
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from provenance import command

from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.prediction_mjx import MjxPrediction

RESULTS = Path(__file__).parent / "results" / "engine_rule.json"
LINKS, WINDOWS, STEPS, TIMESTEP = (1, 6), 8, 50, 0.002


def chain(links: int) -> str:
    """MJCF of a serial chain that swings in three dimensions, every joint with a position sensor."""
    head, tail = "", ""
    for i in range(links):
        axis = ("0 1 0", "1 0 0", "0 0 1")[i % 3]
        head += (
            f'<body name="link{i}" pos="0 0 {-0.1 * (i > 0)}"><inertial pos="0.01 0 -0.05" mass="0.1" '
            f'diaginertia="2e-4 2e-4 1e-4"/><joint name="j{i}" axis="{axis}" armature="0.01" damping="0.05"/>'
        )
        tail += "</body>"
    sensors = "".join(f'<jointpos name="p{i}" joint="j{i}"/>' for i in range(links))
    return (
        f'<mujoco><option timestep="{TIMESTEP}" integrator="implicitfast"/><worldbody>{head}{tail}</worldbody>'
        f"<sensor>{sensors}</sensor></mujoco>"
    )


def problem(links: int, folder: Path) -> tuple:
    """The vector and windows of a chain with the given number of links, released from random angles."""
    path = folder / f"chain{links}.xml"
    path.write_text(chain(links))
    robot = load(path)
    model, data = robot.mj, mujoco.MjData(robot.mj)
    rng = np.random.default_rng(0)
    data.qpos[:] = rng.uniform(-0.5, 0.5, model.nq)
    rows = WINDOWS * STEPS + 1
    angles = np.empty((rows, links))
    for t in range(rows):
        mujoco.mj_step(model, data)
        angles[t] = data.sensordata
    names = tuple(f"p{i}" for i in range(links))
    rollout = Rollout(name="a", time=TIMESTEP * np.arange(rows), sensordata=angles, sensor_names=names)
    log = Log("", "", "", (rollout,))
    vector = pack([parse(f"body/link{i}/inertia") for i in range(links)], robot, ["a"])
    windows = cut(log.rollouts, match_channels(log, model), timestep=TIMESTEP, seconds=STEPS * TIMESTEP)
    return vector, windows, start.guess(windows, model)


def fastest(call, repeats: int = 3) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for links in LINKS:
            vector, windows, x = problem(links, Path(folder))
            z, c, m = vector.initial, CPrediction(vector, windows), MjxPrediction(vector, windows)
            row = {"numbers": vector.size, "joints": links}
            row["C, linearisation"] = fastest(lambda c=c, z=z, x=x: c.linearize(z, x))
            began = time.perf_counter()
            m.linearize(z, x)
            row["MJX, first linearisation"] = time.perf_counter() - began
            row["MJX, linearisation"] = fastest(lambda m=m, z=z, x=x: m.linearize(z, x))
            cost = jax.jit(jax.grad(m.cost(np.full(links, 0.01))))
            change = jnp.zeros((len(windows), 2 * vector.mj.nv))
            began = time.perf_counter()
            jax.block_until_ready(cost(jnp.asarray(z), change, jnp.asarray(x)))
            row["MJX, first reverse pass"] = time.perf_counter() - began
            row["MJX, reverse pass"] = fastest(
                lambda cost=cost, z=z, change=change, x=x: cost(jnp.asarray(z), change, jnp.asarray(x))
            )
            rows.append(row)
            print(row, flush=True)
            found = {
                "command": command(),
                "rows": rows,
                "device": jax.devices()[0].platform,
                "versions": {p: importlib.metadata.version(p) for p in ("mujoco", "mujoco-mjx", "jax")},
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
            }
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
