"""No file of others ends in anything but a value or a DsoError, within limits of time and memory.

Here the inputs in `corpus`, each of which showed a fault once, and some new ones are read. `make long` searches for more:
ten minutes for each reader and an hour for logs and for text, or DSO_FUZZ_SECONDS in the place of ten minutes.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dso_robotics.errors import DsoError
from tests.fuzz.judge import Target, judge
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are those of Linux")
_SECONDS = float(os.environ.get("DSO_FUZZ_SECONDS", "600"))
_LONGER = {"text": 6, "logs": 3, "foreign hdf5": 3}


def test_what_failed_once_and_some_new_inputs():
    """In a process of its own, because it forks others, and here JAX may have threads."""
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.campaign"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(TARGETS)


@pytest.mark.long
@pytest.mark.parametrize("name", list(TARGETS))
def test_a_long_search(name):
    seed = random.SystemRandom().getrandbits(32)
    asked = [sys.executable, "-m", "tests.fuzz.campaign", name, str(_SECONDS * _LONGER.get(name, 1)), str(seed)]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    print(f"seed {seed}: {done.stdout}")
    assert done.returncode == 0, done.stdout


FAULTS = {
    b"raise": "ZeroDivisionError",
    b"crash": "crashes: signal 11",
    b"exit": "status 3",
    b"hang": "hangs",
    b"memory": "MemoryError",
    b"leave": "leaves behind half.h5",
    b"change": "changes a.txt",
    b"slow": "of computing",
    b"silent": "without a message",
    b"fine": None,
    b"refused": None,
}


def _toy():
    """A reader with a fault of each kind."""
    path = Path("a.txt")
    match path.read_bytes():
        case b"raise":
            return [str(1 // 0)]
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"exit":
            os._exit(3)
        case b"hang":
            time.sleep(60)
        case b"memory":
            return [str(len(bytearray(1 << 33)))]
        case b"leave":
            Path("half.h5").write_text("half")
        case b"change":
            path.write_text("other")
        case b"slow":
            began = time.process_time()
            while time.process_time() - began < 0.6:
                pass
        case b"silent":
            raise DsoError("")
        case b"refused":
            raise DsoError("a.txt: no.")
    return []


def test_the_judge_sees_each_kind_of_fault():
    target = Target(lambda folder: {}, _toy, {}, computing=0.5, deadline=3.0)
    inputs = [{"a.txt": word} for word in FAULTS]
    for verdict, (word, expected) in zip(judge(target, inputs), FAULTS.items(), strict=True):
        assert verdict.files == {"a.txt": word}
        assert (verdict.fault is None) == (expected is None), word
        assert expected is None or expected in (verdict.fault or "")
