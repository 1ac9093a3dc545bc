"""One picture of a replay for MuJoCo to draw: the predicted robot, the measured one as a ghost, and where to look from."""

import mujoco
import numpy as np

GHOST = (0.25, 0.25, 0.27, 0.45)
_MOVING = int(mujoco.mjtCatBit.mjCAT_DYNAMIC)
_FIXED = int(mujoco.mjtCatBit.mjCAT_STATIC)
_DECOR = int(mujoco.mjtCatBit.mjCAT_DECOR)


class Stage:
    """The robot in two poses. `compose` fills a scene that a renderer draws, `ghost` adds to one that a viewer owns."""

    def __init__(self, model: mujoco.MjModel):
        self.model = model
        self.option, self.camera = mujoco.MjvOption(), mujoco.MjvCamera()
        self._data, self._shadow = mujoco.MjData(model), mujoco.MjData(model)
        self._nothing = mujoco.MjvPerturb()
        # A robot described by inertias alone is drawn by them.
        self.bare = not any(
            model.body_weldid[model.geom_bodyid[g]] and model.geom_rgba[g, 3] for g in range(model.ngeom)
        )
        self.option.flags[mujoco.mjtVisFlag.mjVIS_INERTIA] = self.bare
        self.option.flags[mujoco.mjtVisFlag.mjVIS_JOINT] = self.bare

    def look(self, poses: np.ndarray, name: str = "") -> None:
        """Look through the camera `name`, or else from the side so that all `poses` (K, nq) are in view."""
        if name:
            self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self.camera.fixedcamid = self.model.camera(name).id
            return
        low, high, spread = self._swept(poses)
        # The side from which the motion is seen best: the one along which there is least of it.
        self.camera.azimuth = 90.0 if spread[0] >= spread[1] else 180.0
        self.camera.elevation = -12.0
        self.camera.lookat = (low + high) / 2
        half = (high - low) / 2
        across, deep = (half[0], half[1]) if self.camera.azimuth == 90.0 else (half[1], half[0])
        # A picture is at least as wide as high.
        need = 1.15 * max(half[2], across) / np.tan(np.radians(self.model.vis.global_.fovy / 2))
        self.camera.distance = max(need + deep, 1e-3)

    def pose(self, data: mujoco.MjData, qpos: np.ndarray) -> None:
        """Put `data` at qpos (nq,) as far as a picture needs it."""
        data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_camlight(self.model, data)
        mujoco.mj_tendon(self.model, data)

    def compose(self, scene: mujoco.MjvScene, predicted: np.ndarray, measured: np.ndarray) -> None:
        """Fill `scene` with the robot at `predicted` and its ghost at `measured` (nq,); NaN is left out."""
        seen = bool(np.isfinite(predicted).all())
        if seen or np.isfinite(measured).all():
            self.pose(self._data, predicted if seen else measured)
        mask = _FIXED | ((_MOVING | _DECOR) if seen else 0)
        mujoco.mjv_updateScene(self.model, self._data, self.option, self._nothing, self.camera, mask, scene)
        self.ghost(scene, measured)

    def ghost(self, scene: mujoco.MjvScene, measured: np.ndarray) -> None:
        """Add the robot's ghost at `measured` (nq,) to `scene`, unless it is NaN."""
        if not np.isfinite(measured).all():
            return
        self.pose(self._shadow, measured)
        before = scene.ngeom
        mask = _MOVING | (_DECOR if self.bare else 0)
        mujoco.mjv_addGeoms(self.model, self._shadow, self.option, self._nothing, mask, scene)
        for geom in scene.geoms[before : scene.ngeom]:
            geom.matid = -1
            geom.rgba[:] = GHOST
            geom.transparent = 1

    def _swept(self, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners of the box that the moving bodies sweep [m], and the summed range of motion along each axis."""
        model, data = self.model, self._shadow
        bodies = np.flatnonzero(model.body_weldid)
        geoms = np.flatnonzero(model.body_weldid[model.geom_bodyid])
        reach = model.geom_rbound[geoms][:, None]
        lows, highs, centres = [], [], []
        for qpos in poses:
            self.pose(data, qpos)
            points = np.concatenate([data.xpos[bodies], data.xipos[bodies]])
            corners = [points, data.geom_xpos[geoms] - reach, data.geom_xpos[geoms] + reach]
            lows.append(np.concatenate(corners).min(0))
            highs.append(np.concatenate(corners).max(0))
            centres.append(data.xipos[bodies].copy())
        travelled = np.ptp(centres, axis=0).sum(0)
        return np.min(lows, 0), np.max(highs, 0), travelled
