"""Limits of a motion: position, speed, acceleration, force, power, distance, and rest at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import matches
from dso_robotics.robot.clearance import Pair, shortfall

# Geoms and forces are looked at about so often [s].
_LOOK = 0.01
_HINGE_OR_SLIDE = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
# A robot at rest is slower than this share of its fastest.
_STILL = 0.02


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a motion does with its limits.

    excess: (R,) by how much each of R motions breaks limits, in shares of them, summed; 0 where it keeps all, infinite where
      the simulation diverged.
    worst: (R,) the limit that each breaks most, in words.
    """

    excess: np.ndarray
    worst: list[str]


@dataclass(frozen=True, eq=False)
class MotionLimits:
    """Limits of the motions of `model`, all infinite by default.

    low, high: (njnt,) of positions [rad, m] of hinges and slides.
    speed, acceleration: (nv,) [rad/s, m/s and those a second].
    force, power: (nu,) of actuators [N or N*m, W].
    apart: pairs of geoms.
    still: largest speed at the end, as a share of the largest before; infinite if the end need not be at rest.
    """

    model: mujoco.MjModel
    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    force: np.ndarray
    power: np.ndarray
    apart: Sequence[Pair] = field(default_factory=tuple)
    still: float = np.inf

    def judge(self, path: np.ndarray, ctrl: np.ndarray, interval: float, *, thorough: bool = True) -> Verdict:
        """Judge motions of states `path` (R, T, nq+nv+na) every `interval` [s] under `ctrl` (R, T, nu).

        thorough: also forces and distances, which take longer; of the first motions that keep all other limits.
        """
        model, runs = self.model, len(path)
        excess, worst, most = np.zeros(runs), [""] * runs, np.zeros(runs)
        good = np.isfinite(path).all((1, 2))

        def add(over: np.ndarray, tell: Any) -> None:
            for r in np.flatnonzero(over > 1e-9):
                excess[r] += over[r]
                if over[r] > most[r]:
                    most[r], worst[r] = over[r], tell(r)

        qpos, qvel = path[..., : model.nq], path[..., model.nq : model.nq + model.nv]
        for j in np.flatnonzero(np.isfinite(self.low) | np.isfinite(self.high)):
            q, name = qpos[..., model.jnt_qposadr[j]], model.joint(j).name
            width = self.high[j] - self.low[j] if np.isfinite(self.high[j] - self.low[j]) else 1.0
            over = np.maximum((q - self.high[j]).max(1), (self.low[j] - q).max(1))
            add(
                np.nan_to_num(over) / width,
                lambda r, n=name, q=q, j=j: (
                    f"position of {n}: {q[r].min():.3g} to {q[r].max():.3g}, allowed {self.low[j]:.3g} to {self.high[j]:.3g}"
                ),
            )
        accelerations = np.diff(qvel, axis=1) / interval
        for what, values, most_of in (
            ("speed", qvel, self.speed),
            ("acceleration", accelerations, self.acceleration),
        ):
            for d in np.flatnonzero(np.isfinite(most_of)):
                top = np.abs(values[..., d]).max(1)
                name = model.joint(int(model.dof_jntid[d])).name
                add(
                    np.nan_to_num(top / most_of[d] - 1.0),
                    lambda r, n=name, t=top, w=what, m=most_of[d]: f"{w} of {n}: {t[r]:.4g}, allowed {m:.4g}",
                )
        if np.isfinite(self.still):
            fastest, last = np.abs(qvel).max((1, 2)), np.abs(qvel[:, -1]).max(1)
            allowed = self.still * np.maximum(fastest, 1e-3)
            add(
                np.nan_to_num(last / allowed - 1.0) * 0.1,
                lambda r: f"speed at the end: {last[r]:.3g}, and at rest is below {allowed[r]:.3g}",
            )
        for i in np.flatnonzero(model.actuator_ctrllimited):
            low, high = model.actuator_ctrlrange[i]
            # Controls that were bent into their range may reach its end, to rounding.
            over = np.maximum(ctrl[..., i].max(1) - high, low - ctrl[..., i].min(1)) / (high - low)
            name = model.actuator(i).name
            add(over, lambda r, n=name: f"control of {n}: beyond its ctrlrange")
        excess[~good] = np.inf
        for r in np.flatnonzero(~good):
            worst[r] = "the simulation diverges"
        if thorough and self._slow:
            for r in np.flatnonzero(excess == 0):
                over, text = self._looked(path[r], ctrl[r], interval)
                excess[r], worst[r] = over, text
        return Verdict(excess, worst)

    @property
    def _slow(self) -> bool:
        return bool(self.apart) or bool(np.isfinite([self.force, self.power]).any())

    def _looked(self, path: np.ndarray, ctrl: np.ndarray, interval: float) -> tuple[float, str]:
        """Excess of forces, powers and distances of one motion (T, nx), and the worst in words."""
        model, data = self.model, mujoco.MjData(self.model)
        nq, nv = model.nq, model.nv
        forces = np.isfinite(self.force).any() or np.isfinite(self.power).any()
        reached, powers = np.zeros(model.nu), np.zeros(model.nu)
        near = np.zeros(len(self.apart))
        for t in range(0, len(path), max(int(_LOOK / interval), 1)):
            data.qpos[:], data.qvel[:] = path[t, :nq], path[t, nq : nq + nv]
            if forces:
                if model.na:
                    data.act[:] = path[t, nq + nv :]
                data.ctrl[:] = ctrl[t]
                mujoco.mj_forward(model, data)
                reached = np.maximum(reached, np.abs(data.actuator_force))
                powers = np.maximum(powers, np.abs(data.actuator_force * data.actuator_velocity))
            else:
                mujoco.mj_kinematics(model, data)
                mujoco.mj_comPos(model, data)
            for i, pair in enumerate(self.apart):
                near[i] = max(near[i], shortfall(model, data, pair))
        found = []
        for i in range(model.nu):
            name = model.actuator(i).name
            for what, value, most in (("force", reached[i], self.force[i]), ("power", powers[i], self.power[i])):
                if value > most * (1 + 1e-9):
                    found.append((value / most - 1, f"{what} of {name}: {value:.4g}, allowed {most:.4g}"))
        for pair, short in zip(self.apart, near, strict=True):
            if short > 0:
                found.append(
                    (10 * short, f"distance of {pair.name}: {short:.3g} m less than the allowed {pair.margin:g} m")
                )
        return sum(over for over, _ in found), max(found, default=(0.0, ""))[1]


