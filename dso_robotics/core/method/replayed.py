"""The pathwise gradient of windows that are simulated elsewhere, such as in C MuJoCo, with the derivative of every step.

The simulator plays a window and linearises its steps. The chain along this record has the same states and derivatives, so
cost, critic and policy are differentiated as in `short_horizon`. Only they are compiled.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from dso_robotics.core.chain import Chain, State
from dso_robotics.core.method.learner import Learner
from dso_robotics.core.method.played import Played, PlayedCourse
from dso_robotics.core.method.short_horizon import ShortHorizon


class RecordedCourse(PlayedCourse):
    """A course whose windows are simulated elsewhere, with derivatives."""

    @abc.abstractmethod
    def record(self, theta: Array, memory: Any, states: State, new: Any, noise: Any, progress: float) -> Any:
        """Simulate windows that begin at `states` (E, ...), placed where `new`. Leaves of the record have the axis E."""

    @abc.abstractmethod
    def replayed(self, chain: Any, record: Any) -> Chain:
        """The chain along one record, differentiable."""


class Replayed(Played, ShortHorizon):
    """`Played` windows with derivatives that the simulator computes."""

    reason = "C MuJoCo needs no compilation of the physics, and linearises each step"
    course: RecordedCourse

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        shape = self.settings.environments, self.settings.horizon, self.course.noises
        self._noise: Any = eqx.filter_jit(lambda key: jax.random.normal(jax.random.split(key)[1], shape))

    def play(self, learner: Learner) -> Any:
        """See `Played`: the records of the windows."""
        progress = int(learner.iteration) / self.settings.iterations
        new = np.asarray(learner.age) == 0
        noise = np.asarray(self._noise(learner.key))
        return self.course.record(learner.theta, learner.memory, learner.states, new, noise, progress)

    def learned(self, learner: Learner, windows: Any) -> tuple[Learner, tuple[Array, ...]]:
        """See `Played`."""
        key, roll_key = jax.random.split(learner.key)
        progress = learner.iteration / self.settings.iterations
        gradients, paths = self._gradients(learner, roll_key, progress, windows)
        return self._stepped(learner, key, paths, gradients, progress)
