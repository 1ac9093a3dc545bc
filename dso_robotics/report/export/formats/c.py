"""A policy, an estimator or both as one C99 header."""

import dataclasses
from pathlib import PurePath

from dso_robotics.data.bundle import bundled_flat
from dso_robotics.physics.export import to_mjcf
from dso_robotics.report.export.deployed import estimator_of, policy_of, source_of
from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.robot.estimator_c import estimator_header
from dso_robotics.robot.policy_c import policy_header


@FORMATS.register("c")
@dataclasses.dataclass(frozen=True)
class CHeader(Format):
    """A policy needs nothing but the C library; an estimator MuJoCo's C API, and the model that is written beside it."""

    commands = ("train", "design", "estimate")
    filename = "deployed.h"
    about = "the policy and the estimator as a C99 header (of MuJoCo's C API)"

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        parts, files, notes, source = [], {}, [], source_of(result)
        if result.command != "estimate":
            policy = policy_of(result)
            parts.append(policy_header(policy.numbers, source=source))
        if "estimator" in result.tree:
            estimator, model = estimator_of(result), f"{PurePath(name).stem}.xml"
            assert estimator.robot is not None
            text, files = bundled_flat(to_mjcf(estimator.robot, {}))
            files = {model: text, **files}
            parts.append(estimator_header(estimator, model, source=source))
            notes.append(f"The estimator loads {', '.join(files)}: keep them beside each other.")
        return Export({name: "\n".join(parts), **files}, notes)
