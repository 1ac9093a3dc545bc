"""What a policy sees: the state as smooth numbers, or named sensors; then scaled by means and spreads that are kept fixed."""

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
    """A scene to a vector (size,), named entry by entry."""

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each entry is."""

    @abc.abstractmethod
    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """The vector."""

    @property
    def size(self) -> int:
        """Its length."""
        return len(self.names)


class StateObservation(Observation):
    """Positions, velocities and activations; sine and cosine of hinges without limits, as their angle has no end.

    plain: entries of qpos given as they are; turning: those given as sine and cosine.
    """

    plain: tuple[int, ...] = eqx.field(static=True)
    turning: tuple[int, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Joints by name."""
        return self.labels

    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """Plain positions, sines, cosines, velocities, activations."""
        state = scene.state
        angles = state.qpos[np.array(self.turning, int)]
        return jnp.concatenate(
            [state.qpos[np.array(self.plain, int)], jnp.sin(angles), jnp.cos(angles), state.qvel, state.act]
        )


def state_observation(robot: Robot, *, leave_out: Sequence[str] = ()) -> StateObservation:
    """The whole state of `robot`; the positions of the joints in `leave_out` are not seen (a runner's distance so far).

    Raises:
      DsoError: there is no joint of a name in `leave_out`.
    """
    return StateObservation(*state_entries(robot, leave_out))


class SensorObservation(Observation):
    """Named sensors of the model; `columns` are their places in sensordata."""

    columns: tuple[int, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Sensors by name."""
        return self.labels

    def __call__(self, scene: Scene) -> Float[Array, " size"]:
        """The readings, at the control that led here."""
        return scene.sensors[np.array(self.columns, int)]


def sensor_observation(robot: Robot, sensors: Sequence[str]) -> SensorObservation:
    """The named sensors of `robot`, in the order given.

    Raises:
      DsoError: none is named, or the model has no such sensor.
    """
    return SensorObservation(*sensor_entries(robot, sensors))


class Scaling(eqx.Module):
    """Running mean and spread of an observation, constants as far as any derivative is concerned."""

    mean: Float[Array, " size"]
    square: Float[Array, " size"]
    count: Float[Array, ""]

    def __call__(self, observation: Float[Array, " size"]) -> Float[Array, " size"]:
        """Scaled to about zero mean and unit spread; a spread below a thousandth counts as that."""
        return (observation - self.mean) / self.spread

    @property
    def spread(self) -> Float[Array, " size"]:
        """Standard deviation (size,)."""
        return jnp.sqrt(jnp.maximum(self.square, 1e-6))

    def updated(self, batch: Float[Array, "N size"], *, keep: float = 1e7) -> "Scaling":
        """With the observations of one more batch; older ones are forgotten beyond `keep`."""
        number = batch.shape[0]
        total = self.count + number
        mean = jnp.mean(batch, axis=0)
        share = number / total
        delta = mean - self.mean
        variance = jnp.mean((batch - mean) ** 2, axis=0)
        square = (1 - share) * self.square + share * variance + share * (1 - share) * delta**2
        return Scaling(self.mean + share * delta, square, jnp.minimum(total, keep))


def no_scaling(size: int) -> Scaling:
    """Observations as they are; counted as so many samples that a few equal ones do not make a tiny spread."""
    return Scaling(jnp.zeros(size), jnp.ones(size), jnp.asarray(_PRIOR_SAMPLES))
