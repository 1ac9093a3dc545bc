"""A motion, frame by frame, as line drawings of the geoms seen from the side. No graphics library is needed."""

import mujoco
import numpy as np

from dso_robotics.report import canvas

_LONG = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_BOX, _PLANE = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_PLANE)


def outline(model: mujoco.MjModel, data: mujoco.MjData, geom: int) -> np.ndarray:
    """Corners (k, 3) [m] of a drawing of a geom: a segment, a box's silhouette in its xz plane, or a point."""
    kind, size = int(model.geom_type[geom]), model.geom_size[geom]
    place, frame = data.geom_xpos[geom].copy(), data.geom_xmat[geom].reshape(3, 3)
    if kind in _LONG:
        return place + np.outer([-size[1], size[1]], frame[:, 2])
    if kind == _BOX:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * size[[0, 2]]
        return place + corners @ frame[:, [0, 2]].T
    return place[None]


def strip(
    model: mujoco.MjModel, time: np.ndarray, qpos: np.ndarray, name: str, text: str, *, count: int = 12
) -> canvas.Picture:
    """`count` moments of a motion qpos (T, nq) in two rows, all at one scale; planes and fixed geoms are grey."""
    data = mujoco.MjData(model)
    rows = np.unique(np.linspace(0, len(time) - 1, count).round().astype(int))
    shapes, heights = [], []
    for row in rows:
        data.qpos[:] = qpos[row]
        mujoco.mj_kinematics(model, data)
        geoms = [g for g in range(model.ngeom) if int(model.geom_type[g]) != _PLANE]
        shapes.append([(g, outline(model, data, g)) for g in geoms])
        heights += [float(data.geom_xpos[g, 2]) for g in range(model.ngeom) if int(model.geom_type[g]) == _PLANE]
    moving = [p for frame in shapes for g, p in frame if model.geom_bodyid[g]]
    # The plane of the drawing is the one with the most motion.
    spread = np.ptp(np.concatenate(moving), axis=0) if moving else np.ones(3)
    across = 1 if spread[1] > 1.5 * max(spread[0], 1e-9) else 0
    up = 2 if spread[2] > 1e-6 or (across == 0 and spread[1] < 1e-6) else 1
    flat = np.concatenate(moving)[:, [across, up]] if moving else np.zeros((1, 2))
    low, high = flat.min(0), flat.max(0)
    margin = 0.08 * max(np.max(high - low), 0.1)
    columns = (len(rows) + 1) // 2
    figure = canvas.blank(4.2)
    for k, (row, frame) in enumerate(zip(rows, shapes, strict=True)):
        axis = figure.add_axes(
            (0.01 + (k % columns) * 0.98 / columns, 0.48 - (k // columns) * 0.47, 0.98 / columns, 0.42)
        )
        for g, points in frame:
            still = not model.geom_bodyid[g]
            colour = canvas.FAINT if still else tuple(model.geom_rgba[g, :3])
            thick = 1.5 if int(model.geom_type[g]) == _BOX else np.clip(40 * model.geom_size[g, 0], 1.0, 6.0)
            axis.plot(
                points[:, across],
                points[:, up],
                color=colour,
                linewidth=thick,
                marker="o" if len(points) == 1 else "",
                solid_capstyle="round",
                zorder=1 if still else 2,
            )
        for height in set(heights) if up == 2 else ():
            axis.axhline(height, color=canvas.GREY, linewidth=0.8)
        axis.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        axis.axis("off")
        axis.set_title(f"{time[row]:.2f} s", fontsize=canvas.SMALL, pad=1)
    figure.suptitle(text, x=0.01, ha="left", fontsize=canvas.NORMAL)
    return canvas.picture(figure, f"motion-{name}.png", f"The robot {text}, at {len(rows)} moments")
