"""A trained policy in NumPy: observation, action and control. The JAX versions are in policy.py and brain.py."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TEXTS, _INTEGERS = ("labels", "ctrl_names", "tasks"), ("hidden", "plain", "turning", "columns")
_COUNTS = ("units", "features", "delay", "nq", "nv", "na")
_KINDS, _MOST = ("linear", "network", "brain", "gated"), 1_000_000
_ARRAYS = ("weights", "mean", "spread", "middle", "half", "shift", "gain", "task_low", "task_high", "task_first")


@dataclass(frozen=True, eq=False)
class PolicyNumbers:
    """All data of a policy except its memory.

    kind: "linear", "network" (tanh layers of widths `hidden`), "brain" or "gated" (`units` recurrent units).
    weights: flat vector.
    features: number of time features, 0 for none.
    clock: time that the time features cover [s].
    cyclic: whether `clock` is a period.
    mean, spread: of the observation, (inputs,).
    plain, turning: entries of qpos observed directly, and those observed as sine and cosine.
    columns: positions in sensordata, if the policy observes sensors instead.
    labels: names of the robot's observed values, in order.
    tasks: names of the task numbers, with the ends of their ranges and their initial values, (k,).
    middle, half, limited: centre and half-width of each control's range, and whether it has one, (nu,).
    shift, gain: z = shift + gain action; the control is middle + half tanh(z), or z without a range, (nu,).
    step: largest change of each control in a control step, infinite without a limit, (nu,).
    period: length of a control step [s].
    delay: number of control steps until an action acts.
    nq, nv, na: sizes of the model.
    on_estimate: whether the state that it observes is an estimator's.
    """

    kind: str
    weights: np.ndarray
    hidden: tuple[int, ...]
    units: int
    features: int
    clock: float
    cyclic: bool
    mean: np.ndarray
    spread: np.ndarray
    plain: tuple[int, ...]
    turning: tuple[int, ...]
    columns: tuple[int, ...]
    labels: tuple[str, ...]
    tasks: tuple[str, ...]
    task_low: np.ndarray
    task_high: np.ndarray
    task_first: np.ndarray
    ctrl_names: tuple[str, ...]
    middle: np.ndarray
    half: np.ndarray
    shift: np.ndarray
    gain: np.ndarray
    step: np.ndarray
    limited: np.ndarray
    period: float
    delay: int
    nq: int
    nv: int
    na: int
    on_estimate: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"a policy of kind {self.kind!r}, which is none of {', '.join(_KINDS)}")
        counts = [getattr(self, name) for name in _COUNTS] + list(self.hidden)
        if not all(0 <= count <= _MOST for count in counts):
            raise ValueError(f"counts of {counts}, where 0 to {_MOST:,} belong")
        places = {"plain": self.nq, "turning": self.nq, "columns": _MOST}
        if any(not 0 <= place < size for name, size in places.items() for place in getattr(self, name)):
            raise ValueError("an observed entry that the state or the sensors do not have")
        if not (0 < self.period < math.inf and (not self.features or 0 < self.clock < math.inf)):
            raise ValueError(f"a control step of {self.period:g} s and a clock of {self.clock:g} s")
        if any(not np.isfinite(getattr(self, name)).all() for name in _ARRAYS) or (self.spread == 0).any():
            raise ValueError("a number that is not finite, or a spread of zero")
        nu = len(self.ctrl_names)
        for name in ("middle", "half", "shift", "gain", "step", "limited"):
            if getattr(self, name).shape != (nu,):
                raise ValueError(f"{name} of shape {getattr(self, name).shape} for {nu} controls")
        if not (self.step > 0).all():
            raise ValueError("a limit of the rate that is not positive")
        if any(getattr(self, name).shape != (len(self.tasks),) for name in ("task_low", "task_high", "task_first")):
            raise ValueError(f"task numbers whose ranges are not those of {len(self.tasks)} tasks")
        sights = len(self.columns) or len(self.plain) + 2 * len(self.turning) + self.nv + self.na
        if len(self.labels) != sights:
            raise ValueError(f"{len(self.labels)} names of {sights} observed values")
        seen = len(self.labels) + len(self.tasks)
        wanted = sum(math.prod(shape) for shape in self.shapes)
        if self.weights.shape != (wanted,) or self.mean.shape != (seen,) or self.spread.shape != (seen,):
            raise ValueError(f"{len(self.weights)} weights for {seen} inputs, where {wanted} belong")

    @property
    def inputs(self) -> int:
        """Number of inputs that the weights act on: observation and time features."""
        return len(self.labels) + len(self.tasks) + (2 * self.features if self.cyclic else self.features)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the matrices and offsets, in their order in `weights`."""
        ins, outs, units = self.inputs, len(self.ctrl_names), self.units
        if self.kind in ("brain", "gated"):
            inner = [(units, ins), (units, units), (units,)] * (2 if self.kind == "gated" else 1)
            return [*inner, (outs, units), (outs, ins), (outs,)]
        widths = (ins, *(self.hidden if self.kind == "network" else ()), outs)
        return [shape for a, b in itertools.pairwise(widths) for shape in ((b, a), (b,))]

    @property
    def memory(self) -> int:
        """Length of the memory."""
        return self.units if self.kind in ("brain", "gated") else 0

    def split(self) -> list[np.ndarray]:
        """The weights as matrices and offsets."""
        ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes))
        return [part.reshape(s) for part, s in zip(np.split(self.weights, ends[:-1]), self.shapes, strict=True)]

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, act: np.ndarray) -> np.ndarray:
        """The observation of a state, (len(labels),)."""
        angles = qpos[list(self.turning)]
        return np.concatenate([qpos[list(self.plain)], np.sin(angles), np.cos(angles), qvel, act])

    def decide(
        self, parts: Sequence[np.ndarray], seen: np.ndarray, memory: np.ndarray, task: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The action (nu,) before squashing, and the next memory.

        parts: the result of `split`.
        task: (k,).
        time: [s].
        """
        half = (self.task_high - self.task_low) / 2
        normal = (task - (self.task_high + self.task_low) / 2) / np.where(half > 0, half, 1.0)
        x = (np.concatenate([seen, normal]) - self.mean) / self.spread
        x = np.concatenate([x, self._time(time)]) if self.features else x
        if self.kind in ("brain", "gated"):
            return self._recurrent(parts, x, memory)
        for matrix, offset in zip(parts[:-2:2], parts[1:-2:2], strict=True):
            x = np.tanh(matrix @ x + offset)
        return parts[-2] @ x + parts[-1], memory

    def squash(self, action: np.ndarray) -> np.ndarray:
        """The control (nu,) for an action, without the limit of its rate."""
        z = self.shift + self.gain * action
        return np.where(self.limited, self.middle + self.half * np.tanh(z), z)

    def led(self, action: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The control (nu,) for an action after the control `before`: no further away than `step`."""
        ctrl = self.squash(action)
        return before + np.clip(ctrl - before, -self.step, self.step) if self.slow else ctrl

    @property
    def slow(self) -> bool:
        """Whether a control has a limit of its rate."""
        return bool(np.isfinite(self.step).any())

    @property
    def home(self) -> np.ndarray:
        """The control (nu,) of an action of zero."""
        return self.squash(np.zeros(len(self.ctrl_names)))

    def _time(self, time: float) -> np.ndarray:
        if self.cyclic:
            phase = 2 * np.pi * time / self.clock * np.arange(1, self.features + 1)
            return np.concatenate([np.sin(phase), np.cos(phase)])
        centres = self.clock * (np.arange(self.features) + 0.5) / self.features
        return np.exp(-0.5 * ((time - centres) * self.features / self.clock) ** 2)

    def _recurrent(
        self, parts: Sequence[np.ndarray], x: np.ndarray, memory: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        *inner, w_out, w_direct, offset = parts
        units = np.tanh(inner[0] @ x + inner[1] @ memory + inner[2])
        if self.kind == "gated":
            gate = 0.5 + 0.5 * np.tanh(0.5 * (inner[3] @ x + inner[4] @ memory + inner[5]))
            units = (1.0 - gate) * memory + gate * units
        return w_out @ units + w_direct @ x + offset, units

    def as_dict(self) -> dict[str, Any]:
        """Arrays, numbers and strings by name, as a file stores them. Empty lists of strings are left out."""
        found: dict[str, Any] = {"kind": self.kind, "clock": self.clock, "cyclic": self.cyclic, "period": self.period}
        found["on_estimate"] = self.on_estimate
        found |= {name: list(texts) for name in _TEXTS if (texts := getattr(self, name))}
        found |= {name: np.array(getattr(self, name), int) for name in (*_INTEGERS, *_COUNTS)}
        return found | {name: getattr(self, name) for name in (*_ARRAYS, "limited", "step")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "PolicyNumbers":
        """The inverse of `as_dict`. Raises KeyError, TypeError or ValueError for invalid data."""
        parts: dict[str, Any] = {name: tuple(stored.get(name, ())) for name in _TEXTS}
        parts |= {name: tuple(int(n) for n in stored[name]) for name in _INTEGERS}
        parts |= {name: int(stored[name]) for name in _COUNTS}
        parts |= {name: np.asarray(stored[name], float) for name in _ARRAYS}
        return cls(
            kind=str(stored["kind"]),
            on_estimate=bool(stored.get("on_estimate", False)),
            clock=float(stored["clock"]),
            cyclic=bool(stored["cyclic"]),
            period=float(stored["period"]),
            limited=np.asarray(stored["limited"], bool),
            step=np.asarray(stored["step"], float),
            **parts,
        )
