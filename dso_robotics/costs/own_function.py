"""A function in a Python file of the user's, which runs with the user's rights: how it is loaded and called."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError


def load_function(file: str | Path, name: str, use: str) -> Callable[..., Any]:
    """The function `name` of a Python file. This runs the file.

    use: how to write it, for messages.

    Raises:
      DsoError: there is no such file or function, or the file fails or calls `sys.exit`.
    """
    if not Path(file).is_file():
        raise DsoError(f"{file}: there is no such Python file; {use}.")
    try:
        found = runpy.run_path(str(file)).get(name)
    except (Exception, SystemExit) as error:
        raise DsoError(f"{file}: running it failed: {told(error)}.") from error
    if not callable(found):
        raise DsoError(f"{file}: it has no function '{name}'; {use}.")
    return found


def call(function: Callable[..., Any], where: str, *given: Any) -> Any:
    """What the function returns for `given`. `where` names it in messages.

    Raises:
      DsoError: it fails, or calls `sys.exit`.
    """
    try:
        return function(*given)
    except DsoError:
        raise
    except (Exception, SystemExit) as error:
        raise DsoError(f"{where}: fails: {told(error)}.") from error


def told(error: BaseException) -> str:
    """An exception of a user's code in one line, with the line of the file that it comes from."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    line = "" if last is None else f" (line {last.tb_lineno} of {last.tb_frame.f_code.co_filename})"
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r}){line}"
    return f"{type(error).__name__}: {' '.join(str(error).split())}{line}"
