"""An identification that is linear in everything, so that its posterior is known exactly: two pushes on a free slider."""

import mujoco
import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction

SLIDER = """<mujoco model="slider">
  <option timestep="0.02" integrator="Euler"><flag contact="disable" eulerdamp="disable" gravity="disable"/></option>
  <worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor name="one" joint="x"/><motor name="two" joint="x"/></actuator>
  <sensor><jointpos name="place" joint="x"/></sensor>
</mujoco>"""
PATHS = ("actuator/one/gear[0]", "actuator/two/gear[0]")


def record(gears, sigma, seed, *, runs=2, steps=60):
    """A log of the slider with the given gears and white noise of `sigma` (runs,), from drawn starts."""
    rng, model = np.random.default_rng(seed), mujoco.MjModel.from_xml_string(SLIDER)
    model.actuator_gear[:, 0] = gears
    rollouts = []
    for run in range(runs):
        data, rows = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = rng.normal(size=1), rng.normal(size=1)
        ctrl = np.repeat(rng.normal(size=(steps // 5 + 1, 2)), 5, axis=0)[:steps]
        for u in ctrl:
            data.ctrl[:] = u
            rows.append(data.qpos.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + sigma[run] * rng.normal(size=(steps, 1))
        time = model.opt.timestep * np.arange(steps)
        names = {
            "ctrl_names": ("one", "two"),
            "ctrl_units": ("N", "N"),
            "sensor_names": ("place",),
            "sensor_units": ("m",),
        }
        rollouts.append(Rollout(name=f"run{run}", time=time, ctrl=ctrl, sensordata=measured, **names))
    return Log("", "simulated for a test", "CC0", tuple(rollouts))


def problem(log, *, noise=None, seconds=0.4, free=PATHS):
    """The problem of identifying the gears, and its solution; `noise`: the known scale of the sensor."""
    robot = load(mujoco.MjSpec.from_string(SLIDER))
    vector = pack([parse(path) for path in free], robot, [r.name for r in log.rollouts])
    channels = match_channels(log, robot.mj)
    windows = cut(log.rollouts, channels, timestep=0.02, seconds=seconds)
    known = {} if noise is None else {"place": (noise, noise)}
    made = WindowedIdentification(vector, windows, CPrediction(vector, windows), noise=known)
    x = start.guess(windows, vector.mj)
    exact = Settings(step_tolerance=1e-6, decrease=1e-12, noise_tolerance=1e-6, cost_tolerance=1e-15)
    box = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    return made, solve(made, vector.initial, x, settings=exact, **box)


def design(made, at=None):
    """Rows of readings by recording: derivative by the numbers (N, n), by all start states (N, K), and measurements (N,).

    at: the numbers about which they are (zero).
    """
    windows, n = made.windows, made.vector.size
    blocks = len(windows)
    x0, z0 = np.zeros((blocks, 2)), np.zeros(n) if at is None else at
    base = made.prediction.predict(z0, x0)[..., 0]
    by_z = np.stack([made.prediction.predict(z0 + e, x0)[..., 0] - base for e in np.eye(n)], -1)
    by_x = np.zeros((*base.shape, 2 * blocks))
    for b in range(blocks):
        for j in range(2):
            moved = x0.copy()
            moved[b, j] = 1.0
            by_x[..., 2 * b + j] = made.prediction.predict(z0, moved)[..., 0] - base
    seen = np.isfinite(windows.measured[..., 0])
    owner = np.broadcast_to(windows.rollout[:, None], seen.shape)
    found = []
    for r in range(len(windows.rollouts)):
        mine = seen & (owner == r)
        columns = by_x[mine]
        columns = columns[:, np.abs(columns).sum(0) > 0]
        found.append((by_z[mine], columns, (windows.measured[..., 0] - base)[mine]))
    return found


def left(parts, z):
    """Sum of squares of each recording at z with the best start states, and its degrees of freedom (R,) each."""
    squares, freedom = [], []
    for by_z, by_x, y in parts:
        rest = y - by_z @ z
        rest = rest - by_x @ np.linalg.lstsq(by_x, rest, rcond=None)[0]
        squares.append(float(rest @ rest))
        freedom.append(len(y) - by_x.shape[1])
    return np.array(squares), np.array(freedom)
