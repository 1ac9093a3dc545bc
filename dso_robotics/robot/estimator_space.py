"""State operations for correctors: moves in the tangent space within joint limits, differences, and features.

Like `physics.state.Tangent`, but for arrays with any leading axes, in JAX as well as NumPy.
"""

from typing import Any

import mujoco
import numpy as np

Array = Any
_SLIDE, _HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE)
_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
_SERIES = 1e-6


class Space:
    """States (..., nq+nv+na) of a model, and their tangents (..., 2*nv+na).

    A tangent holds the position change [m, rad], then qvel, then act.
    """

    def __init__(self, model: mujoco.MjModel):
        self.nq, self.nv, self.na = int(model.nq), int(model.nv), int(model.na)
        self.size, self.width = 2 * self.nv + self.na, self.nq + self.nv + self.na
        self._flat = self.nq == self.nv
        self._joints = [
            (int(kind), int(q), int(v))
            for kind, q, v in zip(model.jnt_type, model.jnt_qposadr, model.jnt_dofadr, strict=True)
        ]
        # Quaternion and rotation of each free joint: first places in qpos and in the tangent space.
        self.free_turns = [(q + 3, v + 3) for kind, q, v in self._joints if kind == _FREE]
        self._low, self._high = np.full(self.nq, -np.inf), np.full(self.nq, np.inf)
        self._turning = np.zeros(self.nq, bool)
        self._balls = []
        for (kind, q, _), limited, limits in zip(self._joints, model.jnt_limited, model.jnt_range, strict=True):
            if kind in (_HINGE, _SLIDE) and limited:
                self._low[q], self._high[q] = limits
            elif kind == _HINGE:
                self._turning[q] = True
            elif kind == _BALL and limited:
                self._balls.append((q, float(limits[1])))
        self._limited = bool(np.isfinite(self._high).any())
        plain = np.ones(self.nq, bool)
        plain[self._turning] = False
        for kind, q, _ in self._joints:
            if kind in (_FREE, _BALL):
                first = q + (3 if kind == _FREE else 0)
                plain[first : first + 4] = False
        angle = np.flatnonzero(self._turning)
        self._angle, self._angles = angle, len(angle) > 0
        self._raw = np.flatnonzero(~plain & ~self._turning)
        self._squashed = np.concatenate([np.flatnonzero(plain), np.arange(self.nq, self.width)])
        self.features_size = 2 * len(angle) + len(self._raw) + len(self._squashed)

    def counts(self) -> dict[str, int]:
        """How many joints, and features of each sort, for code in other languages."""
        found = {"SQUASHED": len(self._squashed), "ANGLES": len(self._angle), "RAW": len(self._raw)}
        return {"JOINTS": len(self._joints), **found}

    def entries(self) -> dict[str, np.ndarray]:
        """Entries of the state that give features, in their order, and the kind and addresses of each joint (njnt, 3)."""
        found = {"squashed": self._squashed, "angles": self._angle, "raw": self._raw}
        return {"joint": np.array(self._joints, int), **found}

    def limits(self) -> dict[str, np.ndarray]:
        """Limits of qpos (nq,), and the largest angle of each ball joint (njnt,); -1 for none."""
        balls = dict(self._balls)
        return {
            "low": self._low,
            "high": self._high,
            "ball": np.array([balls.get(q, -1.0) for _, q, _ in self._joints]),
        }

    def from_pose(self, qpos: np.ndarray, states: np.ndarray) -> np.ndarray:
        """States (..., nq+nv+na) as tangents (..., 2*nv+na) from rest in the pose `qpos` (nq,)."""
        rest = np.concatenate([qpos, np.zeros(self.nv + self.na)])
        return self.difference(np.broadcast_to(rest, states.shape), states)

    def move(self, state: Array, change: Array) -> Array:
        """`state` moved by `change`. Quaternions keep unit length, and no correction moves a joint beyond its limits.

        MuJoCo's limits are soft, so a predicted joint may already be beyond its limit. It may stay there.
        """
        if self._flat and not self._limited:
            return state + change
        xp = state.__array_namespace__()
        qpos, rest = state[..., : self.nq], state[..., self.nq :]
        dq, drest = change[..., : self.nv], change[..., self.nv :]
        if self._flat:
            moved = qpos + dq
        else:
            parts = []
            for kind, q, v in self._joints:
                if kind in (_HINGE, _SLIDE):
                    parts.append(qpos[..., q : q + 1] + dq[..., v : v + 1])
                    continue
                if kind == _FREE:
                    parts.append(qpos[..., q : q + 3] + dq[..., v : v + 3])
                    q, v = q + 3, v + 3
                parts.append(_turn(xp, qpos[..., q : q + 4], dq[..., v : v + 3]))
            moved = xp.concat(parts, axis=-1)
        if self._limited:
            moved = xp.clip(moved, xp.minimum(qpos, self._low), xp.maximum(qpos, self._high))
        for q, most in self._balls:
            moved = _within(xp, moved, qpos, q, most)
        shape = np.broadcast_shapes(moved.shape[:-1], rest.shape[:-1], drest.shape[:-1])
        moved = xp.broadcast_to(moved, (*shape, self.nq))
        return xp.concat([moved, xp.broadcast_to(rest + drest, (*shape, self.nv + self.na))], axis=-1)

    def difference(self, start: Array, end: Array) -> Array:
        """The change (..., 2*nv+na) that moves `start` to `end`."""
        xp = start.__array_namespace__()
        rest = end[..., self.nq :] - start[..., self.nq :]
        if self._flat:
            return xp.concat([end[..., : self.nq] - start[..., : self.nq], rest], axis=-1)
        parts = []
        for kind, q, _ in self._joints:
            if kind in (_HINGE, _SLIDE):
                parts.append(end[..., q : q + 1] - start[..., q : q + 1])
                continue
            if kind == _FREE:
                parts.append(end[..., q : q + 3] - start[..., q : q + 3])
                q += 3
            parts.append(_rotation_vector(xp, start[..., q : q + 4], end[..., q : q + 4]))
        return xp.concat([*parts, rest], axis=-1)

    def features(self, state: Array, centre: Array, scale: Array) -> Array:
        """Bounded numbers (..., features_size) that describe the state.

        Hinges without limits give sine and cosine. Quaternions are unchanged. All other entries give tanh((x - centre)/scale).
        """
        xp = state.__array_namespace__()
        which = self._squashed
        parts = [xp.tanh((state[..., which] - centre[which]) / scale[which])]
        if self._angles:
            angle = state[..., self._angle]
            parts += [xp.sin(angle), xp.cos(angle)]
        if len(self._raw):
            parts.append(state[..., self._raw])
        return xp.concat(parts, axis=-1) if len(parts) > 1 else parts[0]


