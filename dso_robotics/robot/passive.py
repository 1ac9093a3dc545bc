"""The passive chain of a robot: its dynamics under noise alone, x' = f(x, noise) (97)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.chain import Chain
from dso_robotics.robot import noise as noises
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState, Theta


class PassiveChain(Chain):
    """x' = f(x, noise) of equation (97), without a policy. Every parameter is fixed at `frozen`; theta is not used.

    Without noise, the control is zero, clipped to each actuator's range. For a muscle with range 0 to 1 it is 0, not 0.5.
    """

    chain: RobotSystem
    frozen: Theta

    def initial(self, key: PRNGKeyArray, theta: Theta) -> RobotState:
        """A start of the robot's chain."""
        return self.chain.initial(key, self.frozen)

    def draw(self, key: PRNGKeyArray, theta: Theta, steps: int) -> Array:
        """Noise drawn as by the robot's chain."""
        return self.chain.draw(key, self.frozen, steps)

    def move(self, noise: Float[Array, " nu"], state: RobotState, theta: Theta) -> RobotState:
        """f(x, scale noise)."""
        nu, mean = self.chain.mj.nu, noises.passive_mean(self.chain.squash)
        action = mean + jnp.exp(self.chain.noise_scale(self.frozen)) * noise[:nu]
        if self.chain.sensing is None:
            return self.chain.play(action, state.memory, state, self.frozen)
        return self.chain.play(action, state.memory, state, self.frozen, intended=mean, noise=noise[nu:])

    def step(self, key: PRNGKeyArray, state: RobotState, theta: Theta) -> RobotState:
        """f(x, scale noise) with fresh noise."""
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def drift(self, state: RobotState, theta: Theta) -> RobotState:
        """f(x, 0)."""
        return self.chain.play(noises.passive_mean(self.chain.squash), state.memory, state, self.frozen)

    def cost(self, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """The scene's cost."""
        return self.chain.scene_cost(self.chain.scene(state, self.frozen))

    def log_prob(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """Log-density of the noise that was applied."""
        deviation = following.action - noises.passive_mean(self.chain.squash)
        return noises.log_density(deviation, self.chain.noise_scale(self.frozen))

    def scored(self, theta: Theta) -> np.ndarray:
        """All False: no entry of theta affects this chain."""
        return np.zeros(np.shape(theta)[0], bool)

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether the state diverged, as for the robot's chain."""
        return self.chain.diverged(state)
