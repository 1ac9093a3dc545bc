"""Downloads one file, with a time limit for a dead connection."""

import logging
import tempfile
import threading
import time
from pathlib import Path

from dso_robotics.errors import DsoError
from dso_robotics.progress.phase import phase


class _Pulse:
    """Progress bar for pooch that only records when bytes last arrived."""

    total = 0  # pooch sets it

    def __init__(self):
        self.last, self.done = time.monotonic(), 0

    def update(self, count: int) -> None:
        self.last, self.done = time.monotonic(), self.done + count

    def reset(self) -> None:
        self.last = time.monotonic()

    def close(self) -> None:
        pass


def download(url: str, *, patience: float = 8.0, way_round: str = "") -> bytes:
    """Content of `url`, downloaded with pooch through the proxies of the environment.

    Fails when no byte has arrived for `patience` seconds, including name resolution and connecting. There are no retries.
    Raises DsoError naming the URL, the reason and `way_round`, a sentence that says what else the user can do.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    pulse = _Pulse()
    outcome: list[bytes | Exception] = []

    def work() -> None:
        try:
            fetcher = pooch.HTTPDownloader(timeout=(patience / 2, patience), progressbar=pulse)  # pyright: ignore[reportArgumentType]
            with tempfile.TemporaryDirectory() as folder:
                path = pooch.retrieve(url, known_hash=None, fname="file", path=folder, downloader=fetcher)  # pyright: ignore
                outcome.append(Path(path).read_bytes())
        except Exception as error:  # reported below, in the caller's thread
            outcome.append(error)

    # A daemon thread, because name resolution has no time limit: if it hangs, the thread is abandoned.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with phase("download", unit="byte") as here:
        while thread.is_alive() and time.monotonic() - pulse.last < patience:
            thread.join(0.05)
            here.at(pulse.done, total=pulse.total)
    if not outcome:
        raise DsoError(f"{url}: download failed (no data for {patience:g} s); {way_round}")
    if isinstance(outcome[0], Exception):
        raise DsoError(f"{url}: download failed ({_reason(outcome[0])}); {way_round}") from outcome[0]
    return outcome[0]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    for sign, plain in (
        ("resolve", "the server's name cannot be resolved; is there a network?"),
        ("NameResolution", "the server's name cannot be resolved; is there a network?"),
        ("refused", "the connection was refused"),
        ("timed out", "the connection timed out"),
        ("Network is unreachable", "there is no network"),
        ("404", "404: the server has no such file"),
    ):
        if sign in text:
            return plain
    return text[:200] or type(error).__name__
