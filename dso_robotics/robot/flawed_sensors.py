"""The sensors of a simulated robot: late, scaled, biased, noisy and quantised readings of exact ones."""

from collections.abc import Sequence

import mujoco
import numpy as np

from dso_robotics.data.match import actuator_names, sensor_channels, values_by_channel
from dso_robotics.data.record import Flaws
from dso_robotics.errors import DsoError
from dso_robotics.robot.episode_starts import EpisodeStarts


class FlawedSensors:
    """All named sensor channels of a robot: y = scale h + bias + noise, some control steps late, rounded to a resolution.

    named: whether the robot's channels are needed; without it, there are none, and the model's sensors may be unnamed.
    trained: the sensors that a training found, or None for those of the model.
    period: control step [s].

    channels: their names, in order.
    depth: how many rows of exact readings `shown` needs.
    """

    def __init__(
        self, model: mujoco.MjModel, flaws: Flaws, trained: EpisodeStarts | None, *, period: float, named: bool
    ):
        known = sensor_channels(model) if named else {}
        self.channels = tuple(known)
        self._addresses = [address for _, address in known.values()]
        self._sd = values_by_channel(flaws.sensor_noise, self.channels, "sensor noise")
        self._quantum = values_by_channel(flaws.quantum, self.channels, "quantum")
        if flaws.delay < 0:
            raise DsoError(f"a delay of {flaws.delay} samples is impossible; give 0 or more.")
        count = len(self.channels)
        self._scale, self._bias, self._late = np.ones(count), np.zeros(count), np.full(count, float(flaws.delay))
        names = () if trained is None else trained.names
        for row, name in enumerate(names):
            if trained is not None and name in self.channels:
                at = self.channels.index(name)
                self._scale[at], self._bias[at] = trained.scale[row], trained.bias[row]
                self._late[at] += trained.delay[row] / period
        self.depth = int(np.ceil(self._late.max(initial=0.0) - 1e-9)) + 1
        self._whole = np.floor(self._late + 1e-9).astype(int)
        self._share = np.maximum(self._late - self._whole, 0.0)

    def read(self, data: mujoco.MjData) -> np.ndarray:
        """Exact readings (ny,) in `data.sensordata`."""
        return data.sensordata[self._addresses].copy()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Noise (ny,) of one reading."""
        return self._sd * rng.standard_normal(len(self.channels))

    def shown(self, exact: Sequence[np.ndarray], noise: np.ndarray) -> np.ndarray:
        """What the sensors show, (ny,), after exact readings of which the first is the newest."""
        rows = np.array(exact)
        each, last = np.arange(len(self.channels)), len(rows) - 1
        newer = rows[np.minimum(self._whole, last), each]
        older = rows[np.minimum(self._whole + 1, last), each]
        value = self._scale * (newer + self._share * (older - newer)) + self._bias + noise
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self._quantum > 0, np.round(value / self._quantum) * self._quantum, value)


def action_noise(model: mujoco.MjModel, flaws: Flaws) -> np.ndarray:
    """Standard deviation of each control's noise, (nu,). Raises DsoError for an actuator that the model does not have."""
    if not flaws.action_noise:
        return np.zeros(model.nu)
    return values_by_channel(flaws.action_noise, actuator_names(model), "action noise")
