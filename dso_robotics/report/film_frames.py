"""Draws the frames of a replay and writes them to a file. It is a separate program, because drivers may crash a process.

Run: python -m dso_robotics.report.film_frames FOLDER. `report.film` has written model.mjb and scene.npz to FOLDER.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dso_robotics.report.scene import Stage, some

# A shortened film with fewer frames shows no motion.
_FEWEST = 8


def main(folder: Path) -> int:
    """Draw what `folder` describes. Frames that are not ready when the budget is used up are left out."""
    began = time.perf_counter()
    with np.load(folder / "scene.npz", allow_pickle=False) as file:
        clock, predicted, measured = file["time"], file["predicted"], file["measured"]
        asked: dict[str, Any] = json.loads(str(file["settings"]))
    model = mujoco.MjModel.from_binary_path(str(folder / "model.mjb"))
    width, height = asked["size"]
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    shade = folder / "shade.mjb"
    stage = Stage(model, mujoco.MjModel.from_binary_path(str(shade)) if shade.exists() else None)
    stage.look(some(predicted), some(measured), asked["camera"])
    film = _Mp4(Path(asked["path"]), asked) if asked["ffmpeg"] else _Pages(Path(asked["path"]), asked)
    font = ImageFont.load_default(max(11, height // 24))
    with mujoco.Renderer(model, height, width) as renderer:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = False
        for k in range(len(clock)):
            if asked["budget"] is not None and time.perf_counter() - began > asked["budget"]:
                if k < _FEWEST:
                    raise RuntimeError("drawing is too slow")
                break
            stage.compose(renderer.scene, predicted[k], measured[k])
            picture = Image.fromarray(renderer.render())
            pen = ImageDraw.Draw(picture)
            pen.text((8, 6), f"{clock[k]:.2f} s", fill=(60, 60, 60), font=font)
            if asked["legend"]:
                pen.text((8, height - 8), asked["legend"], fill=(60, 60, 60), font=font, anchor="ls")
            film.add(picture)
            # `report.film` counts these.
            os.write(sys.stdout.fileno(), b".")
    film.close()
    return 0


class _Pages:
    """Writes GIF, WebP and animated PNG with Pillow."""

    def __init__(self, path: Path, asked: dict[str, Any]):
        self._path, self._milliseconds = path, round(1000 / asked["rate"])
        self._pages: list[Image.Image] = []

    def add(self, picture: Image.Image) -> None:
        """One more frame."""
        if self._path.suffix == ".gif":
            palette = self._pages[0] if self._pages else None
            picture = picture.quantize(128, dither=Image.Dither.NONE, palette=palette)
        self._pages.append(picture)

    def close(self) -> None:
        """Write the file."""
        options: dict[str, Any] = {"quality": 70, "method": 2} if self._path.suffix == ".webp" else {}
        first, *rest = self._pages
        first.save(
            self._path,
            save_all=True,
            append_images=rest,
            duration=self._milliseconds,
            loop=0,
            optimize=False,
            **options,
        )


class _Mp4:
    """Writes a video with ffmpeg, in the format of the name's ending."""

    def __init__(self, path: Path, asked: dict[str, Any]):
        width, height = asked["size"]
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(asked["rate"]), "-i", "-"]
        command = [asked["ffmpeg"], "-y", "-loglevel", "error", *given, "-pix_fmt", "yuv420p", str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._pipe = self._process.stdin

    def add(self, picture: Image.Image) -> None:
        """One more frame."""
        self._pipe.write(picture.tobytes())

    def close(self) -> None:
        """Wait for ffmpeg; raise an error if it fails."""
        self._pipe.close()
        if self._process.wait():
            raise RuntimeError("ffmpeg failed")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
