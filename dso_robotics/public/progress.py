"""Progress reports for Python callers."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from dso_robotics.progress.phase import listening
from dso_robotics.progress.report import Progress
from dso_robotics.progress.show import chosen, showing


@contextlib.contextmanager
def following(progress: bool | Callable[[Progress], None]) -> Iterator[None]:
    """Within the context progress goes to the caller's function or, for True, to stderr."""
    if callable(progress):
        with listening(progress):
            yield
    elif progress:
        with showing(chosen("auto", sys.stderr)):
            yield
    else:
        yield