def _product(xp: Any, p: Array, q: Array) -> Array:
    pw, px, py, pz = (p[..., i] for i in range(4))
    qw, qx, qy, qz = (q[..., i] for i in range(4))
    rows = (
        pw * qw - px * qx - py * qy - pz * qz,
        pw * qx + px * qw + py * qz - pz * qy,
        pw * qy - px * qz + py * qw + pz * qx,
        pw * qz + px * qy - py * qx + pz * qw,
    )
    return xp.stack(rows, axis=-1)


def _turn(xp: Any, quat: Array, rotation: Array) -> Array:
    """`quat` rotated by the rotation vector [rad] in its own frame, as a unit quaternion."""
    square = xp.sum((0.5 * rotation) ** 2, axis=-1, keepdims=True)
    small = square < _SERIES
    half = xp.sqrt(xp.where(small, 1.0, square))
    cos = xp.where(small, 1 - square / 2 * (1 - square / 12), xp.cos(half))
    sinc = xp.where(small, 1 - square / 6 * (1 - square / 20), xp.sin(half) / half)
    turned = _product(xp, quat, xp.concat([cos, sinc * 0.5 * rotation], axis=-1))
    return turned / xp.sqrt(xp.sum(turned**2, axis=-1, keepdims=True))


def _rotation_vector(xp: Any, start: Array, end: Array) -> Array:
    """The rotation vector [rad] from `start` to `end` in the frame of `start`."""
    inverse = xp.concat([start[..., :1], -start[..., 1:]], axis=-1)
    turn = _product(xp, inverse, end)
    turn = xp.where(turn[..., :1] < 0, -turn, turn)
    square = xp.sum(turn[..., 1:] ** 2, axis=-1, keepdims=True)
    small = square < _SERIES
    sine = xp.sqrt(xp.where(small, 1.0, square))
    ratio = xp.where(small, 2 + square / 3, 2 * xp.atan2(sine, turn[..., :1]) / sine)
    return turn[..., 1:] * ratio


def _within(xp: Any, moved: Array, before: Array, q: int, most: float) -> Array:
    """A ball joint at `q`, rotated back to within a limit of its reference.

    The limit is `most` [rad], or the joint's previous angle if that was larger.
    """
    identity = xp.asarray(np.array([1.0, 0.0, 0.0, 0.0]))
    vector = _rotation_vector(xp, identity, moved[..., q : q + 4])
    was = _rotation_vector(xp, identity, before[..., q : q + 4])
    angle = xp.sqrt(xp.sum(vector**2, axis=-1, keepdims=True) + 1e-30)
    limit = xp.maximum(xp.sqrt(xp.sum(was**2, axis=-1, keepdims=True) + 1e-30), xp.asarray(most))
    held = _turn(xp, identity, vector * xp.minimum(xp.asarray(1.0), limit / angle))
    held = xp.where(angle > limit, held, moved[..., q : q + 4])
    return xp.concat([moved[..., :q], held, moved[..., q + 4 :]], axis=-1)
