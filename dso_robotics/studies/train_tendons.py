"""Check tendons of designs within their bounds in the start posture, before compilation.

Where a pulley grows over a site of its tendon, or a limb takes the site to the pulley, MuJoCo changes the tendon's path at once
and says nothing. The range of a tendon does not move with the design.
"""

import copy

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.physics import loop
from dso_robotics.physics.wraps import Wrap, distance, inside, wraps
from dso_robotics.robot.closing import Closing
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.studies.train_bounds import box_points, listed

_BEYOND = 1e-3  # [m, rad] more than with the model's own numbers; limits are soft


def refuse_tendons(mechanism: Mechanism, qpos: np.ndarray, closing: Closing | None = None) -> None:
    """Refuse bounds within which a tendon changes its path at once, or begins beyond its range.

    qpos: (nq,) the start posture; loops are closed by `closing`. Checked are the corners of the box of bounds (of many
    numbers: some of them) and random points within.

    Raises:
      DsoError: somewhere a site of a tendon is within the geom that the tendon goes round, the tendon changes between the
        outside and the inside of it, or is 1 mm farther beyond its range than with the model's own numbers.
    """
    design, found = mechanism.design, wraps(mechanism.mj)
    if design is None or not (found or mechanism.mj.tendon_limited.any()):
        return
    model, data = _start(mechanism, design.initial, qpos, closing)
    before = [_state(wrap, model, data) for wrap in found]
    excess = _excess(model, data)
    for numbers in box_points(design):
        model, data = _start(mechanism, numbers, qpos, closing)
        if not np.isfinite(data.qpos).all():
            continue  # open loops are refused elsewhere
        allowed = f"the bounds of the design allow {listed(design, numbers)}, with which"
        for wrap, (swallowed, within) in zip(found, before, strict=True):
            now = _state(wrap, model, data)
            if now != (swallowed, within):
                told = _jump(wrap, model, data, swallowed, now)
                raise DsoError(f"{allowed} {told}")
        worse = _excess(model, data) - np.maximum(excess, 0.0)
        if (worse > _BEYOND).any():
            tendon = int(worse.argmax())
            low, high = model.tendon_range[tendon]
            raise DsoError(
                f"{allowed} tendon '{_name(model, 'tendon', tendon)}' is {data.ten_length[tendon]:.4g} long in the start "
                f"posture, beyond its range of {low:.4g} to {high:.4g}, which does not move with the design; widen the range, "
                "narrow the bounds, or start elsewhere."
            )


def _jump(
    wrap: Wrap, model: mujoco.MjModel, data: mujoco.MjData, before: set[int], state: tuple[set[int], bool]
) -> str:
    """What becomes of a tendon's path, and the cure. before: sites within the geom with the model's own numbers."""
    now, within = state
    geom, tendon = f"geom '{_name(model, 'geom', wrap.geom)}'", f"tendon '{_name(model, 'tendon', wrap.tendon)}'"
    radius = f"{1e3 * float(model.geom_size[wrap.geom, 0]):.3g} mm"
    if now == before:
        new, old = ("inside", "round") if within else ("round", "inside")
        return (
            f"{tendon} runs {new} {geom} of radius {radius} and no longer {old} it, because MuJoCo goes by whether the side "
            f"site '{_name(model, 'site', wrap.side)}' is within the radius; move that site away from the geom's surface, or "
            "narrow the bounds."
        )
    site = next(site for site in wrap.ends if (site in now) != (site in before))
    where, what = ("within", "leaves") if site in now else ("outside", "wraps")
    return (
        f"site '{_name(model, 'site', site)}' of {tendon} is {1e3 * distance(wrap, site, data):.3g} mm from the centre of "
        f"{geom}, {where} its radius of {radius}. There the tendon {what} the geom at once, which is no smooth design; narrow "
        "the bounds, or move the site away from the geom."
    )


def _start(
    mechanism: Mechanism, numbers: np.ndarray, qpos: np.ndarray, closing: Closing | None
) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """A model with the design's numbers (size,), and its tendons in the start posture; qpos is NaN where a loop is open."""
    design = mechanism.design
    assert design is not None
    model = copy.copy(mechanism.mj)
    data = mujoco.MjData(model)
    try:
        fields = design(numbers)
    except loop.OpenLoopError:
        data.qpos[:] = np.nan
        return model, data
    for name, value in fields.items():
        if name != "body_inertia_full":
            getattr(model, name)[...] = value
    data.qpos[:] = qpos
    if closing is not None:
        data.qpos[:] = closing.loops.closed(loop.model_fields(model), qpos, closing.dofs)[0]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_tendon(model, data)
    return model, data


def _state(wrap: Wrap, model: mujoco.MjModel, data: mujoco.MjData) -> tuple[set[int], bool]:
    """The sites that are within the geom, and whether the tendon runs inside it."""
    radius = float(model.geom_size[wrap.geom, 0])
    return {site for site in wrap.ends if distance(wrap, site, data) < radius}, inside(wrap, model, data)


def _excess(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """How far each tendon is beyond its range (ntendon,), in the unit of its length; not positive within."""
    low, high = model.tendon_range.T
    beyond = np.maximum(low - data.ten_length, data.ten_length - high)
    return np.where(model.tendon_limited.astype(bool), beyond, 0.0)


def _name(model: mujoco.MjModel, kind: str, index: int) -> str:
    return getattr(model, kind)(index).name or str(index)
