"""The arithmetic of a trained policy in NumPy: what it sees, how it decides, what it plays (in JAX: policy.py, brain.py)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TEXTS, _INTEGERS = ("labels", "ctrl_names", "tasks"), ("hidden", "plain", "turning", "columns")
_COUNTS = ("units", "features", "delay", "nq", "nv", "na")
_ARRAYS = ("weights", "mean", "spread", "middle", "half", "task_low", "task_high", "task_first")


@dataclass(frozen=True, eq=False)
class PolicyNumbers:
    """All that a policy is besides what it remembers.

    kind: "linear", "network" (tanh layers of widths `hidden`), "brain" or "gated" (`units` recurrent units). weights: flat.
    features, clock [s], cyclic: how many numbers the time becomes (0: none), over which time, and whether that is a period.
    mean, spread: (inputs,) of what is seen. plain, turning: entries of qpos seen as they are, and as sine and cosine;
    columns: places in sensordata, where it sees sensors instead. labels: what is seen of the robot, in order. tasks: names of
    the numbers of a task, with the ends of their ranges and the value at first (k,). middle, half, limited: (nu,) of the
    controls. period [s]: of a control step. delay: control steps until an action acts. nq, nv, na: of the model.
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
    limited: np.ndarray
    period: float
    delay: int
    nq: int
    nv: int
    na: int

    def __post_init__(self) -> None:
        seen = len(self.labels) + len(self.tasks)
        wanted = sum(math.prod(shape) for shape in self.shapes)
        if self.weights.shape != (wanted,) or self.mean.shape != (seen,) or self.spread.shape != (seen,):
            raise ValueError(f"{len(self.weights)} weights for {seen} inputs, where {wanted} belong")

    @property
    def inputs(self) -> int:
        """How many numbers the weights act on: what is seen, and the time."""
        return len(self.labels) + len(self.tasks) + (2 * self.features if self.cyclic else self.features)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the matrices and offsets that `weights` holds one after the other."""
        ins, outs, units = self.inputs, len(self.ctrl_names), self.units
        if self.kind in ("brain", "gated"):
            inner = [(units, ins), (units, units), (units,)] * (2 if self.kind == "gated" else 1)
            return [*inner, (outs, units), (outs, ins), (outs,)]
        widths = (ins, *(self.hidden if self.kind == "network" else ()), outs)
        return [shape for a, b in itertools.pairwise(widths) for shape in ((b, a), (b,))]

    @property
    def memory(self) -> int:
        """How many numbers it remembers."""
        return self.units if self.kind in ("brain", "gated") else 0

    def split(self) -> list[np.ndarray]:
        """The weights as matrices and offsets."""
        ends = list(itertools.accumulate(math.prod(shape) for shape in self.shapes))
        return [part.reshape(s) for part, s in zip(np.split(self.weights, ends[:-1]), self.shapes, strict=True)]

    def observe(self, qpos: np.ndarray, qvel: np.ndarray, act: np.ndarray) -> np.ndarray:
        """What is seen of a state (len(labels),)."""
        angles = qpos[list(self.turning)]
        return np.concatenate([qpos[list(self.plain)], np.sin(angles), np.cos(angles), qvel, act])

    def decide(
        self, parts: Sequence[np.ndarray], seen: np.ndarray, memory: np.ndarray, task: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The action (nu,) before squashing, and the next memory; parts: of `split`, task (k,), time [s]."""
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
        """The control (nu,) that an action becomes."""
        return np.where(self.limited, self.middle + self.half * np.tanh(action), action)

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
        """Arrays, numbers and texts by name, as a file stores them; lists of texts without entries are left out."""
        found: dict[str, Any] = {"kind": self.kind, "clock": self.clock, "cyclic": self.cyclic, "period": self.period}
        found |= {name: list(texts) for name in _TEXTS if (texts := getattr(self, name))}
        found |= {name: np.array(getattr(self, name), int) for name in (*_INTEGERS, *_COUNTS)}
        return found | {name: getattr(self, name) for name in (*_ARRAYS, "limited")}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "PolicyNumbers":
        """The inverse of `as_dict`; KeyError, TypeError or ValueError for what is none."""
        parts: dict[str, Any] = {name: tuple(stored.get(name, ())) for name in _TEXTS}
        parts |= {name: tuple(int(n) for n in stored[name]) for name in _INTEGERS}
        parts |= {name: int(stored[name]) for name in _COUNTS}
        parts |= {name: np.asarray(stored[name], float) for name in _ARRAYS}
        return cls(
            kind=str(stored["kind"]),
            clock=float(stored["clock"]),
            cyclic=bool(stored["cyclic"]),
            period=float(stored["period"]),
            limited=np.asarray(stored["limited"], bool),
            **parts,
        )
