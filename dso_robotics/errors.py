"""The one base exception of the package, and what its messages offer in the place of a wrong name."""

import difflib
from collections.abc import Iterable


class DsoError(Exception):
    """Bad input or a failed computation, told in one paragraph that names the thing and the cure.

    The command line prints the message and exits with status 2; library users catch it like any exception.
    """


def nearest(word: str, choices: Iterable[str], most: int = 4) -> str:
    """The `choices` most like `word`, quoted and joined, for error messages; all of them when they are few."""
    valid = [c for c in choices if c]
    near = difflib.get_close_matches(word, valid, n=max(most, 1), cutoff=0.5) or valid[: 2 * most]
    if len(valid) <= most:
        near = near + [v for v in valid if v not in near]
    more = ", ..." if len(near) < len(valid) else ""
    return ", ".join(f"'{c}'" for c in near) + more


def told(error: BaseException) -> str:
    """An exception in one line, with the place that it comes from."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    line = "" if last is None else f" (line {last.tb_lineno} of {last.tb_frame.f_code.co_filename})"
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}){line}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}{line}"
