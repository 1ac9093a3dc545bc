"""Point masses on bodies: mass, centre of mass and inertia with them."""

from collections.abc import Iterable, Mapping

import numpy as np

from dso_robotics.physics.design.map import Array, Fields, Load, read
from dso_robotics.physics.inertia import rotation
from dso_robotics.physics.model import Robot


def loaded(robot: Robot, fields: Mapping[str, Array], loads: Iterable[Load], like: Array) -> Fields:
    """`fields` with the point masses on their bodies, in body_mass, body_ipos and body_inertia_full, see `Design`.

    like: an array of the kind of the fields, whose leading axes (...) are theirs, (..., k).
    """
    xp, model, lead = like.__array_namespace__(), robot.mj, like.shape[:-1]
    nominal = rotation(model.body_iquat)
    nominal = (nominal * model.body_inertia[:, None, :]) @ np.swapaxes(nominal, -1, -2)
    mass = xp.broadcast_to(read(robot, fields, "body_mass", like), (*lead, model.nbody))
    centre = xp.broadcast_to(read(robot, fields, "body_ipos", like), (*lead, model.nbody, 3))
    given = fields.get("body_inertia_full", xp.full((model.nbody, 3, 3), xp.nan))
    full = xp.broadcast_to(given, (*lead, model.nbody, 3, 3))
    for load in loads:
        here = np.arange(model.nbody) == load.body
        at = xp.where(xp.isfinite(full[..., load.body, :, :]), full[..., load.body, :, :], nominal[load.body])
        old, total = mass[..., load.body], mass[..., load.body] + load.mass
        away = load.place - centre[..., load.body, :]
        share = (load.mass / total)[..., None]
        # Both masses about their common centre: the reduced mass times the square of what is between them.
        between = (away**2).sum(-1)[..., None, None] * xp.eye(3) - away[..., :, None] * away[..., None, :]
        at = at + (old * load.mass / total)[..., None, None] * between
        mass = xp.where(here, total[..., None], mass)
        centre = xp.where(here[:, None], (centre[..., load.body, :] + share * away)[..., None, :], centre)
        full = xp.where(here[:, None, None], at[..., None, :, :], full)
    return {**fields, "body_mass": mass, "body_ipos": centre, "body_inertia_full": full}
