"""Progress reports for Python callers."""

import functools
import sys
from collections.abc import Callable

from dso_robotics.studies.run import Progress


def teller(progress: bool | Callable[[Progress], None]) -> Callable[[Progress], None]:
    """The function called with every report: the caller's function, a printer to stderr for True, a no-op for False."""
    if callable(progress):
        return progress
    return functools.partial(print, file=sys.stderr, flush=True) if progress else lambda news: None
