"""Ctrl-C at a given point of a search."""

from typing import Any

import pytest


def interrupt(patched: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """The call of `owner.name` with this number, from 1, raises KeyboardInterrupt."""
    plain, calls = getattr(owner, name), []

    def killed(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return plain(*args, **more)

    patched.setattr(owner, name, killed)
