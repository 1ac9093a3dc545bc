"""A hinge, a ball joint and a free body that turn by up to half a radian between samples, and their most probable motion.

The oracle knows nothing of Kalman filters: it stacks the whitened residuals of C MuJoCo, differentiates them by central
differences, and takes Gauss-Newton steps.
"""

from typing import NamedTuple

import mujoco
import numpy as np

from dso_robotics.robot.correctors.kalman import Noise
from dso_robotics.robot.estimator_space import Space

# An update of four steps is linearised step by step.
INTERVAL, SUBSTEPS, SIZE = 0.1, 4, 20
MODEL = """
<mujoco>
  <option timestep="0.025" integrator="implicitfast"/>
  <worldbody>
    <body name="door">
      <joint name="hinge" axis="0 1 0" damping="0.05"/>
      <inertial pos="0 0 -0.2" mass="0.8" diaginertia="0.02 0.02 0.01"/>
    </body>
    <body name="top">
      <joint name="ball" type="ball" damping="0.05"/>
      <inertial pos="0 0 -0.1" mass="0.5" diaginertia="0.03 0.02 0.01"/>
    </body>
    <body name="stone">
      <freejoint/>
      <inertial pos="0 0 0" mass="1" diaginertia="0.03 0.02 0.01"/>
    </body>
  </worldbody>
  <actuator><motor name="motor" joint="hinge"/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge"/>
    <framexaxis name="top_x" objtype="xbody" objname="top"/>
    <framezaxis name="top_z" objtype="xbody" objname="top"/>
    <framexaxis name="stone_x" objtype="xbody" objname="stone"/>
    <framezaxis name="stone_z" objtype="xbody" objname="stone"/>
    <framepos name="place" objtype="xbody" objname="stone"/>
  </sensor>
</mujoco>
"""
NOISE = Noise(
    process=np.array([0.3] * 4 + [0.1] * 3 + [0.3] * 3 + [12.0] * 4 + [0.5] * 3 + [12.0] * 3),
    sensor=np.array([0.1] * 13 + [0.05] * 3),
    drift=np.zeros(16),
    prior=np.array([0.25] * 7 + [0.1, 0.2, 0.4] + [0.5] * 10),
    offset=np.full(16, 0.5),
)


class Found(NamedTuple):
    """States (T, nx), and their covariances (T, K, K) in the tangents there."""

    states: np.ndarray
    covariance: np.ndarray


class Readings(NamedTuple):
    """The start (nx,) that is believed, controls (T-1, nu) and readings (T, ny); NaN is not measured."""

    start: np.ndarray
    ctrl: np.ndarray
    measured: np.ndarray


