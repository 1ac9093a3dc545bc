"""Ways to show progress on stderr: a line that changes, lines of text, lines of JSON."""

import contextlib
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from dso_robotics.progress.activity import activity
from dso_robotics.progress.phase import Listener, Work, listening, phase
from dso_robotics.progress.report import Progress

# A phase is shown when it has taken so long [s].
SHOWN = 2.0
# Lines of text come more seldom in a long phase: after this share of its time, and after a minute at most [s].
_SHARE, _SELDOM = 0.05, 60.0


class Display:
    """Shows reports. Its methods are called by one thread at a time."""

    # Seconds between two calls of `wait`.
    beat = 0.25

    def hear(self, news: Progress) -> None:
        """A report of the work."""

    def wait(self, news: Progress) -> None:
        """Time has passed in a phase."""

    def close(self) -> None:
        """The work is done, or broke off."""


class Lines(Display):
    """Lines of text: every two seconds, in a long phase more seldom, and the last report of a phase."""

    def __init__(self, stream: TextIO, *, shown: float = SHOWN):
        self._stream, self._shown, self._said, self._depth = stream, shown, 0.0, 0

    def hear(self, news: Progress) -> None:
        """See `Display`."""
        if news.event == "begin":
            self._depth += 1
            self._said = time.perf_counter()
        elif news.event == "end":
            self._depth -= 1
            # The end of the whole command is seen without a line, that of short work inside a phase does not matter.
            if self._depth and (news.stage_seconds >= self._shown or (news.iteration and self._depth == 1)):
                self._say(news)
            self._said = time.perf_counter()
        else:
            self.wait(news)

    def wait(self, news: Progress) -> None:
        """See `Display`."""
        gap = max(self._shown, min(_SHARE * news.stage_seconds, _SELDOM))
        if time.perf_counter() - self._said >= gap:
            self._say(news)

    def _say(self, news: Progress) -> None:
        self._said = time.perf_counter()
        print(news, file=self._stream, flush=True)


class JsonLines(Display):
    """One JSON object a line: begin and end of each phase, ten reports a second at most, and one a second while it waits."""

    def __init__(self, stream: TextIO, *, gap: float = 0.1, patience: float = 1.0):
        self._stream, self._gap, self._patience, self._said = stream, gap, patience, 0.0

    def hear(self, news: Progress) -> None:
        """See `Display`."""
        if news.event != "at" or time.perf_counter() - self._said >= self._gap:
            self._say(news)

    def wait(self, news: Progress) -> None:
        """See `Display`."""
        if time.perf_counter() - self._said >= self._patience:
            self._say(news)

    def _say(self, news: Progress) -> None:
        self._said = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(news.as_dict()), file=self._stream, flush=True)


class Terminal(Display):
    """One line at the bottom of a terminal that changes; a phase of over two seconds leaves a line when it is done."""

    def __init__(self, stream: TextIO):
        self._stream, self._live = stream, None
        self._console: Any = None
        self._began, self._depth = time.perf_counter(), 0

    def hear(self, news: Progress) -> None:
        """See `Display`."""
        self._depth += {"begin": 1, "end": -1}.get(news.event, 0)
        self._began = self._began if news.event == "at" else time.perf_counter()
        if self._live is not None:
            if news.event == "end" and news.stage_seconds >= SHOWN:
                self._console.print(str(news), markup=False, highlight=False)
            if self._depth <= 1:  # the results are printed next
                self.close()

    def wait(self, news: Progress) -> None:
        """See `Display`."""
        if self._live is None and time.perf_counter() - self._began >= 0.5:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=self._stream)
            same = sys.stdout.isatty()
            self._live = Live(console=self._console, transient=True, redirect_stdout=same, refresh_per_second=4)
            self._live.start()
        if self._live is not None:
            self._live.update(_bar(news))

    def close(self) -> None:
        """See `Display`."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _bar(news: Progress) -> Any:
    """The line of a terminal: a wheel or a bar, and the text."""
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    sign = ProgressBar(news.total, news.iteration, width=20) if news.total else Spinner("dots")
    row.add_row(sign, Text(str(news), overflow="ellipsis", no_wrap=True))
    return row


@contextlib.contextmanager
def showing(display: Display, *also: Listener, name: str = "") -> Iterator[Work]:
    """Within the context all progress goes to `display` and `also`, and a second thread shows that time passes.

    name: a phase for all of the work, which is shown where there is no other.
    """
    lock, ended = threading.Lock(), threading.Event()

    def hear(news: Progress) -> None:
        with lock:
            display.hear(news)
        for one in also:
            one(news)

    def beat(work: Work) -> None:
        while not ended.wait(display.beat):
            news = work.now()
            if news is None:
                continue
            with lock:
                if not ended.is_set():
                    display.wait(dataclasses.replace(news, activity=activity(work.thread)))

    with listening(hear) as work:
        thread = threading.Thread(target=beat, args=(work,), daemon=True)
        thread.start()
        try:
            with phase(name) if name else contextlib.nullcontext():
                yield work
        finally:
            ended.set()
            with lock:
                display.close()
            thread.join()


def chosen(way: str, stream: TextIO) -> Display:
    """The display that `--progress` names: "auto" is a changing line on a terminal, else lines."""
    if way == "json":
        return JsonLines(stream)
    if way == "none":
        return Display()
    return Terminal(stream) if way == "auto" and stream.isatty() else Lines(stream)
