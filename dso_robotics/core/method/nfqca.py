"""NFQCA: fitted Q iteration whose greedy action is a policy that descends the new Q (Hafner and Riedmiller 2011)."""

from jaxtyping import PRNGKeyArray

from dso_robotics.core.experience import Experience
from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.off_policy import Player, Update
from dso_robotics.core.method.td3 import PolicyDescent


class FittedIteration(PolicyDescent):
    """One fit of Q to fixed targets in every iteration of the loop: those of Q and policy as the last iteration left them."""

    critics = 1

    @property
    def follows(self) -> float:
        """Targets stay as they are while Q is fitted to them."""
        return 0.0

    def renewed(self, key: PRNGKeyArray, at: Update, learner: Player, experience: Experience) -> Update:
        """Targets by the Q and the policy of the last iteration."""
        return Update(at.theta, at.optimiser, at.critic, at.critic, at.critic_optimiser, at.theta, at.spare)


@TRAINING.register("nfqca")
class NeuralFittedQ(FittedIteration):
    """NFQCA: `DeterministicPolicyGradient` with the targets of a whole iteration fixed, in the place of slow networks."""