class Dense:
    """The problem of all samples at once. noise: as of the filter."""

    def __init__(self, noise: Noise = NOISE):
        self.model = mujoco.MjModel.from_xml_string(MODEL)
        self.data, self.noise, self.space = mujoco.MjData(self.model), noise, Space(self.model)
        self.added = noise.process_covariance(self.model.nv, INTERVAL)

    def ahead(self, state: np.ndarray, ctrl: np.ndarray) -> np.ndarray:
        """The state an interval later."""
        self._put(state)
        self.data.ctrl[:] = ctrl
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        return np.concatenate([self.data.qpos, self.data.qvel])

    def reading(self, state: np.ndarray) -> np.ndarray:
        """The sensors in a state."""
        self._put(state)
        mujoco.mj_forward(self.model, self.data)
        return self.data.sensordata.copy()

    def _put(self, state: np.ndarray) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = state[: self.model.nq], state[self.model.nq :]

    def drawn(self, seed: int, length: int) -> Readings:
        """Readings of a motion that the noise drives."""
        rng = np.random.default_rng(seed)
        start = np.concatenate([self.model.qpos0, 0.5 * rng.normal(size=self.model.nv)])
        root = np.linalg.cholesky(self.added)
        state = self.space.move(start, self.noise.prior * rng.normal(size=SIZE))
        ctrl, measured = 0.1 * rng.normal(size=(length - 1, 1)), []
        for t in range(length):
            if t:
                state = self.space.move(self.ahead(state, ctrl[t - 1]), root @ rng.normal(size=SIZE))
            measured.append(self.reading(state) + self.noise.sensor * rng.normal(size=16))
        return Readings(start, ctrl, np.array(measured))

    def residual(self, given: Readings, covariance: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Whitened residuals (T, K + ny) of the states (T, nx): of start (with this covariance) or step, and of readings."""
        return np.array([self._part(given, covariance, states, t) for t in range(len(states))])

    def _part(self, given: Readings, covariance: np.ndarray, states: np.ndarray, t: int) -> np.ndarray:
        before = self.ahead(states[t - 1], given.ctrl[t - 1]) if t else given.start
        step = np.linalg.solve(
            np.linalg.cholesky(self.added if t else covariance), self.space.difference(before, states[t])
        )
        off = (given.measured[t] - self.reading(states[t])) / self.noise.sensor
        return np.concatenate([step, np.where(np.isnan(off), 0.0, off)])

    def slope(self, given: Readings, covariance: np.ndarray, states: np.ndarray, size: float = 1e-5) -> np.ndarray:
        """The derivative (T, K + ny, T, K) of the residuals."""
        length = len(states)
        found = np.zeros((length, SIZE + len(self.noise.sensor), length, SIZE))
        for t in range(length):
            for i, change in enumerate(size * np.eye(SIZE)):
                sides = []
                for sign in (1, -1):
                    side = states.copy()
                    side[t] = self.space.move(states[t], sign * change)
                    sides.append([self._part(given, covariance, side, s) for s in range(t, min(t + 2, length))])
                found[t : t + 2, :, t, i] = (np.array(sides[0]) - sides[1]) / (2 * size)
        return found

    def normal(self, given: Readings, covariance: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The Gauss-Newton step (T, K) from the states, and the covariance (T, K, T, K) there."""
        off, many = self.residual(given, covariance, states).ravel(), len(states) * SIZE
        slope = self.slope(given, covariance, states).reshape(len(off), many)
        inverse = np.linalg.inv(slope.T @ slope)
        return -(inverse @ slope.T @ off).reshape(-1, SIZE), inverse.reshape(-1, SIZE, len(states), SIZE)

    def cost(self, given: Readings, covariance: np.ndarray, states: np.ndarray) -> float:
        """Half the sum of the squares of the residuals."""
        return 0.5 * float((self.residual(given, covariance, states) ** 2).sum())

    def solved(self, given: Readings, covariance: np.ndarray, near: np.ndarray) -> Found:
        """The most probable motion by steps from the states `near` (T, nx)."""
        states = near
        for _ in range(60):
            change, spread = self.normal(given, covariance, states)
            cost, share = self.cost(given, covariance, states), 1.0
            if np.abs(change).max() < 1e-6:
                break
            while share > 1e-3:
                tried = self.space.move(states, share * change)
                if self.cost(given, covariance, tried) <= cost:
                    break
                share /= 2
            states = tried
        else:
            raise AssertionError("the dense search did not end")
        return Found(states, blocks(spread))

    def moved_on(self, given: Readings, covariance: np.ndarray, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """What the start and the first two samples of `found` tell of the second: state (nx,) and covariance (K, K) there.

        The residuals are those of the motion found, linearised there; the first state is eliminated.
        """
        pair, states = Readings(given.start, given.ctrl[:1], given.measured[:2]), found.states[:2]
        changes, spreads = self.normal(pair, covariance, states)
        change, spread = changes[1], spreads[1, :, 1]
        state, columns = self.space.move(states[1], change), []
        for small in 1e-5 * np.eye(SIZE):
            ends = [self.space.difference(state, self.space.move(states[1], change + s * small)) for s in (1, -1)]
            columns.append((ends[0] - ends[1]) / 2e-5)
        turn = np.array(columns).T
        return state, turn @ spread @ turn.T


def blocks(spread: np.ndarray) -> np.ndarray:
    """The covariance (T, K, K) of each state, of that of all, (T, K, T, K)."""
    return np.array([spread[t, :, t] for t in range(len(spread))])
