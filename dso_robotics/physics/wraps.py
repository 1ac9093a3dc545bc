"""Where tendons wrap geoms, and what MuJoCo makes of it.

A tendon goes round a sphere or cylinder between two sites. If one of these sites is within the geom, MuJoCo lets the tendon
run straight to the other one. If the side site is within it, the tendon runs inside the geom and not round it.
"""

import dataclasses

import mujoco
import numpy as np

WRAPPED = (int(mujoco.mjtWrap.mjWRAP_SPHERE), int(mujoco.mjtWrap.mjWRAP_CYLINDER))
_CYLINDER = int(mujoco.mjtWrap.mjWRAP_CYLINDER)


@dataclasses.dataclass(frozen=True)
class Wrap:
    """One geom of a tendon.

    ends: the sites before and behind it.
    side: the side site, or -1.
    """

    tendon: int
    geom: int
    cylinder: bool
    ends: tuple[int, int]
    side: int


def wraps(model: mujoco.MjModel) -> list[Wrap]:
    """All wraps of a model, in the order of its tendons."""
    found = []
    for tendon, (begin, count) in enumerate(zip(model.tendon_adr, model.tendon_num, strict=True)):
        for row in range(int(begin), int(begin + count)):
            kind = int(model.wrap_type[row])
            if kind in WRAPPED:
                ends = int(model.wrap_objid[row - 1]), int(model.wrap_objid[row + 1])
                side = round(float(model.wrap_prm[row]))
                found.append(Wrap(tendon, int(model.wrap_objid[row]), kind == _CYLINDER, ends, side))
    return found


def distance(wrap: Wrap, site: int, data: mujoco.MjData) -> float:
    """Distance [m] of a site from the centre of a sphere, or from the axis of a cylinder, after `mj_kinematics`."""
    away = _local(wrap, site, data)
    return float(np.linalg.norm(away[:2] if wrap.cylinder else away))


def inside(wrap: Wrap, model: mujoco.MjModel, data: mujoco.MjData) -> bool:
    """Whether MuJoCo lets the tendon run inside the geom: where the side site is nearer its centre than its radius."""
    return wrap.side >= 0 and bool(np.linalg.norm(_local(wrap, wrap.side, data)) < model.geom_size[wrap.geom, 0])


def run_inside(model: mujoco.MjModel) -> np.ndarray:
    """Which wraps (k,) run inside their geom in the reference posture."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return np.array([inside(wrap, model, data) for wrap in wraps(model)], bool)


def _local(wrap: Wrap, site: int, data: mujoco.MjData) -> np.ndarray:
    """Place of a site [m] (3,) in the frame of the geom."""
    return data.geom_xmat[wrap.geom].reshape(3, 3).T @ (data.site_xpos[site] - data.geom_xpos[wrap.geom])
