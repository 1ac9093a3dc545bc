"""Controller gains: they compute the control of an actuator from signals when its control was not recorded."""

import dataclasses

import numpy as np

# The signal with the constant value 1.
BIAS = "bias"


@dataclasses.dataclass(frozen=True, eq=False)
class Gains:
    """G numbers, each the factor of one signal in the control of one actuator.

    actuators: (G,) actuator names.
    signals: (G,) signal names.
    units: (G,) units of the numbers, control over signal.
    values: (G,) values of the numbers that are not freed.
    scales: (G,) typical sizes.

    In a vector they are one array, `controller_gain`.
    """

    actuators: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    values: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    scales: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.actuators)

    def names(self) -> list[str]:
        """ACTUATOR/SIGNAL of each, as in a path after `controller/`, without escapes."""
        return [f"{a}/{s}" for a, s in zip(self.actuators, self.signals, strict=True)]


NO_GAINS = Gains()
