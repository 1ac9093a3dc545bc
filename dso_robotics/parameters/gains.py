"""Numbers of controllers: what turns signals into the control of an actuator whose control was not recorded."""

import dataclasses

import numpy as np

# The signal that is one.
BIAS = "bias"


@dataclasses.dataclass(frozen=True, eq=False)
class Gains:
    """G numbers, each the factor of one signal in the control of one actuator.

    actuators, signals: (G,) their names; units: (G,) of the numbers, control over signal; values, scales: (G,) what they are
    where nothing frees them, and typical sizes. In a vector they are one array, `controller_gain`.
    """

    actuators: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    scales: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.actuators)

    def names(self) -> list[str]:
        """ACTUATOR/SIGNAL of each, as it stands behind `controller/` in a path, nothing escaped."""
        return [f"{a}/{s}" for a, s in zip(self.actuators, self.signals, strict=True)]


NO_GAINS = Gains()
