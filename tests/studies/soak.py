"""Mixed studies for hours, as a program: some in this process, some in processes that are killed at random moments.

    python -m tests.studies.soak FOLDER SECONDS SEED

Prints as JSON how many studies and kills there were and how much memory this process held; ends with status 1 and the reason
where memory grows, a process is left over, a file is left behind or a run is lost.
"""

import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dso_robotics.cli import main as dso
from tests.studies.kills import COMMANDS, Killer, Lost, write_inputs

_STUDIES = (
    ["identify", *COMMANDS["identify"], "--no-report", "--out", "own", "--force"],
    ["estimate", *COMMANDS["estimate"], "--no-report", "--out", "own", "--force"],
    ["simulate", "pendulum.xml", "--amplitude=1", "--seconds=0.5", "--out", "own.h5", "--force"],
    ["convert", "table.csv", "--sensor=q:rad", "--out", "own.h5", "--force"],
    ["inspect", "pendulum.h5"],
    ["parameters", "pendulum.xml"],
    ["identify", "pendulum.xml", "table.csv", "--free=nothing", "--out", "none"],
)
# The memory of the last quarter may exceed that of the second by this factor, in a run of enough studies.
_GROWTH, _ENOUGH = 1.05, 200


def resident() -> float:
    """Memory that this process holds [MiB]."""
    found = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def left_behind(folder: Path) -> list[str]:
    """Temporary files, and processes that this one started and that did not end."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    hidden = [str(path) for path in folder.rglob(".*")]
    return [*hidden, *map(str, (folder / "temporary").iterdir()), *(f"process {number}" for number in children)]


def run(asked: list[str]) -> int:
    """The exit status of one study in this process.

    Raises:
      Lost: a study failed that should not.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = dso(asked)
    if status and "nothing" not in " ".join(asked):
        raise Lost(f"dso {' '.join(asked)} ended with status {status}")
    return status


def soak(folder: Path, seconds: float, seed: int) -> dict[str, object]:
    """Run for so long; returns the figures.

    Raises:
      Lost: something was lost, grew or was left behind.
    """
    killers = [Killer(folder, command, seed) for command in ("identify", "estimate")]
    began, rng, memory, refused = time.monotonic(), random.Random(seed), list[float](), 0
    for asked in _STUDIES:  # the first of each kind imports libraries, which stay
        run(asked)
    while time.monotonic() - began < seconds or not memory:
        rng.choice(killers).strike()
        refused += run(rng.choice(_STUDIES)) == 2
        memory.append(resident())
    for killer in killers:
        killer.settle()
    if left := left_behind(folder):
        raise Lost(f"left behind: {', '.join(left)}")
    quarter = max(len(memory) // 4, 1)
    second, last = float(np.median(memory[quarter : 2 * quarter] or memory)), float(np.median(memory[-quarter:]))
    figures = {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "kills": sum(killer.kills for killer in killers),
        "finished": sum(killer.finished for killer in killers),
        "studies": len(memory),
        "refused": refused,
        "memory [MiB]": [round(memory[0]), round(second), round(last), round(max(memory))],
    }
    # Caches fill in the first hundred studies: a short run says nothing of memory.
    if len(memory) >= _ENOUGH and last > _GROWTH * second:
        raise Lost(f"memory grows: {figures}")
    return figures


def main(folder: str, seconds: str, seed: str) -> int:
    """See the module."""
    os.chdir(folder)
    write_inputs(Path(), mjx=False)
    Path("temporary").mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(Path("temporary").resolve())
    try:
        print(json.dumps(soak(Path(), float(seconds), int(seed))))
    except Lost as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
