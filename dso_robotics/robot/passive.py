"""The passive chain of a robot: its dynamics under noise alone, x' = f(x, noise) (97)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dso_robotics.core.finite import refuse
from dso_robotics.core.zlearning import Passive
from dso_robotics.robot import noise as noises
from dso_robotics.robot.system import RobotSystem
from dso_robotics.robot.system_state import RobotState, Theta


class PassiveChain(Passive):
    """x' = f(x, noise) of equation (97), without a policy: the baseline chain of Z-learning. Parameters stay at `frozen`.

    Without noise, the control is zero, clipped to each actuator's range. For a muscle with range 0 to 1 it is 0, not 0.5.
    """

    chain: RobotSystem
    frozen: Theta

    def initial(self, key: PRNGKeyArray) -> RobotState:
        """A start of the robot's chain."""
        return self.chain.initial(key, self.frozen)

    def draw(self, key: PRNGKeyArray, steps: int) -> Array:
        """Noise drawn as by the robot's chain."""
        return self.chain.draw(key, self.frozen, steps)

    def move(self, noise: Float[Array, " nu"], state: RobotState) -> RobotState:
        """f(x, scale noise)."""
        nu, mean = self.chain.mj.nu, self.chain.squash.passive
        action = mean + jnp.exp(self.chain.noise_scale(self.frozen)) * noise[:nu]
        if self.chain.sensing is None:
            return self.chain.play(action, state.memory, state, self.frozen)
        return self.chain.play(action, state.memory, state, self.frozen, intended=mean, noise=noise[nu:])

    def step(self, key: PRNGKeyArray, state: RobotState) -> RobotState:
        """f(x, scale noise) with fresh noise."""
        return self.move(self.draw(key, 1)[0], state)

    def drift(self, state: RobotState) -> RobotState:
        """f(x, 0)."""
        return self.chain.play(self.chain.squash.passive, state.memory, state, self.frozen)

    def cost(self, state: RobotState) -> Float[Array, ""]:
        """The scene's cost."""
        return self.chain.scene_cost(self.chain.scene(state, self.frozen))

    def terminal(self, state: RobotState) -> Bool[Array, ""]:
        """Whether the state ends an episode of the robot's chain."""
        return self.chain.bind(self.frozen, state).terminal(state)

    def log_prob(self, following: RobotState, state: RobotState) -> Float[Array, ""]:
        """Log-density of the noise that was applied."""
        deviation = following.action - self.chain.squash.passive
        return noises.log_density(deviation, self.chain.noise_scale(self.frozen))

    def ratio(self, following: RobotState, state: RobotState, theta: Theta) -> Float[Array, ""]:
        """base(x'|x) / P(x'|x, theta) for a move of the robot's chain at theta, as `any_chain_target` takes it.

        Refused if theta's noise is so small that the ratio has no finite variance: then a few samples have all the weight.
        """
        scale, own = self.chain.noise_scale(self.frozen), self.chain.noise_scale(theta)
        ratio = jnp.exp(self.log_prob(following, state) - self.chain.log_prob(following, state, theta))
        return refuse(
            ratio,
            jnp.any(2.0 * own <= 2.0 * scale - jnp.log(2.0)),
            "ratio: the actions of the sampling chain have less than 0.71 of the passive chain's noise, so weighted samples "
            "have no finite variance. Sample with more noise, or from the passive chain.",
        )

    def diverged(self, state: RobotState) -> Bool[Array, ""]:
        """Whether the state diverged, as for the robot's chain."""
        return self.chain.diverged(state)
