"""A function in a Python file of the user's, which runs with the user's rights: how it is loaded and called."""

import inspect
import runpy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dso_robotics.errors import DsoError, nearest, told

# What JAX raises where a number is needed that it does not have yet, by the name of the exception's class, and the cure. An
# exception may be of several classes; the first that is here is taken.
_TRACED = {
    "TracerArrayConversionError": (
        "a NumPy function was given a number that JAX has yet to compute; take the function of the same name from jax.numpy "
        "(import jax.numpy as jnp)"
    ),
    "TracerBoolConversionError": (
        "`if`, `while`, `and`, `or`, `not`, `min` or `max` asks for the truth of a number that JAX has yet to compute; write "
        "jnp.where(condition, a, b), jnp.logical_and, jnp.logical_or, jnp.minimum or jnp.maximum"
    ),
    "TracerIntegerConversionError": (
        "a number that JAX has yet to compute is an index or a count; index with jnp.take, or choose with jnp.where"
    ),
    "ConcretizationTypeError": (
        "float(), int() or another function of plain numbers was given one that JAX has yet to compute; leave it as it is, or "
        "use jax.numpy"
    ),
    "NonConcreteBooleanIndexError": (
        "an array is indexed by a condition that JAX has yet to compute; write jnp.where(condition, a, 0.0)"
    ),
    "UnexpectedTracerError": "a number of an earlier call was kept, in a global or an attribute; compute it anew in every call",
}


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


def call(function: Callable[..., Any], where: str, *given: Any, offers: Sequence[str] = ()) -> Any:
    """What the function returns for `given`. `where` names it in messages.

    offers: what the first argument has, for a message on an attribute that it lacks.

    Raises:
      DsoError: it fails, calls `sys.exit`, or asks JAX for a number that is not there yet. The message names the line and cure.
    """
    _check_arguments(function, where, len(given))
    try:
        return function(*given)
    except DsoError:
        raise
    except (Exception, SystemExit) as error:
        place = _line(error, function)
        if cure := next((_TRACED[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _TRACED), None):
            raise DsoError(f"{where}: {place}{cure}.") from error
        if isinstance(error, AttributeError) and given and error.obj is given[0] and offers:
            has = nearest(str(error.name), offers, len(offers))
            raise DsoError(f"{where}: {place}the scene has no '{error.name}'; it has {has}.") from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        reason = reason if place and not isinstance(error, SystemExit) else told(error)
        raise DsoError(f"{where}: {place}fails: {reason}.") from error


def _check_arguments(function: Callable[..., Any], where: str, count: int) -> None:
    """Refuse a function that cannot be called with so many arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        needs = ", ".join(signature.parameters) or "nothing"
        raise DsoError(
            f"{where}: it takes {needs}, and is called with {count} argument{'s' * (count != 1)} ({error}); give the others "
            "default values, or remove them."
        ) from error


def _line(error: BaseException, function: Callable[..., Any]) -> str:
    """The last line of the function's own file that ran, or ""."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    mine = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not mine:
        return ""
    text = f" (`{' '.join(mine[-1].line.split())[:80]}`)" if mine[-1].line else ""
    return f"line {mine[-1].lineno}{text}: "
