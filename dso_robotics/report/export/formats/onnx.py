"""A policy as an ONNX model."""

import dataclasses
from typing import Literal

from dso_robotics.report.export.deployed import policy_of, source_of
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.robot.policy_onnx import policy_onnx, rounding
from dso_robotics.table import key


@FORMATS.register("onnx")
@dataclasses.dataclass(frozen=True)
class Onnx(Format):
    """Memory, delayed actions and time are inputs and outputs; names and period are in the metadata."""

    commands = ("train", "design")
    filename = "policy.onnx"
    about = "the policy as an ONNX model, opset 17; needs the extra [onnx]"

    precision: Literal["float64", "float32"] = key("of its numbers; what float32 loses is told", "float64")

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        numbers = policy_of(result).numbers
        model = policy_onnx(numbers, source=source_of(result), precision=self.precision)
        error = rounding(numbers, model)
        notes = [
            f"In {self.precision} controls differ from Python's by at most {error:.1g} of half their range, in 1,000 steps "
            "on random observations."
        ]
        if numbers.on_estimate:
            notes.append(
                "The policy sees the estimate of the training's estimator, which is not in this file; --to c has it."
            )
        return Export({name: model}, notes)
