"""The page of all commands and options, from the parsers of `dso`."""

import argparse
import re
from collections.abc import Iterator

from dso_robotics.cli import parser

_HEAD = """\
# Commands

Every command, argument and option of `dso`, as its `--help` has them. Exit status: 0 on success, 2 if something cannot be done (one
paragraph on stderr says what, where and the cure), 130 or 143 if it was interrupted.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD, "| command | does |\n| --- | --- |"]
    commands = dict(subparsers())
    parts += [f"| [`dso {name}`](#dso-{name}) | {_cell(told)} |" for name, (told, _) in commands.items()]
    for name, (_, command) in commands.items():
        parts += ["", f"## dso {name}", "", *_section(command)]
    return "\n".join(parts) + "\n"


def subparsers() -> Iterator[tuple[str, tuple[str, argparse.ArgumentParser]]]:
    """Name, line of help and parser of each command."""
    actions = parser()._subparsers._group_actions  # pyright: ignore[reportOptionalMemberAccess]
    for action in actions:
        told = {choice.dest: choice.help or "" for choice in action._choices_actions}  # pyright: ignore
        for name, one in action.choices.items():  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            yield name, (told.get(name, ""), one)


def _section(command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"{_escaped(command.description or '')}\n"
    usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: ")).strip()
    yield f"```text\n{_wrapped(usage)}\n```\n"
    yield "| argument or option | is |\n| --- | --- |"
    for action in command._actions:
        if action.dest != "help" and action.help is not argparse.SUPPRESS:
            yield f"| {_called(action)} | {_cell(_help(action))} |"
    if command.epilog:
        yield f"\n```text\n{command.epilog.strip()}\n```"


def _called(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    if not metavar and action.choices:
        metavar = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    if not action.option_strings:
        return f"`{metavar or action.dest}`"
    value = "" if action.nargs == 0 else f" {metavar or action.dest.upper()}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings)


def _help(action: argparse.Action) -> str:
    default = action.default
    return (action.help or "").replace("%(default)s", str(default)).replace("%%", "%")


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]$])", r"\\\1", " ".join(text.split()))


def _wrapped(usage: str) -> str:
    lines = [""]
    for word in re.findall(r"\[[^\]]*\]|\S+", usage):
        if len(lines[-1]) + len(word) > 90:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\n".join(lines)
