"""Mixed studies under random kills: memory stays, no process and no file is left, every run is resumable.

`make long` takes two hours for it, or DSO_SOAK_SECONDS.
"""

import json
import os
import subprocess
import sys

import pytest


def soaked(folder, seconds):
    asked = [sys.executable, "-m", "tests.studies.soak", str(folder), str(seconds), "3"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_twenty_seconds(tmp_path):
    assert soaked(tmp_path, 20)["studies"] > 0


@pytest.mark.long
def test_two_hours(tmp_path):
    assert soaked(tmp_path, float(os.environ.get("DSO_SOAK_SECONDS", "7200")))["kills"] > 0
