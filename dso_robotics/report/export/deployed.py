"""The policy and the estimator of a finished run, for formats that bring them elsewhere."""

from dso_robotics.report.export.finished import Finished
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.estimator import Estimator


def policy_of(result: Finished) -> Policy:
    """The policy. Raises DsoError when there is none that runs without the training."""
    return Policy.load(result.folder)


def estimator_of(result: Finished) -> Estimator:
    """The estimator. Raises DsoError when there is none."""
    return Estimator.load(result.folder)


def source_of(result: Finished) -> str:
    """What made it, in a few words."""
    return f"result of dso {result.command} in {result.folder.resolve().name}"
