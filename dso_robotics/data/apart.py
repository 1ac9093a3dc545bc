"""Programs that read a file in another process, because the library that reads it may loop or crash on a damaged one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class NoAnswer(Exception):
    """The program did not read the file; the text says why."""


def read_apart(program: Path, path: Path, *more: str, library: str, seconds: float) -> Any:
    """What `program`, a file of Python, prints as JSON when it is run with the path of a file and more arguments.

    It limits its own memory and computing. It ends with status 1 and a line on stderr where it refuses the file.
    library: what reads the file, for messages.
    seconds: how long it may take [s].

    Raises:
      NoAnswer: it refuses the file, crashed, or did not end in time.
    """
    try:
        done = subprocess.run(
            # -P: the folder of the script is no place for modules.
            [sys.executable, "-P", "-W", "ignore", str(program), str(path.resolve()), *more],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{library} did not finish in {seconds:g} s and was ended") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() if done.returncode == 1 else []
        raise NoAnswer(said[-1] if said else f"{library} crashed or did not finish")
    return json.loads(done.stdout)
