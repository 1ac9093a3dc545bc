"""A motion, frame by frame, as line drawings of the geoms seen from the side. No graphics library is needed."""

import html

import mujoco
import numpy as np
from markupsafe import Markup

_LONG = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))
_BOX, _PLANE = int(mujoco.mjtGeom.mjGEOM_BOX), int(mujoco.mjtGeom.mjGEOM_PLANE)
# Pixels of a picture, and of the text above a frame.
_WIDTH, _TEXT = 1000.0, 18.0


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


def strip(model: mujoco.MjModel, time: np.ndarray, qpos: np.ndarray, text: str, *, count: int = 12) -> Markup:
    """`count` moments of a motion qpos (T, nq) in two rows, all at one scale, as SVG; planes and fixed geoms are grey.

    text: the heading.
    """
    data = mujoco.MjData(model)
    rows = np.unique(np.linspace(0, len(time) - 1, count).round().astype(int))
    frames, heights = [], set[float]()
    for row in rows:
        data.qpos[:] = qpos[row]
        mujoco.mj_kinematics(model, data)
        frames.append([(g, outline(model, data, g)) for g in range(model.ngeom) if int(model.geom_type[g]) != _PLANE])
        heights |= {float(data.geom_xpos[g, 2]) for g in range(model.ngeom) if int(model.geom_type[g]) == _PLANE}
    moving = [p for frame in frames for g, p in frame if model.geom_bodyid[g]]
    seen = np.concatenate(moving) if moving else np.zeros((1, 3))
    # The plane of the drawing is the one with the most motion.
    spread = np.ptp(seen, axis=0)
    across = 1 if spread[1] > 1.5 * max(spread[0], 1e-9) else 0
    up = 2 if spread[2] > 1e-6 or (across == 0 and spread[1] < 1e-6) else 1
    low, high = seen[:, [across, up]].min(0), seen[:, [across, up]].max(0)
    margin = 0.08 * max(np.max(high - low), 0.1)
    low, high = low - margin, high + margin
    columns = (len(rows) + 1) // 2
    wide = _WIDTH / columns
    scale = float(min((wide - 8) / (high[0] - low[0]), 1.3 * wide / (high[1] - low[1])))
    tall = scale * float(high[1] - low[1]) + _TEXT
    drawn = []
    for k, (row, frame) in enumerate(zip(rows, frames, strict=True)):
        left, top = (k % columns) * wide, (k // columns) * (tall + 6)
        origin = left + (wide - scale * (high[0] - low[0])) / 2, top + tall

        def place(points: np.ndarray, origin: tuple[float, float] = origin) -> np.ndarray:
            return np.stack(
                [origin[0] + scale * (points[:, 0] - low[0]), origin[1] - scale * (points[:, 1] - low[1])], 1
            )

        shapes = [
            _ground(place(np.array([[low[0], h], [high[0], h]])))
            for h in sorted(heights)
            if up == 2 and low[1] <= h <= high[1]
        ]
        shapes += [_shape(model, g, place(points[:, [across, up]]), scale) for g, points in frame]
        area = f"{left:.1f} {top:.1f} {wide:.1f} {tall:.1f}"
        box = f'<svg x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}" viewBox="{area}">'
        label = f'<text x="{left + wide / 2:.0f}" y="{top + 13:.0f}" text-anchor="middle">{time[row]:.2f} s</text>'
        drawn.append(f"{box}{label}{''.join(shapes)}</svg>")
    height = (tall + 6) * -(-len(rows) // columns)
    title = html.escape(f"The robot {text}, at {len(rows)} moments")
    picture = f'<svg class="still" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img"><title>{title}</title>'
    return Markup(
        f'<figure class="strip"><figcaption><b>{html.escape(text)}</b></figcaption>'
        f"{picture}{''.join(drawn)}</svg></figure>"
    )


def _shape(model: mujoco.MjModel, geom: int, points: np.ndarray, scale: float) -> str:
    fixed = not model.geom_bodyid[geom]
    red, green, blue = (round(255 * float(c)) for c in np.clip(model.geom_rgba[geom, :3], 0, 1))
    colour = "var(--grid)" if fixed else f"rgb({red},{green},{blue})"
    kind = int(model.geom_type[geom])
    thick = 2.0 if kind == _BOX else float(np.clip(2 * scale * model.geom_size[geom, 0], 2.0, 14.0))
    if len(points) == 1:
        return (
            f'<circle cx="{points[0, 0]:.1f}" cy="{points[0, 1]:.1f}" r="{max(thick / 2, 2.5):.1f}" fill="{colour}"/>'
        )
    path = " ".join(f"{'M' if i == 0 else ''}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    ends = 'fill="none" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="{path}" stroke="{colour}" stroke-width="{thick:.1f}" {ends}/>'


def _ground(points: np.ndarray) -> str:
    (x, y), (end, _) = points
    return f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="var(--measured)"/>'
