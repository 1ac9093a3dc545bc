"""Settings of the methods that train by windows. Knows no JAX: a study is read before anything is compiled."""

import dataclasses
import math

from dso_robotics.errors import DsoError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings. environments play windows of `horizon` control steps `iterations` times.

    gamma: discount a control step. lam: of the critic's targets. learning_rate: of theta, falling linearly to `final_rate`
    of it; `rates` replaces it for named blocks. clip: largest norm of the gradient of a block. critic_*: network, step size,
    updates an iteration and states an update. target: how much of the new critic the slow one, which makes the targets,
    takes on. noise_end: standard deviation of the actions at the end, reached geometrically. soften: how many times as long as
    the model's the contacts of the first iteration push; it falls geometrically to 1. restart:
    share of windows that start anew, of which `explore` from the wide distribution. episode: control steps after which an
    environment starts anew in any case. abandon: a window whose mean cost a step is above this starts anew: there is little to
    learn from lying on the floor. method: of `core.method.TRAINING`; of those that step in action space, updates: on a
    window's surrogate (pco) or of the conjugate gradients (natural), and divergence: the mean KL that an iteration may move the
    policy by.
    """

    environments: int = 64
    horizon: int = 32
    iterations: int = 450
    gamma: float = 0.99
    lam: float = 0.95
    learning_rate: float = 2e-3
    final_rate: float = 0.1
    rates: tuple[tuple[str, float], ...] = ()
    clip: float = 1.0
    critic_hidden: int = 64
    critic_rate: float = 1e-3
    critic_updates: int = 16
    critic_batch: int = 512
    target: float = 0.2
    noise_end: float = 0.05
    soften: float = 1.0
    restart: float = 0.1
    explore: float = 0.7
    abandon: float = math.inf
    episode: int = 1000
    groups: int = 4
    method: str = "pathwise"
    updates: int = 20
    divergence: float = 0.02

    def __post_init__(self) -> None:
        for name in (
            "environments",
            "horizon",
            "iterations",
            "critic_hidden",
            "critic_updates",
            "critic_batch",
            "episode",
            "updates",
        ):
            if getattr(self, name) < 1:
                raise DsoError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "final_rate", "clip", "critic_rate", "noise_end", "divergence"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise DsoError(f"{name}: expected a positive number, got {getattr(self, name)}.")
        if not 1.0 <= self.soften < 100.0:
            raise DsoError(f"soften: expected a factor from 1 (contacts as they are) to 100, got {self.soften}.")
        if not self.abandon > 0:
            raise DsoError(f"abandon: expected a positive cost, got {self.abandon}.")
        for name in ("gamma", "lam", "target", "restart", "explore"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DsoError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}.")
        if not self.gamma < 1.0:
            raise DsoError("gamma: the critic's value is finite only for a discount below 1; take 0.99, say.")
        if self.environments % self.groups:
            raise DsoError(f"environments: expected a multiple of {self.groups}, got {self.environments}.")

    @property
    def steps(self) -> int:
        """Control steps of all iterations."""
        return self.environments * self.horizon * self.iterations
