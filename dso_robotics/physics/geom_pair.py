"""Pairs of geoms: which of them MuJoCo looks at."""

import mujoco


def may_touch(model: mujoco.MjModel, one: int, two: int) -> bool:
    """Whether MuJoCo looks for contacts of two geoms by itself."""
    if not (
        model.geom_contype[one] & model.geom_conaffinity[two] or model.geom_contype[two] & model.geom_conaffinity[one]
    ):
        return False
    a, b = int(model.geom_bodyid[one]), int(model.geom_bodyid[two])
    roots = [int(model.body_weldid[x]) for x in (a, b)]
    if roots[0] == roots[1] or (min(a, b) << 16) + max(a, b) in model.exclude_signature:
        return False
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT:
        return True
    parents = [int(model.body_weldid[model.body_parentid[root]]) for root in roots]
    return not (0 not in roots and (parents[0] == roots[1] or parents[1] == roots[0]))
