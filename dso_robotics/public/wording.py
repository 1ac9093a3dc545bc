"""Rewrites command-line options in messages as Python arguments for a Python caller: --hold-out as hold_out=."""

import contextlib
import re
from collections.abc import Iterator, Mapping

from dso_robotics.errors import DsoError

# Options without a value, and the Python arguments that replace them.
_SWITCHES = {
    "resume": "resume=True",
    "force": "force=True",
    "robust": "robust=True",
    "warm-start": "warm_start=True",
    "hold-ctrl": "hold_ctrl=True",
    "no-header": "header=False",
    "sort": "sort=True",
    "drop-repeats": "drop_repeats=True",
    "trim": "trim=True",
    "split-restarts": "split_restarts=True",
    "no-report": "report=False",
    "no-video": "video=False",
    "video": "video=True",
}
_RENAMED = {"sensor": "sensors"}
# Whole commands with a Python equivalent. Other commands in backquotes are not changed, because they work unchanged.
_COMMANDS = {
    "`dso parameters MODEL`": "`dso.list_parameters(model)`",
    "`dso check MODEL`": "`dso.check(model)`",
}
_VALUE = (
    r"'(?:[^'\\]|\\.)*'"  # a quoted text
    r"|[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]*\w)"  # a number
    r"|(?:full|auto|mujoco|mjx|learned|none|torque|motion)\b"  # a word that a study knows
    r"|[A-Z][A-Z]*\b"  # a placeholder
    r"|\S+(?=:\s)"  # whatever the message quotes before its colon
)
_OPTION = re.compile(rf"(?<![\w-])--(?P<name>[a-z][a-z-]*[a-z])(?:(?<!-)[ =](?P<value>{_VALUE}))?")


def arguments(text: str) -> str:
    """`text` with Python arguments in place of command-line options.

    >>> arguments("name at least one parameter with --free PATH; --resume goes on, give a shorter --window")
    'name at least one parameter with free=PATH; resume=True goes on, give a shorter window='
    """
    parts = re.split(r"(`dso [^`]*`)", text)
    return "".join(
        _COMMANDS.get(part, part) if part.startswith("`dso ") else _OPTION.sub(_argument, part) for part in parts
    )


def _argument(option: re.Match[str]) -> str:
    name, value = option["name"], option["value"]
    if name in _SWITCHES:
        return _SWITCHES[name] + ("" if value is None else f" {value}")
    shown = "" if value is None else value
    if value is not None and not re.fullmatch(r"'.*'|[-+]?[.\d].*|[A-Z]+", value, re.DOTALL):
        shown = repr(value)
    return f"{_RENAMED.get(name, name.replace('-', '_'))}={shown}"


@contextlib.contextmanager
def speaking_python(files: Mapping[str, str] | None = None) -> Iterator[None]:
    """Rewrite a DsoError raised inside: it names Python arguments, and `files` (path -> the caller's name for it)."""
    try:
        yield
    except DsoError as error:
        error.args = (named(arguments(str(error)), files or {}),)
        raise


def named(text: str, files: Mapping[str, str]) -> str:
    """`text` with the files of a run replaced by the caller's names for them."""
    for path, name in files.items():
        text = text.replace(path, name)
    return text
