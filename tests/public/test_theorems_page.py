"""docs/theorems.md names a function and a test for every result: both must exist."""

import importlib
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "theorems.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 2]


def test_every_test_of_the_page_exists():
    named = 0
    for row in ROWS:
        file = None
        for name in re.findall(r"`([^`]*test_[^`]*)`", row[2]):
            path, _, test = name.partition("::")
            if path:
                file = TESTS / path if "/" in path else TESTS / "core" / path
            text = file.read_text()
            pattern = re.escape(test).replace(r"\*", r"\w*")
            assert re.search(rf"^def {pattern}\(", text, re.MULTILINE) if test else "def test_" in text, name
            named += 1
    assert named > 60


@pytest.mark.mjx
def test_every_module_of_the_page_has_what_is_named():
    named = 0
    for row in ROWS:
        for name in re.findall(r"`(?:core\.)?((?:\w+\.)+\w+)`", row[1]):
            module, _, thing = name.rpartition(".")
            for root in ("dso_robotics.core", "dso_robotics"):
                try:
                    found = importlib.import_module(f"{root}.{module}")
                except ImportError:
                    continue
                assert hasattr(found, thing), name
                named += 1
                break
    assert named > 40