def limits(
    model: mujoco.MjModel,
    *,
    position: Mapping[str, tuple[float, float]],
    speed: Mapping[str, float],
    acceleration: Mapping[str, float],
    torque: Mapping[str, float],
    power: Mapping[str, float],
    apart: Sequence[Pair],
    rest: bool,
) -> MotionLimits:
    """The limits of a model: what is given by name of joint or actuator, with wildcards, and the ranges of its joints.

    Raises:
      DsoError: a name is not in the model, or a number is not positive.
    """
    joints = [model.joint(j).name for j in range(model.njnt)]
    actuators = [model.actuator(i).name for i in range(model.nu)]
    plain = np.isin(model.jnt_type, _HINGE_OR_SLIDE)
    limited = model.jnt_limited.astype(bool) & plain
    low, high = np.where(limited[:, None], model.jnt_range, [-np.inf, np.inf]).T
    for pattern, (least, most) in position.items():
        for j in meant("position", pattern, joints, "joint"):
            if not plain[j]:
                raise DsoError(f"--position {pattern}: joint '{joints[j]}' is no hinge or slide; name those.")
            low[j], high[j] = max(low[j], least), min(high[j], most)
            if not low[j] < high[j]:
                raise DsoError(
                    f"--position {joints[j]}: {least:g} to {most:g} has nothing in common with the joint's range in the "
                    "model; give other limits."
                )
    by_joint = {"speed": (speed, np.full(model.nv, np.inf)), "acceleration": (acceleration, np.full(model.nv, np.inf))}
    for what, (given, out) in by_joint.items():
        for pattern, most in given.items():
            mine = meant(what, pattern, joints, "joint")
            out[np.isin(model.dof_jntid, mine)] = most
    by_actuator = {"torque": (torque, np.full(model.nu, np.inf)), "power": (power, np.full(model.nu, np.inf))}
    for what, (given, out) in by_actuator.items():
        for pattern, most in given.items():
            out[meant(what, pattern, actuators, "actuator")] = most
    return MotionLimits(
        model,
        low,
        high,
        by_joint["speed"][1],
        by_joint["acceleration"][1],
        by_actuator["torque"][1],
        by_actuator["power"][1],
        tuple(apart),
        _STILL if rest else np.inf,
    )


def rates(given: Mapping[str, float], names: Sequence[str]) -> np.ndarray:
    """Largest change of each control in a second (nu,), infinite where none is given, by name with wildcards."""
    out = np.full(len(names), np.inf)
    for pattern, most in given.items():
        out[meant("rate", pattern, names, "actuator")] = most
    return out


def meant(option: str, pattern: str, names: Sequence[str], kind: str) -> list[int]:
    """Indices of the `names` that a pattern of an option means. Raises DsoError when it means none."""
    found = [i for i, name in enumerate(names) if name and matches(name, pattern)]
    if not found:
        known = [name for name in names if name]
        hint = f"it has {nearest(pattern, known, 8)}" if known else f"it has no named {kind}"
        raise DsoError(f"--{option} {pattern}: the model has no {kind} of that name; {hint}.")
    return found
