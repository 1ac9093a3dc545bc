"""One hypothesis of a Kalman filter at run time: prediction and correction of a state and its covariance, on C MuJoCo."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import mujoco
import numpy as np

from dso_robotics.data.match import quaternion_places
from dso_robotics.data.quaternion import facing
from dso_robotics.errors import DsoError
from dso_robotics.physics.quiet import quiet
from dso_robotics.robot.correctors.kalman import Noise, correction, measurable, reading_variances, turned
from dso_robotics.robot.deployed_model import LARGEST
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_gate import LATELY, Restart, RuntimeGate
from dso_robotics.robot.kalman_search import WideSearch
from dso_robotics.robot.learned import MOST_PREDICTED, Learned
from dso_robotics.robot.linearisation import Linearisation
from dso_robotics.robot.tangent_turn import TangentTurns

# The covariance never claims more than this many times the prior's deviations: beyond that nothing is known.
_WIDEST = 10.0
# A correction by a smaller rotation [rad] leaves the covariance as it is.
_TURNED = 0.02


@dataclass(frozen=True, eq=False)
class Belief:
    """State (nx,), biases of all channels (ny,), and the covariance of state and drifting biases (K, K).

    jumped: what a jump of the biases in the last second adds to the covariance, (K, K); None where no bias drifts. A jump moves
    the error of biases and state by d, and d becomes (I - K H) A d in every update. So the covariance J of that is carried on
    as J <- s (I - K H) A J A' (I - K H)' + (1 - s) D, where D is that of a jump, and s = exp(-t / 1 s).
    """

    state: np.ndarray
    offset: np.ndarray
    covariance: np.ndarray
    jumped: np.ndarray | None = None


class Told(NamedTuple):
    """What an update says of the readings, (ny,) each: predicted, innovation (NaN where left out), its deviation.

    nats: see `RuntimeGate.surprise`; None where no bias drifts, or where the state was found by a search.
    """

    predicted: np.ndarray
    innovation: np.ndarray
    std: np.ndarray
    nats: np.ndarray | None = None


class Corrected(NamedTuple):
    """A correction: the belief, what it says of the readings, which sensors were wild, and minus the log-likelihood."""

    belief: Belief
    told: Told
    wild: list[bool]
    cost: float


class KalmanTracker:
    """The model, the learned noises, and the operations on beliefs. `gate` is asked which readings are wild."""

    def __init__(self, model: mujoco.MjModel, space: Space, learned: Learned, noise: Noise, gate: RuntimeGate):
        self._model, self._space, self._learned, self._gate = model, space, learned, gate
        self._data = mujoco.MjData(model)
        self.noise, self._biases, self._variances = noise, noise.drifting, noise.sensor**2
        self._eye = np.eye(learned.corrector.k + len(self._biases))
        self._jump = np.diag(np.concatenate([np.zeros(learned.corrector.k), noise.offset[self._biases]]) ** 2)
        self.widest = _WIDEST * np.concatenate([noise.prior, noise.offset[self._biases]])
        for _, v in space.free_turns:
            # The prior of a rotation is about the world's axes.
            self.widest[v : v + 3] = self.widest[v : v + 3].max()
        # The last interval [s] and what the noise adds in it.
        self._added = 0.0, np.zeros_like(self._eye)
        self._timestep = learned.interval / learned.substeps
        self._linear = Linearisation(model, learned.addresses, learned.substeps)
        self._turns = TangentTurns(model)
        self._search = WideSearch(self._turns)
        self._quaternions = quaternion_places(model, learned.addresses)

    def begun(self, state: np.ndarray, offset: np.ndarray) -> Belief:
        """A belief of which nothing but a guess is known."""
        return Belief(state, offset, self.noise.start(self._space, state), self._no_jump())

    def forgetful(self, belief: Belief, restart: Restart) -> Belief:
        """The belief once a bias jumps, or has jumped and misled the state since; by as much as it may be off at the start."""
        covariance = belief.covariance + self._jump
        if restart is Restart.LATELY and belief.jumped is not None:
            covariance = covariance + belief.jumped
        return Belief(belief.state, belief.offset, covariance, self._no_jump())

    def _no_jump(self) -> np.ndarray | None:
        return np.zeros_like(self._jump) if len(self._biases) else None

    def predicted(self, belief: Belief, u: np.ndarray, seconds: float) -> Belief:
        """The belief `seconds` later under the control u (nu,), before any reading.

        Raises DsoError if the prediction diverges.
        """
        if self.lost(seconds):
            return self.begun(belief.state, belief.offset)
        forecast, a = self.advanced(belief.state, u, seconds)
        p = a @ belief.covariance @ a.T + self.added(seconds)
        over = p.diagonal() / self.widest**2
        if over.max() > 1:
            shrink = 1 / np.sqrt(np.maximum(over, 1.0))
            p = p * shrink[:, None] * shrink
        jumped = belief.jumped
        if jumped is not None:
            share = np.exp(-seconds / LATELY)
            jumped = share * (a @ jumped @ a.T) + (1 - share) * self._jump
        return Belief(forecast, belief.offset, (p + p.T) / 2, jumped)

    def lost(self, seconds: float) -> bool:
        """Whether nothing is known of a state after so long without a reading."""
        return self._steps(seconds) > MOST_PREDICTED

    def advanced(self, state: np.ndarray, u: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """The state `seconds` later, and the derivative A (K, K) of state and biases.

        Raises DsoError if the prediction diverges.
        """
        model, data, steps = self._model, self._data, self._steps(seconds)
        model.opt.timestep = seconds / steps
        self._place(state, u)
        with quiet():
            a = self._linear.advance(data, steps)
        forecast = np.concatenate([data.qpos, data.qvel, data.act])
        if not (np.abs(forecast) < LARGEST).all() or not np.isfinite(a).all():
            mujoco.mj_resetData(model, data)
            raise DsoError(
                "the prediction blew up, so this update was not made and the state is as before; check ctrl and dt, or reset()."
            )
        if len(self._biases):
            a, small = self._eye.copy(), a
            a[: len(small), : len(small)] = small
        return forecast, a

    def added(self, seconds: float) -> np.ndarray:
        """What the noise adds to the covariance in `seconds`, (K, K)."""
        if self._added[0] != seconds:
            self._added = seconds, self.noise.process_covariance(self._space.nv, seconds)
        return self._added[1]

    def _steps(self, seconds: float) -> int:
        return max(int(np.ceil(seconds / self._timestep - 1e-6)), 1)

    def corrected(
        self, belief: Belief, y: np.ndarray, u: np.ndarray, shut: list[bool] | None = None, *, weighed: bool = True
    ) -> Corrected:
        """The belief after readings y (ny,), NaN where missing, taken under the control u.

        shut: sensors to leave out, instead of those that the gate finds wild. weighed: whether the likelihood is needed.
        """
        measured = np.isfinite(y)
        seen = measurable(measured, self._quaternions)
        reading, e, h = self.compared(belief.state, belief.offset, y, u)
        if not np.isfinite(reading).all():
            raise DsoError("the sensors of the model read no finite number, so this update was not made; reset().")
        p, r = belief.covariance, self._variances
        spread = h @ p @ h.T
        spread.flat[:: len(r) + 1] += r
        std = np.sqrt(reading_variances(spread, self._quaternions))
        innovation = y - reading
        if not seen.any():
            return Corrected(belief, Told(reading, innovation, std), [False] * len(self._gate.names), 0.0)
        wild = self._gate.wild(e, spread, seen) if shut is None else shut
        let = self._gate.without(seen, wild)
        done, jumped, nats = correction(p, h, r, e, let), belief.jumped, None
        if jumped is not None:
            left = self._eye - done.gain @ h
            jumped, nats = left @ jumped @ left.T, self._gate.surprise(e, spread, let)
        cost = 0.0
        if weighed:
            white = np.where(let, e, 0.0)
            cost = 0.5 * float(white @ np.linalg.solve(done.spread, white) + np.linalg.slogdet(done.spread)[1])
        if self._search.needed(p, done.covariance, wild):
            after, wild, cost = self._searched(belief, y, u, seen, shut)
            nats = None
            let = self._gate.without(seen, wild)
        else:
            covariance = done.covariance
            if self._turns.far(done.change, _TURNED):
                jacobian = self._turns.jacobian(done.change, len(done.change))
                covariance = jacobian @ covariance @ jacobian.T
            after = self.moved(belief, done.change, covariance)
        left_out = seen & ~let
        if left_out.any():
            innovation = np.where(left_out, np.nan, innovation)
        return Corrected(replace(after, jumped=jumped), Told(reading, innovation, std, nats), wild, cost)

    def _searched(
        self, belief: Belief, y: np.ndarray, u: np.ndarray, seen: np.ndarray, shut: list[bool] | None
    ) -> tuple[Belief, list[bool], float]:
        """The update where angles were unknown; see `WideSearch`. The gate judges what is left at the most probable state."""

        def compared(state: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self.compared(state, offset, y, u)[1:]

        def placed(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            moved = self.moved(belief, change, belief.covariance)
            return moved.state, moved.offset

        p, r = belief.covariance, self._variances
        wild = [False] * len(self._gate.names) if shut is None else shut
        let = self._gate.without(seen, wild)
        found = self._search.best(p, r, let, compared, placed)
        if shut is None:
            e, h = compared(*placed(found.change))
            spread = h @ found.covariance @ h.T
            spread.flat[:: len(e) + 1] += r
            wild = self._gate.wild(e, spread, seen)
            if any(wild):
                let = self._gate.without(seen, wild)
                found = self._search.best(p, r, let, compared, placed)
        # Laplace's approximation of the likelihood: the cost at its minimum, and the volume that the readings leave.
        volume = np.linalg.slogdet(p)[1] - np.linalg.slogdet(found.covariance)[1] + np.sum(np.log(r[let]))
        return self.moved(belief, found.change, found.covariance), wild, found.cost + 0.5 * float(volume)

    def _place(self, state: np.ndarray, u: np.ndarray) -> None:
        nq, nv, data = self._space.nq, self._space.nv, self._data
        data.qpos[:], data.qvel[:], data.ctrl[:] = state[:nq], state[nq : nq + nv], u
        if self._space.na:
            data.act[:] = state[nq + nv :]

    def compared(
        self, state: np.ndarray, offset: np.ndarray, y: np.ndarray, u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Readings in `state`, the innovation with quaternions as rotations (a number where missing), and H (ny, K)."""
        self._place(state, u)
        learned, k = self._learned, self._learned.corrector.k
        with quiet():
            mujoco.mj_forward(self._model, self._data)
            reading = self._data.sensordata[learned.addresses] * learned.scale + learned.bias + offset
            h = self._linear.readings(self._data) * learned.scale[:, None]
        if len(self._biases):
            h = np.concatenate([h, np.zeros((len(h), len(self._biases)))], 1)
            h[self._biases, k + np.arange(len(self._biases))] = 1.0
        if self._quaternions:
            reading = reading * facing(reading, y, self._quaternions)
        e, h = turned(reading, np.where(np.isnan(y), 0.0, y) - reading, h, self._quaternions)
        return reading, e, h

    def moved(self, belief: Belief, change: np.ndarray, covariance: np.ndarray) -> Belief:
        """The belief around the state after `change` (K,). Raises DsoError if that is out of all bounds."""
        k = self._learned.corrector.k
        state, offset = self._space.move(belief.state, change[:k]), belief.offset
        if len(self._biases):
            offset = offset.copy()
            offset[self._biases] += change[k:]
        if not (np.abs(state) < LARGEST).all():
            raise DsoError(
                "the measurement is so far from its prediction that the estimator cannot take it in, so this update was not "
                "made and the state is as before; give NaN instead, or reset()."
            )
        return Belief(state, offset, covariance)
