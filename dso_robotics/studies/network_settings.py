"""What a study's `[network]` table may say."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import nearest
from dso_robotics.robot.joint_network import INPUTS

_EXAMPLES = {
    "joints": 'joints = ["*"]',
    "inputs": 'inputs = ["velocity"]',
    "hidden": "hidden = [48, 48]",
    "iterations": "iterations = 300",
    "batch": "batch = 32",
}


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """joints: names (with wildcards); inputs: what the torque may depend on, of `joint_network.INPUTS`.

    hidden: widths of the layers; iterations, batch: steps of Adam and windows a step.
    """

    joints: tuple[str, ...] = ("*",)
    inputs: tuple[str, ...] = ("velocity",)
    hidden: tuple[int, ...] = (48, 48)
    iterations: int = 300
    batch: int = 32

    @staticmethod
    def read(keys: Mapping[str, Any]) -> "NetworkSettings":
        """Settings from a study's `[network]` table. Raises DsoError for an unknown key or an impossible value."""
        known = {f.name for f in dataclasses.fields(NetworkSettings)}
        for key, value in keys.items():
            if key not in known:
                raise DsoError(f"network: unknown key '{key}'; it has {nearest(key, sorted(known), len(known))}.")
            kind = str if key in ("joints", "inputs") else int
            entries = value if isinstance(value, list | tuple) else [value]
            sound = all(isinstance(v, kind) and not isinstance(v, bool) for v in entries) and len(entries) > 0
            if not sound or isinstance(value, list | tuple) != (key in ("joints", "inputs", "hidden")):
                raise DsoError(f"network: {key} = {value!r} is not what it takes; for example {_EXAMPLES[key]}.")
            if kind is int and not all(1 <= v <= 100_000 for v in entries):
                raise DsoError(f"network: {key} = {value!r} must lie between 1 and 100,000.")
        for name in keys.get("inputs", ()):
            if name not in INPUTS:
                raise DsoError(f"network: inputs has '{name}'; a network may look at {', '.join(INPUTS)}.")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in keys.items()}
        return NetworkSettings(**given)
