"""Observations of a policy: the state as smooth numbers, or named sensors, scaled by means and spreads that are constants."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dso_robotics.physics.model import Robot
from dso_robotics.robot.entries import sensor_entries, state_entries
from dso_robotics.robot.scene import Scene

_PRIOR_SAMPLES = 256.0


class Observation(eqx.Module):
    """Maps a scene to a vector (size,). Each entry has a name."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """Name of each entry."""

    @abc.abstractmethod
    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """The vector."""

    @property
    def size(self) -> int:
        """Length of the vector."""
        return len(self.names)


class StateObservation(Observation):
    """Positions, velocities and activations. Hinges without limits give sine and cosine, because their angle is unbounded.

    plain: entries of qpos that are used directly.
    turning: entries of qpos that are used as sine and cosine.
    """

    plain: tuple[int, ...] = eqx.field(static=True)
    turning: tuple[int, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries, by joint."""
        return self.labels

    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """Plain positions, sines, cosines, velocities, activations."""
        state = scene.state
        angles = state.qpos[np.array(self.turning, int)]
        return jnp.concatenate(
            [state.qpos[np.array(self.plain, int)], jnp.sin(angles), jnp.cos(angles), state.qvel, state.act]
        )


def state_observation(robot: Robot, *, leave_out: Sequence[str] = ()) -> StateObservation:
    """The whole state of `robot`, without the positions of the joints in `leave_out` (such as a runner's travelled distance).

    Raises:
      DsoError: a name in `leave_out` is not a joint.
    """
    return StateObservation(*state_entries(robot, leave_out))


class SensorObservation(Observation):
    """Named sensors of the model. `columns` are their positions in sensordata."""

    columns: tuple[int, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sensor channels."""
        return self.labels

    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """The readings, under the control that led to the state."""
        return scene.sensors[np.array(self.columns, int)]


def sensor_observation(robot: Robot, sensors: Sequence[str]) -> SensorObservation:
    """The named sensors of `robot`, in the given order.

    Raises:
      DsoError: no sensor is named, or the model does not have a named sensor.
    """
    return SensorObservation(*sensor_entries(robot, sensors))


class Scaling(eqx.Module):
    """Running mean and spread of an observation. Derivatives treat them as constants."""

    mean: Float[Array, " size"]
    square: Float[Array, " size"]
    count: Float[Array, ""]

    def __call__(self, observation: Float[Array, " size"]) -> Float[Array, " size"]:
        """The observation scaled to about zero mean and unit spread. The minimum spread is a thousandth."""
        return (observation - self.mean) / self.spread

    @property
    def spread(self) -> Float[Array, " size"]:
        """Standard deviation (size,)."""
        return jnp.sqrt(jnp.maximum(self.square, 1e-6))

    def updated(self, batch: Float[Array, "N size"], *, keep: float = 1e7) -> "Scaling":
        """The scaling with the observations of one more batch. Older observations are forgotten beyond `keep`."""
        number = batch.shape[0]
        total = self.count + number
        mean = jnp.mean(batch, axis=0)
        share = number / total
        delta = mean - self.mean
        variance = jnp.mean((batch - mean) ** 2, axis=0)
        square = (1 - share) * self.square + share * variance + share * (1 - share) * delta**2
        return Scaling(self.mean + share * delta, square, jnp.minimum(total, keep))


def no_scaling(size: int) -> Scaling:
    """A scaling that leaves observations unchanged.

    Its sample count is large enough that a few equal observations do not give a very small spread.
    """
    return Scaling(jnp.zeros(size), jnp.ones(size), jnp.asarray(_PRIOR_SAMPLES))
