"""One report of how far a piece of work is."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Progress:
    """One report of the phase that is under way.

    stage: name of the phase.
    iteration: how many units of its work are done; 0 for a phase that is not counted.
    cost: cost at this iteration; NaN if there is none.
    seconds: time since the start of the run [s], earlier sessions of a resumed run included.
    steps: environment steps so far, in a training.
    episode_cost: cost of an episode on C MuJoCo, in a training.
    event: "begin", "at" (it came further), "wait" (nothing new, only time has passed) or "end".
    total: how many units there are; 0 if that is not known.
    at_most: whether the phase may be done before it comes to `total`.
    unit: what is counted.
    rate: units a second, over the last ones; NaN before the second.
    remaining: time until `total` at that rate [s]; NaN if it is not known.
    stage_seconds: time since the phase began [s].
    activity: "tracing", "lowering" or "compiling" while JAX does that, else empty.
    values: other numbers of this iteration, by name.
    """

    stage: str
    iteration: int = 0
    cost: float = math.nan
    seconds: float = 0.0
    steps: int = 0
    episode_cost: float = math.nan
    event: str = "at"
    total: int = 0
    at_most: bool = False
    unit: str = "iteration"
    rate: float = math.nan
    remaining: float = math.nan
    stage_seconds: float = 0.0
    activity: str = ""
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        parts = []
        if self.iteration or self.total:
            of = f" of {'at most ' if self.at_most else ''}{self.total:,}" if self.total else ""
            parts.append(f"{self.unit} {self.iteration:,}{of}")
        if self.steps:
            parts.append(f"{self.steps:,} steps")
        if math.isfinite(self.cost):
            parts.append(f"training cost {self.cost:.4g} a step" if self.steps else f"cost {self.cost:,.6g}")
        if math.isfinite(self.episode_cost):
            parts.append(f"episode on C MuJoCo {self.episode_cost:.5g}")
        if self.activity:
            parts.append(self.activity)
        if math.isfinite(self.rate) and self.event != "end":
            parts.append(_speed(self.rate, self.unit))
            if math.isfinite(self.remaining):
                parts.append(f"{'at most ' if self.at_most else ''}{duration(self.remaining)} left")
        end = f"done in {duration(self.stage_seconds)}" if self.event == "end" else duration(self.stage_seconds)
        return f"{self.stage}: {', '.join([*parts, end])}"

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON has them: numbers that are not known are null."""
        known = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        known["values"] = dict(self.values)
        return _finite(known)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _speed(rate: float, unit: str) -> str:
    return f"{rate:,.3g} a second" if rate >= 1 else f"{duration(1 / rate)} each" if rate > 0 else f"no {unit} yet"


def duration(seconds: float) -> str:
    """A time as a person says it: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
