"""The tables of a training study on what is read, and on the estimator."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from dso_robotics.robot.corrector import CORRECTORS
from dso_robotics.table import Table, key, make


@dataclasses.dataclass(frozen=True)
class SensorsTable(Table):
    """The readings that the estimator corrects with and the policy may observe: scale * sensor + bias + noise. A list of
    names in the place of the table is its `channels`.
    """

    channels: tuple[str, ...] | None = key("sensors or channels that are read; none: all", None, example=["encoder"])
    noise: Mapping[str, float] = key(
        'standard deviation by channel, in its unit; "*" for all others', {}, within="(0, inf)",
        example={"encoder": 0.001},
    )  # fmt: skip


def sensors_table(given: Any) -> SensorsTable | None:
    """The table, or a list of channels in its place."""
    if given is None or isinstance(given, SensorsTable):
        return given
    return make(SensorsTable, given if isinstance(given, Mapping) else {"channels": given}, "[sensors] ")


@dataclasses.dataclass(frozen=True)
class EstimatorTable(Table):
    """A predictor-corrector filter in the loop. It starts as the Kalman filter of the model at the start state."""

    corrector: str = key(
        "how innovations move the prediction (kalman: only in dso estimate)", "gain", choices=CORRECTORS
    )
    units: int = key("units of the correctors mlp and recurrent", 8, within="[1, 1000]")
    model: Literal["world", "own", "nominal"] = key(
        "physical parameters it predicts with. world: those of theta; own: a block of its own, found besides; nominal: those "
        "of the model file. What is randomised it does not know",
        "world",
    )
    error: float | None = key(
        "standard deviation of the estimate's error at the start of windows from [explore]; none: the start's spread",
        None, unit="rad, m, rad/s, m/s", within="[0, inf)", example=0.05,
    )  # fmt: skip
