"""What a Python caller sees of a run on its way."""

import functools
import sys
from collections.abc import Callable

from dso_robotics.studies.run import Progress


def teller(progress: bool | Callable[[Progress], None]) -> Callable[[Progress], None]:
    """What is called with every report: the caller's own function, a line on stderr for True, nothing for False."""
    if callable(progress):
        return progress
    return functools.partial(print, file=sys.stderr, flush=True) if progress else lambda news: None
