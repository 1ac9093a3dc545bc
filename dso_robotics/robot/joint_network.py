"""A small network that adds joint torques that no model parameter describes, such as friction, backlash or a cable."""

import dataclasses
from typing import Any

import mujoco
import numpy as np

Array = Any  # a NumPy or a JAX array
INPUTS = ("velocity", "position", "ctrl")
_SLOW = 0.05


@dataclasses.dataclass(frozen=True)
class JointNetwork:
    """torque (J,) [N*m, N] = scale * MLP(features) of hinge and slide joints. Zero weights in the last layer give zero torque.

    inputs: which features of `INPUTS` are used:
      "velocity": each joint's velocity, and its tanh with scale a twentieth of the typical velocity (a smooth sign, as for
        friction).
      "position": sine and cosine of each angle; for a slide, the position and its square.
      "ctrl": each actuator's control.
    joints: ids of the joints.
    speed, reach, effort, torque: typical sizes of velocity (J,), position (J,), control (nu,) and result (J,).
    hidden: widths of the tanh layers.
    """

    joints: tuple[int, ...]
    qpos: tuple[int, ...]
    dofs: tuple[int, ...]
    hinge: tuple[bool, ...]
    speed: np.ndarray
    reach: np.ndarray
    effort: np.ndarray
    torque: np.ndarray
    hidden: tuple[int, ...]
    inputs: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths of all layers, including features and torques."""
        widths = {"velocity": 2 * len(self.joints), "position": 2 * len(self.joints), "ctrl": len(self.effort)}
        return (sum(widths[name] for name in self.inputs), *self.hidden, len(self.joints))

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum((a + 1) * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """Random initial weights (size,) that give zero torque."""
        layers = []
        for i, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            last = i == len(self.hidden)
            layers += [np.zeros(a * b) if last else rng.normal(size=a * b) / np.sqrt(a), np.zeros(b)]
        return np.concatenate(layers)

    def __call__(self, weights: Array, qpos: Array, qvel: Array, ctrl: Array) -> Array:
        """Torques (..., J) at qpos (..., nq), qvel (..., nv), ctrl (..., nu)."""
        xp = weights.__array_namespace__()
        v, q = qvel[..., list(self.dofs)] / self.speed, qpos[..., list(self.qpos)] / self.reach
        hinge = np.array(self.hinge)
        sine, cosine = xp.where(hinge, xp.sin(q), q), xp.where(hinge, xp.cos(q), q**2)
        features = {"velocity": (v, xp.tanh(v / _SLOW)), "position": (sine, cosine), "ctrl": (ctrl / self.effort,)}
        h = xp.concatenate([part for name in self.inputs for part in features[name]], -1)
        at = 0
        for i, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            matrix, at = weights[at : at + a * b].reshape(a, b), at + a * b
            h, at = h @ matrix + weights[at : at + b], at + b
            h = xp.tanh(h) if i < len(self.hidden) else h
        return h * self.torque


def joint_network(
    model: mujoco.MjModel,
    joints: tuple[int, ...],
    *,
    qvel: np.ndarray,
    ctrl: np.ndarray,
    hidden: tuple[int, ...],
    inputs: tuple[str, ...] = ("velocity",),
) -> JointNetwork:
    """A network for `joints` (hinges and slides) sized by recorded velocities (..., nv) and controls (..., nu)."""
    dofs = tuple(int(model.jnt_dofadr[j]) for j in joints)
    hinge = tuple(int(model.jnt_type[j]) == int(mujoco.mjtJoint.mjJNT_HINGE) for j in joints)
    size = np.nan_to_num(np.sqrt(np.nanmean(qvel.reshape(-1, qvel.shape[-1]) ** 2, 0)), nan=1.0)
    effort = np.sqrt(np.mean(ctrl.reshape(-1, ctrl.shape[-1]) ** 2, 0)) if ctrl.shape[-1] else np.zeros(0)
    return JointNetwork(
        joints=joints,
        qpos=tuple(int(model.jnt_qposadr[j]) for j in joints),
        dofs=dofs,
        hinge=hinge,
        speed=np.maximum(size[list(dofs)], 1e-6),
        reach=np.where(hinge, 1.0, np.maximum(float(model.stat.extent), 1e-6)),
        effort=np.where(effort > 0, effort, 1.0),
        # Half the torque that stops the joint from its typical speed within one second.
        torque=np.maximum(0.5 * model.dof_M0[list(dofs)] * size[list(dofs)], 1e-9),
        hidden=hidden,
        inputs=inputs,
    )
