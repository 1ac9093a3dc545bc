"""A few seconds of motion for a report, drawn while the figures are made and in limited time. If that fails, it is left out."""

import base64
import math
import tempfile
import threading
import time
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.report.film import Film
from dso_robotics.report.replay import read_replay

# Film time [s], frames per second, pixels, drawing time [s], and how long the finished figures wait for the film [s].
_SECONDS, _RATE, _SIZE, _BUDGET, _PATIENCE = 4.0, 12.5, (480, 360), 6.0, 10.0
# An episode is shown for longer, from its beginning: after minutes of training a few more seconds do not matter.
_EPISODE_SECONDS, _EPISODE_BUDGET, _EPISODE_PATIENCE = 10.0, 8.0, 12.0
_MOST_BYTES = 800_000
# A longer recording has no film: reading its poses takes too long.
_MOST_POSES = 200_000


class Glimpse:
    """A film that is made while the context is open, and is ready after it.

    source: the film as a data URI, or None if there is none.
    text: what it shows, or why there is none.
    """

    def __init__(self, folder: Path, *, wanted: bool, episode: bool = False):
        self.source: str | None = None
        self._episode = episode
        self.text = "not requested"
        self.size = _SIZE
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._make, args=(folder,), daemon=True) if wanted else None

    def __enter__(self) -> "Glimpse":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline = time.monotonic() + (_EPISODE_PATIENCE if self._episode else _PATIENCE)
        if self._thread:
            self._thread.join()

    def _make(self, folder: Path) -> None:
        try:
            replay = read_replay(folder)
            if len(replay.time) > _MOST_POSES:
                raise DsoError("the recording is too long.")
            begin, seconds = replay.time[0], _EPISODE_SECONDS
            if not self._episode:
                begin, seconds = replay.liveliest(_SECONDS), _SECONDS
            film = Film(rate=_RATE, size=_SIZE, begin=begin, end=begin + seconds)
            budget = _EPISODE_BUDGET if self._episode else _BUDGET
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
                path = Path(place) / "glimpse.webp"
                film.shoot(replay, path, budget=budget, late=lambda: time.monotonic() > self._deadline)
                data = path.read_bytes()
            if len(data) > _MOST_BYTES:
                raise DsoError(f"the film would need {len(data):,} bytes.")
            self.text = replay.caption
            self.source = "data:image/webp;base64," + base64.b64encode(data).decode()
        except Exception as error:  # a failed film must not prevent the report
            self.text = str(error)
