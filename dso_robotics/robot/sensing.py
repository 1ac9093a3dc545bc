"""The sensors that a policy or an estimator reads: channels, noise, and scale, bias and delay at the parameters."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dso_robotics.data.match import sensor_channels
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import noise_path
from dso_robotics.parameters.theta import Block
from dso_robotics.physics.model import nearest
from dso_robotics.robot.entries import channel_entries, meant
from dso_robotics.robot.mechanism import Mechanism

Array = Any  # a NumPy or a JAX array
_LEAST = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Sensing:
    """The channels that are read, y = scale h(x) + bias + noise.

    names: of the channels, (ny,).
    parts: sensor of each channel, and its component "[k]", or "" if the sensor has one only.
    addresses: positions in sensordata, (ny,).
    sigma: initial standard deviations of the noise, (ny,), in the channels' units.
    noise_free: whether standard deviations are parameters to find.
    interval: time between readings [s], equal to the control step.
    longest: largest delay of a sensor that can occur [s].
    """

    names: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    addresses: tuple[int, ...]
    sigma: np.ndarray
    interval: float
    longest: float = 0.0
    noise_free: bool = False

    @property
    def size(self) -> int:
        """Number of channels ny."""
        return len(self.names)

    @property
    def oldest(self) -> int:
        """Largest delay in control steps, rounded up."""
        return math.ceil(self.longest / self.interval - 1e-9)

    @property
    def plain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scale, bias and delay of perfect sensors, (ny,) each."""
        return np.ones(self.size), np.zeros(self.size), np.zeros(self.size)

    def numbers(self, mechanism: Mechanism, z: Array, drawn: Array | None = None) -> tuple[Array, Array, Array]:
        """Scale, bias and delay [s] (ny,) at values z (size,) of the mechanism, with `drawn` parameters or nominal ones."""
        if mechanism.vector is None:
            return self.plain
        at = np.array(self.addresses, int)
        values = mechanism.parameters(z, drawn)
        late = mechanism.vector.late(values, at)
        return *mechanism.vector.sensors(values, at), self.plain[2] if late is None else late

    def noise_block(self, *, free: bool) -> Block:
        """The block "sensor noise": logarithms of the standard deviations, in the channels' units."""
        entries = tuple(noise_path(*part) for part in self.parts)
        return Block("sensor noise", np.log(self.sigma), free, entries=entries)


def make_sensing(
    mechanism: Mechanism,
    noise: Mapping[str, float],
    *,
    interval: float,
    channels: tuple[str, ...] | None = None,
    noise_free: bool = False,
) -> Sensing:
    """The sensors of a robot.

    noise: standard deviation by channel, in its unit. A sensor's name means all its channels, and "*" all others.
    channels: sensors or channels to read; by default all that the model has.

    Raises:
      DsoError: a name is not in the model, the model has no sensor, or a channel has no positive noise.
    """
    robot = mechanism.robot
    every, sensors = sensor_channels(robot.mj), robot.names("sensor")
    if not every:
        raise DsoError(f"{robot.source}: the model has no sensors, so there is nothing to read; add a <sensor>.")
    addresses, names = channel_entries(robot, channels)
    sigma = np.full(len(names), np.nan)
    for pattern in sorted(noise, key=lambda text: (text != "*", "[" in text)):
        mine = [c for c, name in enumerate(names) if meant(pattern, name)]
        if not mine:
            raise DsoError(
                f"noise: no channel that is read is called '{pattern}'; those are {nearest(pattern, names, 8)}."
            )
        sigma[mine] = noise[pattern]
    for name, value in zip(names, sigma, strict=True):
        if not (np.isfinite(value) and value >= _LEAST):
            given = f"is {value:g}" if np.isfinite(value) else "is missing"
            raise DsoError(
                f"noise: the standard deviation of channel '{name}' {given}; give a positive one in its unit, such as "
                f'"{name}" = 0.01, or "*" = 0.01 for all.'
            )
    longest = 0.0 if mechanism.vector is None else mechanism.vector.longest("sensor_delay")
    owners = [sensors[every[name][0]] for name in names]
    parts = tuple((owner, name[len(owner) :]) for owner, name in zip(owners, names, strict=True))
    return Sensing(names, parts, addresses, sigma, interval, longest, noise_free)
