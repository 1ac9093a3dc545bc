"""Whether `dso estimate` hands out unstable filters, or calls one converged that claims too much, over a grid of circumstances.

    python -m benchmarks.estimate_grid [--robot NAME ...] [--runs N ...] [--minutes M]

The grid: pendulum, arm, cart-pole and quadrotor; the state in the log or not; one run to learn from or four; short windows or
long ones; the right model or one whose mass is wrong. Robots are simulated with white noise on velocities and readings. The
defaults of `dso estimate` learn each filter with one run held out. It replays that run from a cold start beside the truth,
whether the log held that or not. Rows that results/estimate_grid.json has are not computed again.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np

import dso_robotics as dso
from benchmarks.provenance import begun
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.robot.estimator_space import Space
from tests.robot.free_body import ARM, QUADROTOR, flight, swing

KEPT = Path(__file__).resolve().parent / "results" / "estimate_grid.json"
PENDULUM = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="pole">
      <joint name="hinge" axis="0 1 0" damping="0.08"/>
      <inertial pos="0 0 -0.3" mass="0.7" diaginertia="0.01 0.01 0.001"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor><jointpos name="angle" joint="hinge"/></sensor>
</mujoco>
"""
CARTPOLE = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0" damping="0.3" stiffness="2"/>
      <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/>
      <body name="pole">
        <joint name="hinge" axis="0 1 0" damping="0.01"/>
        <inertial pos="0 0 -0.3" mass="0.3" diaginertia="0.005 0.005 0.001"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="slide"/></actuator>
  <sensor><jointpos name="place" joint="slide"/><jointpos name="angle" joint="hinge"/></sensor>
