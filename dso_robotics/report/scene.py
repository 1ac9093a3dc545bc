"""One picture of a replay, drawn by MuJoCo: the robot, a ghost, and the camera."""

import mujoco
import numpy as np

_WITHIN = 0.98  # sizes of a ghost, whose surface would flicker where it is the robot's own
GHOST = (0.25, 0.25, 0.27, 0.45)
_MOVING = int(mujoco.mjtCatBit.mjCAT_DYNAMIC)
_FIXED = int(mujoco.mjtCatBit.mjCAT_STATIC)
_DECOR = int(mujoco.mjtCatBit.mjCAT_DECOR)
# The camera follows a robot whose centre of mass travels more than _FAR times its size; _AROUND sizes are in view each side.
_FAR, _AROUND = 2.0, 0.8


def _patterned(model: mujoco.MjModel) -> bool:
    """Whether there is a floor with a texture, which makes the motion of a robot visible when the camera follows it."""
    floors = (model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE)) & (model.geom_matid >= 0)
    return bool((model.mat_texid[model.geom_matid[floors]] >= 0).any())


def some(poses: np.ndarray) -> np.ndarray:
    """About 200 of the poses (K, nq), enough to see the extent of a motion; none is NaN."""
    seen = poses[np.isfinite(poses).all(1)]
    return seen[:: max(1, len(seen) // 200)]


class Stage:
    """The robot in two poses. `compose` fills the scene of a renderer; `ghost` adds to the scene of a viewer.

    shade: the ghost's model, if it differs from the robot's.
    follows: whether the camera follows the robot.
    """

    def __init__(self, model: mujoco.MjModel, shade: mujoco.MjModel | None = None):
        self.model, self.shade = model, model if shade is None else shade
        self.follows = False
        self.option, self.camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._data, self._shadow = mujoco.MjData(model), mujoco.MjData(self.shade)
        self._nothing = mujoco.MjvPerturb()
        # A robot without geoms is drawn by its inertias.
        self.bare = not any(
            model.body_weldid[model.geom_bodyid[g]] and model.geom_rgba[g, 3] for g in range(model.ngeom)
        )
        self.option.flags[mujoco.mjtVisFlag.mjVIS_INERTIA] = self.bare
        self.option.flags[mujoco.mjtVisFlag.mjVIS_JOINT] = self.bare

    def look(self, poses: np.ndarray, ghosts: np.ndarray | None = None, name: str = "") -> None:
        """Use the camera `name`, or else a view from the side that contains all `poses` and `ghosts` (K, nq).

        The camera follows a robot that travels far over a floor with a texture. Its ghost is in view while it is near.
        """
        if name:
            self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self.camera.fixedcamid = self.model.camera(name).id
            return
        parts = [(self.model, self._data, poses)]
        parts += [(self.shade, self._shadow, ghosts)] if ghosts is not None else []
        lows, highs, spreads, sizes, ways = zip(*(self._swept(*part) for part in parts if len(part[2])), strict=True)
        low, high, spread, size = np.min(lows, 0), np.max(highs, 0), spreads[0], max(sizes)
        # The view in which the motion is seen best: along the axis with the least motion.
        self.camera.azimuth = 90.0 if spread[0] >= spread[1] else 180.0
        self.camera.elevation = -12.0
        self.camera.lookat = (low + high) / 2
        half = (high - low) / 2
        along = 0 if self.camera.azimuth == 90.0 else 1
        self.follows = _patterned(self.model) and bool(max(way[along] for way in ways) > _FAR * size)
        if self.follows:
            half[along] = _AROUND * size
        across, deep = (half[0], half[1]) if self.camera.azimuth == 90.0 else (half[1], half[0])
        # A picture is at least as wide as it is high.
        need = 1.15 * max(half[2], across) / np.tan(np.radians(self.model.vis.global_.fovy / 2))
        self.camera.distance = max(need + deep, 1e-3)

    def pose(self, data: mujoco.MjData, qpos: np.ndarray, *, model: mujoco.MjModel | None = None) -> None:
        """Set `data` to qpos (nq,) and compute what a picture needs."""
        model = self.model if model is None else model
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_tendon(model, data)

    def follow(self, camera: mujoco.MjvCamera, data: mujoco.MjData) -> None:
        """Move `camera` with the robot in `data`, if the camera follows it."""
        if self.follows:
            along = 0 if self.camera.azimuth == 90.0 else 1
            camera.lookat[along] = data.subtree_com[0, along]

    def compose(self, scene: mujoco.MjvScene, predicted: np.ndarray, measured: np.ndarray) -> None:
        """Fill `scene` with the robot at `predicted` and its ghost at `measured` (nq,); a pose with NaN is left out."""
        seen = bool(np.isfinite(predicted).all())
        if seen or (self.shade is self.model and np.isfinite(measured).all()):
            self.pose(self._data, predicted if seen else measured)
            self.follow(self.camera, self._data)
        mask = _FIXED | ((_MOVING | _DECOR) if seen else 0)
        mujoco.mjv_updateScene(self.model, self._data, self.option, self._nothing, self.camera, mask, scene)
        self.ghost(scene, measured)

    def ghost(self, scene: mujoco.MjvScene, measured: np.ndarray) -> None:
        """Add the robot's ghost at `measured` (nq,) to `scene`, unless it is NaN."""
        if not np.isfinite(measured).all():
            return
        self.pose(self._shadow, measured, model=self.shade)
        before = scene.ngeom
        mask = _MOVING | (_DECOR if self.bare else 0)
        mujoco.mjv_addGeoms(self.shade, self._shadow, self.option, self._nothing, mask, scene)
        for geom in scene.geoms[before : scene.ngeom]:
            geom.matid = -1
            geom.rgba[:] = GHOST
            geom.transparent = 1
            geom.size[:] *= _WITHIN

    def _swept(
        self, model: mujoco.MjModel, data: mujoco.MjData, poses: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]:
        """Corners of the box that moving bodies cover [m], summed range of motion along each axis, size of the robot [m],
        range of motion of its centre of mass [m]."""
        bodies = np.flatnonzero(model.body_weldid)
        geoms = np.flatnonzero(model.body_weldid[model.geom_bodyid])
        reach = model.geom_rbound[geoms][:, None]
        lows, highs, centres, masses = [], [], [], []
        for qpos in poses:
            self.pose(data, qpos, model=model)
            points = np.concatenate([data.xpos[bodies], data.xipos[bodies]])
            corners = np.concatenate([points, data.geom_xpos[geoms] - reach, data.geom_xpos[geoms] + reach])
            lows.append(corners.min(0))
            highs.append(corners.max(0))
            centres.append(data.xipos[bodies].copy())
            masses.append(data.subtree_com[0].copy())
        travelled = np.ptp(centres, axis=0).sum(0)
        size = float(np.max(np.median(np.subtract(highs, lows), axis=0)))
        return np.min(lows, 0), np.max(highs, 0), travelled, size, np.ptp(masses, axis=0)
