"""Training on windows that are played elsewhere, such as on C MuJoCo: only what learns from them is compiled."""

import abc
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain, State, covered
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.learner import Learner
from dso_robotics.core.method.windowed import Windowed
from dso_robotics.core.objective import Problem


class PlayedCourse(Course):
    """A course whose windows are simulated elsewhere, such as in C MuJoCo, and are not differentiated."""

    @property
    @abc.abstractmethod
    def noises(self) -> int:
        """How many standard normal numbers a step takes."""

    @abc.abstractmethod
    def noise(self, theta: Array, key: PRNGKeyArray, progress: Array, shape: tuple[int, int]) -> Array:
        """The noise of E windows of T steps, `shape` (E, T)."""

    @abc.abstractmethod
    def play(self, theta: Array, memory: Any, states: State, noise: Array) -> State:
        """Simulate the windows that begin at `states` (E, ...). Return states with leaves (E, T+1, ...)."""

    @abc.abstractmethod
    def of_the_policy(self, problem: Problem) -> Problem:
        """The problem with only the part of the cost that depends on theta at given states."""


class Played(Windowed):
    """`Windowed`, on windows that are played elsewhere. A method says how it plays them, and what it learns from them."""

    engine = "mujoco"

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self._learn: Any = eqx.filter_jit(self.learned)
        self._iterate = self._iterated

    @abc.abstractmethod
    def play(self, learner: Any) -> Any:
        """Play the next windows."""

    @abc.abstractmethod
    def learned(self, learner: Any, windows: Any) -> tuple[Learner, tuple[Array, ...]]:
        """The learner after these windows, and the entries of the record. It is compiled."""

    def compile(self, state: Learner) -> None:
        """Compile everything that a step compiles, by taking one step."""
        self._iterated(state)

    def _iterated(self, learner: Learner) -> tuple[Learner, tuple[Array, ...]]:
        return self._learn(learner, self.play(learner))


class Undifferentiated(Played):
    """`Played` windows without derivatives. Theta is learned from which actions were taken, and what they cost."""

    supervises, constrains = False, False

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.placed: Any = eqx.filter_jit(self._placed)

    @staticmethod
    def entries(method: str, chain: Chain, theta: Float[Array, " n"], moved: np.ndarray | None = None) -> np.ndarray:
        """All entries. Raises DsoError if one does more than choose the action: nothing tells how the cost depends on it."""
        return covered(chain, theta)

    def _placed(self, learner: Learner) -> State:
        """The first states of the next windows, (E, ...)."""
        put = jax.vmap(lambda state, new: self.course.placed(self.course.chain, state, new, learner.theta))
        return put(learner.states, learner.age == 0)
