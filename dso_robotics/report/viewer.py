"""A replay in MuJoCo's interactive viewer, repeated until the window is closed."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.report.film import Film
from dso_robotics.report.replay import Replay
from dso_robotics.report.scene import Stage, some

_CURE = "`dso view DIR --video FILE.webp` needs no display"


def show(replay: Replay, film: Film, *, launch: Callable[..., Any] | None = None, clock: Any = time) -> None:
    """Replay in a window, `film.speed` times as fast as real time. `launch` and `clock` replace MuJoCo's viewer and `time`.

    Raises:
      DsoError: there is no display, or no window can be opened on it.
    """
    model = replay.model
    stage, data = Stage(model, replay.shade), mujoco.MjData(model)
    index = replay.frames(60.0 / film.speed, film.begin, film.end)
    poses, ghosts = some(replay.predicted[index]), some(replay.measured[index])
    if not len(poses) + len(ghosts):
        raise DsoError(f"run {replay.name}: there is nothing to show: it has neither measured nor predicted poses.")
    stage.look(poses, ghosts, film.camera)
    if len(poses) or stage.shade is model:
        stage.pose(data, (poses if len(poses) else ghosts)[0])
    with open_window(model, data, launch or launcher()) as window:
        with window.lock():
            for name in ("type", "fixedcamid", "lookat", "distance", "azimuth", "elevation"):
                setattr(window.cam, name, getattr(stage.camera, name))
            window.opt.flags[:] = stage.option.flags
        began = clock.monotonic()
        while window.is_running():
            frame = int((clock.monotonic() - began) * 60.0) % len(index)
            k = index[frame]
            with window.lock():
                if np.isfinite(replay.predicted[k]).all():
                    stage.pose(data, replay.predicted[k])
                    stage.follow(window.cam, data)
                data.time = replay.time[k]
                window.user_scn.ngeom = 0
                stage.ghost(window.user_scn, replay.measured[k])
            window.sync()
            clock.sleep(1 / 60)


def launcher() -> Callable[..., Any]:
    """MuJoCo's `launch_passive`. Raises DsoError where there is no display or no windowing library."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise DsoError(f"there is no display to open a window on (DISPLAY is not set); {_CURE}.")
    try:
        import mujoco.viewer
    except Exception as error:  # windowing libraries raise various errors when they cannot be loaded
        raise DsoError(f"MuJoCo's viewer cannot be loaded ({error}); {_CURE}.") from error
    return mujoco.viewer.launch_passive


def open_window(model: mujoco.MjModel, data: mujoco.MjData, launch: Callable[..., Any], **more: Any) -> Any:
    """A window on `data`. Raises DsoError when none can be opened."""
    try:
        return launch(model, data, show_left_ui=False, show_right_ui=False, **more)
    except Exception as error:
        how = "on macOS it runs under `mjpython -m dso_robotics.cli view DIR`; " if sys.platform == "darwin" else ""
        raise DsoError(f"MuJoCo's viewer cannot open a window ({error}); {how}{_CURE}.") from error
