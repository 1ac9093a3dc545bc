"""The result of an estimator's training, as the run file stores it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dso_robotics.data.foot_contact import ContactReadings
from dso_robotics.robot.corrector import Corrector, Scales, make_corrector

# A longer pause than this [s], or one of more time steps, is no update.
LONGEST, MOST_STEPS = 3600.0, 100_000
# A Kalman filter predicts over at most this many time steps; after a longer pause it starts anew, from a wide prior.
MOST_PREDICTED = 2000


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of training: all that `Estimator` needs besides the model.

    scale, bias, delay: of the sensors, (ny,); delay in [s].
    sigma: noise scales, (ny,).
    spread: change of the noise scales with the state, (ny, nf); zero for none.
    addresses: positions of the channels in `sensordata`, (ny,).
    interval: time between updates [s], equal to `substeps` time steps.
    gate: share of right readings that the innovation gate lets in, such as 0.999; 0 for no gate.
    contacts: how feet that stand give readings of zero velocity; None without feet.
    """

    corrector: Corrector
    weights: np.ndarray
    scales: Scales
    scale: np.ndarray
    bias: np.ndarray
    delay: np.ndarray
    sigma: np.ndarray
    spread: np.ndarray
    covariance: np.ndarray | None
    names: tuple[str, ...]
    addresses: np.ndarray
    interval: float
    substeps: int
    gate: float = 0.0
    contacts: ContactReadings | None = None

    def as_dict(self) -> dict[str, Any]:
        """Arrays, numbers and strings by name, as the run file stores them."""
        c = self.corrector
        found: dict[str, Any] = {
            "corrector": c.kind,
            "sizes": np.array([c.k, c.ny, c.nf, c.units]),
            "scales": self.scales.as_dict(),
            "names": list(self.names),
        }
        for name in (
            "weights",
            "scale",
            "bias",
            "delay",
            "sigma",
            "spread",
            "addresses",
            "interval",
            "substeps",
            "gate",
        ):
            found[name] = getattr(self, name)
        if self.contacts is not None:
            found["contacts"] = self.contacts.as_dict()
        return found | ({} if self.covariance is None else {"covariance": self.covariance})

    @staticmethod
    def from_dict(stored: Mapping[str, Any]) -> "Learned":
        """The inverse of `as_dict`."""
        k, ny, nf, units = (int(n) for n in stored["sizes"])
        corrector = make_corrector(str(stored["corrector"]), k, ny, nf, units=max(units, 1))
        names = ("weights", "scale", "bias", "delay", "sigma", "spread")
        arrays = {name: np.asarray(stored[name], float) for name in names}
        learned = Learned(
            corrector=corrector,
            scales=Scales(**{name: np.asarray(value, float) for name, value in stored["scales"].items()}),
            covariance=np.asarray(stored["covariance"], float) if "covariance" in stored else None,
            names=tuple(stored["names"]),
            addresses=np.asarray(stored["addresses"], int),
            interval=float(stored["interval"]),
            substeps=int(stored["substeps"]),
            gate=float(stored["gate"]),
            contacts=ContactReadings.from_dict(stored["contacts"]) if "contacts" in stored else None,
            **arrays,
        )
        learned.check()
        return learned

    def check(self) -> None:
        """Raise ValueError for shapes or numbers that no training writes."""
        ny, nf = self.corrector.ny, self.corrector.nf
        shapes = {"weights": (self.corrector.size,), "spread": (ny, nf), "addresses": (ny,)}
        shapes |= dict.fromkeys(("scale", "bias", "delay", "sigma"), (ny,))
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, where {shape} belongs")
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name} has a number that is not finite")
        scales = self.scales.as_dict()
        if any(not np.isfinite(value).all() for value in scales.values()) or (scales["innovation"] <= 0).any():
            raise ValueError("a scale is not finite and positive")
        if self.contacts is not None:
            self.contacts.check(ny)
        if not 0 <= self.gate < 1:
            raise ValueError(f"a gate of {self.gate:g}, which is no share from 0 to below 1")
        if len(self.names) != ny or len(set(self.names)) != ny or not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"{len(self.names)} names for {ny} channels")
        if not (0 < self.interval <= LONGEST and 1 <= self.substeps <= MOST_STEPS):
            raise ValueError(f"an interval of {self.interval:g} s in {self.substeps} time steps")
        if (self.sigma <= 0).any() or (self.scale == 0).any() or (self.delay < 0).any() or (self.addresses < 0).any():
            raise ValueError("a sensor has no noise, no scale, a negative delay or no place")
