"""A few seconds of motion for a report: drawn beside the figures, in bounded time, or left out without a word of trouble."""

import base64
import math
import tempfile
import threading
import time
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.report.film import Film
from dso_robotics.report.replay import caption, read_replay

# Film time [s], frames a second, pixels, drawing time [s], and how long the finished figures wait for it [s].
_SECONDS, _RATE, _SIZE, _BUDGET, _PATIENCE = 4.0, 12.5, (480, 360), 1.5, 2.5
_MOST_BYTES = 500_000
# Poses of a long recording are not worth the time it takes to look through them.
_MOST_POSES = 200_000


class Glimpse:
    """Made while the context lasts, ready after it.

    source: the film as a data URI, or None where there is none; text: what it shows, or why there is none.
    """

    def __init__(self, folder: Path, *, wanted: bool):
        self.source: str | None = None
        self.text = "not asked for"
        self.size = _SIZE
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._make, args=(folder,), daemon=True) if wanted else None

    def __enter__(self) -> "Glimpse":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline = time.monotonic() + _PATIENCE
        if self._thread:
            self._thread.join()

    def _make(self, folder: Path) -> None:
        try:
            replay = read_replay(folder)
            if len(replay.time) > _MOST_POSES:
                raise DsoError("the recording is long.")
            begin = replay.liveliest(_SECONDS)
            film = Film(rate=_RATE, size=_SIZE, begin=begin, end=begin + _SECONDS)
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
                path = Path(place) / "glimpse.webp"
                film.shoot(replay, path, budget=_BUDGET, late=lambda: time.monotonic() > self._deadline)
                data = path.read_bytes()
            if len(data) > _MOST_BYTES:
                raise DsoError(f"the film would take {len(data):,} bytes.")
            self.text = caption(replay)
            self.source = "data:image/webp;base64," + base64.b64encode(data).decode()
        except Exception as error:  # a report is worth more than its film
            self.text = str(error)
