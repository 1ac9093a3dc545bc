"""A replay as a video file, rendered off screen by another process."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.atomic import atomic_file
from dso_robotics.errors import DsoError
from dso_robotics.progress.phase import phase
from dso_robotics.report.replay import Replay

PAGES = (".gif", ".webp", ".apng", ".png")
ENCODED = (".mp4", ".webm", ".mkv", ".mov")


@dataclass(frozen=True)
class Film:
    """How to film.

    rate: frames per second of film.
    size: width and height [pixels].
    speed: speed of the film relative to the recording.
    begin: first second shown.
    end: last second shown.
    camera: a camera of the model; without a name, one from the side.
    legend: a line of text below the picture.
    """

    rate: float = 25.0
    size: tuple[int, int] = (640, 480)
    speed: float = 1.0
    begin: float | None = None
    end: float | None = None
    camera: str = ""
    legend: str = ""

    def shoot(
        self,
        replay: Replay,
        path: str | Path,
        *,
        budget: float | None = None,
        late: Callable[[], bool] | None = None,
    ) -> None:
        """Write `path`; its ending names the format. With a `budget` [s] the film has the frames drawn within that time.
        Drawing stops as soon as `late` is true.

        Raises:
          DsoError: the format cannot be written here, no OpenGL works here, or drawing was stopped.
        """
        path = Path(path)
        encoder = _encoder(path)
        index = replay.frames(self.rate / self.speed, self.begin, self.end)
        settings = {
            "rate": self.rate,
            "size": self.size,
            "camera": _camera(replay.model, self.camera),
            "legend": self.legend,
            "ffmpeg": encoder,
            "budget": budget,
        }
        if not any(np.isfinite(poses[index]).all(1).any() for poses in (replay.predicted, replay.measured)):
            raise DsoError(f"run {replay.name}: there is nothing to show: it has neither measured nor predicted poses.")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, atomic_file(path) as temporary:
            # The drawing process reads the format from the ending, so the temporary name has the same ending.
            settings["path"] = str(temporary)
            mujoco.mj_saveModel(replay.model, os.path.join(folder, "model.mjb"), None)
            if replay.shade is not None:
                mujoco.mj_saveModel(replay.shade, os.path.join(folder, "shade.mjb"), None)
            arrays: dict[str, Any] = {
                "time": replay.time[index],
                "predicted": replay.predicted[index],
                "measured": replay.measured[index],
            }
            arrays["settings"] = json.dumps(settings)
            np.savez(os.path.join(folder, "scene.npz"), **arrays)
            _draw(folder, late, len(index))


def _draw(folder: str, late: Callable[[], bool] | None, frames: int) -> None:
    """Try one OpenGL after the other, each in its own process, until one works."""
    failures = []
    for name in _backends():
        environment = {**os.environ, **({"MUJOCO_GL": name} if name else {})}
        command = [sys.executable, "-m", "dso_robotics.report.film_frames", folder]
        with tempfile.TemporaryFile() as drawn, tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=drawn, stderr=errors
                )
            except OSError as error:
                raise DsoError(f"the drawing process cannot be started ({error.strerror or error}).") from error
            with phase("film", total=frames, unit="frame") as film:
                # The drawing process writes one byte a frame.
                _wait(process, late, lambda drawn=drawn: film.at(os.fstat(drawn.fileno()).st_size))
            errors.seek(0)
            said = errors.read()
        if process.returncode == 0:
            return
        lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
        ended = f"the process ended with {process.returncode}"
        failures.append(f"{name or 'OpenGL'}: {lines[-1][:200] if lines else ended}")
    raise DsoError(
        f"nothing here can draw off the screen ({'; '.join(failures)}). Install an OpenGL that can, on Debian or Ubuntu with "
        "`apt-get install libegl1 libgl1-mesa-dri` or libosmesa6, and select it with MUJOCO_GL=egl or MUJOCO_GL=osmesa."
    )


def _wait(process: subprocess.Popen[bytes], late: Callable[[], bool] | None, tell: Callable[[], None]) -> None:
    """Wait until the process ends, and call `tell` now and then. If `late` becomes true, end it and raise DsoError."""
    try:
        while True:
            try:
                process.wait(timeout=0.05)
                return
            except subprocess.TimeoutExpired:
                tell()
                if late and late():
                    raise DsoError("drawing took too long.") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _backends() -> list[str]:
    """Values of MUJOCO_GL to try; an empty one is MuJoCo's default."""
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return [""]
    return ["egl", "osmesa", *(["glfw"] if os.environ.get("DISPLAY") else [])]


def _encoder(path: Path) -> str:
    """The program that writes this format; empty when none is needed."""
    ending = path.suffix.lower()
    if ending in PAGES:
        return ""
    if ending not in ENCODED:
        raise DsoError(
            f"{path}: this ending is not a known video format; give a name that ends in {', '.join((*ENCODED, *PAGES))}."
        )
    found = shutil.which("ffmpeg")
    if not found and importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg  # pyright: ignore[reportMissingImports]

        found = imageio_ffmpeg.get_ffmpeg_exe()
    if not found:
        raise DsoError(
            f"{path}: writing {ending} needs the program ffmpeg, which was not found; install it (your system's package, or "
            "`pip install imageio-ffmpeg`), or give a name that ends in .webp or .gif, which need no other program."
        )
    return found


def refuse_format(path: str | Path) -> None:
    """Refuse a film that cannot be written here, by the ending of its name, before a long computation.

    Raises:
      DsoError: the ending is of no known format, or ffmpeg is needed and missing.
    """
    _encoder(Path(path))


def _camera(model: mujoco.MjModel, name: str) -> str:
    names = [model.camera(i).name for i in range(model.ncam)]
    if name and name not in names:
        raise DsoError(f"--camera {name}: the model has no such camera; it has {', '.join(names) or 'none'}.")
    return name
