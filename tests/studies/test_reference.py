"""The page of all keys is what the dataclasses say."""

import pathlib
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "studies.md"


def test_the_page_of_keys_is_up_to_date():
    # In a process of its own: a test may have registered something.
    made = subprocess.run(
        [sys.executable, "-m", "dso_robotics.studies.reference"], capture_output=True, text=True, check=True
    )
    assert made.stdout == PAGE.read_text(), "run python -m dso_robotics.studies.reference > docs/studies.md"
    for key in ("hold_out", "[cost.NAME]", "at_margin", "[training]", "gains", 'kind = "hinge"'):
        assert key in made.stdout
