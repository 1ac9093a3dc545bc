"""A trained policy in MuJoCo's viewer, in the loop: the robot may be pushed, and task numbers be changed."""

import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.report.viewer import open_window
from dso_robotics.robot.policy_loop import PolicyLoop

# Keys, by GLFW's numbers.
SPACE, ENTER, BACKSPACE, RIGHT, LEFT, DOWN, UP = 32, 257, 259, 262, 263, 264, 265
_RATE = 60.0
# A key changes a task number by this part of its range.
_STEP = 0.1
# What a slow machine cannot play in this time [s] is left out, so that the window stays alive.
_BEHIND = 0.1
# Control steps of an episode that diverges at once; after so many such episodes in a row the play ends.
_SHORT, _LOST = 5, 3


class Live:
    """The state of a live play: `press` takes keys, also from another thread, and `advance` plays.

    loop: the policy and its robot.
    paused: whether time stands still.
    said: what happened last, for the window.
    """

    def __init__(self, loop: PolicyLoop):
        self.loop, self.paused, self.said = loop, False, ""
        self._keys: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._start, self._chosen, self._task, self._lost, self._owed = 0, 0, dict[str, float](), 0, 0.0
        self.restart()

    def press(self, key: int) -> None:
        """Note a key, by GLFW's number."""
        self._keys.put(key)

    def restart(self) -> None:
        """Begin an episode at the chosen start; task numbers that were changed stay."""
        loop, starts = self.loop, self.loop.starts
        fits = starts is not None and starts.qpos.shape[1] == loop.model.nq and starts.qvel.shape[1] == loop.model.nv
        if fits and starts is not None:
            loop.reset(start=self._start % len(starts.qpos), task=self._task)
        else:
            loop.reset(loop.model.qpos0, task=self._task)
        self._steps, self._time = 0, 0.0

    def advance(self, seconds: float) -> int:
        """Play what fits into `seconds` of the robot's time, whole control steps. Returns how many.

        Raises:
          DsoError: episodes diverge at their beginning, again and again.
        """
        while not self._keys.empty():
            self._handle(self._keys.get())
        if self.loop.data.time < self._time:  # the viewer's own reset
            self.restart()
        if self.paused:
            return 0
        period, played = self.loop.policy.period, 0
        self._owed = min(self._owed + seconds, max(_BEHIND, period))
        while self._owed >= period - 1e-9:
            self._owed -= period
            try:
                self.loop.step()
            except DsoError as error:
                self._lost = self._lost + 1 if self._steps < _SHORT else 1
                if self._lost >= _LOST:
                    raise
                self.said = f"{error} It starts again."
                self._start += 1
                self.restart()
                return played
            played += 1
            self._steps += 1
        self._time = float(self.loop.data.time)
        return played

    def _handle(self, key: int) -> None:
        tasks = self.loop.policy.numbers.tasks
        if key == SPACE:
            self.paused = not self.paused
        elif key in (ENTER, BACKSPACE):
            self._start += key == ENTER
            self.said = ""
            self.restart()
        elif key in (LEFT, RIGHT) and tasks:
            self._chosen = (self._chosen + (1 if key == RIGHT else -1)) % len(tasks)
        elif key in (UP, DOWN) and tasks:
            self._change(_STEP if key == UP else -_STEP)

    def _change(self, part: float) -> None:
        """Change the chosen task number by a part of its range, within the range."""
        n, at = self.loop.policy.numbers, self._chosen
        low, high = float(n.task_low[at]), float(n.task_high[at])
        value = self.numbers[n.tasks[at]] + part * (high - low)
        self._task[n.tasks[at]] = float(np.clip(value, low, high))
        self.loop.policy.change_task(self._task)

    @property
    def numbers(self) -> dict[str, float]:
        """The task numbers in force, by name."""
        return self.loop.policy.change_task({})

    @property
    def text(self) -> tuple[str, str]:
        """Two columns for the window: names, and values."""
        rows = [("time", f"{self.loop.data.time:.1f} s{', paused' if self.paused else ''}")]
        for i, (name, value) in enumerate(self.numbers.items()):
            rows.append((f"> {name}" if i == self._chosen else name, f"{value:.3g}"))
        if self.said:
            rows.append(("", self.said))
        names, values = zip(*rows, strict=True)
        return "\n".join(names), "\n".join(values)


def play_live(
    loop: PolicyLoop, *, launch: Callable[..., Any], speed: float = 1.0, camera: str = "", clock: Any = time
) -> None:
    """Play in a window, `speed` times as fast as real time, until it is closed. `launch` opens it: see `viewer.launcher`.

    Raises:
      DsoError: no window can be opened, there is no such camera, or episodes diverge at their beginning, again and again.
    """
    live, model, data = Live(loop), loop.model, loop.data
    names = [model.camera(i).name for i in range(model.ncam)]
    if camera and camera not in names:
        raise DsoError(f"there is no camera {camera!r}; the model has {', '.join(names) or 'none'}.")
    with open_window(model, data, launch, key_callback=live.press) as window:
        if camera:
            with window.lock():
                window.cam.type, window.cam.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, names.index(camera)
        before = clock.monotonic()
        told = ""
        while window.is_running():
            now = clock.monotonic()
            with window.lock():
                _push(model, data, getattr(window, "perturb", None))
                live.advance((now - before) * speed)
            before = now
            if live.said != told:
                told = live.said
                print(told or "", file=sys.stderr, flush=True)
            if hasattr(window, "set_texts"):
                window.set_texts((None, None, *live.text))
            window.sync()
            clock.sleep(1 / _RATE)


def _push(model: mujoco.MjModel, data: mujoco.MjData, push: mujoco.MjvPerturb | None) -> None:
    """Apply what the mouse does to the selected body, and nothing else."""
    if push is None:
        return
    data.xfrc_applied[:] = 0.0
    mujoco.mjv_applyPerturbPose(model, data, push, 0)
    mujoco.mjv_applyPerturbForce(model, data, push)
