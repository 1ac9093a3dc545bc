"""Friction of a real arm that swings freely: dry friction and air drag instead of the viscous friction its authors fitted.

Nothing drives the arm, so its motion does not determine forces: the mass is the published one, and the results are
relative to it. The split is the authors' own: their identification pieces are fitted, their validation pieces are
predicted over their whole length.

Run: python examples/free_swing.py [double]
"""

import sys
import tempfile
from pathlib import Path

from dso_robotics.data.assets import asset
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.registry import fetch
from dso_robotics.parameters.path import parse
from dso_robotics.report.table import identification_table
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

# Model, what is free of it with start values, and how long the pieces are that are fitted and predicted [s].
FRICTION = ("joint/*/damping=1e-4", "joint/*/damping_quadratic=1e-5", "joint/*/frictionloss=2e-4")
ARMS = {
    "single": {
        "model": "models/multiarm_single.xml",
        "free": (*FRICTION, "body/arm/ipos[2]=-0.15"),
        "hold_out": "val1,val2",
        "seconds": 9.16,
    },
    "double": {
        "model": "models/multiarm_double.xml",
        "free": (
            *FRICTION,
            "body/upper/ipos[2]=-0.11",
            "body/upper/diaginertia[1]=0.0004",
            "body/lower/diaginertia[1]=0.0013",
        ),
        "hold_out": "val1,val2,val3,val4",
        "seconds": 2.65,
    },
}


def main(name: str = "single", out: str | None = None, every: int = 1) -> dict:
    """Fit every `every`-th identification piece; returns the summary of the result."""
    arm = ARMS[name]
    with tempfile.TemporaryDirectory() as folder:
        # Data.
        log = fetch(f"multiarm_{name}")
        train = [r for r in log.rollouts if r.name.startswith("id")][::every]
        held_out = [r for r in log.rollouts if r.name.startswith("val")]
        path = Path(folder) / "arm.h5"
        write_log(path, Log("", log.source, log.licence, (*train, *held_out)))

        # Parameters and cost: the likelihood of whole pieces, their start states estimated.
        study = IdentifyStudy(
            model=str(asset(arm["model"])),
            logs=(str(path),),
            free=tuple(map(parse, arm["free"])),
            hold_out=arm["hold_out"],
            window=arm["seconds"],
        )

        # Optimise and show.
        found = identify(study, out or Path(folder) / "result")
    print(identification_table(found.summary))
    return found.summary


if __name__ == "__main__":
    main(*sys.argv[1:2])
