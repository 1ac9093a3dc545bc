"""A function in a Python file of the user's, which runs with the user's rights: how it is loaded and called."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError, told


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
