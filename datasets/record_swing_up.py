"""Record `synthetic/cartpole_swing_up.h5`: demonstrations of a scripted controller that swings models/cartpole.xml up.

    python datasets/record_swing_up.py [--out FILE.h5]

The pole is pumped up by its energy while the cart is held near the middle of its rail, and balanced by a linear-quadratic
regulator once it is nearly upright. Four runs of 4 s at 100 Hz from near hanging. The same seed gives the same bytes.
"""

import argparse
from pathlib import Path

import mujoco
import numpy as np
import scipy.linalg

from dso_robotics.data.assets import asset
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout

SEED, RUNS, SECONDS = 3, 4, 4.0
PUMP, MIDDLE, BRAKE = 90.0, 1.5, 1.0  # acceleration for energy [1/(J s)], for place [1/s^2], for speed [1/s]
MOST = 7.0  # [m/s^2] of pumping
CATCH = 0.5  # [rad] from upright and [rad/s] / 5, where the regulator takes over


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description="Record demonstrations of a cart-pole swing-up.")
    default = Path(__file__).parent / "synthetic" / "cartpole_swing_up.h5"
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    out = parser.parse_args().out
    write_log(out, demonstrations(), dtype=np.float32)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def demonstrations() -> Log:
    """Four rollouts, named 00 to 03, with states."""
    model, rng = mujoco.MjModel.from_xml_path(str(asset("models/cartpole.xml"))), np.random.default_rng(SEED)
    gain, rollouts, steps = regulator(model), [], round(SECONDS / model.opt.timestep)
    for run in range(RUNS):
        data = mujoco.MjData(model)
        data.qpos[:] = [0.3 * rng.uniform(-1, 1), np.pi + 0.3 * rng.uniform(-1, 1)]
        data.qvel[:] = 0.3 * rng.uniform(-1, 1, 2)
        rows = []
        for _ in range(steps):
            data.ctrl[:] = control(model, data, gain)
            rows.append(np.concatenate([data.qpos, data.qvel, data.ctrl]))
            mujoco.mj_step(model, data)
        table = np.array(rows)
        rollouts.append(
            Rollout(
                name=f"{run:02d}",
                time=model.opt.timestep * np.arange(steps),
                ctrl=table[:, 4:],
                ctrl_names=("drive",),
                ctrl_units=("1",),
                qpos=table[:, :2],
                qvel=table[:, 2:4],
            )
        )
    source = "synthetic (datasets/record_swing_up.py): energy pumping and a linear-quadratic regulator"
    return Log("", source, "Apache-2.0", tuple(rollouts), {"seed": float(SEED)})


def control(model: mujoco.MjModel, data: mujoco.MjData, gain: np.ndarray) -> float:
    """The drive's control, -1 to 1."""
    (place, angle), (speed, spin) = data.qpos, data.qvel
    away = (angle + np.pi) % (2 * np.pi) - np.pi
    if abs(away) < CATCH and abs(spin) < 5 * CATCH:
        return float(np.clip(-gain @ [place, away, speed, spin], -1, 1))
    mass, arm = model.body("pole").mass[0], model.body("pole").ipos[2]
    inertia = model.body("pole").inertia[1] + mass * arm**2
    energy = 0.5 * inertia * spin**2 + mass * 9.81 * arm * (np.cos(away) - 1)
    pump = np.clip(PUMP * energy * spin * np.cos(away), -MOST, MOST)
    wanted = pump - MIDDLE * place - BRAKE * speed
    return float(np.clip(wanted * model.body_mass.sum() / model.actuator_gear[0, 0], -1, 1))


def regulator(model: mujoco.MjModel) -> np.ndarray:
    """Gain (4,) on cart position, pole angle and their velocities, about upright."""
    data = mujoco.MjData(model)
    a, b = np.zeros((4, 4)), np.zeros((4, 1))
    mujoco.mjd_transitionFD(model, data, 1e-6, True, a, b, None, None)
    cost, effort = np.diag([2.0, 5.0, 0.5, 0.5]), np.array([[1.0]])
    value = scipy.linalg.solve_discrete_are(a, b, cost, effort)
    return np.linalg.solve(effort + b.T @ value @ b, b.T @ value @ a)[0]


if __name__ == "__main__":
    main()
