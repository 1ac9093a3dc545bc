"""A policy as JSON, for a runner in another program."""

import dataclasses

from dso_robotics.report.export.deployed import policy_of, source_of
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.robot.policy_json import policy_json


@FORMATS.register("json")
@dataclasses.dataclass(frozen=True)
class Json(Format):
    """Names, order and scaling of what the policy sees, its layers, squash, delay, period and memory."""

    commands = ("train", "design")
    filename = "policy.json"
    about = "the policy: names, order, scaling, layers, squash, delay, period"

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        numbers = policy_of(result).numbers
        notes = []
        if numbers.on_estimate:
            notes.append(
                "The policy sees the estimate of the training's estimator, which is not in this file; --to c has it."
            )
        return Export({name: policy_json(numbers, source=source_of(result))}, notes)
