"""DDPG: the deterministic policy gradient with one critic."""

from dso_robotics.core.method import TRAINING
from dso_robotics.core.method.td3 import PolicyDescent


@TRAINING.register("ddpg")
class DeterministicPolicyGradient(PolicyDescent):
    """DDPG: one critic, a slow policy and a slow critic for the targets, normal noise on the actions."""

    critics = 1
