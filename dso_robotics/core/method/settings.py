"""Settings of the methods that train by windows. Imports no JAX, so a study can be read before anything is compiled."""

import dataclasses
import math

from dso_robotics.errors import DsoError

# The fraction of a training after which contacts have the model's own stiffness, and `horizons` have come to the last.
SMOOTHED = 0.7
# Methods that differentiate through the steps of the chain and by no score. They also train on recorded windows of C MuJoCo.
THROUGH_THE_CHAIN = ("pathwise", "adaptive_horizon", "model_design")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of training by windows.

    environments: number of environments, each of which simulates one window per iteration.
    horizon: control steps in a window.
    iterations: number of iterations.
    gamma: discount per control step.
    lam: lambda of the critic's TD(lambda) targets.
    learning_rate: step size of theta. It falls linearly to `final_rate` times its start value.
    rates: step sizes for named blocks, instead of `learning_rate`.
    clip: largest norm of the gradient of a block.
    critic_hidden, critic_rate, critic_updates, critic_batch: network, step size, updates per iteration and states per update
      of the critic.
    critic: what the critic is fitted to: "value", or "gradient", the derivative of the cost to come by the state (pathwise,
      adaptive_horizon).
    target: fraction by which the slow critic, which makes the targets, moves to the new critic.
    noise_end: standard deviation of the actions at the end; it changes geometrically.
    soften: contact time of the first iteration, as a multiple of the model's; it falls geometrically to 1.
    horizons: for pathwise and mixed: after how many steps the derivative is closed with the critic, at first and once contacts
      are as stiff as the model's; it changes geometrically with `soften`. Empty: `horizon` steps throughout.
    restart: fraction of windows that restart.
    explore: fraction of those restarts that are drawn from the wide distribution.
    episode: control steps after which an environment always restarts.
    abandon: a window restarts if its mean cost per step is above this. A robot lying on the floor learns little.
    method: a name in `core.method.TRAINING`.
    groups: groups of environments, whose gradients tell how much the mean of all scatters.
    updates: for methods in action space: updates of a batch's surrogate (pco, ppo, chain_iteration), or conjugate-gradient
      iterations (natural).
    divergence: for methods in action space: the mean KL by which an iteration may move the policy.
    trust_region: for natural and newton: whether half of the windows judge the step of the other half. They are played again
      with the new policy; the step is accepted, and the next one's length chosen, by the actual over the predicted reduction.
    variance: for `adaptive_horizon`: the largest variance of the gradient, as a share of its squared norm.
    replay: for methods with a replay (sac, td3, ddpg, nfqca, fitted_q, amortised_q): how many transitions it keeps.
    warmup: control steps before the first update.
    ratio: updates of critic and policy per control step.
    polyak: fraction by which the slow networks move to the new ones in an update.
    basepoints: for fitted_q and amortised_q: transitions of the replay at which the greedy action is solved for in an
      iteration.
    solver_steps: steps of that solver from each of its starts.
    window: for amortised_q: for how many iterations the policy is fitted to a solved action.
    temperature: weight of the entropy (sac), in units of the cost. None: found for an entropy of minus one per actuator.
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
    critic: str = "value"
    critic_hidden: int = 64
    critic_rate: float = 1e-3
    critic_updates: int = 16
    critic_batch: int = 512
    target: float = 0.2
    noise_end: float = 0.05
    soften: float = 1.0
    horizons: tuple[int, ...] = ()
    restart: float = 0.1
    explore: float = 0.7
    abandon: float = math.inf
    episode: int = 1000
    groups: int = 4
    method: str = "pathwise"
    updates: int = 20
    divergence: float = 0.02
    trust_region: bool = False
    variance: float = 0.3
    replay: int = 200_000
    warmup: int = 1000
    ratio: float = 1.0
    polyak: float = 0.005
    basepoints: int = 1024
    solver_steps: int = 20
    window: int = 5
    temperature: float | None = None

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
            "replay",
            "basepoints",
            "solver_steps",
            "window",
        ):
            if getattr(self, name) < 1:
                raise DsoError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name in (
            "learning_rate",
            "final_rate",
            "clip",
            "critic_rate",
            "noise_end",
            "divergence",
            "variance",
            "ratio",
        ):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise DsoError(f"{name}: expected a positive number, got {getattr(self, name)}.")
        if self.critic not in ("value", "gradient"):
            raise DsoError(f"critic: expected 'value' or 'gradient', got {self.critic!r}.")
        if not 1.0 <= self.soften < 100.0:
            raise DsoError(f"soften: expected a factor from 1 (contacts as they are) to 100, got {self.soften}.")
        if self.horizons and not (len(self.horizons) == 2 and all(1 <= h <= self.horizon for h in self.horizons)):
            raise DsoError(
                f"horizons: expected two numbers of steps, the first and the last, from 1 to horizon = {self.horizon}, got "
                f"{list(self.horizons)}."
            )
        if not self.abandon > 0:
            raise DsoError(f"abandon: expected a positive cost, got {self.abandon}.")
        for name in ("gamma", "lam", "target", "restart", "explore", "polyak"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DsoError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}.")
        if self.warmup < 0:
            raise DsoError(f"warmup: expected at least 0, got {self.warmup}.")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0.0):
            raise DsoError(f"temperature: expected a number from 0, got {self.temperature}.")
        if not self.gamma < 1.0:
            raise DsoError("gamma: the critic's value is finite only for a discount below 1; take 0.99, say.")
        if self.environments % self.groups:
            raise DsoError(f"environments: expected a multiple of {self.groups}, got {self.environments}.")

    @property
    def played(self) -> int:
        """Control steps of one iteration. A trust region plays its windows twice."""
        return self.environments * self.horizon * (2 if self.trust_region else 1)

    @property
    def steps(self) -> int:
        """Control steps of all iterations together."""
        return self.played * self.iterations