</mujoco>
"""
# A filter that is called converged may have squared errors of at most so many times what it claims.
MOST = 3.0


class World(NamedTuple):
    """A robot. wrong: what of its XML is replaced by what in the wrong model. run: states, controls and readings of a seed.

    windows: lengths of short and long ones [s]. begin: errors count from here on [s].
    """

    xml: str
    interval: float
    wrong: tuple[str, str]
    run: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]
    windows: tuple[float, float]
    begin: float


def driven(xml: str, seed: int, noise: np.ndarray, push: np.ndarray, size: float) -> tuple[np.ndarray, ...]:
    """States, controls and readings of 4 s at 100 Hz under a torque that is drawn anew five times a second.

    noise: of the readings. push: of the noise of the velocities, per sqrt(s).
    """
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(xml)
    data, states, controls, readings = mujoco.MjData(model), [], [], []
    data.qpos[:] = rng.normal(size=model.nq)
    for t in range(401):
        states.append(np.concatenate([data.qpos, data.qvel]))
        readings.append(data.qpos + noise * rng.normal(size=model.nq))
        if t % 20 == 0:
            data.ctrl[:] = size * rng.normal(size=model.nu)
        controls.append(data.ctrl.copy())
        for _ in range(2):
            data.qvel[:] += push * np.sqrt(model.opt.timestep) * rng.normal(size=model.nv)
            mujoco.mj_step(model, data)
    return np.array(states), np.array(controls[:-1]), np.array(readings)


def _pendulum(seed: int) -> tuple[np.ndarray, ...]:
    return driven(PENDULUM, seed, np.array([0.005]), np.array([0.3]), 1.0)


def _cartpole(seed: int) -> tuple[np.ndarray, ...]:
    return driven(CARTPOLE, seed, np.array([0.002, 0.005]), np.array([0.1, 0.3]), 3.0)


WORLDS = {
    "pendulum": World(PENDULUM, 0.01, ('mass="0.7"', 'mass="1.0"'), _pendulum, (0.3, 2.0), 0.5),
    "arm": World(ARM, 0.01, ('mass="0.5"', 'mass="0.75"'), lambda seed: swing(seed, 400, 2), (0.3, 2.0), 0.5),
    "cart-pole": World(CARTPOLE, 0.01, ('mass="0.3"', 'mass="0.45"'), _cartpole, (0.3, 2.0), 0.5),
    "quadrotor": World(
        QUADROTOR, 0.004, ('mass="1"', 'mass="1.15"'), lambda seed: flight(seed, 1000, 0.7 * seed), (0.5, 2.0), 1.5
    ),
}


def recorded(world: World, seed: int, *, state: bool) -> Rollout:
    """A run as a log has it."""
    model = mujoco.MjModel.from_xml_string(world.xml)
    states, controls, readings = world.run(seed)
    names = []
    for i in range(model.nsensor):
        size = int(model.sensor_dim[i])
        names += [model.sensor(i).name] if size == 1 else [f"{model.sensor(i).name}[{j}]" for j in range(size)]
    known = {"qpos": states[:, : model.nq], "qvel": states[:, model.nq :]} if state else {}
    return Rollout(
        name=f"run{seed}", time=world.interval * np.arange(len(states)), ctrl=np.concatenate([controls, controls[-1:]]),
        ctrl_names=tuple(model.actuator(i).name for i in range(model.nu)), sensordata=readings, sensor_names=tuple(names),
        **known,
    )  # fmt: skip


def replayed(made: Any, world: World, held: Rollout) -> dict[str, float]:
    """The filter over a run with its state known: squared errors over the covariance, and the largest error of a position."""
    assert held.qpos is not None
    assert held.qvel is not None
    assert held.sensordata is not None
    assert held.ctrl is not None
    made.reset(measurement=held.sensordata[0])
    space, squares, far = Space(made.model), [], []
    for k in range(1, len(held.time)):
        found = made.update(held.ctrl[k - 1], held.sensordata[k])
        true = np.concatenate([held.qpos[k], held.qvel[k]])
        e = space.difference(true, np.concatenate([found.qpos, found.qvel]))
        if held.time[k] >= world.begin:
            squares.append(e @ np.linalg.solve(found.covariance, e) / len(e))
            far.append(np.abs(e[: space.nv]).max())
    return {"nees": float(np.mean(squares)), "largest_error": float(np.max(far))}


def row(name: str, *, state: bool, runs: int, window: float, wrong: bool) -> dict[str, Any]:
    """One combination."""
    world, began = WORLDS[name], time.process_time()
    log = Log("", "simulated", "Apache-2.0", tuple(recorded(world, i, state=state) for i in range(1, runs + 2)))
    xml = world.xml.replace(*world.wrong) if wrong else world.xml
    assert xml != world.xml or not wrong
    found = dso.estimate(mujoco.MjSpec.from_string(xml), log, hold_out=log.rollouts[-1].name, window=window)
    s = found.summary
    stable = all(part["stable"] for part in s["stability"].values())
    told = s["consistency"]["hold_out"]
    judged = replayed(found.estimator, world, recorded(world, runs + 1, state=True)) if stable else {}
    return {
        "robot": name, "state": state, "runs": runs, "window": window, "wrong": wrong,
        "converged": s["converged"], "stable": stable, "kind": s["corrector"]["kind"],
        "nees_told": told["nees"], "nis": told["nis"], **judged,
        "doubts": len(s["doubts"]), "seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def in_order(one: dict[str, Any]) -> bool:
    """Whether the row is as it should be."""
    return one["stable"] and not (one["converged"] and one["nees"] > MOST)


def main() -> None:
    """Compute the rows that are missing, and print and store all."""
    parser = argparse.ArgumentParser(description="A grid of circumstances for `dso estimate`")
    parser.add_argument("--robot", nargs="*", default=list(WORLDS), choices=list(WORLDS), metavar="NAME")
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 4], choices=[1, 4], metavar="N")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no row after so long")
    args = parser.parse_args()
    results, began = begun(KEPT, {"rows": []}), time.monotonic()
    known = {(r["robot"], r["state"], r["runs"], r["window"], r["wrong"]) for r in results["rows"]}
    for state, runs, long, wrong, name in itertools.product(
        (True, False), args.runs, (0, 1), (False, True), args.robot
    ):
        window = WORLDS[name].windows[long]
        if (name, state, runs, window, wrong) in known or time.monotonic() - began > 60 * args.minutes:
            continue
        one = row(name, state=state, runs=runs, window=window, wrong=wrong)
        results["rows"].append(one)
        KEPT.write_text(json.dumps(results, indent=1) + "\n")
        print("ok  " if in_order(one) else "BAD ", json.dumps(one), flush=True)
    bad = [one for one in results["rows"] if not in_order(one)]
    print(f"{len(results['rows'])} rows, {len(bad)} not in order")


if __name__ == "__main__":
    main()
