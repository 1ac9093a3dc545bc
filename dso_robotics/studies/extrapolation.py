"""Where held-out runs leave the states and controls that were fitted: their errors, and the values, say little about there."""

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from dso_robotics.data.match import Channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.robot import start
from dso_robotics.studies.evaluate import Evaluation

# How far beyond the fitted range counts, as a share of the range. Speeds are noisier.
_BEYOND = {"position": 0.1, "speed": 0.25, "control": 0.25}
# Speeds that are slopes have outliers, so this share on each side does not count.
_TAIL = 0.005
_NAMED = 6

Range = tuple[float, float]


def extrapolated(
    vector: ParameterVector,
    z: np.ndarray,
    parts: Mapping[str, Sequence[Rollout]],
    channels: Channels,
    evaluations: Mapping[str, Evaluation],
) -> list[str]:
    """A warning that names the joints and controls which leave their fitted range in held-out runs.

    Positions and speeds are those that the log shows at z (n,); positions that it does not show are predicted ones.
    """
    if not parts.get("hold_out"):
        return []
    fitted, held = (_ranges(vector, z, parts[part], channels, evaluations[part]) for part in ("train", "hold_out"))
    told = []
    for (kind, name, unit), (low, high) in held.items():
        known = fitted.get((kind, name, unit))
        if known is None:
            continue
        margin = _BEYOND[kind] * max(known[1] - known[0], 1e-9)
        if low >= known[0] - margin and high <= known[1] + margin:
            continue
        label = {"position": name, "speed": f"the speed of {name}", "control": f"the control of {name}"}[kind]
        told.append(f"{label} {low:.3g} to {high:.3g} {unit}".rstrip() + f", fitted {known[0]:.3g} to {known[1]:.3g}")
    if not told:
        return []
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return [
        f"Held-out runs extrapolate: {'; '.join(told[:_NAMED])}{more}. There the fitted values are only a guess, since "
        "friction, limits and gravity may act that no fitted run shows. Fit a run that covers this range too."
    ]


def _ranges(
    vector: ParameterVector, z: np.ndarray, rollouts: Sequence[Rollout], channels: Channels, evaluation: Evaluation
) -> dict[tuple[str, str, str], Range]:
    """Least and largest values by kind, name and unit."""
    model, signals = vector.mj, vector.signals(z)
    states = [start.recorded_states(r, channels, model, signals) for r in rollouts]
    poses = {motion.rollout: motion.predicted for motion in evaluation.motions}
    found: dict[tuple[str, str, str], Range] = {}

    def put(kind: str, name: str, unit: str, values: np.ndarray, tail: float = 0.0) -> None:
        seen = values[np.isfinite(values)]
        if len(seen):
            low, high = np.quantile(seen, [tail, 1 - tail])
            found[kind, name, unit] = float(low), float(high)

    for j in range(model.njnt):
        if int(model.jnt_type[j]) not in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)):
            continue
        unit = "rad" if int(model.jnt_type[j]) == int(mujoco.mjtJoint.mjJNT_HINGE) else "m"
        name, qpos, dof = model.joint(j).name or f"joint {j}", int(model.jnt_qposadr[j]), int(model.jnt_dofadr[j])
        shown = np.concatenate([s[:, qpos] for s in states])
        if not np.isfinite(shown).any():
            shown = np.concatenate([poses[r.name][:, qpos] for r in rollouts if r.name in poses] or [np.zeros(0)])
        put("position", name, unit, shown)
        put("speed", name, f"{unit}/s", np.concatenate([s[:, model.nq + dof] for s in states]), _TAIL)
    for i, column in enumerate(channels.ctrl_columns):
        known = [r.ctrl[:, column] for r in rollouts if r.ctrl is not None and column >= 0]
        if known:
            put("control", model.actuator(i).name or f"actuator {i}", "", np.concatenate(known))
    return found
