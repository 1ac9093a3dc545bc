"""Runs that are killed at any moment, as a program: its processes are forked, so that a kill costs no import.

    python -m tests.studies.kills FOLDER COMMAND KILLS SEED [report]

runs `dso COMMAND` on the inputs in FOLDER, kills it, resumes it, and so on, and begins a new run when one has finished. A kill
comes at a random time, or just before or after a file is put in its place, which is where a half-finished state could show.
Prints the number of kills and of runs that finished as JSON; ends with status 1 and the reason where one was lost.
"""

import json
import os
import random
import shutil
import sys
from pathlib import Path

from dso_robotics.data.log import write_log
from tests.pendulum import PENDULUM, record
from tests.studies.processes import Mishap, run

ESTIMATE = """
model = "pendulum.xml"
logs = ["pendulum.h5"]
hold_out = "run2"
corrector = "gain"
free = ["joint/hinge/damping"]
window = 0.3
"""
DESIGN = """
[design.push]
kind = "gear"
of = "push"
low = 1.0
high = 4.0
"""
COMMANDS = {
    "identify": ["pendulum.xml", "pendulum.h5", "--free=joint/hinge/damping", "--free=body/pole/mass", "--window=0.3"],
    "estimate": ["estimate.toml"],
    "train": ["study.toml"],
    "design": ["design.toml"],
}


def write_inputs(folder: Path, *, mjx: bool) -> None:
    """Write the inputs of all commands to `folder`; those of trainings need JAX."""
    (folder / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    write_log(folder / "pendulum.h5", record(0, seconds=1.5))
    (folder / "estimate.toml").write_text(ESTIMATE)
    (folder / "table.csv").write_text("time,q\n0,1\n0.1,2\n0.2,1\n")
    if mjx:
        from tests.studies import train_robots

        text = train_robots.write(folder, iterations=3).read_text()
        (folder / "design.toml").write_text(text + DESIGN)


# What a run puts in place: run.h5 often, model.xml, report.html, summary.json.
_MOST_FILES = 14


def numbers(out: Path) -> dict[str, object]:
    """What must be the same whatever happened to the run."""
    summary = json.loads((out / "summary.json").read_text())
    return {key: summary[key] for key in ("parameters", "cost", "fit", "converged")}


def options(command: str, *, report: bool) -> list[str]:
    """Those that leave out the report, or only its film, which trainings have unless told otherwise."""
    return ["--no-report"] if not report else ["--no-video"] if command in ("train", "design") else []


class Lost(Exception):
    """A run that cannot be resumed, or that ends with other numbers."""


class Killer:
    """Kills one command again and again. kills, finished: how often so far."""

    def __init__(self, folder: Path, command: str, seed: int, *, report: bool = False):
        self.folder, self.command, self.rng = folder, command, random.Random(seed)
        self.kills = self.finished = 0
        self._options = options(command, report=report)
        whole = run([command, *COMMANDS[command], "--out", f"whole-{command}", *self._options, "--force"], folder)
        if whole.status:
            raise Lost(whole.said)
        # The second run has what the first compiled.
        again = run([command, *COMMANDS[command], "--out", f"whole-{command}", *self._options, "--force"], folder)
        self.lasts, self._expected = again.seconds, numbers(folder / f"whole-{command}")
        self._out = folder / f"out-{command}"

    def strike(self) -> None:
        """Begin or resume the run, and kill it; check the result where it finished before that.

        Raises:
          Lost: it does not resume, or what looks finished is not.
        """
        begun = (self._out / "run.h5").exists()
        argv = [
            self.command,
            *(["--resume"] if begun else COMMANDS[self.command]),
            "--out",
            self._out.name,
            *self._options,
        ]
        if self.rng.random() < 0.5:
            mishap = Mishap(after=self.rng.uniform(0.0, 1.05) * self.lasts + 0.01)
        else:
            mishap = Mishap(file=self.rng.randint(1, _MOST_FILES), put=self.rng.random() < 0.5)
        end = run(argv, self.folder, mishap)
        self.kills += end.killed
        if not end.killed and end.status:
            raise Lost(f"status {end.status}: {end.said}")
        if (self._out / "summary.json").exists():
            self._check()

    def _check(self) -> None:
        if numbers(self._out) != self._expected:
            raise Lost(f"{self._out} has other numbers than a run that nobody disturbed")
        left = [path.name for path in self._out.iterdir() if path.name.startswith(".")]
        # A kill after the last file is in place may leave nothing behind, but one before may; the next run removes it.
        if left:
            raise Lost(f"{self._out} is finished and holds {left}")
        self.finished += 1
        shutil.rmtree(self._out)

    def settle(self) -> None:
        """Resume the run to its end."""
        while self._out.exists() and any(self._out.iterdir()):
            begun = (self._out / "run.h5").exists()
            argv = [self.command, *(["--resume"] if begun else COMMANDS[self.command])]
            end = run([*argv, "--out", self._out.name, *self._options], self.folder)
            if end.status:
                raise Lost(f"status {end.status}: {end.said}")
            self._check()


def main(folder: str, command: str, kills: str, seed: str, *more: str) -> int:
    """See the module."""
    _import(command, report="report" in more)
    killer = None
    try:
        killer = Killer(Path(folder), command, int(seed), report="report" in more)
        while killer.kills < int(kills):
            killer.strike()
            print(f"{killer.kills} kills, {killer.finished} finished", end="\r", file=sys.stderr, flush=True)
        killer.settle()
    except Lost as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if killer is not None:
            print(json.dumps({"kills": killer.kills, "finished": killer.finished, "seconds": killer.lasts}))
    return 0


def _import(command: str, *, report: bool) -> None:
    """Import here what the forked processes need; nothing is computed, so no thread is lost."""
    from dso_robotics.cli.jax_setup import prepare_jax

    # Everything that is compiled is kept, however short that took.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    prepare_jax()
    import dso_robotics.report.table
    import dso_robotics.studies.estimate
    import dso_robotics.studies.identify

    if command in ("train", "design"):
        import dso_robotics.studies.design
        import dso_robotics.studies.train
    if report:
        import dso_robotics.report.estimate
        import dso_robotics.report.identify
    if report and command in ("train", "design"):
        import dso_robotics.report.train  # noqa: F401


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
